"""The store: one folder (SAYSO_HOME) with keys, voices and ledger; it opens whole or says why not.

    sayso.db           ledger and its details, sealed voice data, journal of releases (SQLite, WAL)
    ledger.head        the last signed head: rows cut from the ledger's end are missed by it
    keys/<kid>.pem     the signing key (Ed25519)
    keys/voices/*.key  one random AES-256 key per enrolled voice; overwriting it deletes the voice
    ca/, marks/        the C2PA authority and the keyed mark's key; the ledger has their hashes
    manifests/*.c2pa   the manifest of each output, likewise
    work/, lock        unreleased audio, the lock between processes

Every change is one SQLite transaction (synchronous=FULL). What cannot be in it (a key file, a moved
WAV) comes before or after it and is finished or undone at the next `Store.open`, whatever moment a
process died at. AES-GCM as in NIST SP 800-38D.
"""

import hashlib
import os
import re
import secrets
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import platformdirs
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from filelock import FileLock, Timeout

from sayso.model.files import create_file, replace_file

from ..errors import StoreError
from . import keys, ledger, recovery
from .recovery import RESTORE

LOCK_SECONDS = 60.0
RECORD_ID = re.compile(r"c-[A-Za-z0-9_-]{1,64}")
CLOCK_SLACK = 300.0  # seconds the clock may step back before the ledger says no


@dataclass(frozen=True)
class Voice:
    """A voice as the ledger knows it now."""

    voice: str
    record_id: str
    token: str  # the receipt, a compact JWS
    issuer: str  # PEM of the bundled voice's own issuer, or "" for a key of this store
    sealed: dict[str, str]  # kind -> SHA-256 of the sealed bytes
    key_sha256: str
    revoked: str  # time of revocation, or ""


