"""The ledger's rows: append-only in SQLite, hash-chained, signed, holding salted commitments only.

Every event is two rows. `ledger` is public: number, time, kind, id, a commitment to the details,
the hash of the row before, its own hash, and a signed head (Ed25519). `details` is private: the
salt and the details themselves (voice, purpose, file ...), as canonical JSON. commitment =
SHA-256(salt + details), so the public half tells nothing, and the private half cannot be changed
without a trace. Everything the gate believes (keys, voices, revocations, quotas, sessions) is read
from these two tables, and `chain` checks them.
"""

import hashlib
import json
import secrets
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ..errors import StoreError
from . import keys

START = "0" * 64  # what the first row names as the row before it
HEAD = "sayso-head"
KEY_EVENTS = ("store-created", "key-rotated")  # public details: they hold public keys
SCHEMA = (
    "CREATE TABLE ledger (seq INTEGER PRIMARY KEY, time TEXT NOT NULL, event TEXT NOT NULL, "
    "id TEXT NOT NULL, commitment TEXT NOT NULL, previous TEXT NOT NULL, hash TEXT NOT NULL, "
    "head TEXT NOT NULL) STRICT",
    "CREATE TABLE details (seq INTEGER PRIMARY KEY REFERENCES ledger, voice TEXT NOT NULL, "
    "salt TEXT NOT NULL, content TEXT NOT NULL) STRICT",
    *(
        f"CREATE TRIGGER {table}_no_{verb} BEFORE {verb} ON {table} "
        "BEGIN SELECT RAISE(ABORT, 'append-only'); END"
        for table in ("ledger", "details")
        for verb in ("UPDATE", "DELETE")
    ),
)


@dataclass(frozen=True)
class Row:
    """One public row."""

    seq: int
    time: str
    event: str
    id: str
    commitment: str
    previous: str
    hash: str
    head: str

    def digest(self) -> str:
        """What `hash` must be: SHA-256 over the other fields but the head, in canonical JSON."""
        fields = [self.seq, self.time, self.event, self.id, self.commitment, self.previous]
        return hashlib.sha256(keys.canonical(fields)).hexdigest()


@dataclass(frozen=True)
class Head:
    """What a signed head says: this ledger, so many rows, the last of them with this hash."""

    ledger: str
    size: int
    hash: str
    time: str


@dataclass(frozen=True)
class Entry:
    """One event with its private details."""

    seq: int
    time: str
    event: str
    id: str
    content: dict


def stamp(seconds: float) -> str:
    """Seconds since 1970 as UTC text to the millisecond; sorts as time does."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def seconds(text: str) -> float:
    """The inverse of `stamp`."""
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC).timestamp()


def commit_to(salt: str, content: str) -> str:
    """The salted commitment to some details: hiding (32 random bytes of salt) and binding."""
    return hashlib.sha256(bytes.fromhex(salt) + content.encode()).hexdigest()


def append(
    database: sqlite3.Connection,
    key: Ed25519PrivateKey,
    event: str,
    id: str,
    content: dict,
    now: float,
) -> Head:
    """Add one event; the caller holds the transaction.

    Args:
        content: Details as JSON values; `content["voice"]` (if any) makes it findable by voice.
        now: Seconds since 1970.
    """
    last = database.execute("SELECT seq, hash FROM ledger ORDER BY seq DESC LIMIT 1").fetchone()
    seq, previous = (last[0] + 1, last[1]) if last else (1, START)
    salt, text = secrets.token_hex(32), keys.canonical(content).decode()
    unsigned = Row(seq, stamp(now), event, id, commit_to(salt, text), previous, "", "")
    digest = unsigned.digest()
    genesis = digest if seq == 1 else ledger_id(database)
    head = Head(genesis, seq, digest, stamp(now))
    database.execute(
        "INSERT INTO ledger VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            seq,
            unsigned.time,
            event,
            id,
            unsigned.commitment,
            previous,
            digest,
            sign_head(head, key),
        ),
    )
    database.execute(
        "INSERT INTO details VALUES (?, ?, ?, ?)", (seq, str(content.get("voice", "")), salt, text)
    )
    return head


def ledger_id(database: sqlite3.Connection) -> str:
    """A ledger's name: the hash of its first row."""
    return database.execute("SELECT hash FROM ledger WHERE seq = 1").fetchone()[0]


def sign_head(head: Head, key: Ed25519PrivateKey) -> str:
    """A head as a compact JWS."""
    return keys.sign(keys.canonical(vars(head)), key, HEAD)


def read_head(token: str, public: dict[str, Ed25519PublicKey], name: str) -> Head:
    """The head in a token signed by one of `public` (kid to key); StoreError naming `name`."""
    try:
        key = public.get(keys.key_id(token))
        if key is None:
            raise keys.SignatureError("its key is not one of this ledger's")
        head = Head(**json.loads(keys.verify(token, key, HEAD)))
        if type(head.size) is not int or head.size < 1:
            raise ValueError(f"its size is {head.size!r}")
        return head
    except (keys.SignatureError, ValueError, TypeError, RecursionError) as error:
        raise StoreError(f"{name}: the signed head is not good: {error}.") from None


def read_rows(
    database: sqlite3.Connection, first: int = 1, last: int = 2**62
) -> Iterator[tuple[Row, tuple[str, str]]]:
    """Rows `first` to `last` with their openings (salt, details), in order of their numbers.

    Raises:
        StoreError: The two halves of a row differ, or one is missing.
    """
    found = database.execute(
        "SELECT l.seq, l.time, l.event, l.id, l.commitment, l.previous, l.hash, l.head, "
        "d.salt, d.content, d.voice FROM ledger l LEFT JOIN details d ON d.seq = l.seq "
        "WHERE l.seq BETWEEN ? AND ? ORDER BY l.seq",
        (first, last),
    )
    for *fields, salt, content, voice in found:
        row = Row(*fields)
        if content is None:
            raise StoreError(f"row {row.seq} has lost its details.")
        try:
            same = str(json.loads(content).get("voice", "")) == voice
            same = same and bytes.fromhex(salt).hex() == salt  # one spelling, not merely readable
        except (ValueError, AttributeError, TypeError):
            same = False
        if not same:
            raise StoreError(f"row {row.seq}: its details were changed.")
        yield row, (salt, content)


def check_ends(database: sqlite3.Connection, rows: int) -> None:
    """StoreError unless both halves have rows 1 to `rows` and none before or behind them."""
    for table in ("ledger", "details"):
        # Two questions: SQLite answers each from the index, and both at once by reading all rows.
        asked = f"SELECT (SELECT min(seq) FROM {table}), (SELECT max(seq) FROM {table})"
        ends = database.execute(asked).fetchone()
        if rows and ends != (1, rows):
            what = "rows were removed" if (ends[1] or 0) < rows else "there are details of no row"
            raise StoreError(f"{what} ({table} {ends[0]} to {ends[1]}, expected 1 to {rows}).")
