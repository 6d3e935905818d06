"""Audio files in and out: mono float32 inside, refused early and clearly when it cannot be used.

libsndfile (through `soundfile`) reads WAV, FLAC, MP3, Ogg Vorbis, Opus, AIFF and more; whatever it
does not know (M4A, AAC, WebM, video) goes through the `ffmpeg` program when there is one.
Resampling is soxr's.
"""

import io
import json
import math
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
from torch import Tensor

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
RATES = (8000, 768_000)
"""Below, speech ends where PerTh's mark does: real speech at 4 kHz is taken for marked."""

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

# ffmpeg must not follow what a file says: a playlist may name other files or addresses. So only
# the file protocol, and only containers that hold their own audio.
FFMPEG_CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,aac,mp3,ogg,flac,wav,aiff,asf,amr,caf,ac3,eac3,avi,"
    "mpegts,mpeg,au,w64,wv,ape,tta,flv"
)
FFMPEG_SAFE = ["-protocol_whitelist", "file", "-format_whitelist", FFMPEG_CONTAINERS]


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
    The length is checked on the header before anything is decoded, and again afterwards.

    Returns:
        (1, samples) float32.
    Raises:
        InputError: The file is missing, empty, no audio, too short or long, silent, or holds NaN.
    """
    path = Path(path)
    audio, rate = read_samples(path, min_seconds, max_seconds)  # (samples, channels)
    mono = _one_channel(audio, path, allow_silence)
    _check_length(path, len(mono) / rate, min_seconds, max_seconds)
    return torch.from_numpy(resample(mono, rate, sample_rate))[None]


def decode_audio(data: bytes, sample_rate: int, name: str) -> Tensor:
    """As `read_audio`, from a file in memory that libsndfile reads; `name` is for the errors.

    Returns:
        (1, samples) float32.
    Raises:
        InputError: It is no audio, silent, or holds NaN.
    """
    try:
        audio, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise InputError(f"{name} cannot be decoded: {error}") from None
    return torch.from_numpy(resample(_one_channel(audio, Path(name), False), rate, sample_rate))[
        None
    ]


def read_samples(
    path: Path, min_seconds: float = 0.0, max_seconds: float = MAX_SECONDS
) -> tuple[np.ndarray, int]:
    """What an audio file holds, as it is: (samples, channels) float32, and its rate in Hz.

    At most a second more than `max_seconds` is decoded.

    Raises:
        InputError: The file is missing, empty or no audio, or by its header too short or long.
    """
    _check_file(path)
    try:
        with soundfile.SoundFile(str(path)) as file:
            _check_rate(path, file.samplerate)
            _check_length(path, file.frames / file.samplerate, min_seconds, max_seconds)
            frames = math.ceil((max_seconds + 1) * file.samplerate)
            return file.read(frames, dtype="float32", always_2d=True), file.samplerate
    except soundfile.LibsndfileError as error:
        return _decode_ffmpeg(path, min_seconds, max_seconds, str(error))


def resample(audio: np.ndarray, from_rate: int | float, to_rate: int | float) -> np.ndarray:
    """Resamples (samples,) float32; unchanged when the rates are equal."""
    if from_rate == to_rate:
        return audio
    return soxr.resample(audio, from_rate, to_rate, quality="HQ").astype(np.float32, copy=False)


def seconds_of(path: str | Path) -> float:
    """The length that the file's header states, in seconds; decodes nothing."""
    path = Path(path)
    _check_file(path)
    try:
        return float(soundfile.info(str(path)).duration)
    except soundfile.LibsndfileError:
        return _probe(path)[1]


def cut_off(path: Path, frames: int) -> bool:
    """Whether a file of which `frames` were decoded is shorter than it says it is.

    WAV and AIFF state their size, FLAC and MP3 mostly, Ogg marks its last page; libsndfile tells.
    A size that is not known when a file is begun (a pipe's) is no statement.
    """
    try:
        with soundfile.SoundFile(str(path)) as file:
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


