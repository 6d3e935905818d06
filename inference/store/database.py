"""The store's SQLite file: its tables, how it is opened, and the lock between processes.

Only inference/store/ opens it; everyone else asks a `Store`.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from sayso.model.files import make_file

from ..errors import StoreError
from . import ledger

VERSION = 1
FILE = "sayso.db"
LOCK_SECONDS = 60.0
SCHEMA = (
    *ledger.SCHEMA,
    "CREATE TABLE sealed (record TEXT NOT NULL, kind TEXT NOT NULL, data BLOB NOT NULL, "
    "PRIMARY KEY (record, kind)) STRICT",
    "CREATE TABLE journal (grant_id TEXT PRIMARY KEY, destination TEXT NOT NULL) STRICT",
)
RESTORE = "Restore the whole folder from a backup, or start a new store with another SAYSO_HOME."


def remedy(error: Exception) -> str:
    """What to do: no room and no right are mended where they are, all else from a backup."""
    kind = getattr(error, "sqlite_errorname", "").removeprefix("SQLITE_").split("_")[0]
    if isinstance(error, OSError) or kind in ("FULL", "IOERR", "READONLY", "CANTOPEN", "PERM"):
        return "Its disk needs room, and the store must be yours to write: or set SAYSO_HOME."
    return RESTORE


def connect(path: Path, writable: bool = True) -> sqlite3.Connection:
    """Open the database, made if it is not there; StoreError.

    Args:
        writable: False for a folder that can only be read, such as a backup's. A log of changes
            that were not folded in is passed over then, which the saved head tells.
    """
    try:
        if not writable:
            address = f"{path.resolve().as_uri()}?mode=ro&immutable=1"
            return sqlite3.connect(address, uri=True, isolation_level=None)
        make_file(path)
        database = sqlite3.connect(path, timeout=LOCK_SECONDS, isolation_level=None)
        for setting in (
            "journal_mode = WAL",
            "synchronous = FULL",
            "secure_delete = ON",
            "foreign_keys = ON",
            "trusted_schema = OFF",
            "cell_size_check = ON",
        ):
            database.execute(f"PRAGMA {setting}")
    except (sqlite3.Error, OSError) as error:
        why = getattr(error, "strerror", None) or error
        raise StoreError(f"{path} cannot be opened ({why}). {remedy(error)}") from None
    return database


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn SQLite's complaints into a StoreError that names the file."""
    try:
        yield
    except sqlite3.Error as error:
        if "locked" in str(error):
            raise StoreError(f"{path} is busy ({error}): try again.") from None
        raise StoreError(f"{path} cannot be read or written ({error}). {remedy(error)}") from error


@contextmanager
def locked(lock: FileLock) -> Iterator[None]:
    """Hold the store's lock; StoreError if it cannot be had."""
    try:
        lock.acquire()
    except Timeout:
        raise StoreError(f"{lock.lock_file} is held by another process: try again.") from None
    except OSError as error:
        raise StoreError(
            f"{lock.lock_file} cannot be used ({error.strerror}): set SAYSO_HOME."
        ) from None
    try:
        yield
    finally:
        lock.release()


def check_schema(database: sqlite3.Connection) -> None:
    """StoreError unless tables and triggers are exactly ours."""
    question = "SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name"
    with closing(sqlite3.connect(":memory:")) as model:
        for statement in SCHEMA:
            model.execute(statement)
        same = database.execute(question).fetchall() == model.execute(question).fetchall()
    if not same or database.execute("PRAGMA user_version").fetchone()[0] != VERSION:
        raise StoreError(f"it is not a store of version {VERSION}.")
