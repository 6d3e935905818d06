"""All that a store holds, checked from the first row: pages, ledger, keys, sealed data, files.

Every check reads the tables as they are; nothing is remembered from an earlier check.
"""

import secrets

from sayso.model.files import file_hash

from ..errors import StoreError
from ..provenance.c2pa import kept_path
from ..provenance.certificates import LEAF_DAYS
from . import database, keys, ledger, sealed
from .book import check_saved_head
from .chain import Chain
from .database import FILE, RESTORE
from .ledger import Head
from .releases import was_given
from .store import RELEASE_KEY, Store

LEAF = "ca/leaf.pem"
KEPT = ("marks/weave.key", "ca/root.pem", "ca/root.key", LEAF)
"""What lies beside the database and must not change."""


def verify(store: Store, old: str | None = None) -> Head:
    """Check all that a store holds; the last head.

    Args:
        old: An earlier signed head: show that the ledger only grew since.
    Raises:
        StoreError: Naming what was changed, and where.
    """
    path = store.home / FILE
    with store._snapshot():
        for problem in store._database.execute("PRAGMA integrity_check"):
            if problem[0] != "ok":
                raise StoreError(f"{path} is damaged ({problem[0]}). {RESTORE}")
        chain = _check_rows(store)
        if old is not None:
            chain.check_growth(old, str(path))
        keys.load_key(store.home / "keys", chain.signer)
        expected: set[tuple[str, str]] = set()
        for voice in store.voices():
            if voice.revoked:
                continue
            sealed.read_key(store.home, voice)
            for kind in voice.sealed:
                sealed.read_sealed(store._database, store.home, voice, kind)
                expected.add((voice.record_id, kind))
        waiting = _check_journal(store)
        found = set(store._database.execute("SELECT record, kind FROM sealed"))
        if found - waiting != expected:
            raise StoreError(f"{path}: it holds sealed data of no voice. {RESTORE}")
        _check_files(store)
    return chain.head


def vouch(store: Store) -> None:
    """Put the hashes of the marks' key and the signing authority into the ledger, once.

    A flipped bit in that key would go unseen, and no earlier mark be found any more. A leaf
    certificate that was renewed at its time is put in anew.

    Raises:
        StoreError: One of them is no longer the file that the ledger knows.
    """
    known = {entry.content["file"]: entry for entry in store.entries("file-kept")}
    fresh = {}
    for name in KEPT:
        path = store.home / name
        if not path.is_file():
            continue
        digest, entry = file_hash(path), known.get(name)
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


def _check_rows(store: Store) -> Chain:
    chain = Chain("ledger", signatures=True)
    try:
        database.check_schema(store._database)
        for _ in chain.follow(store.rows()):
            pass
        ledger.check_ends(store._database, len(chain.hashes))
    except StoreError as error:
        raise StoreError(f"{store.home / FILE}: {error} {RESTORE}") from None
    check_saved_head(store.home, chain)
    return chain


def _check_journal(store: Store) -> set[tuple[str, str]]:
    """The sealed rows that files on their way out may have; each such file has its grant."""
    waiting = store.journal()
    for grant_id, destination in waiting:
        released = store.entries("released", grant_id)
        named = {entry.content["path"] for entry in released} or {destination}
        if not was_given(store, grant_id) or named != {destination}:
            raise StoreError(
                f"{store.home / FILE}: the journal of releases was changed ({grant_id[:40]!r}). "
                f"{RESTORE}"
            )
    return {(grant_id, RELEASE_KEY) for grant_id, _ in waiting}


def _check_files(store: Store) -> None:
    """That the files beside the database are those that the ledger knows."""
    kept = store.entries("file-kept")
    expected = {store.home / entry.content["file"]: entry.content["sha256"] for entry in kept}
    absent = {grant_id for grant_id, _ in store.journal()}
    absent |= {entry.id for entry in store.entries("release-dropped")}
    for entry in store.entries("released"):
        if "manifest_sha256" in entry.content and entry.id not in absent:
            expected[kept_path(store.home, entry.id)] = entry.content["manifest_sha256"]
    for path, digest in expected.items():
        try:
            same = file_hash(path) == digest
        except OSError as error:
            raise StoreError(f"{path} cannot be read ({error.strerror}). {RESTORE}") from None
        if not same:
            raise StoreError(f"{path} was changed. {RESTORE}")
