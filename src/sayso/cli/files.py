"""What verbs read, write and print."""

import json
import os
import sys
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

from sayso.model.errors import InputError
from sayso.model.files import read_regular
from sayso.model.printable import printable

MOST_TEXT = 16 * 2**20  # bytes


def check_folder(path: Path) -> None:
    """InputError unless `path` names a file in a folder that is there and can be written."""
    folder = Path(os.path.abspath(path)).parent
    if not folder.is_dir() or os.path.isdir(path) or not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"{path} cannot be written: give a file in a folder of your own")


def check_out(folder: Path) -> None:
    """InputError unless a folder can be made or written, before the work that fills it."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"{folder} cannot be written: {there} is no folder of your own")


def meant(name: str, known: Iterable[str]) -> str:
    """A sentence that names what may have been meant, or "".

    Only for verbs that list the names anyway: a refusal to speak tells nobody what there is.
    """
    near = get_close_matches(name, list(known))
    return f" Did you mean {' or '.join(map(repr, near))}?" if near else ""


def read_text(path: Path) -> str:
    """A small text file; InputError if it cannot be read."""
    try:
        return read_regular(path, MOST_TEXT).decode("ascii")
    except UnicodeError as error:
        raise InputError(f"{path} cannot be read: {error}") from None


def say(line: object = "", error: bool = False) -> None:
    """Print one line; whatever names in it hold, it stays one line and moves no cursor."""
    print(printable(line), file=sys.stderr if error else sys.stdout, flush=True)


def say_json(value: object) -> None:
    """Print a value as JSON, indented."""
    for line in json.dumps(value, indent=2, ensure_ascii=False).split("\n"):
        say(line)
