"""Audio files in and out: mono float32 inside, refused early and clearly when it cannot be used.

libsndfile (through `soundfile`) reads WAV, FLAC, MP3, Ogg Vorbis, Opus, AIFF and more; whatever it
does not know (M4A, AAC, WebM, video) goes through the `ffmpeg` program when there is one.
Resampling is soxr's.
"""

import io
import re
import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile
import soxr
import torch
from torch import Tensor

from .decoding import (
    FfmpegSound,
    Sound,
    check_file,
    check_peak,
    first_that_reads,
    mixed,
    open_sound,
    probe,
    read_mono,
)
from .errors import InputError

MIN_SECONDS = 0.1
MAX_SECONDS = 3600.0
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
    found = read_mono(Path(path), [sample_rate], min_seconds, max_seconds, allow_silence)
    return torch.from_numpy(found[sample_rate])[None]


def decode_audio(data: bytes, sample_rate: int, name: str) -> Tensor:
    """As `read_audio`, from a file in memory that libsndfile reads; `name` is for the errors.

    Returns:
        (1, samples) float32.
    Raises:
        InputError: It is no audio, too long, of too many channels, silent, or holds NaN.
    """
    try:
        sound = Sound(Path(name), MIN_SECONDS, MAX_SECONDS, io.BytesIO(data))
        mix = mixed(sound, [sample_rate])
    except soundfile.LibsndfileError as error:
        raise InputError(f"{name} cannot be decoded: {error}") from None
    check_peak(Path(name), mix.peak, False)
    return torch.from_numpy(mix.sounds[sample_rate])[None]


def read_samples(path: Path) -> tuple[np.ndarray, int]:
    """What an audio file holds, as it is: (samples, channels) float32, and its rate in Hz.

    Raises:
        InputError: The file is missing, empty, no audio, too long, or of too many channels.
    """

    def whole(sound: "Sound | FfmpegSound") -> tuple[np.ndarray, int]:
        none = np.zeros((0, sound.channels), np.float32)
        return np.concatenate([none, *sound.blocks()]), sound.rate

    return first_that_reads(whole, path, 0.0, MAX_SECONDS)


def resample(audio: np.ndarray, from_rate: int | float, to_rate: int | float) -> np.ndarray:
    """Resamples (samples,) float32; unchanged when the rates are equal."""
    if from_rate == to_rate:
        return audio
    return soxr.resample(audio, from_rate, to_rate, quality="HQ").astype(np.float32, copy=False)


def seconds_of(path: str | Path, held: BinaryIO | None = None) -> float:
    """The length that the file's header states, in seconds; decodes nothing.

    Args:
        held: The open file to read, with a descriptor, where `path` is only its name.
    """
    path = Path(path)
    if held is None:
        check_file(path)
    try:
        with open_sound(path, held) as file:
            return file.frames / file.samplerate
    except soundfile.LibsndfileError:
        return probe(path, held)[1]


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
