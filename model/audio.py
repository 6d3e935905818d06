"""Audio files in and out: mono float32 inside, refused early and clearly when it cannot be used.

libsndfile (through `soundfile`) reads WAV, FLAC, MP3, Ogg Vorbis, Opus, AIFF and more; whatever it
does not know (M4A, AAC, WebM, video) goes through the `ffmpeg` program when there is one.
Resampling is soxr's.
"""

import io
import re
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import soxr
import torch
from torch import Tensor

from .decoding import (
    FfmpegSound,
    Sound,
    check_file,
    check_length,
    first_that_reads,
    open_sound,
    probe,
)
from .errors import InputError

MIN_SECONDS = 0.1
MAX_SECONDS = 3600.0
SILENT_PEAK = 1e-4
"""A peak below -80 dBFS is silence: one step of 16-bit audio is 3e-5."""
LOUDEST_PEAK = 8.0
"""Float files may exceed 1 a little; one that exceeds it this much holds integers, not audio."""
CANCELLED = 1e-3
"""Of the loudest channel's power: an average below this says that channels are turned over."""
SURELY_CUT = 0.95
"""Share of the stated frames: an MP3 file's header may be a little wrong."""
UNKNOWN_SIZE = 2**31 - 2**16

WRITABLE = {
    ".wav": ("WAV", "PCM_16"),
    ".flac": ("FLAC", "PCM_16"),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
    ".ogg": ("OGG", "VORBIS"),
    ".opus": ("OGG", "OPUS"),
}
OPUS_LEVEL = 0.65
"""About 96 kbit/s. At libsndfile's own 35 kbit/s a short sentence may lose a mark."""
OPUS_RATES = (8000, 12000, 16000, 24000, 48000)
MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)


def read_audio(
    path: str | Path,
    sample_rate: int,
    min_seconds: float = MIN_SECONDS,
    max_seconds: float = MAX_SECONDS,
    allow_silence: bool = False,
) -> Tensor:
    """Reads any audio file as one channel at `sample_rate`.

    Channels are averaged, unless they cancel out (one turned over, as a way to hide a mark): then
    the loudest is taken. 8-bit, 24-bit and float files give the same scale, full scale being 1.
    Length and channels are checked on the header before anything is decoded, the length again
    afterwards; what is decoded is mixed down and resampled block by block.

    Returns:
        (1, samples) float32.
    Raises:
        InputError: The file is missing, empty, no audio, too short or long, of too many
        channels, silent, or holds NaN.
    """
    path = Path(path)
    mix = first_that_reads(lambda sound: _mixed(sound, sample_rate), path, min_seconds, max_seconds)
    _check_peak(path, mix.peak, allow_silence)
    check_length(path, mix.seconds, min_seconds, max_seconds)
    return torch.from_numpy(mix.audio)[None]


def decode_audio(data: bytes, sample_rate: int, name: str) -> Tensor:
    """As `read_audio`, from a file in memory that libsndfile reads; `name` is for the errors.

    Returns:
        (1, samples) float32.
    Raises:
        InputError: It is no audio, too long, of too many channels, silent, or holds NaN.
    """
    try:
        mix = _mixed(Sound(Path(name), MIN_SECONDS, MAX_SECONDS, data), sample_rate)
    except soundfile.LibsndfileError as error:
        raise InputError(f"{name} cannot be decoded: {error}") from None
    _check_peak(Path(name), mix.peak, False)
    return torch.from_numpy(mix.audio)[None]


def read_samples(
    path: Path, min_seconds: float = 0.0, max_seconds: float = MAX_SECONDS
) -> tuple[np.ndarray, int]:
    """What an audio file holds, as it is: (samples, channels) float32, and its rate in Hz.

    At most a second more than `max_seconds` is decoded.

    Raises:
        InputError: The file is missing, empty or no audio; by its header too short or long, or of
        too many channels.
    """

    def whole(sound: "Sound | FfmpegSound") -> tuple[np.ndarray, int]:
        none = np.zeros((0, sound.channels), np.float32)
        return np.concatenate([none, *sound.blocks()]), sound.rate

    return first_that_reads(whole, path, min_seconds, max_seconds)


def resample(audio: np.ndarray, from_rate: int | float, to_rate: int | float) -> np.ndarray:
    """Resamples (samples,) float32; unchanged when the rates are equal."""
    if from_rate == to_rate:
        return audio
    return soxr.resample(audio, from_rate, to_rate, quality="HQ").astype(np.float32, copy=False)


def seconds_of(path: str | Path) -> float:
    """The length that the file's header states, in seconds; decodes nothing."""
    path = Path(path)
    check_file(path)
    try:
        with open_sound(path) as file:
            return file.frames / file.samplerate
    except soundfile.LibsndfileError:
        return probe(path)[1]


