"""From speech to a file that may leave: marked, encoded, signed, and looked at again, in memory.

Nothing of it touches a disk: what is not released yet can be found nowhere, and what was looked at
is what is released, byte for byte.
"""

import io
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from sayso.model.audio import decode_audio, encode_audio, wav_header

from .errors import MarkError
from .provenance.c2pa import BESIDE, CA, check_manifest, sign_audio
from .watermark.ensemble import Marks
from .watermark.perth import PERTH_RATE
from .watermark.spread_spectrum import HOP


@dataclass(frozen=True)
class Marked:
    """A finished file in memory.

    Attributes:
        audio: The file's bytes.
        manifest: Its C2PA manifest, which is also inside `audio` where the format has room.
        sound: Its fingerprint, by which the ledger finds it again.
        score: What the watermark detector says of it, 0 to 1.
    """

    grant_id: str
    audio: bytes
    manifest: bytes
    sound: bytes
    score: float


def finish(
    audio: Tensor,
    sample_rate: int,
    grant_id: str,
    suffix: str,
    title: str,
    card_hash: str,
    marks: Marks,
    ca: CA,
) -> Marked:
    """Put both marks on speech (samples,) and find them again in the finished file.

    Raises:
        MarkError: A mark could not be made, or was not found in the result.
        InputError: The format does not have this rate.
    """
    marked = fit(marks.embed(fit(audio), sample_rate, grant_id))
    sound = marks.fingerprint(marked, sample_rate)
    plain = encode_audio(marked, sample_rate, suffix)
    signed, manifest = sign_audio(plain, suffix, ca, grant_id, card_hash, title, sound)
    score = marks.demand(decode_audio(signed, PERTH_RATE, title)[0], PERTH_RATE, grant_id)
    beside = manifest if suffix.lower() in BESIDE else None
    stated = check_manifest(io.BytesIO(signed), suffix.lower(), beside, ca)
    if stated.state != "trusted" or stated.ledger_id != grant_id:
        raise MarkError(
            f"The result's C2PA manifest is {stated.state} {list(stated.reasons)}; nothing was "
            "written"
        )
    return Marked(grant_id, signed, manifest, sound, score)


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
    marked = fit(marks.embed(fit(audio), sample_rate, grant_id, start))
    data = (marked.clamp(-1, 1) * 32767).round().to(torch.int16).numpy().astype("<i2").tobytes()
    heard = unpacked(wav_header(sample_rate) + data, sample_rate)
    marks.demand(heard, sample_rate, grant_id)
    return data, marks.fingerprint(heard, sample_rate)


def finish_stream(
    data: bytes, sample_rate: int, grant_id: str, title: str, card_hash: str, marks: Marks, ca: CA
) -> Marked:
    """A stream that has left, signed as one WAV (`audio.wav_header`): its manifest goes beside it.

    Each stretch has its marks already.

    Raises:
        MarkError: It cannot be signed.
    """
    sound = marks.fingerprint(unpacked(data, sample_rate), sample_rate)
    signed, manifest = sign_audio(data, ".wav", ca, grant_id, card_hash, title, sound, beside=True)
    stated = check_manifest(io.BytesIO(signed), ".wav", manifest, ca)
    if stated.state != "trusted" or stated.ledger_id != grant_id:
        raise MarkError(f"The stream's manifest is {stated.state} {list(stated.reasons)}")
    return Marked(grant_id, signed, manifest, sound, 1.0)


def unpacked(data: bytes, sample_rate: int) -> Tensor:
    """The samples (samples,) of a WAV with `audio.wav_header`."""
    samples = np.frombuffer(data[len(wav_header(sample_rate)) :], "<i2")
    return torch.from_numpy(samples.astype(np.float32) / 32767)


def fit(audio: Tensor) -> Tensor:
    """Turn (samples,) down to full scale if it is beyond: clipping would be heard."""
    return audio / audio.abs().max().clamp(min=1.0)
