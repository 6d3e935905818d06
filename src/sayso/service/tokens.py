"""Tokens: who may ask the service for what, and how much of it they have used.

A token is 256 random bits; the file keeps their SHA-256 and nothing that could be sent back. Its
name is the `user` of a receipt's scope: here, and only here, that name is proven.
"""

import hashlib
import hmac
import json
import os
import re
import secrets
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sayso.inference.consent.session import MAX_DAYS
from sayso.inference.store.book import default_home
from sayso.model.errors import InputError, SaysoError
from sayso.model.files import make_file

Role = Literal["admin", "reviewer", "speaker"]
ROLES: tuple[Role, ...] = ("admin", "reviewer", "speaker")
EVERY = "*"
SESSION = "session "  # before a session's id in the file of tokens; no voice's id has a space
MAX_NAME = 60  # characters, as of a name that can be read aloud
DAY, MINUTE = 86400.0, 60.0
BUSY_SECONDS = 10.0
SCHEMA = """
CREATE TABLE IF NOT EXISTS tokens (id TEXT PRIMARY KEY, hash TEXT NOT NULL, name TEXT NOT NULL,
  role TEXT NOT NULL, voices TEXT NOT NULL, created REAL NOT NULL, expires REAL NOT NULL,
  revoked REAL) STRICT;
CREATE TABLE IF NOT EXISTS own (name TEXT NOT NULL, thing TEXT NOT NULL,
  PRIMARY KEY (name, thing)) STRICT;
CREATE TABLE IF NOT EXISTS used (name TEXT NOT NULL, what TEXT NOT NULL, span INTEGER NOT NULL,
  amount REAL NOT NULL, PRIMARY KEY (name, what, span)) STRICT;
"""


class TokenError(SaysoError):
    """A token that is not good.

    Args:
        code: token-unknown, token-revoked or token-expired.
    """

    def __init__(self, code: str, message: str):
        super().__init__(message)
        self.code = code


class SpentError(SaysoError):
    """A token has used up what it may have for now.

    Args:
        code: limit-requests or limit-seconds.
        wait: Seconds until there is more.
    """

    def __init__(self, code: str, message: str, wait: float):
        super().__init__(message)
        self.code, self.wait = code, wait


@dataclass(frozen=True)
class Token:
    """One token, without its secret.

    Args:
        voices: Ids it may speak in and see; `EVERY` for all. A speaker's are their own.
        own: Voices enrolled, and sessions begun (behind `SESSION`), under its name.
        created, expires: Seconds since 1970.
        revoked: Likewise, or None.
    """

    id: str
    name: str
    role: Role
    voices: frozenset[str]
    created: float
    expires: float
    revoked: float | None = None
    own: frozenset[str] = frozenset()

    def owns(self, voice: str) -> bool:
        """Whether a voice is this person's own; an admin's are all."""
        mine = voice in self.own or (self.role == "speaker" and voice in self.voices)
        return mine or self.role == "admin"

    def began(self, session: str) -> bool:
        """Whether a consent's session was begun under its name: nobody finishes another's."""
        return f"{SESSION}{session}" in self.own

    def sees(self, voice: str) -> bool:
        """Whether it may be told of a voice and, if its role speaks at all, speak in it."""
        return self.owns(voice) or voice in self.voices or EVERY in self.voices