class Store:
    """An open store. Use one per thread and open it anew after a fork; `close` it or use `with`."""

    def __init__(
        self,
        home: Path,
        database: sqlite3.Connection,
        clock: Callable[[], float],
        steady: Callable[[], float],
    ):
        self.home = home
        self.database = database
        self.clock = clock
        self.steady = steady
        self.lock = FileLock(home / "lock", timeout=LOCK_SECONDS)
        self._signing: Ed25519PrivateKey | None = None
        self._head: ledger.Head | None = None

    @classmethod
    def open(
        cls,
        home: Path | None = None,
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] | None = None,
    ) -> "Store":
        """Open the store, creating it on first use, and finish or undo what a killed process left.

        Args:
            home: The folder; None is SAYSO_HOME, else the platform's user data folder.
            clock: Seconds since 1970.
            steady: Seconds that nobody can set back; if None since boot, or as `clock` if given.
        Raises:
            StoreError: Naming the file that is unreadable, changed or missing, and the remedy.
        """
        home = default_home() if home is None else home
        if steady is None:
            steady = recovery.since_boot if clock is time.time else clock
        try:
            for folder in (home, home / "keys", home / "keys" / "voices", home / "work"):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"The store folder {home} cannot be made ({error.strerror}): set SAYSO_HOME."
            ) from None
        recovery.check_folder(home)
        with _locked(FileLock(home / "lock", timeout=LOCK_SECONDS), home):
            fresh = not (home / "sayso.db").exists()
            if fresh and (home / "ledger.head").exists():
                raise StoreError(f"{home / 'sayso.db'} is missing, and it was there. {RESTORE}")
            store = cls(home, _connect(home / "sayso.db"), clock, steady)
            try:
                with store.readable():
                    tables = store.database.execute("SELECT count(*) FROM sqlite_master")
                    if tables.fetchone()[0] == 0:
                        if (home / "ledger.head").exists():
                            raise StoreError(f"{home / 'sayso.db'} is empty. {RESTORE}")
                        recovery.create(store)
                    store.check()
                    recovery.recover(store)
            except BaseException:
                store.close()
                raise
        return store

    def close(self) -> None:
        """Close the database; the last one out folds the write-ahead log into it."""
        self.database.close()

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- transactions and events ---

    @contextmanager
    def readable(self) -> Iterator[None]:
        """Turn SQLite's complaints into a StoreError that names the file."""
        try:
            yield
        except sqlite3.Error as error:
            path = self.home / "sayso.db"
            if "locked" in str(error):
                raise StoreError(f"{path} is busy ({error}): try again.") from None
            raise StoreError(f"{path} cannot be read or written ({error}). {RESTORE}") from error

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing, one writer at a time on the machine; the new head is saved after.

        The lock is held until the head is saved, or a slower process would save an older one over
        it, and rows cut from the end would not be missed.
        """
        with self.exclusive():
            with self.readable():
                self._head = None
                self.database.execute("BEGIN IMMEDIATE")
                try:
                    yield
                    self.database.execute("COMMIT")
                except BaseException:
                    if self.database.in_transaction:
                        self.database.execute("ROLLBACK")
                    raise
            if self._head is not None:
                token = ledger.sign_head(self._head, self.signing_key())
                replace_file(self.home / "ledger.head", token.encode())

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """The lock for steps that touch files as well as the database; may be taken twice."""
        with _locked(self.lock, self.home):
            yield

    def append(self, event: str, id: str, content: dict) -> None:
        """Add an event to the ledger, inside a `transaction`."""
        self._head = ledger.append(
            self.database, self.signing_key(), event, id, content, self.now()
        )

    def now(self) -> float:
        """The time, refused when the clock was set back behind the ledger's last row."""
        now = self.clock()
        found = self.database.execute(
            "SELECT time FROM ledger ORDER BY seq DESC LIMIT 1"
        ).fetchone()
        last = ledger.seconds(found[0]) if found else now
        if now < last - CLOCK_SLACK:
            raise StoreError(
                f"The clock says {ledger.stamp(now)}, the ledger's last row {ledger.stamp(last)}: "
                "set the clock right."
            )
        return max(now, last)

    def signing_key(self) -> Ed25519PrivateKey:
        """The key that signs now; read again when another process rotated it."""
        kid = ledger.last_key(self.database)
        if self._signing is None or keys.thumbprint(self._signing.public_key()) != kid:
            self._signing = keys.load_key(self.home / "keys", kid)
        return self._signing

    def public_keys(self) -> dict[str, str]:
        """PEM of every key this store ever signed with, by kid, oldest first."""
        events = ledger.entries(self.database, ledger.KEY_EVENTS[0])
        events += ledger.entries(self.database, ledger.KEY_EVENTS[1])
        return {entry.content["kid"]: entry.content["public"] for entry in events}

    def rotate_key(self) -> str:
        """Bring in a new signing key and destroy the old one; old receipts stay verifiable."""
        with self.exclusive():
            old = keys.thumbprint(self.signing_key().public_key())
            fresh = keys.create_key(self.home / "keys", keys.next_passphrase())
            kid = keys.thumbprint(fresh.public_key())
            with self.transaction():
                content = {"kid": kid, "public": keys.public_pem(fresh), "leaves": old}
                self.append("key-rotated", kid, content)
                self._signing = fresh  # it may be locked with another passphrase than the old one
            keys.destroy(self.home / "keys" / f"{old}.pem")
        return kid

    # --- voices ---

    def voice(self, voice: str) -> Voice | None:
        """The voice's last enrolment and whether it was revoked; None if it was never enrolled."""
        events = ledger.entries(self.database, voice=voice)
        enrolled = [entry for entry in events if entry.event == "enrolled"]
        if not voice or not enrolled:
            return None
        last = enrolled[-1].content
        revoked = next((entry.time for entry in events if entry.event == "revoked"), "")
        return Voice(
            voice,
            enrolled[-1].id,
            last["receipt"],
            last["issuer"],
            last["sealed"],
            last["key_sha256"],
            revoked,
        )

    def voices(self) -> list[Voice]:
        """Every voice ever enrolled, in order of name."""
        names = {entry.content["voice"] for entry in ledger.entries(self.database, "enrolled")}
        return [found for name in sorted(names) if (found := self.voice(name))]

    def enrol(
        self, voice: str, record_id: str, token: str, secret: dict[str, bytes], issuer: str = ""
    ) -> None:
        """Take in a voice with its signed receipt: everything or nothing.

        Args:
            secret: Kind to bytes (codes, embedding, recordings ...); each is sealed with AES-GCM
            under
                a fresh key of this voice alone.
            issuer: PEM of a bundled voice's issuer, else "".
        """
        if not RECORD_ID.fullmatch(record_id):
            raise StoreError(f"{record_id[:80]!r} cannot be a record's id: it names a file.")
        voice_key = AESGCM.generate_key(256)
        sealed = {kind: _seal(voice_key, record_id, kind, data) for kind, data in secret.items()}
        content = {
            "voice": voice,
            "receipt": token,
            "issuer": issuer,
            "sealed": {kind: hashlib.sha256(data).hexdigest() for kind, data in sealed.items()},
            "key_sha256": hashlib.sha256(voice_key).hexdigest(),
        }
        with self.exclusive():
            create_file(self.voice_key_path(record_id), voice_key)
            with self.transaction():
                before = self.voice(voice)
                if before is not None and before.revoked:
                    raise StoreError(f"The voice {voice} was revoked: enrol under a new name.")
                if before is not None:
                    self.database.execute(
                        "DELETE FROM sealed WHERE record = ?", (before.record_id,)
                    )
                self.append("enrolled", record_id, content)
                self.database.executemany(
                    "INSERT INTO sealed VALUES (?, ?, ?)",
                    [(record_id, kind, data) for kind, data in sealed.items()],
                )
            if before is not None:
                keys.destroy(self.voice_key_path(before.record_id))

    def _open_sealed(self, voice: Voice, kind: str) -> bytes:
        """Decrypt one kind of a voice's data; StoreError naming what was changed or is missing.

        For the gate, which asks first, and for checking; nobody else has a use for it.
        """
        where = f"sayso.db: {kind} of the voice {voice.voice}"
        data = self.database.execute(
            "SELECT data FROM sealed WHERE record = ? AND kind = ?", (voice.record_id, kind)
        ).fetchone()
        if data is None:
            raise StoreError(f"{where} is missing. {RESTORE}")
        if hashlib.sha256(data[0]).hexdigest() != voice.sealed.get(kind):
            raise StoreError(f"{where} was changed. {RESTORE}")
        try:
            return AESGCM(self._voice_key(voice)).decrypt(
                data[0][:12], data[0][12:], f"{voice.record_id}/{kind}".encode()
            )
        except InvalidTag:
            raise StoreError(f"{where} cannot be decrypted. {RESTORE}") from None

    def forget(self, voice: str, details: dict) -> bool:
        """Revoke a voice and destroy its key and data; False if it was revoked before.

        The order is: the ledger says so (from here every process refuses), then the key dies.
        """
        with self.exclusive():
            with self.transaction():
                found = self.voice(voice)
                if found is None:
                    raise StoreError(f"No voice {voice!r} is enrolled here: see `sayso voices`.")
                if not found.revoked:
                    content = details | {"voice": voice, "receipt_id": found.record_id}
                    self.append("revoked", f"v-{secrets.token_hex(16)}", content)
                    self.database.execute("DELETE FROM sealed WHERE record = ?", (found.record_id,))
            keys.destroy(self.voice_key_path(found.record_id))
        return not found.revoked

    def voice_key_path(self, record_id: str) -> Path:
        return self.home / "keys" / "voices" / f"{record_id}.key"

    def _voice_key(self, voice: Voice) -> bytes:
        path = self.voice_key_path(voice.record_id)
        try:
            data = path.read_bytes()
            keys.check_private(path)
        except OSError as error:
            raise StoreError(
                f"The voice key {path} cannot be read ({error.strerror}). {RESTORE}"
            ) from None
        if hashlib.sha256(data).hexdigest() != voice.key_sha256:
            raise StoreError(f"The voice key {path} was changed. {RESTORE}")
        return data

    # --- unreleased audio ---

    @contextmanager
    def workspace(self) -> Iterator[Path]:
        """A private folder for audio not yet released; gone afterwards, even after kill -9."""
        folder = self.home / "work" / secrets.token_hex(8)
        lock = FileLock(folder.with_suffix(".lock"))
        with self.exclusive():  # another process's recovery must not come between these two
            lock.acquire()
            folder.mkdir(mode=0o700)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            lock.release()
            folder.with_suffix(".lock").unlink(missing_ok=True)

    # --- checking ---

    def check(self, old: str | None = None) -> ledger.Head:
        """Check chain, commitments, last signature and saved head; done before each use.

        Args:
            old: An earlier signed head: show that the ledger only grew since.
        """
        return recovery.check_ledger(self, signatures=False, old=old)

    def verify(self, old: str | None = None) -> ledger.Head:
        """Check all that the store holds; StoreError names what was changed, and where."""
        return recovery.verify(self, old)

    def head(self) -> str:
        """A signed head (compact JWS) to keep elsewhere: it proves later that rows only grew."""
        return ledger.sign_head(self.check(), self.signing_key())

    def export(self, path: Path) -> int:
        """Write the ledger's public half to a file for others; returns its number of rows."""
        self.verify()
        with self.readable():
            return ledger.export(self.database, path)


def default_home() -> Path:
    """The store's folder where none is named: SAYSO_HOME, else the user's data folder."""
    named = os.environ.get("SAYSO_HOME")
    return Path(named) if named else Path(platformdirs.user_data_dir("sayso"))


def _connect(path: Path) -> sqlite3.Connection:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.close(descriptor)
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
        raise StoreError(f"{path} cannot be opened ({error}). {RESTORE}") from None
    return database


@contextmanager
def _locked(lock: FileLock, home: Path) -> Iterator[None]:
    try:
        lock.acquire()
    except Timeout:
        raise StoreError(f"{home / 'lock'} is held by another process: try again.") from None
    except OSError as error:
        raise StoreError(
            f"{home / 'lock'} cannot be used ({error.strerror}): set SAYSO_HOME."
        ) from None
    try:
        yield
    finally:
        lock.release()


def _seal(voice_key: bytes, record_id: str, kind: str, data: bytes) -> bytes:
    nonce = os.urandom(12)
    return nonce + AESGCM(voice_key).encrypt(nonce, data, f"{record_id}/{kind}".encode())
