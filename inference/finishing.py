"""From speech to a file that may leave: marked, encoded, signed, and looked at again, in memory.

Nothing of it touches a disk: what is not released yet can be found nowhere, and what was looked at
is what is released, byte for byte.
"""

import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from sayso.model.audio import decode_audio, encode_audio, wav_header
from sayso.model.loudness import as_loud, loudness

from .errors import MarkError
from .nameless import put, unnamed
from .provenance.c2pa import BESIDE, CA, check_manifest, sign_audio, sign_stream
from .watermark.ensemble import Marks
from .watermark.perth import PERTH_RATE
from .watermark.spread_spectrum import HOP

SOFT = 240
"""Samples at either end of a stretch that have no mark, and in which it then fades in and out."""
BLOCK = 2**20
"""Samples of a stream that are read at once."""


@dataclass(frozen=True)
class Marked:
    """A finished file in memory.

    Attributes:
        audio: The file's bytes; of a stream none, as they have left.
        manifest: Its C2PA manifest, which is also inside `audio` where the format has room.
        sound: Its fingerprint, by which the ledger finds it again.
        score: What the watermark detector says of it, 0 to 1.
        pattern: The name of its keyed mark's pattern, where that is not its ledger id.
    """

    grant_id: str
    audio: bytes
    manifest: bytes
    sound: bytes
    score: float
    pattern: str = ""


def finish(
    audio: Tensor,
    sample_rate: int,
    grant_id: str,
    suffix: str,
    title: str,
    card_hash: str,
    marks: Marks,
    ca: CA,
    again: bool = False,
) -> Marked:
    """Put both marks on speech (samples,), as loud as it was, and find them again in the finished
    file.

    Args:
        again: Whether the same samples are to have the same mark whenever they are made.

    Raises:
        MarkError: A mark could not be made, or was not found in the result.
        InputError: The format does not have this rate.
    """
    audio = fit(audio)
    pattern = marks.again(audio, sample_rate) if again else grant_id
    marked = as_loud(marks.embed(audio, sample_rate, pattern), loudness(audio))
    sound = marks.fingerprint([marked], sample_rate)
    plain = encode_audio(marked, sample_rate, suffix)
    signed, manifest = sign_audio(plain, suffix, ca, grant_id, card_hash, title, sound)
    score = marks.demand(decode_audio(signed, PERTH_RATE, title)[0], PERTH_RATE, pattern)
    beside = manifest if suffix.lower() in BESIDE else None
    stated = check_manifest(io.BytesIO(signed), suffix.lower(), beside, ca)
    if stated.state != "trusted" or stated.ledger_id != grant_id:
        raise MarkError(
            f"The result's C2PA manifest is {stated.state} {list(stated.reasons)}; nothing was "
            "written"
        )
    return Marked(grant_id, signed, manifest, sound, score, pattern if again else "")


def finish_stretch(
    audio: Tensor, sample_rate: int, grant_id: str, start: int, marks: Marks
) -> tuple[bytes, bytes]:
    """The next stretch (samples,) of a stream with both marks, as 16-bit samples, and its sound.

    What is looked at are these very samples. A little silence is put behind it, so that the keyed
    mark's pattern goes on in the next as if there were no seam.

    Args:
        start: Samples of the stream before it.

    Raises:
        MarkError: A mark could not be made, or was not found in the result.
    """
    audio = pad(audio, (0, -len(audio) % HOP))
    plain = fit(audio)
    marked = marks.embed(plain, sample_rate, grant_id, start)
    # at both ends the marks come softly: a seam within a word is not heard
    soft = (torch.arange(len(plain)) / SOFT - 1).clamp(0, 1)
    marked = fit(plain + (marked - plain) * soft * soft.flip(0))
    data = (marked.clamp(-1, 1) * 32767).round().to(torch.int16).numpy().astype("<i2").tobytes()
    heard = unpacked(wav_header(sample_rate) + data, sample_rate)
    marks.demand(heard, sample_rate, grant_id)
    return data, marks.fingerprint([heard], sample_rate)


class Sent:
    """What has left of a stream: `audio.wav_header` and samples, in a file that has no name.

    Args:
        folder: On whose disk; how much it is does not hang on the memory.
        data: The header, and what had left already, where it is taken up.
    """

    def __init__(self, folder: Path, data: bytes):
        self.sample_rate = int.from_bytes(data[24:28], "little")
        self.size, self.hash = 0, hashlib.sha256()
        self.file = unnamed(folder)
        self.add(data)

    @property
    def samples(self) -> int:
        """How many left."""
        return (self.size - len(wav_header(self.sample_rate))) // 2

    def add(self, data: bytes) -> None:
        """Put more behind it; InputError where the disk is full."""
        self.file.seek(self.size)
        put(self.file, data)
        self.hash.update(data)
        self.size += len(data)

    def blocks(self) -> Iterator[Tensor]:
        """Its samples, (samples,) at a time."""
        self.file.seek(len(wav_header(self.sample_rate)))
        left = self.samples
        while left > 0:
            samples = np.frombuffer(self.file.read(2 * min(left, BLOCK)), "<i2")
            left -= len(samples)
            yield torch.from_numpy(samples.astype(np.float32) / 32767)


def finish_stream(
    sent: Sent, grant_id: str, title: str, card_hash: str, marks: Marks, ca: CA
) -> Marked:
    """A stream that has left, signed as one WAV (`audio.wav_header`): its manifest goes beside it.

    Each stretch has its marks already.

    Raises:
        MarkError: It cannot be signed.
    """
    sound = marks.fingerprint(sent.blocks(), sent.sample_rate)
    sent.file.seek(0)
    manifest = sign_stream(sent.file, ca, grant_id, card_hash, title, sound)
    stated = check_manifest(sent.file, ".wav", manifest, ca)
    if stated.state != "trusted" or stated.ledger_id != grant_id:
        raise MarkError(f"The stream's manifest is {stated.state} {list(stated.reasons)}")
    return Marked(grant_id, b"", manifest, sound, 1.0)


def unpacked(data: bytes, sample_rate: int) -> Tensor:
    """The samples (samples,) of a WAV with `audio.wav_header`."""
    samples = np.frombuffer(data[len(wav_header(sample_rate)) :], "<i2")
    return torch.from_numpy(samples.astype(np.float32) / 32767)


def fit(audio: Tensor) -> Tensor:
    """Turn (samples,) down to full scale if it is beyond: clipping would be heard."""
    return audio / audio.abs().max().clamp(min=1.0)
