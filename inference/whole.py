"""A long text as one file with chapters, made of the parts that have left: see `Gate.bind`.

Each part has its marks; what is looked for in the finished file are those, and what is signed is
the file.
"""

import hashlib
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

import torch
from torch import Tensor

from sayso.model.audio import wav_header
from sayso.model.chapters import Chapter, encode_chapters
from sayso.model.decoding import first_that_reads
from sayso.model.errors import InputError
from sayso.model.files import open_regular
from sayso.model.text.book import parts_of

from .errors import MarkError, RefusedError
from .finishing import BLOCK, Marked, Sent
from .nameless import held
from .permission import Grant, unusable
from .provenance.c2pa import BESIDE, CA, check_manifest, sign_audio
from .store.store import Store
from .watermark.ensemble import Marks

PIECE = 60.0
"""Seconds in which the marks are looked for at once."""


class Bound(NamedTuple):
    """A part that goes into the whole."""

    number: int
    """Of the part."""
    path: Path
    """Its WAV, as it left."""
    title: str
    """Of its chapter; parts of one title that follow each other are one chapter."""


def finish_whole(
    store: Store,
    grant: Grant,
    parts: Sequence[Bound],
    name: str,
    card_hash: str,
    marks: Marks,
    ca: CA,
) -> Marked:
    """All parts in one file, their marks found again, signed; in memory, as it is compressed.

    What lies on the disk meanwhile has no name: whoever kills the process finds nothing.

    Args:
        grant: Of the text's part 0, `long_grants.grant_part`.
        name: The file's: .m4b or .ogg.

    Raises:
        RefusedError: grant-unknown, grant-used, grant-expired, voice-revoked, receipt-expired.
            audio-unmarked: a file is not what left under this text's grant, or the files are not
            all of its parts in their order.
        MarkError: A mark was not found in the result, or it cannot be signed.
        InputError: A file cannot be read, or ffmpeg fails.
    """
    suffix, left = Path(name).suffix.lower(), _left(store, grant)
    if not parts or [part.number for part in parts] != [
        each.number for each in parts_of(grant.text)
    ]:
        raise RefusedError(
            "audio-unmarked", "These are not the parts of this text, all and in order."
        )
    rate, folder = _rate(parts[0].path), store.home / "work"
    sent = Sent(folder, wav_header(rate))
    chapters, marked = list[Chapter](), list[tuple[str, int]]()
    for part in parts:
        ledger_id, digest = left.get(part.number, ("", ""))
        start = sent.samples
        if _append(part.path, sent) != digest:
            raise RefusedError(
                "audio-unmarked", f"{part.path} is not what left under this text's grant."
            )
        if chapters and chapters[-1].title == part.title:
            start = chapters.pop().start
        chapters.append(Chapter(part.title, start, sent.samples))
        marked.append((ledger_id, sent.samples))
    sent.file.seek(len(wav_header(rate)))
    plain = encode_chapters(sent.file, rate, chapters, suffix, folder)
    sound = marks.fingerprint(sent.blocks(), rate)
    signed, manifest = sign_audio(plain, suffix, ca, grant.id, card_hash, name, sound)
    score = _score(held(folder, signed), Path(name), rate, marked, marks)
    beside = manifest if suffix in BESIDE else None
    stated = check_manifest(io.BytesIO(signed), suffix, beside, ca)
    if stated.state != "trusted" or stated.ledger_id != grant.id:
        raise MarkError(f"The whole's manifest is {stated.state} {list(stated.reasons)}")
    return Marked(grant.id, signed, manifest, sound, score)


def _left(store: Store, grant: Grant) -> dict[int, tuple[str, str]]:
    """Ledger id and SHA-256 of each part that left under the text's grant, by number."""
    with store.transaction():
        store.check()
        refused = unusable(store, grant)
    if refused is not None:
        raise refused
    rows = store.entries("part", voice=grant.voice)
    own = [row.content for row in rows if row.id == grant.id and row.content["number"] == 0]
    if not own:
        raise RefusedError("grant-unknown", f"The grant {grant.id!r} is not one of a whole text.")
    whole = own[0]["of"]
    return {
        row.content["number"]: (row.id, gone.content["sha256"])
        for row in rows
        if row.content["of"] == whole
        for gone in store.entries("released", row.id)
    }


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        with open_regular(path) as file:
            yield file
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}).") from None


def _rate(path: Path) -> int:
    with _opened(path) as file:
        return int.from_bytes(file.read(len(wav_header(0)))[24:28], "little")


def _append(path: Path, sent: Sent) -> str:
    """Put the samples of a WAV behind the others: its SHA-256, as if it had their rate."""
    header = wav_header(sent.sample_rate)
    digest = hashlib.sha256(header)
    with _opened(path) as file:
        if file.read(len(header)) != header:
            return ""
        while data := file.read(2 * BLOCK):
            digest.update(data)
            sent.add(data)
    return digest.hexdigest()


def _score(
    signed: BinaryIO, name: Path, rate: int, parts: Sequence[tuple[str, int]], marks: Marks
) -> float:
    """The lowest score of the marks in any minute of a file; MarkError where one is missing.

    Args:
        parts: Ledger id of each, and at which sample of the whole it ends.
    """
    cuts, start = list[tuple[str, int]](), 0
    for ledger_id, stop in parts:
        pieces = max(1, round((stop - start) / rate / PIECE))
        cuts += [(ledger_id, start + (stop - start) * n // pieces) for n in range(1, pieces + 1)]
        start = stop
    decoded = first_that_reads(
        lambda sound: (sound.rate, sound.blocks()), name, 0.0, start / rate + 1, signed
    )
    found = _cut(decoded[1], [stop * decoded[0] // rate for _, stop in cuts])
    scores = [
        marks.demand(audio, decoded[0], ledger_id)
        for audio, (ledger_id, _) in zip(found, cuts, strict=True)
    ]
    return min(scores)


def _cut(blocks: Iterator, stops: Sequence[int]) -> Iterator[Tensor]:
    """A sound in blocks (samples, 1) as stretches (samples,) that end at `stops`, or with it."""
    held, start = torch.zeros(0), 0
    for stop in stops:
        while len(held) < stop - start and (block := next(blocks, None)) is not None:
            held = torch.cat([held, torch.from_numpy(block[:, 0].copy())])
        yield held[: stop - start]
        held, start = held[stop - start :], stop