def _one_channel(audio: np.ndarray, path: Path, allow_silence: bool) -> np.ndarray:
    """(samples, channels) to (samples,), refused where it is no usable sound."""
    if not len(audio):
        raise InputError(f"{path} holds no audio samples; give a recording with sound in it.")
    if not np.isfinite(audio).all():
        raise InputError(
            f"{path} holds samples that are not numbers (NaN or infinite); export it again."
        )
    mono = audio.mean(axis=1, dtype=np.float32)
    levels = np.square(audio).mean(axis=0)
    if np.square(mono).mean() < CANCELLED * levels.max():
        mono = np.ascontiguousarray(audio[:, levels.argmax()])
    peak = float(np.abs(mono).max())
    if peak > LOUDEST_PEAK:
        raise InputError(
            f"{path} reaches {peak:.3g} where full scale is 1; export it as 16-bit PCM, "
            "or divide its float samples by their full scale."
        )
    if peak < SILENT_PEAK and not allow_silence:
        raise InputError(f"{path} is silent (peak {peak:.1e}); give a recording with sound in it.")
    return mono


def _check_file(path: Path) -> None:
    name = str(path).encode("utf-8", "replace").decode()
    if name != str(path):
        raise InputError(f"The file name {name!r} is not UTF-8: rename it.")
    if not path.exists():
        raise InputError(f"There is no file {path}.")
    if not path.is_file():
        raise InputError(f"{path} is not a file.")
    try:
        with path.open("rb") as file:
            empty = not file.read(1)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    if empty:
        raise InputError(f"{path} is empty (0 bytes).")


def _check_length(path: Path, seconds: float, least: float, most: float) -> None:
    if seconds < least:
        raise InputError(f"{path} is {seconds:.2f} s long; at least {least:g} s are needed.")
    if seconds > most:
        raise InputError(f"{path} is {seconds:.1f} s long; at most {most:g} s are taken. Cut it.")


def _check_rate(path: Path, rate: int) -> None:
    if not RATES[0] <= rate <= RATES[1]:
        raise InputError(
            f"{path} has a sample rate of {rate} Hz; {RATES[0]} to {RATES[1]} are taken."
        )


def _probe(path: Path) -> tuple[int, float, int]:
    """Rate, length in seconds and channels, of what only ffmpeg reads."""
    if not shutil.which("ffprobe") or not shutil.which("ffmpeg"):
        raise InputError(
            f"{path} is not WAV, FLAC, MP3, Ogg or Opus (or it is damaged), and the ffmpeg "
            "program, which reads other formats, is not installed."
        )
    command = ["ffprobe", "-v", "error", *FFMPEG_SAFE, "-select_streams", "a:0", "-of", "json"]
    command += ["-show_entries", "stream=sample_rate,channels,duration:format=duration"]
    done = _run([*command, f"file:{path}"], path, 60)
    found = json.loads(done.stdout or b"{}") if done.returncode == 0 else {}
    streams = found.get("streams") or []
    if not streams or not int(streams[0].get("sample_rate", 0)):
        raise InputError(f"{path} is not audio, or it is damaged: no sound was found in it.")
    # A stream without a stated length (raw AAC, some WebM) is cut by the limit while decoding.
    duration = streams[0].get("duration") or found.get("format", {}).get("duration") or "nan"
    return int(streams[0]["sample_rate"]), float(duration), int(streams[0]["channels"])


def _run(command: list[str], path: Path, seconds: int) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        raise InputError(
            f"{path} keeps {command[0]} busy for more than {seconds} s: export it again."
        ) from None


def _decode_ffmpeg(path: Path, least: float, most: float, reason: str) -> tuple[np.ndarray, int]:
    rate, seconds, channels = _probe(path)
    _check_rate(path, rate)
    if not math.isnan(seconds):
        _check_length(path, seconds, least, most)
    command = [
        "ffmpeg",
        "-v",
        "error",
        "-nostdin",
        *FFMPEG_SAFE,
        "-i",
        f"file:{path}",
        "-map",
        "a:0",
    ]
    command += ["-t", f"{most + 1:.3f}", "-ar", str(rate), "-ac", str(channels), "-f", "f32le", "-"]
    done = _run(command, path, 600)
    if done.returncode != 0 or not done.stdout:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise InputError(f"{path} cannot be decoded: {said[-1] if said else reason}")
    audio = np.frombuffer(done.stdout, dtype="<f4").reshape(-1, channels)
    return audio, rate
