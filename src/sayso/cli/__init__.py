"""The command line: `sayso VERB`. Each verb is one typed function that calls one of the library.

A refusal prints one line and exits 3, any other known error 1, wrong usage 2.
"""

import sys
from typing import NoReturn

import typer

from sayso.inference.errors import RefusedError
from sayso.model.errors import SaysoError

from . import consent, ledger, service, speech, training
from .files import say

EXTRAS = {"lightning": "train", "pyarrow": "train", "fastapi": "serve", "uvicorn": "serve"}
EXTRAS |= {"prometheus_client": "serve", "multipart": "serve"}
app = typer.Typer(help="VALL-E 2 that speaks only on the speaker's say-so.", no_args_is_help=True)
for part in (speech, consent, ledger, service, training):
    app.add_typer(part.app)


def main() -> NoReturn:
    """Entry point: known errors become one line on stderr and an exit code."""
    try:
        app()
    except RefusedError as error:
        say(f"sayso: refused: {error}", error=True)
        sys.exit(3)
    except SaysoError as error:
        say(f"sayso: error: {error}", error=True)
        sys.exit(1)
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").split(".")[0])
        if extra is None:
            raise
        say(f"sayso: error: {error.name} is missing: pip install 'sayso[{extra}]'", error=True)
        sys.exit(1)
    sys.exit(0)