class Tokens:
    """The file of tokens in the service's folder; usable from any thread and process."""

    def __init__(self, folder: Path):
        """Open the file, made on first use; InputError if it cannot be used."""
        self.path = folder / "tokens.db"
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if folder.stat().st_mode & 0o077:
                raise InputError(f"{folder} may be read by other users: chmod 700 it.")
            make_file(self.path)
            with self._open() as database:
                database.executescript("PRAGMA journal_mode = WAL;" + SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise InputError(f"{self.path} cannot be used ({error}).") from None

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self.path, timeout=BUSY_SECONDS)) as database, database:
            yield database

    def create(self, name: str, role: Role, voices: tuple[str, ...] = (), days: int = 30) -> str:
        """A new token's secret, which is shown this once.

        Raises:
            InputError: A name that no consent could hold or that has a token, another role, a
                number of days out of range.
        """
        word = r"[^\W\d_][^\W_]*"
        if len(name) > MAX_NAME or not re.fullmatch(rf"{word}(?:[ .'-]+[^\W_]+)*\.?", name):
            raise InputError(f"{name[:MAX_NAME]!r}: a token's name is read aloud; give letters.")
        if role not in ROLES:
            raise InputError(f"The role {role!r}: give one of {', '.join(ROLES)}.")
        if not 1 <= days <= MAX_DAYS:
            raise InputError(f"{days} days: a token holds 1 to {MAX_DAYS} days.")
        if role == "speaker" and EVERY in voices:
            raise InputError("A speaker's token is for their own voices: name them.")
        if any(each.name.casefold() == name.casefold() and _holds(each) for each in self.all()):
            raise InputError(f"{name!r} has a token: revoke it first (sayso token list).")
        token_id, secret = secrets.token_hex(4), secrets.token_urlsafe(32)
        now = time.time()
        row = (token_id, _hash(secret), name, role, json.dumps(sorted(voices)), now)
        with self._open() as database:
            database.execute(
                "INSERT INTO tokens VALUES (?, ?, ?, ?, ?, ?, ?, NULL)", (*row, now + days * DAY)
            )
        return f"sayso-{token_id}-{secret}"

    def all(self) -> list[Token]:
        """Every token ever made, oldest first."""
        with self._open() as database:
            rows = database.execute("SELECT * FROM tokens ORDER BY created").fetchall()
            return [_token(row, database) for row in rows]

    def revoke(self, token_id: str) -> None:
        """End a token: from the next request on it is refused. InputError if there is none."""
        with self._open() as database:
            found = database.execute(
                "UPDATE tokens SET revoked = coalesce(revoked, ?) WHERE id = ?",
                (time.time(), token_id),
            )
        if not found.rowcount:
            raise InputError(f"There is no token {token_id[:20]!r}: see sayso token list.")

    def check(self, shown: str) -> Token:
        """The token that was shown; TokenError if it is not good (now)."""
        match = re.fullmatch(r"sayso-([0-9a-f]{8})-([\w-]{43})", shown, re.ASCII)
        token_id, secret = match.groups() if match else ("", "")
        with self._open() as database:
            row = database.execute("SELECT * FROM tokens WHERE id = ?", (token_id,)).fetchone()
            kept = row[1] if row else _hash("")
            same = hmac.compare_digest(kept.encode(), _hash(secret).encode())
            return _good(_token(row, database) if row and same and secret else None)

    def check_still(self, token: Token) -> None:
        """TokenError if a token that was good has ended since."""
        with self._open() as database:
            row = database.execute("SELECT * FROM tokens WHERE id = ?", (token.id,)).fetchone()
            _good(_token(row, database) if row else None)

    def give(self, name: str, thing: str) -> None:
        """Note that a voice, or a session behind `SESSION`, is `name`'s own."""
        with self._open() as database:
            database.execute("INSERT OR IGNORE INTO own VALUES (?, ?)", (name, thing))

    def count_request(self, token: Token, most: int) -> None:
        """Count one request of this minute; SpentError past `most`."""
        now = time.time()
        if self._use(token.name, "requests", int(now // MINUTE), 1.0, most) is None:
            message = f"More than {most} requests in a minute: wait."
            raise SpentError("limit-requests", message, MINUTE - now % MINUTE)

    def spend_seconds(self, token: Token, seconds: float, most: float, samples: int = 1) -> None:
        """Count seconds of audio of this day (UTC), of each sample; negative ones are given back.

        SpentError past `most`.
        """
        now, needed = time.time(), seconds * samples
        if self._use(token.name, "seconds", int(now // DAY), needed, most) is None:
            each = f" ({samples} samples, each counts)" if samples > 1 else ""
            message = f"This needs about {needed:.0f} s of audio{each}; not so much of {most:g} s "
            message += "a day is left: wait for tomorrow (UTC), say less, or have fewer samples."
            raise SpentError("limit-seconds", message, DAY - now % DAY)

    def _use(self, name: str, what: str, span: int, amount: float, most: float) -> float | None:
        """The new sum of a span of time, or None (and nothing counted) if it were beyond `most`."""
        with self._open() as database:
            database.execute("BEGIN IMMEDIATE")
            database.execute("DELETE FROM used WHERE what = ? AND span < ?", (what, span))
            key = (name, what, span)
            asked = "SELECT amount FROM used WHERE name = ? AND what = ? AND span = ?"
            before = database.execute(asked, key).fetchone()
            total = max(0.0, (before[0] if before else 0.0) + amount)
            if total > most and amount > 0:
                return None
            database.execute("INSERT OR REPLACE INTO used VALUES (?, ?, ?, ?)", (*key, total))
        return total


def service_folder(home: Path | None = None) -> Path:
    """Where tokens and files on their way out lie: beside the store, SAYSO_SERVICE if set."""
    home = home or default_home()
    named = os.environ.get("SAYSO_SERVICE")
    return Path(named) if named else home.with_name(home.name + "-service")


def _good(token: Token | None) -> Token:
    if token is None:
        raise TokenError("token-unknown", "This token is not known here.")
    if token.revoked is not None:
        raise TokenError("token-revoked", "This token was revoked: ask for another.")
    if time.time() >= token.expires:
        raise TokenError("token-expired", "This token's time is over: ask for another.")
    return token


def _holds(token: Token) -> bool:
    return token.revoked is None and time.time() < token.expires


def _hash(secret: str) -> str:
    """Of 256 random bits: nobody guesses them, so one round is enough."""
    return hashlib.sha256(secret.encode()).hexdigest()


def _token(row: tuple, database: sqlite3.Connection) -> Token:
    token_id, _, name, role, voices, created, expires, revoked = row
    own = database.execute("SELECT thing FROM own WHERE name = ?", (name,)).fetchall()
    given = frozenset(json.loads(voices))
    return Token(
        token_id, name, role, given, created, expires, revoked, frozenset(each for (each,) in own)
    )