def cut_off(path: Path, frames: int) -> bool:
    """Whether a file of which `frames` were decoded is shorter than it says it is.

    WAV and AIFF state their size, FLAC and MP3 mostly, Ogg marks its last page; libsndfile tells.
    A size that is not known when a file is begun (a pipe's) is no statement.
    """
    try:
        with open_sound(path) as file:
            log, stated = file.extra_info, file.frames
    except soundfile.LibsndfileError:  # what only ffmpeg reads
        return False
    sizes = re.search(r"(?:data|SSND) *: *(\d+) \(should be (\d+)\)", log)
    if sizes and int(sizes[2]) < int(sizes[1]) < UNKNOWN_SIZE:
        return True
    return frames < SURELY_CUT * stated or "lacks an end-of-stream bit" in log


def write_audio(path: str | Path, audio: Tensor, sample_rate: int) -> None:
    """Writes mono audio; the suffix chooses 16-bit WAV or FLAC, MP3, Ogg Vorbis (.ogg) or .opus.

    Args:
        audio: (samples,) or (1, samples), full scale 1; samples beyond full scale are clipped.
    Raises:
        InputError: An unknown suffix, a rate the format does not have, or audio that is not finite.
    """
    Path(path).write_bytes(encode_audio(audio, sample_rate, Path(path).suffix))


def encode_audio(audio: Tensor, sample_rate: int, suffix: str) -> bytes:
    """As `write_audio`, into a file in memory; InputError likewise."""
    if suffix.lower() not in WRITABLE:
        known = ", ".join(WRITABLE)
        raise InputError(f"Cannot write {suffix or 'a file without a suffix'}; use {known}.")
    samples = audio.detach().cpu().to(torch.float32).reshape(-1).numpy()
    if not len(samples) or not np.isfinite(samples).all():
        raise InputError(f"Will not write {len(samples)} samples, not all of them finite.")
    format, subtype = WRITABLE[suffix.lower()]
    rates = {"OPUS": OPUS_RATES, "MPEG_LAYER_III": MP3_RATES}.get(subtype)
    if rates and sample_rate not in rates:
        raise InputError(f"{subtype} has no rate of {sample_rate} Hz; use one of {rates}.")
    # libsndfile wraps floats above 1 in some subtypes instead of clipping them.
    samples = np.clip(samples, -1.0, 1.0)
    level = OPUS_LEVEL if subtype == "OPUS" else None
    out = io.BytesIO()
    soundfile.write(
        out, samples, sample_rate, format=format, subtype=subtype, compression_level=level
    )
    return out.getvalue()


def wav_header(sample_rate: int) -> bytes:
    """What stands before 16-bit mono samples in a WAV whose length is not known when it begins."""
    form = struct.pack("<IHHIIHH", 16, 1, 1, sample_rate, 2 * sample_rate, 2, 16)
    unknown = struct.pack("<I", 2**32 - 1)
    return b"RIFF" + unknown + b"WAVEfmt " + form + b"data" + unknown


def _check_peak(path: Path, peak: float, allow_silence: bool) -> None:
    if peak > LOUDEST_PEAK:
        raise InputError(
            f"{path} reaches {peak:.3g} where full scale is 1; export it as 16-bit PCM, "
            "or divide its float samples by their full scale."
        )
    if peak < SILENT_PEAK and not allow_silence:
        raise InputError(f"{path} is silent (peak {peak:.1e}); give a recording with sound in it.")


class _Mix(NamedTuple):
    audio: np.ndarray  # (samples,) float32 at the rate asked for
    peak: float  # this and the next before resampling
    seconds: float
    power: np.ndarray  # (channels,) sums of squares
    own: float  # the same of the mix


def _mixed(sound: "Sound | FfmpegSound", to_rate: int) -> _Mix:
    """The mean of the channels, or where they cancel out the loudest."""
    mix = _mix(sound, to_rate)
    if mix.own < CANCELLED * mix.power.max():
        return _mix(sound, to_rate, int(mix.power.argmax()))
    return mix


def _mix(sound: "Sound | FfmpegSound", to_rate: int, channel: int | None = None) -> _Mix:
    """The mean of the channels, or one of them."""
    stream = soxr.ResampleStream(sound.rate, to_rate, 1, "float32", "HQ")
    same, parts, frames, peak = sound.rate == to_rate, [], 0, 0.0
    power, own = np.zeros(sound.channels), 0.0
    for block in sound.blocks():
        if not np.isfinite(block).all():
            raise InputError(
                f"{sound.path} holds samples that are not numbers (NaN or infinite); export it "
                "again."
            )
        mono = block.mean(axis=1) if channel is None else np.ascontiguousarray(block[:, channel])
        power += np.square(block, dtype=np.float64).sum(axis=0)
        own += float(np.square(mono, dtype=np.float64).sum())
        peak, frames = max(peak, float(np.abs(mono).max())), frames + len(mono)
        parts.append(mono if same else stream.resample_chunk(mono))
    if not frames:
        raise InputError(f"{sound.path} holds no audio samples; give a recording with sound in it.")
    if not same:
        parts.append(stream.resample_chunk(np.zeros(0, np.float32), last=True))
    return _Mix(np.concatenate(parts), peak, frames / sound.rate, power, own)
