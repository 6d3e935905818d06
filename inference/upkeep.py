"""First use of a store, its checks, and what is finished or undone after a crash.

Every check reads the tables as they are; nothing is remembered from an earlier check.
"""

import os
import shutil
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from sayso.model.errors import StoreError

from . import keys, ledger

if TYPE_CHECKING:
    from .store import Store

VERSION = 1
SCHEMA = (
    *ledger.SCHEMA,
    "CREATE TABLE sealed (record TEXT NOT NULL, kind TEXT NOT NULL, data BLOB NOT NULL, "
    "PRIMARY KEY (record, kind)) STRICT",
    "CREATE TABLE journal (grant_id TEXT PRIMARY KEY, destination TEXT NOT NULL) STRICT",
)
RESTORE = "Restore the whole folder from a backup, or start a new store with another SAYSO_HOME."


def create(store: "Store") -> None:
    """Make the signing key and the ledger's first row; the caller holds the lock."""
    database = store.database
    for leftover in (store.home / "keys").glob("*.pem"):  # of a first use that died before this
        keys.destroy(leftover)
    key = keys.create_key(store.home / "keys")
    kid = keys.thumbprint(key.public_key())
    content = {"kid": kid, "public": keys.public_pem(key)}
    database.execute("BEGIN IMMEDIATE")
    for statement in SCHEMA:
        database.execute(statement)
    head = ledger.append(database, key, ledger.KEY_EVENTS[0], kid, content, store.clock())
    database.execute(f"PRAGMA user_version = {VERSION}")
    database.execute("COMMIT")
    keys.replace_file(store.home / "ledger.head", ledger.sign_head(head, key).encode())


def check_ledger(store: "Store", signatures: bool, old: str | None = None) -> ledger.Head:
    """Check schema, chain, commitments, signatures (all, or the last) and growth; the last head."""
    name = str(store.home / "sayso.db")
    with store.readable():
        try:
            _check_schema(store.database)
            chain = ledger.check_rows(ledger.read_rows(store.database), "ledger", signatures)
        except StoreError as error:
            raise StoreError(f"{name}: {error} {RESTORE}") from None
    saved = store.home / "ledger.head"
    try:
        ledger.check_growth(saved.read_bytes().decode("ascii"), chain, str(saved))
    except FileNotFoundError:
        if len(chain.hashes) > 1:  # a first use may die between the first row and its head
            raise StoreError(f"{saved} is missing. {RESTORE}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"{saved} cannot be read ({error}). {RESTORE}") from None
    except StoreError as error:
        raise StoreError(f"{error} {RESTORE}") from None
    if old is not None:
        ledger.check_growth(old, chain, name)
    return chain.head


def verify(store: "Store", old: str | None = None) -> ledger.Head:
    """Check all that a store holds: pages, ledger, every signature, keys, sealed data."""
    path = store.home / "sayso.db"
    with store.readable():
        for problem in store.database.execute("PRAGMA integrity_check"):
            if problem[0] != "ok":
                raise StoreError(f"{path} is damaged ({problem[0]}). {RESTORE}")
        head = check_ledger(store, signatures=True, old=old)
        keys.load_key(store.home / "keys", ledger.last_key(store.database))
        expected: set[tuple[str, str]] = set()
        for voice in store.voices():
            if voice.revoked:
                continue
            store.voice_key(voice)
            for kind in voice.sealed:
                store.open_sealed(voice, kind)
                expected.add((voice.record_id, kind))
        found = set(store.database.execute("SELECT record, kind FROM sealed"))
        if found != expected:
            raise StoreError(f"{path}: it holds sealed data of no voice. {RESTORE}")
    return head


def recover(store: "Store") -> None:
    """Finish or undo what killed processes left; the caller holds the lock and has checked."""
    kept = {voice.record_id for voice in store.voices() if not voice.revoked}
    for path in (store.home / "keys" / "voices").glob("*.key"):
        if path.stem not in kept:
            keys.destroy(path)
    kid = keys.thumbprint(store.signing_key().public_key())
    for path in (store.home / "keys").glob("*.pem"):
        if path.stem != kid:
            keys.destroy(path)
    for grant_id, destination in store.database.execute("SELECT * FROM journal").fetchall():
        settle(store, grant_id, Path(destination))
    for folder in (store.home / "work").glob("*"):
        lock = FileLock(folder.with_suffix(".lock"), timeout=0)
        try:
            with lock:
                shutil.rmtree(folder, ignore_errors=True)
        except Timeout:
            continue  # a living process works there
        folder.with_suffix(".lock").unlink(missing_ok=True)


def settle(store: "Store", grant_id: str, destination: Path) -> None:
    """End one journalled release: moved into place if the ledger has it, else undone."""
    staged = staging_path(destination, grant_id)
    if ledger.entries(store.database, "released", grant_id):
        if staged.exists():
            os.replace(staged, destination)
            keys.sync_folder(destination.parent)
    else:
        staged.unlink(missing_ok=True)
    store.database.execute("DELETE FROM journal WHERE grant_id = ?", (grant_id,))


def staging_path(destination: Path, grant_id: str) -> Path:
    """Where a release waits until the ledger has it: beside its destination, on the same disk."""
    return destination.with_name(f".sayso-{grant_id}.part")


def _check_schema(database: sqlite3.Connection) -> None:
    question = "SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name"
    model = sqlite3.connect(":memory:")
    for statement in SCHEMA:
        model.execute(statement)
    same = database.execute(question).fetchall() == model.execute(question).fetchall()
    model.close()
    if not same or database.execute("PRAGMA user_version").fetchone()[0] != VERSION:
        raise StoreError(f"it is not a store of version {VERSION}.")
