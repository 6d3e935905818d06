"""The command line: `sayso VERB`. Each verb is one typed function that calls one of the library.

A refusal prints one line and exits 3, any other known error 1, wrong usage 2.
"""

import os
import sys
from io import TextIOWrapper
from typing import NoReturn

import typer

from sayso.inference.errors import RefusedError
from sayso.model.errors import SaysoError

from . import consent, evaluation, ledger, service, speech, training
from .files import say

EXTRAS = {"lightning": "train", "pyarrow": "train", "fastapi": "serve", "uvicorn": "serve"}
EXTRAS |= {"prometheus_client": "serve", "multipart": "serve"}
app = typer.Typer(help="VALL-E 2 that speaks only on the speaker's say-so.", no_args_is_help=True)
for part in (speech, consent, ledger, service, training, evaluation):
    app.add_typer(part.app)


def main() -> NoReturn:
    """Entry point: known errors become one line on stderr and an exit code.

    What the system refuses is known, too: whatever a verb did not foresee of files, disks and pipes
    is named with its file.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a terminal without our letters gets escapes
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            app()
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
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
    except BrokenPipeError:  # `| head` has seen enough
        _drop_output()
        sys.exit(1)
    except OSError as error:
        say(f"sayso: error: {_what(error)}", error=True)
        sys.exit(1)
    sys.exit(0)


def _drop_output() -> None:
    """What was printed is lost, and must not be tried again when Python ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _what(error: OSError) -> str:
    reason = error.strerror or str(error)
    try:
        os.getcwd()
    except OSError:
        return f"the working directory is gone ({reason}): go to a folder that exists."
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        _drop_output()
        return f"standard output cannot be written ({reason}): what was done stays done."
    named = f"{error.filename} cannot be used" if error.filename else "a file cannot be used"
    return f"{named} ({reason}): check that it exists, whose it is, and that its disk has room."
