"""The ledger on disk: opened and checked, one writer at a time, every change one transaction.

Rows are checked once, by `chain`; one that is read again must have the same hash, so that what is
believed is what was checked, and a call costs what is new and not what is old.
"""

import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from filelock import FileLock

from sayso.model.files import MOST_JSON, read_bounded, replace_file

from ..errors import StoreError
from . import clock, database, keys, ledger
from .chain import Chain, Index
from .database import FILE, LOCK_SECONDS, RESTORE
from .home import check_folder, default_home
from .ledger import Entry, Head

CLOCK_SLACK = 300.0  # seconds the clock may step back before the ledger says no


class Book:
    """An open ledger and its keys; `Store` is one that has voices, too."""

    def __init__(self, home: Path, connection: sqlite3.Connection, read_only: bool = False):
        self.home = home
        self.read_only = read_only
        self._database = connection
        self._lock = FileLock(home / "lock", timeout=LOCK_SECONDS)
        self._signing: Ed25519PrivateKey | None = None
        self._head: Head | None = None
        self._schema = -1
        self._chain: Chain | None = None
        self._index = Index()

    @classmethod
    def open(cls, home: Path | None = None) -> Self:
        """Open the store, creating it on first use.

        What a killed process left is finished or undone by `recovery.recover`, as the gate does. A
        folder that can only be read opens for reading.

        Args:
            home: The folder; None is SAYSO_HOME, else the platform's user data folder.
        Raises:
            StoreError: Naming the file that is unreadable, changed or missing, and the remedy.
        """
        home = default_home() if home is None else home
        if os.path.isfile(home / FILE) and not os.access(home, os.W_OK):  # a backup, a mount
            store = cls(home, database.connect(home / FILE, writable=False), read_only=True)
            return store._opened(lambda: store.check())
        try:
            for folder in (home, home / "keys", home / "keys" / "voices", home / "work"):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"The store folder {home} cannot be made or used ({error.strerror}): set "
                "SAYSO_HOME to a folder of your own."
            ) from None
        check_folder(home)
        with database.locked(FileLock(home / "lock", timeout=LOCK_SECONDS)):
            fresh = not (home / FILE).exists()
            if fresh and (home / "ledger.head").exists():
                raise StoreError(f"{home / FILE} is missing, and it was there. {RESTORE}")
            store = cls(home, database.connect(home / FILE))
            return store._opened(store._begin)

    def _opened(self, check: Callable[[], object]) -> Self:
        try:
            check()
        except BaseException:
            self.close()
            raise
        return self

    def _begin(self) -> None:
        with self._readable():
            tables = self._database.execute("SELECT count(*) FROM sqlite_master")
            if tables.fetchone()[0] == 0:
                if (self.home / "ledger.head").exists():
                    raise StoreError(f"{self.home / FILE} is empty. {RESTORE}")
                self._create()
        self.check()

    def close(self) -> None:
        """Close the database; the last one out folds the write-ahead log into it."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _create(self) -> None:
        """Make the signing key and the ledger's first row; the caller holds the lock."""
        for leftover in (self.home / "keys").glob("*.pem"):  # of a first use that died before this
            keys.destroy(leftover)
        key = keys.create_key(self.home / "keys", keys.passphrase())
        kid = keys.thumbprint(key.public_key())
        content = {"kid": kid, "public": keys.public_pem(key)}
        self._database.execute("BEGIN IMMEDIATE")
        for statement in database.SCHEMA:
            self._database.execute(statement)
        head = ledger.append(self._database, key, ledger.KEY_EVENTS[0], kid, content, clock.wall())
        self._database.execute(f"PRAGMA user_version = {database.VERSION}")
        self._database.execute("COMMIT")
        replace_file(self.home / "ledger.head", ledger.sign_head(head, key).encode())

    # --- transactions and events ---

    def _readable(self):
        return database.readable(self.home / FILE)

    @contextmanager
    def _snapshot(self) -> Iterator[None]:
        """All that is read inside is of one moment."""
        with self._readable():
            if self._database.in_transaction:
                yield
                return
            self._database.execute("BEGIN")
            try:
                yield
            finally:
                self._database.execute("COMMIT")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing, one writer at a time on the machine; the new head is saved after.

        The lock is held until the head is saved, or a slower process would save an older one over
        it, and rows cut from the end would not be missed. StoreError where it cannot be saved.
        """
        with self.exclusive():
            with self._readable():
                self._head = None
                self._database.execute("BEGIN IMMEDIATE")
                try:
                    yield
                    self._database.execute("COMMIT")
                except BaseException:
                    if self._database.in_transaction:
                        self._database.execute("ROLLBACK")
                        if self._head is not None:
                            self._unfollow()
                    raise
            if self._head is not None:
                token = ledger.sign_head(self._head, self.signing_key())
                saved = self.home / "ledger.head"
                try:
                    replace_file(saved, token.encode())
                except OSError as error:  # the rows stand, and the head before them is true of them
                    raise StoreError(
                        f"{saved} cannot be written ({error.strerror}). {database.remedy(error)}"
                    ) from None

    def _unfollow(self) -> None:
        """Forget the chain if it followed rows that were rolled back."""
        last = self._database.execute("SELECT max(seq) FROM ledger").fetchone()[0]
        if self._chain is not None and len(self._chain.hashes) > last:
            self._chain = None

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """The lock for steps that touch files as well as the database; may be taken twice.

        StoreError where the store can only be read.
        """
        if self.read_only:
            raise StoreError(f"The store {self.home} can only be read: nothing can be logged.")
        with database.locked(self._lock):
            yield

    def append(self, event: str, id: str, content: dict) -> None:
        """Add an event to the ledger, inside a `transaction`.

        Its time is never before the last row's: whoever judges by the time asks `now`.
        """
        key, time = self.signing_key(), self._time()
        self._head = ledger.append(self._database, key, event, id, content, time)

    def entries(self, event: str = "", id: str = "", voice: str = "") -> list[Entry]:
        """Events with their details, oldest first, of one kind, one id and one voice (or any).

        Raises:
            StoreError: A row is not what it was when it was checked.
        """
        chain = self._checked()
        with self._readable():
            found = [self._entry(seq, chain) for seq in self._index.find(event, id, voice)]
        return [
            entry
            for entry in found
            if event in ("", entry.event) and voice in ("", entry.content.get("voice", ""))
        ]

    def rows(self, first: int = 1) -> Iterator[tuple[ledger.Row, tuple[str, str]]]:
        """Rows from `first` on as they lie in the file, unchecked, and openings (salt, details)."""
        yield from ledger.read_rows(self._database, first)

    def used(self, receipt_id: str) -> tuple[int, int]:
        """Uses and characters granted under a receipt, but those that were given back."""
        self._checked()
        return self._index.used(receipt_id)

    def _entry(self, seq: int, chain: Chain) -> Entry:
        for row, (salt, text) in ledger.read_rows(self._database, seq, seq):
            right = row.digest() == chain.hashes[seq - 1]
            if right and ledger.commit_to(salt, text) == row.commitment:
                return Entry(seq, row.time, row.event, row.id, json.loads(text))
        raise StoreError(f"{self.home / FILE}: row {seq} was changed or removed. {RESTORE}")

    def _checked(self) -> Chain:
        """The chain up to the last row; only what is new since the last call is read.

        Nobody edits old rows without touching the schema: triggers forbid it. If the schema's
        version moved, all is read again.
        """
        with self._snapshot():
            try:
                schema = self._database.execute("PRAGMA schema_version").fetchone()[0]
                if self._chain is None or schema != self._schema:
                    database.check_schema(self._database)
                    self._chain, self._index, self._schema = Chain("ledger"), Index(), schema
                chain = self._chain
                rows = ledger.read_rows(self._database, len(chain.hashes) + 1)
                for row, opening in chain.follow(rows):
                    self._index.add(row, json.loads(opening[1]))
                ledger.check_ends(self._database, len(chain.hashes))
            except StoreError as error:
                self._chain = None
                raise StoreError(f"{self.home / FILE}: {error} {RESTORE}") from None
            except BaseException:
                self._chain = None  # half followed
                raise
        return chain

    def check(self, old: str | None = None) -> Head:
        """Check chain, commitments, last signature and saved head; done before each use.

        Args:
            old: An earlier signed head: show that the ledger only grew since.
        Raises:
            StoreError: Naming what was changed.
        """
        chain = self._checked()
        check_saved_head(self.home, chain)
        if old is not None:
            chain.check_growth(old, str(self.home / FILE))
        return chain.head

    def head(self) -> str:
        """A signed head (compact JWS) to keep elsewhere: it proves later that rows only grew."""
        return ledger.sign_head(self.check(), self.signing_key())

    # --- time ---

    def now(self) -> float:
        """The time; StoreError when the clock was set back behind the ledger's last row."""
        now, last = clock.wall(), self._last_time()
        if now < last - CLOCK_SLACK:
            raise StoreError(
                f"The clock says {ledger.stamp(now)}, the ledger's last row {ledger.stamp(last)}: "
                "set the clock right."
            )
        return max(now, last)

    def steady(self) -> float:
        """Seconds, asleep or awake, on a scale of this start of the machine alone."""
        return clock.since_boot()

    def _time(self) -> float:
        """The clock's time, or the last row's if that is later."""
        return max(clock.wall(), self._last_time())

    def _last_time(self) -> float:
        last = self._database.execute("SELECT time FROM ledger ORDER BY seq DESC LIMIT 1")
        return ledger.seconds(last.fetchone()[0])

    # --- keys ---

    def signing_key(self) -> Ed25519PrivateKey:
        """The key that signs now; read again when another process rotated it.

        Raises:
            StoreError: Its file is missing, locked or changed.
        """
        kid = self._checked().signer
        if self._signing is None or keys.thumbprint(self._signing.public_key()) != kid:
            self._signing = keys.load_key(self.home / "keys", kid)
        return self._signing

    def last_key(self) -> str:
        """The kid of the key that signs now."""
        return self._checked().signer

    def public_keys(self) -> dict[str, str]:
        """PEM of every key this store ever signed with, by kid, oldest first."""
        return {kid: keys.public_pem(key) for kid, key in self._checked().public.items()}

    def key_spans(self) -> dict[str, tuple[str, str]]:
        """From when to when each key signed, by kid; the end is "" for the one that does now."""
        return dict(self._checked().spans)


def check_saved_head(home: Path, chain: Chain) -> None:
    """StoreError unless the ledger has all the rows that it had when a head was last saved."""
    saved = home / "ledger.head"
    try:
        chain.check_growth(read_bounded(saved, MOST_JSON).decode("ascii"), str(saved))
    except FileNotFoundError:
        if len(chain.hashes) > 1:  # a first use may die between the first row and its head
            raise StoreError(f"{saved} is missing. {RESTORE}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"{saved} cannot be read ({error}). {RESTORE}") from None
    except StoreError as error:
        raise StoreError(f"{error} {RESTORE}") from None
