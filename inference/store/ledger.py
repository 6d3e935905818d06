"""The ledger: append-only rows in SQLite, hash-chained, signed, holding salted commitments only.

Every event is two rows. `ledger` is public: number, time, kind, id, a commitment to the details,
the hash of the row before, its own hash, and a signed head (Ed25519). `details` is private: the
salt and the details themselves (voice, purpose, file ...), as canonical JSON. commitment =
SHA-256(salt + details), so the public half tells nothing, and the private half cannot be changed
without a trace. Everything the gate believes (keys, voices, revocations, quotas, sessions) is read
from these two tables. Hash chain and growth proof follow the simplest form of RFC 6962's idea: an
old head names a row.
"""

import hashlib
import hmac
import json
import secrets
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ..errors import StoreError
from . import keys

START = "0" * 64  # what the first row names as the row before it
HEAD = "sayso-head"
EXPORT = {"format": "sayso-ledger/1"}
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
class Chain:
    """A ledger that was checked: the hash of each row, its public keys by kid, its last head."""

    hashes: list[str]
    public: dict[str, Ed25519PublicKey]
    head: Head
    signers: frozenset[str]  # kids that signed a row; the key of a last rotation has not yet


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
        return Head(**json.loads(keys.verify(token, key, HEAD)))
    except (keys.SignatureError, ValueError, TypeError) as error:
        raise StoreError(f"{name}: the signed head is not good: {error}.") from None


def entries(
    database: sqlite3.Connection, event: str = "", id: str = "", voice: str = ""
) -> list[Entry]:
    """Events with their details, oldest first, of one kind, one id and one voice (or any).

    The rows are read exactly as the check reads them, from first to last and without an index: what
    was checked is what is believed.
    """
    return [
        Entry(row[0], row[1], row[2], row[3], json.loads(content))
        for row, (_, content), of in _read(database)
        if event in ("", row[2]) and id in ("", row[3]) and voice in ("", of)
    ]


def last_key(database: sqlite3.Connection) -> str:
    """The kid that signs now: the last one that a key event brought in."""
    found = [key for event in KEY_EVENTS for key in entries(database, event)]
    return str(max(found, key=lambda entry: entry.seq).content["kid"])


def check_rows(
    rows: Iterable[tuple[Row, tuple[str, str] | None]], name: str, signatures: bool
) -> Chain:
    """Walk rows with their openings (salt, details) and check every link.

    Args:
        rows: In order; an opening may be None except for key events.
        name: What to call the ledger in an error.
        signatures: Check every row's signed head, not only the last.
    Raises:
        StoreError: Naming the first row that was changed, removed, reordered or not signed.
    """
    hashes: list[str] = []
    public: dict[str, Ed25519PublicKey] = {}
    signer, last, signers = "", None, set()
    for row, opening in rows:
        where = f"{name}: row {len(hashes) + 1}"
        if row.seq != len(hashes) + 1:
            raise StoreError(f"{where} is missing (found number {row.seq}): rows were removed.")
        if row.previous != (hashes[-1] if hashes else START):
            raise StoreError(f"{where} does not follow the row before it: rows were reordered.")
        if row.digest() != row.hash:
            raise StoreError(f"{where} was changed: its hash does not fit.")
        if opening is not None and not hmac.compare_digest(commit_to(*opening), row.commitment):
            raise StoreError(f"{where} was changed: its details do not fit the commitment.")
        if (row.event == KEY_EVENTS[0]) != (not hashes):
            raise StoreError(f"{where} stands where it cannot: a ledger is created once.")
        hashes.append(row.hash)
        row_signer = signer  # a rotation is signed by the key that leaves, the first row by its own
        if row.event in KEY_EVENTS:
            if opening is None:
                raise StoreError(f"{where} brings in a key but does not show it.")
            key = keys.load_public(json.loads(opening[1])["public"], f"{where}, public key")
            signer = keys.thumbprint(key)
            public[signer] = key
        last = (row, row_signer or signer, where)
        signers.add(last[1])
        if signatures:
            _check_head(*last, hashes, public)
    if last is None:
        raise StoreError(f"{name}: the ledger is empty: restore it from a backup.")
    head = _check_head(*last, hashes, public)
    return Chain(hashes, public, head, frozenset(signers))


def _check_head(
    row: Row, signer: str, where: str, hashes: list[str], public: dict[str, Ed25519PublicKey]
) -> Head:
    head = read_head(row.head, {signer: public[signer]}, where)
    if head != Head(hashes[0], row.seq, row.hash, row.time):
        raise StoreError(f"{where}: its signed head belongs to another row.")
    return head


