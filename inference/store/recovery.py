"""First use of a store, its checks, and what is finished or undone after a crash.

Every check reads the tables as they are; nothing is remembered from an earlier check.
"""

import hashlib
import os
import secrets
import shutil
import sqlite3
import time
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from sayso.model.files import replace_file, sync_folder

from ..errors import StoreError
from ..provenance.c2pa import kept_path, sidecar_of
from ..provenance.certificates import LEAF_DAYS
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
LEAF = "ca/leaf.pem"
KEPT = ("marks/weave.key", "ca/root.pem", "ca/root.key", LEAF)
"""What lies beside the database and must not change."""
RESTORE = "Restore the whole folder from a backup, or start a new store with another SAYSO_HOME."


def create(store: "Store") -> None:
    """Make the signing key and the ledger's first row; the caller holds the lock."""
    database = store.database
    for leftover in (store.home / "keys").glob("*.pem"):  # of a first use that died before this
        keys.destroy(leftover)
    key = keys.create_key(store.home / "keys", keys.passphrase())
    kid = keys.thumbprint(key.public_key())
    content = {"kid": kid, "public": keys.public_pem(key)}
    database.execute("BEGIN IMMEDIATE")
    for statement in SCHEMA:
        database.execute(statement)
    head = ledger.append(database, key, ledger.KEY_EVENTS[0], kid, content, store.clock())
    database.execute(f"PRAGMA user_version = {VERSION}")
    database.execute("COMMIT")
    replace_file(store.home / "ledger.head", ledger.sign_head(head, key).encode())


def since_boot() -> float:
    """Seconds since this machine started, asleep or awake: setting the clock does not change it."""
    boot = getattr(time, "CLOCK_BOOTTIME", None)  # Linux
    return time.monotonic() if boot is None else time.clock_gettime(boot)


def check_folder(home: Path) -> None:
    """StoreError if others may put files into the store's folder in place of ours."""
    mode = home.stat().st_mode & 0o777
    if os.name == "posix" and mode & 0o022:
        raise StoreError(
            f"The store folder {home} may be written by other users (mode {mode:o}): chmod 700 it."
        )


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
    """Check all that a store holds: pages, ledger, signatures, keys, sealed data, other files."""
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
            store._voice_key(voice)
            for kind in voice.sealed:
                store._open_sealed(voice, kind)
                expected.add((voice.record_id, kind))
        found = set(store.database.execute("SELECT record, kind FROM sealed"))
        if found != expected:
            raise StoreError(f"{path}: it holds sealed data of no voice. {RESTORE}")
        _check_files(store)
    return head


def recover(store: "Store") -> None:
    """Finish or undo what killed processes left; the caller holds the lock and has checked."""
    kept = {voice.record_id for voice in store.voices() if not voice.revoked}
    for path in (store.home / "keys" / "voices").glob("*.key"):
        if path.stem not in kept:
            keys.destroy(path)
    for path in store.home.glob(".ledger.head.*"):  # heads that were not put in place
        path.unlink()
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


def vouch(store: "Store") -> None:
    """Put the hashes of the marks' key and the signing authority into the ledger, once.

    A flipped bit in that key would go unseen, and no earlier mark be found any more. A leaf
    certificate that was renewed at its time is put in anew.

    Raises:
        StoreError: One of them is no longer the file that the ledger knows.
    """
    known = {entry.content["file"]: entry for entry in _kept_files(store)}
    fresh = {}
    for name in KEPT:
        path = store.home / name
        if not path.is_file():
            continue
        digest, entry = _digest(path), known.get(name)
        if entry is not None and entry.content["sha256"] != digest:
            age = store.now() - ledger.seconds(entry.time)
            if name != LEAF or age < (LEAF_DAYS - 2) * 86400:
                raise StoreError(f"{path} was changed. {RESTORE}")
        if entry is None or entry.content["sha256"] != digest:
            fresh[name] = digest
    if fresh:
        with store.transaction():
            store.check()
            for name, digest in fresh.items():
                content = {"file": name, "sha256": digest}
                store.append("file-kept", f"f-{secrets.token_hex(16)}", content)


def _kept_files(store: "Store") -> list[ledger.Entry]:
    with store.readable():
        return ledger.entries(store.database, "file-kept")


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _check_files(store: "Store") -> None:
    """That the files beside the database are those that the ledger knows."""
    expected = {store.home / e.content["file"]: e.content["sha256"] for e in _kept_files(store)}
    for entry in ledger.entries(store.database, "released"):
        if "manifest_sha256" in entry.content:
            expected[kept_path(store.home, entry.id)] = entry.content["manifest_sha256"]
    for path, digest in expected.items():
        try:
            same = _digest(path) == digest
        except OSError as error:
            raise StoreError(f"{path} cannot be read ({error.strerror}). {RESTORE}") from None
        if not same:
            raise StoreError(f"{path} was changed. {RESTORE}")


def settle(store: "Store", grant_id: str, destination: Path) -> None:
    """End one journalled release: moved into place if the ledger has it, else undone."""
    staged = staging_path(destination, grant_id)
    pairs = ((sidecar_of(staged), sidecar_of(destination)), (staged, destination))
    if ledger.entries(store.database, "released", grant_id):
        for source, target in pairs:
            if source.exists():
                os.replace(source, target)
                sync_folder(target.parent)
    else:
        for source, _ in pairs:
            source.unlink(missing_ok=True)
        kept = kept_path(store.home, grant_id)
        for path in (kept, *kept.parent.glob(f".{kept.name}.*")):
            path.unlink(missing_ok=True)
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
