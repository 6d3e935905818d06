"""The chain of a ledger: its rows are checked one after another, and remembered by their hashes.

Hash chain and growth proof follow the simplest form of the idea of RFC 6962: an old head names a
row. A `Chain` goes on from where it stood, so that what was checked once need not be read again;
`Index` keeps where each event stands and what each receipt has used.
"""

import json
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from ..errors import StoreError
from . import keys
from .ledger import KEY_EVENTS, START, Head, Row, commit_to, read_head

Opened = tuple[Row, tuple[str, str] | None]  # a row, and its salt and details where known
Rows = TypeVar("Rows", bound=Opened)


class Chain:
    """A ledger as far as it was checked.

    Args:
        name: What to call the ledger in an error.
        signatures: Check every row's signed head, not only that of the last of each reading.

    Attributes:
        hashes: Of each row.
        public: Every key that the ledger brought in, by its kid.
        spans: From when to when each key signed; the last one's end is "".
        signers: Kids that signed a row; the key of a last rotation has not yet.
        signed_by: The kid that signed the last row that was followed.
    """

    def __init__(self, name: str, signatures: bool = False):
        self.name = name
        self.signatures = signatures
        self.hashes: list[str] = []
        self.public: dict[str, Ed25519PublicKey] = {}
        self.spans: dict[str, tuple[str, str]] = {}
        self.signers: set[str] = set()
        self.signed_by = ""
        self._signer = ""
        self._head: Head | None = None

    @property
    def head(self) -> Head:
        """The last row's head, checked; StoreError if there is no row."""
        if self._head is None:
            raise StoreError(f"{self.name}: the ledger is empty: restore it from a backup.")
        return self._head

    @property
    def signer(self) -> str:
        """The kid of the key that signs the next row."""
        return self._signer

    def follow(self, rows: Iterable[Rows]) -> Iterator[Rows]:
        """Check the rows that come next, and hand each on once it is.

        Args:
            rows: In order; an opening may be None except for key events.
        Raises:
            StoreError: Naming the first row that was changed, removed, reordered or not signed.
        """
        last = None
        for each in rows:
            row, opening = each
            where = f"{self.name}: row {len(self.hashes) + 1}"
            if row.seq != len(self.hashes) + 1:
                raise StoreError(f"{where} is missing (found number {row.seq}): rows were removed.")
            if row.previous != (self.hashes[-1] if self.hashes else START):
                raise StoreError(f"{where} does not follow the row before it: rows were reordered.")
            if row.digest() != row.hash:
                raise StoreError(f"{where} was changed: its hash does not fit.")
            if opening is not None and commit_to(*opening) != row.commitment:
                raise StoreError(f"{where} was changed: its details do not fit the commitment.")
            if (row.event == KEY_EVENTS[0]) != (not self.hashes):
                raise StoreError(f"{where} stands where it cannot: a ledger is created once.")
            self.hashes.append(row.hash)
            by = self._signer  # a rotation is signed by the key that leaves, row 1 by its own
            if row.event in KEY_EVENTS:
                self._bring_in(row, opening, where)
            last = (row, by or self._signer, where)
            self.signed_by = last[1]
            self.signers.add(self.signed_by)
            if self.signatures:
                self._head = self._signed_head(*last)
            yield each
        if last is not None:
            self._head = self._signed_head(*last)

    def check_growth(self, old: str, name: str) -> Head:
        """Show that the ledger only grew since the head `old` was signed; StoreError if not."""
        head = read_head(old, self.public, f"The head held against {name}")
        if head.ledger != self.hashes[0]:
            raise StoreError(
                f"The old head is of another ledger ({head.ledger[:12]}), not of {name}."
            )
        if head.size > len(self.hashes):
            raise StoreError(
                f"{name}: {head.size - len(self.hashes)} of {head.size} rows were removed from "
                "the end."
            )
        if self.hashes[head.size - 1] != head.hash:
            raise StoreError(f"{name}: rows up to {head.size} were rewritten since the old head.")
        return head

    def _bring_in(self, row: Row, opening: tuple[str, str] | None, where: str) -> None:
        if opening is None:
            raise StoreError(f"{where} brings in a key but does not show it.")
        try:
            pem = json.loads(opening[1])["public"]
        except (ValueError, TypeError, KeyError, RecursionError):
            raise StoreError(f"{where} brings in a key but does not show it.") from None
        key = keys.load_public(pem, f"{where}, public key")
        if self._signer:
            self.spans[self._signer] = (self.spans[self._signer][0], row.time)
        self._signer = keys.thumbprint(key)
        self.public[self._signer] = key
        self.spans[self._signer] = (row.time, "")

    def _signed_head(self, row: Row, signer: str, where: str) -> Head:
        head = read_head(row.head, {signer: self.public[signer]}, where)
        if head != Head(self.hashes[0], row.seq, row.hash, row.time):
            raise StoreError(f"{where}: its signed head belongs to another row.")
        return head


class Index:
    """Where each event of a checked ledger stands, and what each receipt has used."""

    def __init__(self) -> None:
        self._rows = 0
        self._places: dict[tuple[str, str], array] = defaultdict(lambda: array("L"))
        self._ids: dict[str, array] = defaultdict(lambda: array("L"))
        self._used: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        self._open: dict[str, tuple[str, int]] = {}

    def add(self, row: Row, content: dict) -> None:
        """Take in a row with its details."""
        self._rows += 1
        self._places[row.event, ""].append(row.seq)
        if voice := str(content.get("voice", "")):
            self._places[row.event, voice].append(row.seq)
            self._places["", voice].append(row.seq)
        self._ids[row.id].append(row.seq)
        if row.event == "granted":
            receipt, characters = content["receipt_id"], content["characters"]
            self._open[row.id] = (receipt, characters)
            self._count(receipt, 1, characters)
        elif row.event == "released":
            self._open.pop(row.id, None)
        elif row.event == "given-back" and row.id in self._open:
            receipt, characters = self._open.pop(row.id)
            self._count(receipt, -1, -characters)

    def find(self, event: str, id: str, voice: str) -> Sequence[int]:
        """Numbers of the rows that may be of this event, id and voice (or any), ascending."""
        if id:
            return self._ids.get(id, ())
        if event or voice:
            return self._places.get((event, voice), ())
        return range(1, self._rows + 1)

    def used(self, receipt_id: str) -> tuple[int, int]:
        """Uses and characters granted under a receipt, but those given back."""
        uses, characters = self._used.get(receipt_id, (0, 0))
        return uses, characters

    def _count(self, receipt: str, uses: int, characters: int) -> None:
        total = self._used[receipt]
        total[0] += uses
        total[1] += characters
