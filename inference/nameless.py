"""Files without a name: whoever kills the process finds nothing of them."""

import errno
import os
import tempfile
from pathlib import Path
from typing import BinaryIO

from sayso.model.errors import InputError


def unnamed(folder: Path) -> BinaryIO:
    """An empty file without a name on a folder's disk, closed when it is forgotten; InputError
    where none can be made."""
    try:
        return tempfile.TemporaryFile(buffering=0, dir=folder)
    except OSError as error:
        raise _unwritable(error) from None


def put(file: BinaryIO, data: bytes) -> None:
    """Write all of it, where the file stands; InputError where the disk is full."""
    try:
        if file.write(data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        raise _unwritable(error) from None


def held(folder: Path, data: bytes) -> BinaryIO:
    """Bytes in a file without a name on a folder's disk; InputError where they have no room."""
    file = unnamed(folder)
    put(file, data)
    return file


def _unwritable(error: OSError) -> InputError:
    why = f"The store cannot be written ({error.strerror}): its disk needs room, and it must be "
    return InputError(why + "yours to write.")
