"""Where the package's data lies, and the one way to write a file: whole or not at all."""

import errno
import hashlib
import json
import os
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import Any, cast

import yaml

from .errors import InputError

MOST_JSON = 2**20
"""Bytes of a model's card or config, of a key or a certificate."""
MOST_WEIGHTS = 2**32
"""Bytes of published weights, which are hashed in memory."""
MOST_DEPTH = 32
"""Of a YAML file: within it no reader runs out of stack."""
MOST_LIST = 2**28
"""Bytes of what has a line for each utterance of a corpus or of a run."""
ASSETS = Path(__file__).parents[1] / "assets"
"""What ships with the package; `model` is a folder (or a link) inside it."""


def unique() -> str:
    """A name no other process has: two machines that share a disk may share process ids."""
    return uuid.uuid4().hex[:16]


def open_regular(path: Path, flags: int = os.O_RDONLY) -> BufferedReader:
    """Open a file to read (`flags` may say more); OSError unless it is a regular one.

    Devices and pipes may have no end, whatever size they claim, and a pipe may wait for ever.
    """
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0), 0o666)
    file = cast(BufferedReader, os.fdopen(descriptor, "r+b" if flags & os.O_RDWR else "rb"))
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    return file


def read_bounded(path: Path, most: int) -> bytes:
    """All of a regular file; OSError if it cannot be read or has more than `most` bytes."""
    with open_regular(path) as file:
        small = os.fstat(file.fileno()).st_size <= most
        data = file.read(most + 1) if small else b""
    if not small or len(data) > most:
        raise OSError(errno.EFBIG, f"it is larger than {most / 2**20:.3g} MiB", str(path))
    return data


def read_regular(path: Path, most: int) -> bytes:
    """As `read_bounded`, of a file that a user named; InputError."""
    try:
        return read_bounded(path, most)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(f"{path} cannot be read ({why}): give another file.") from None


def read_json(path: Path, most: int = MOST_JSON) -> Any:
    """The JSON in a file; InputError if it cannot be read, is larger than `most` bytes, or none."""
    try:
        return json.loads(read_regular(path, most))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON ({error}): make it anew.") from None


def read_utf8(path: Path, most: int = MOST_LIST) -> str:
    """The text in a file; InputError if it cannot be read, or is larger than `most` bytes."""
    try:
        return read_regular(path, most).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 ({error}): save it as that.") from None


def yaml_of(path: Path) -> str:
    """The text of a YAML file, small and plain.

    Raises:
        InputError: It cannot be read, is no YAML, is nested deeply, or has aliases, by which a few
            lines may stand for more than a memory holds.
    """
    text, depth = read_utf8(path, MOST_JSON), 0
    try:
        for event in yaml.parse(text, yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent) or depth > MOST_DEPTH:
                raise InputError(f"{path} has aliases or is deeply nested: write it out plainly.")
    except yaml.YAMLError as error:
        raise InputError(f"{path}: {' '.join(str(error).split())}") from None
    return text


def file_hash(path: Path, kind: str = "sha256") -> str:
    """Hash of a regular file, hex; OSError."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, kind).hexdigest()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name to write at; what is there when the block ends takes the place of `path` in one step.

    If the block or the disk fails, nothing of it is left and `path` stays as it was.

    Raises:
        OSError: The disk is full, or the folder cannot be written.
    """
    part = path.with_name(f".{path.name}.{unique()}")
    try:
        yield part
        with part.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        error.filename = error.filename or str(path)  # where the disk is full it has none
        raise
    finally:
        part.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_json(path: Path, content: Any) -> None:
    """Put JSON in the place of `path` in one step."""
    with replacing(path) as part:
        part.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def create_file(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Create a file, written through to the disk, or leave none; FileExistsError if it exists."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException as error:
        path.unlink(missing_ok=True)
        if isinstance(error, OSError):  # where the disk is full it names no file
            error.filename = error.filename or str(path)
        raise
    sync_folder(path.parent)


def make_file(path: Path) -> None:
    """Make an empty file for a database that its owner alone may use, where there is none.

    One that is there is not opened: who closes a file ends all of this process's locks on it, and
    the next process that leaves then takes SQLite's log of changes away from those still here.
    """
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))


def replace_file(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Put `data` in the place of `path` in one step, written through to the disk."""
    fresh = path.with_name(f".{path.name}.{unique()}")
    create_file(fresh, data, mode)
    try:
        os.replace(fresh, path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def check_outside(home: Path, path: Path) -> None:
    """InputError unless `path` is a regular file's name, free or not, outside the folder `home`."""
    try:
        taken = os.path.lexists(path) and not stat.S_ISREG(os.lstat(path).st_mode)
        inside = any(place.is_relative_to(home.resolve()) for place in _places(path))
    except (OSError, ValueError, RuntimeError) as error:
        raise _unwritable(path, error) from None
    if inside:
        raise InputError(f"{path} lies in the store {home}: give a file outside it.")
    if taken:
        raise InputError(f"{path} is a link, a folder or a device: give another file name.")


def hand_out(home: Path, path: Path, data: bytes) -> None:
    """Write what leaves the store in `home`, whole or not at all.

    Raises:
        InputError: `path` lies in the store, is no regular file, or cannot be written.
    """
    check_outside(home, path)
    try:
        with replacing(path) as part:
            part.write_bytes(data)
    except (OSError, ValueError) as error:
        raise _unwritable(path, error) from None


def _places(path: Path) -> tuple[Path, Path]:
    """Where a name stands, and where it leads if it is a link."""
    return path.parent.resolve() / path.name, path.resolve()


def _unwritable(path: Path, error: Exception) -> InputError:
    why = getattr(error, "strerror", None) or error
    return InputError(
        f"{path} cannot be written ({why}): choose a folder that exists and has room, and a "
        "shorter name if it is long."
    )


def sync_folder(folder: Path) -> None:
    """Write a folder's entries through to the disk, where the system lets folders be opened."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
