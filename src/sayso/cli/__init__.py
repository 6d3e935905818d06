"""The command line: `sayso VERB`. Each verb is one typed function that calls one of the library.

A refusal prints one line and exits 3, any other known error 1, wrong usage 2.
"""

import sys
from typing import NoReturn

import typer

from sayso.inference.errors import RefusedError
from sayso.model.errors import SaysoError

from . import consent, ledger, speech, training

app = typer.Typer(help="VALL-E 2 that speaks only on the speaker's say-so.", no_args_is_help=True)
for part in (speech, consent, ledger, training):
    app.add_typer(part.app)


def main() -> NoReturn:
    """Entry point: known errors become one line on stderr and an exit code."""
    try:
        app()
    except RefusedError as error:
        print(f"sayso: refused: {error}", file=sys.stderr)
        sys.exit(3)
    except SaysoError as error:
        print(f"sayso: error: {error}", file=sys.stderr)
        sys.exit(1)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in ("lightning", "pyarrow"):
            raise
        print(f"sayso: error: {error.name} is missing: pip install 'sayso[train]'", file=sys.stderr)
        sys.exit(1)
    sys.exit(0)
