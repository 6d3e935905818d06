"""The public half of a ledger as a file, and its check by whoever has nothing but that file."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path

from sayso.model.files import hand_out, read_regular

from ..errors import StoreError
from . import keys
from .chain import Chain, Opened
from .checking import verify
from .ledger import KEY_EVENTS, Head, Row
from .store import Store

MOST_BYTES = 2**31
FORMAT = {"format": "sayso-ledger/1"}
KINDS = {field.name: int if field.name == "seq" else str for field in fields(Row)}


def export(store: Store, path: Path) -> int:
    """Write the public half to `path`, one JSON object a line; returns the number of rows.

    The file holds no voice, name, purpose, text or file path: of the details only public keys are
    shown.

    Raises:
        StoreError: The store is not whole.
        InputError: `path` lies in the store, or cannot be written.
    """
    verify(store)
    return write_export(store.rows(), path, store.home)


def write_export(rows: Iterable[tuple[Row, tuple[str, str]]], path: Path, home: Path) -> int:
    """Write the public half of rows as they are; returns their number. InputError as `export`."""
    lines = [keys.canonical(FORMAT)]
    for row, opening in rows:
        shown = {"salt": opening[0], "content": opening[1]} if row.event in KEY_EVENTS else None
        lines.append(keys.canonical(vars(row) | ({"opening": shown} if shown else {})))
    hand_out(home, path, b"\n".join(lines) + b"\n")
    return len(lines) - 1


@dataclass(frozen=True)
class Checked:
    """What an exported ledger proves.

    Attributes:
        signers: Kids of the given keys that signed rows of it; none if no key was given.
    """

    head: Head
    signers: frozenset[str]


def verify_export(path: Path, public: str | None = None, old: str | None = None) -> Checked:
    """Check an exported ledger with nothing but the file: chain, signatures, growth.

    Args:
        public: PEM of the ledger's keys, one or more, of which one must have signed a row: that a
            row names a key proves nothing, a forger can name it too. Where their times are given,
            they must have been in use then. Without it the file vouches only for itself.
        old: An earlier signed head (compact JWS): the ledger must have only grown since.
    Raises:
        StoreError: Naming the row that is wrong.
        InputError: `path` cannot be read.
    """
    name = path.name
    lines = read_regular(path, MOST_BYTES).split(b"\n")
    if lines[0] != keys.canonical(FORMAT) or lines[-1] != b"":
        raise StoreError(f"{name} is not a whole ledger export.")
    known = {} if public is None else keys.load_publics(public)
    chain = Chain(name, signatures=True)
    latest = ""  # of the rows signed by keys that were not given: a later key vouches for them
    for row, _ in chain.follow(_parse(lines[1:-1], name)):
        by = known.get(chain.signed_by)
        if by is None:
            latest = max(latest, row.time)
        elif not keys.within(row.time, by.span) or (by.span[1] and latest > by.span[1]):
            raise StoreError(f"{name}: row {row.seq} was signed by a key not in use then.")
        elif by.span[1] and chain.signer not in known:  # else a stolen key goes on as a fresh one
            raise StoreError(
                f"{name}: row {row.seq}, by a key that has left, goes on with one that was not "
                "given: give every key of `sayso receipt key`."
            )
    if public is not None and not chain.signers & set(known):
        raise StoreError(
            f"{name} was not signed by the given public key. (If the key is fresh, it has signed "
            "no row yet: give the keys before it, too.)"
        )
    if old is not None:
        chain.check_growth(old, name)
    return Checked(chain.head, frozenset(chain.signers & set(known)))


def _parse(lines: list[bytes], name: str) -> Iterator[Opened]:
    for number, line in enumerate(lines, 1):
        try:
            found = json.loads(line)
            if keys.canonical(found) != line:
                raise ValueError
            opens, opening = "opening" in found, found.pop("opening", {})
            row, shown = Row(**found), None
            if {name: type(value) for name, value in vars(row).items()} != KINDS:
                raise ValueError
            if (row.event in KEY_EVENTS) != opens:
                raise ValueError
            if opens:
                shown = (opening["salt"], opening["content"])
                # One spelling only: hex reads capitals, and a dictionary more than it is asked for.
                spelt = bytes.fromhex(shown[0]).hex() == shown[0] and isinstance(shown[1], str)
                if not spelt or len(opening) != 2:
                    raise ValueError
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise StoreError(f"{name}: row {number} cannot be read: it was changed.") from None
        yield row, shown