def check_growth(old: str, chain: Chain, name: str) -> Head:
    """Show that the ledger only grew since the head `old` was signed; StoreError if it did not."""
    head, hashes = read_head(old, chain.public, f"The head held against {name}"), chain.hashes
    if head.ledger != hashes[0]:
        raise StoreError(f"The old head is of another ledger ({head.ledger[:12]}), not of {name}.")
    if head.size > len(hashes):
        raise StoreError(
            f"{name}: {head.size - len(hashes)} of {head.size} rows were removed from the end."
        )
    if hashes[head.size - 1] != head.hash:
        raise StoreError(f"{name}: rows up to {head.size} were rewritten since the old head.")
    return head


def read_rows(database: sqlite3.Connection) -> Iterator[tuple[Row, tuple[str, str]]]:
    """All rows of a store's ledger with their openings; StoreError when the two halves differ."""
    for fields, opening, voice in _read(database):
        row = Row(*fields)
        try:
            same = str(json.loads(opening[1]).get("voice", "")) == voice
            bytes.fromhex(opening[0])
        except (ValueError, AttributeError):
            same = False
        if not same:
            raise StoreError(f"row {row.seq}: its details were changed.")
        yield row, opening
    extra = database.execute("SELECT count(*) FROM details").fetchone()[0]
    if extra != database.execute("SELECT count(*) FROM ledger").fetchone()[0]:
        raise StoreError("there are details of no row.")


def _read(database: sqlite3.Connection) -> Iterator[tuple[list, tuple[str, str], str]]:
    """The fields of a `Row`, (salt, details), voice, in order of their numbers."""
    found = database.execute(
        "SELECT l.seq, l.time, l.event, l.id, l.commitment, l.previous, l.hash, l.head, "
        "d.salt, d.content, d.voice FROM ledger l LEFT JOIN details d ON d.seq = l.seq "
        "ORDER BY l.seq"
    )
    for *fields, salt, content, voice in found:
        if content is None:
            raise StoreError(f"row {fields[0]} has lost its details.")
        yield fields, (salt, content), voice


def export(database: sqlite3.Connection, path: Path) -> int:
    """Write the public half to `path`, one JSON object a line; returns the number of rows.

    The file holds no voice, name, purpose, text or file path: of the details only public keys are
    shown.
    """
    lines = [keys.canonical(EXPORT)]
    for row, opening in read_rows(database):
        shown = {"salt": opening[0], "content": opening[1]} if row.event in KEY_EVENTS else None
        lines.append(keys.canonical(vars(row) | ({"opening": shown} if shown else {})))
    try:
        path.write_bytes(b"\n".join(lines) + b"\n")
    except OSError as error:
        raise StoreError(f"{path} cannot be written ({error.strerror}).") from None
    return len(lines) - 1


def verify_export(path: Path, public: str | None = None, old: str | None = None) -> Head:
    """Check an exported ledger with nothing but the file: chain, signatures, growth.

    Args:
        public: PEM of the ledger's keys, one or more, of which one must have signed a row: that a
            row names a key proves nothing, a forger can name it too. Without it the file vouches
            only for itself.
        old: An earlier signed head (compact JWS): the ledger must have only grown since.
    Returns:
        The last head. Raises StoreError naming the row that is wrong.
    """
    name = path.name
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise StoreError(f"{path} cannot be read ({error.strerror}).") from None
    if lines[0] != keys.canonical(EXPORT) or lines[-1] != b"":
        raise StoreError(f"{name} is not a whole ledger export.")
    chain = check_rows(_parse(lines[1:-1], name), name, signatures=True)
    if public is not None and not chain.signers & set(keys.load_publics(public)):
        raise StoreError(
            f"{name} was not signed by the given public key. (If the key is fresh, it has signed "
            "no row yet: give the keys before it, too.)"
        )
    if old is not None:
        check_growth(old, chain, name)
    return chain.head


def _parse(lines: list[bytes], name: str) -> Iterator[tuple[Row, tuple[str, str] | None]]:
    for number, line in enumerate(lines, 1):
        try:
            fields = json.loads(line)
            if keys.canonical(fields) != line:
                raise ValueError
            opening = fields.pop("opening", None)
            row = Row(**fields)
            shown = (opening["salt"], opening["content"]) if opening else None
            if shown:
                bytes.fromhex(shown[0])
        except (ValueError, TypeError, KeyError, AttributeError):
            raise StoreError(f"{name}: row {number} cannot be read: it was changed.") from None
        yield row, shown
