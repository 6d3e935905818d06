"""Small files that verbs read and write."""

from pathlib import Path

from sayso.model.errors import InputError


def check_folder(path: Path) -> None:
    """InputError unless `path` names a file in a folder that is there."""
    if path.is_dir() or not path.resolve().parent.is_dir():
        raise InputError(f"{path} cannot be written: give a file in a folder that exists")


def read_text(path: Path) -> str:
    """A small text file; InputError if it cannot be read."""
    try:
        return path.read_text("ascii")
    except (OSError, UnicodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from None
