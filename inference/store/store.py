"""The store: one folder (SAYSO_HOME) with keys, voices and ledger; it opens whole or says why not.

    sayso.db           ledger and its details, sealed voice data, journal of releases (SQLite, WAL)
    ledger.head        the last signed head: rows cut from the ledger's end are missed by it
    keys/<kid>.pem     the signing key (Ed25519)
    keys/voices/*.key  one random AES-256 key per enrolled voice; overwriting it deletes the voice
    ca/, marks/        the C2PA authority and the keyed mark's key; the ledger has their hashes
    manifests/*.c2pa   the manifest of each output, likewise
    work/, lock        sealed files on their way out, locks between processes

Every change is one SQLite transaction (synchronous=FULL). What cannot be in it (a key file, a file
that leaves) comes before or after it and is finished or undone by `recovery`, whatever moment a
process died at.
"""

import hashlib
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from filelock import FileLock, Timeout

from sayso.model.errors import InputError
from sayso.model.files import create_file

from ..errors import StoreError
from . import keys, ledger, sealed
from .book import Book
from .sealed import Voice

RELEASE_KEY = "release-key"
MOST_REFUSALS = 100  # logged in an hour


class Store(Book):
    """An open store. Use one per thread and open it anew after a fork; `close` it or use `with`."""

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

    def log_refusal(self, content: dict, event: str = "refused") -> None:
        """Add a refusal in a transaction of its own; past `MOST_REFUSALS` an hour none is added.

        The last one that is says so. Else whoever is refused could fill the ledger.
        """
        with self.transaction():
            if self._within_an_hour(event, MOST_REFUSALS):
                return
            if self._within_an_hour(event, MOST_REFUSALS - 1):
                content = content | {"more": "not logged for up to an hour"}
            self.append(event, f"{event[0]}-{secrets.token_hex(16)}", content)

    def _within_an_hour(self, event: str, count: int) -> bool:
        """Whether the last `count` events of a kind are all of the last hour."""
        chain = self._checked()
        found = self._index.find(event, "", "")
        if len(found) < count:
            return False
        first = ledger.seconds(self._entry(found[-count], chain).time)
        return self._time() - first < 3600.0

    def voice(self, voice: str) -> Voice | None:
        """The voice's last enrolment and whether it was revoked; None if it was never enrolled."""
        enrolled = self.entries("enrolled", voice=voice) if voice else []
        if not enrolled:
            return None
        last, revoked = enrolled[-1].content, self.entries("revoked", voice=voice)
        return Voice(
            voice,
            enrolled[-1].id,
            last["receipt"],
            last["issuer"],
            last["sealed"],
            last["key_sha256"],
            revoked[0].time if revoked else "",
        )

    def voices(self) -> list[Voice]:
        """Every voice ever enrolled, in order of name."""
        names = {entry.content["voice"] for entry in self.entries("enrolled")}
        return [found for name in sorted(names) if (found := self.voice(name))]

    def enrol(
        self, voice: str, record_id: str, token: str, secret: dict[str, bytes], issuer: str = ""
    ) -> None:
        """Take in a voice with its signed receipt: everything or nothing.

        Args:
            secret: Kind to bytes (codes, embedding, recordings ...); each is sealed with AES-GCM
                under a fresh key of this voice alone.
            issuer: PEM of a bundled voice's issuer, else "".

        Raises:
            StoreError: The id names no file, or the voice was revoked.
        """
        if not sealed.RECORD_ID.fullmatch(record_id):
            raise StoreError(f"{record_id[:80]!r} cannot be a record's id: it names a file.")
        voice_key = AESGCM.generate_key(256)
        closed = {
            kind: sealed.seal(voice_key, f"{record_id}/{kind}", data)
            for kind, data in secret.items()
        }
        content = {
            "voice": voice,
            "receipt": token,
            "issuer": issuer,
            "sealed": {kind: hashlib.sha256(data).hexdigest() for kind, data in closed.items()},
            "key_sha256": hashlib.sha256(voice_key).hexdigest(),
        }
        with self.exclusive():
            create_file(sealed.key_path(self.home, record_id), voice_key)
            with self.transaction():
                before = self.voice(voice)
                if before is not None and before.revoked:
                    raise StoreError(f"The voice {voice} was revoked: enrol under a new name.")
                if before is not None:
                    self._drop_sealed(before.record_id)
                self.append("enrolled", record_id, content)
                self._database.executemany(
                    "INSERT INTO sealed VALUES (?, ?, ?)",
                    [(record_id, kind, data) for kind, data in closed.items()],
                )
            if before is not None:
                keys.destroy(sealed.key_path(self.home, before.record_id))

    def grant(self, voice: Voice, grant_id: str, details: dict, event: str = "granted") -> bytes:
        """Log a grant, inside a `transaction`, and give the prompt's codes that it allows.

        The one way to a voice's data: none without a row.

        Raises:
            StoreError: The codes or their key were changed or are missing.
        """
        codes = sealed.read_sealed(self._database, self.home, voice, "codes")
        self.append(event, grant_id, details)
        return codes

    def open_release(self, grant_id: str, destination: Path) -> None:
        """Note, inside a `transaction`, that a file is on its way out."""
        values = (grant_id, str(destination))
        self._database.execute("INSERT INTO journal VALUES (?, ?)", values)

    def release_with(self, grant_id: str, key: bytes, details: dict) -> None:
        """Log, inside a `transaction`, that a file leaves, with the key that opens it."""
        self.append("released", grant_id, details)
        self._database.execute("INSERT INTO sealed VALUES (?, ?, ?)", (grant_id, RELEASE_KEY, key))

    def release_key(self, grant_id: str) -> bytes:
        """The key of a released file on its way out, or nothing."""
        with self._readable():
            found = self._database.execute(
                "SELECT data FROM sealed WHERE record = ? AND kind = ?", (grant_id, RELEASE_KEY)
            ).fetchone()
        return found[0] if found else b""

    def close_release(self, grant_id: str) -> None:
        """Note, inside a `transaction`, that it has arrived, or does not go out."""
        self._database.execute("DELETE FROM journal WHERE grant_id = ?", (grant_id,))
        self._drop_sealed(grant_id)

    def journal(self) -> list[tuple[str, str]]:
        """Grant and destination of each file on its way out."""
        with self._readable():
            return self._database.execute("SELECT grant_id, destination FROM journal").fetchall()

    def forget(self, voice: str, details: dict) -> bool:
        """Revoke a voice and destroy its key and data; False if it was revoked before.

        The order is: the ledger says so (from here every process refuses), then the key dies.
        StoreError if there is no such voice.
        """
        with self.exclusive():
            with self.transaction():
                found = self.voice(voice)
                if found is None:
                    raise StoreError(f"No voice {voice!r} is enrolled here: see `sayso voices`.")
                if not found.revoked:
                    content = details | {"voice": voice, "receipt_id": found.record_id}
                    self.append("revoked", f"v-{secrets.token_hex(16)}", content)
                    self._drop_sealed(found.record_id)
            keys.destroy(sealed.key_path(self.home, found.record_id))
        return not found.revoked

    def _drop_sealed(self, record: str) -> None:
        self._database.execute("DELETE FROM sealed WHERE record = ?", (record,))

    @contextmanager
    def alone(self, what: str) -> Iterator[Path]:
        """No other process or thread does `what` with this store meanwhile; InputError if one does.

        It ends with the process, however that ends. Yields a name to keep a note at.
        """
        note = self.home / "work" / hashlib.sha256(what.encode()).hexdigest()[:32]
        lock = FileLock(note.with_suffix(".lock"), timeout=0)
        try:
            with self.exclusive():  # another process's recovery must not come between
                lock.acquire()
        except Timeout:
            raise InputError(f"{what} is under way already: wait for it, or end it.") from None
        try:
            yield note
        finally:
            with self.exclusive():
                lock.release()
                note.with_suffix(".lock").unlink(missing_ok=True)

    @contextmanager
    def passing(self, voice: str) -> Iterator[None]:
        """A voice that is enrolled inside ends with it: revoked by recovery if the process dies."""
        with self.alone(f"the voice {voice}") as note:
            create_file(note.with_suffix(".voice"), voice.encode())
            try:
                yield
            finally:
                if self.voice(voice) is not None:
                    self.forget(voice, {"reason": "it has said what it was enrolled for"})
                note.with_suffix(".voice").unlink(missing_ok=True)
