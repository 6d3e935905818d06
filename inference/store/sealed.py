"""A voice's data, sealed under a key of its own: destroying the key deletes them (AES-256-GCM).

NIST SP 800-38D. Each voice has one random key, a file; the sealed bytes lie in the database, and
the ledger has the hashes of both.
"""

import hashlib
import os
import re
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sayso.model.files import MOST_JSON, read_bounded

from ..errors import StoreError
from . import keys
from .database import FILE, RESTORE

RECORD_ID = re.compile(r"c-[A-Za-z0-9_-]{1,64}")
NONCE = 12  # bytes


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


def seal(key: bytes, name: str, data: bytes) -> bytes:
    """Nonce and ciphertext; `name` must be given again to open it."""
    nonce = os.urandom(NONCE)
    return nonce + AESGCM(key).encrypt(nonce, data, name.encode())


def unseal(key: bytes, name: str, data: bytes) -> bytes:
    """The inverse of `seal`; cryptography's InvalidTag if anything was changed."""
    return AESGCM(key).decrypt(data[:NONCE], data[NONCE:], name.encode())


def key_path(home: Path, record_id: str) -> Path:
    """Where the key of a record's data lies."""
    return home / "keys" / "voices" / f"{record_id}.key"


def read_key(home: Path, voice: Voice) -> bytes:
    """A voice's key; StoreError if it is missing, changed or open to others."""
    path = key_path(home, voice.record_id)
    try:
        data = read_bounded(path, MOST_JSON)
        keys.check_private(path)
    except OSError as error:
        raise StoreError(
            f"The voice key {path} cannot be read ({error.strerror}). {RESTORE}"
        ) from None
    if hashlib.sha256(data).hexdigest() != voice.key_sha256:
        raise StoreError(f"The voice key {path} was changed. {RESTORE}")
    return data


def read_sealed(database: sqlite3.Connection, home: Path, voice: Voice, kind: str) -> bytes:
    """Decrypt one kind of a voice's data; StoreError naming what was changed or is missing."""
    where = f"{FILE}: {kind} of the voice {voice.voice}"
    data = database.execute(
        "SELECT data FROM sealed WHERE record = ? AND kind = ?", (voice.record_id, kind)
    ).fetchone()
    if data is None:
        raise StoreError(f"{where} is missing. {RESTORE}")
    if hashlib.sha256(data[0]).hexdigest() != voice.sealed.get(kind):
        raise StoreError(f"{where} was changed. {RESTORE}")
    try:
        return unseal(read_key(home, voice), f"{voice.record_id}/{kind}", data[0])
    except InvalidTag:
        raise StoreError(f"{where} cannot be decrypted. {RESTORE}") from None
