"""What an audio file holds, by blocks: libsndfile first, the `ffmpeg` program where it fails.

Nothing is decoded before its header's rate, length and channels are within bounds.
"""

import json
import math
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeVar

import numpy as np
import soundfile
import soxr

from .errors import InputError
from .files import open_regular

T = TypeVar("T")
RATES = (8000, 768_000)
"""Below, speech ends where PerTh's mark does: real speech at 4 kHz is taken for marked."""
MAX_CHANNELS = 32
MAX_SAMPLES = 2**30
"""Of all channels: an hour of six at 48 kHz. A megabyte of FLAC may hold twice that in silence."""
SILENT_PEAK = 1e-4
"""A peak below -80 dBFS is silence: one step of 16-bit audio is 3e-5."""
LOUDEST_PEAK = 8.0
"""Float files may exceed 1 a little; one that exceeds it this much holds integers, not audio."""
CANCELLED = 1e-3
"""Of the loudest channel's power: an average below this says that channels are turned over."""
FFMPEG_SECONDS = 600
BLOCK = 2**20
"""Samples of all channels that are held at once, before they are mixed down."""

# ffmpeg must not follow what a file says: a playlist may name other files or addresses. So only
# the file protocol, and only containers that hold their own audio.
FFMPEG_CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,aac,mp3,ogg,flac,wav,aiff,asf,amr,caf,ac3,eac3,avi,"
    "mpegts,mpeg,au,w64,wv,ape,tta,flv"
)
FFMPEG_SAFE = ["-protocol_whitelist", "file", "-format_whitelist", FFMPEG_CONTAINERS]


def check_file(path: Path) -> None:
    """InputError unless it is a file that can be read and is not empty."""
    name = str(path).encode("utf-8", "replace").decode()
    if name != str(path):
        raise InputError(f"The file name {name!r} is not UTF-8: rename it.")
    if not path.exists():
        raise InputError(f"There is no file {path}.")
    if not path.is_file():
        raise InputError(f"{path} is not a file.")
    try:
        with open_regular(path) as file:
            empty = not file.read(1)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    if empty:
        raise InputError(f"{path} is empty (0 bytes).")


def check_length(path: Path, seconds: float, least: float, most: float) -> None:
    """InputError unless a file lasts from `least` to `most` seconds."""
    if seconds < least:
        raise InputError(f"{path} is {seconds:.2f} s long; at least {least:g} s are needed.")
    if seconds > most:
        raise InputError(f"{path} is {seconds:.1f} s long; at most {most:g} s are taken. Cut it.")


def check_shape(path: Path, rate: int, channels: int, seconds: float) -> None:
    """InputError unless rate (Hz), channels and samples are within bounds."""
    if not RATES[0] <= rate <= RATES[1]:
        raise InputError(
            f"{path} has a sample rate of {rate} Hz; {RATES[0]} to {RATES[1]} are taken."
        )
    if channels > MAX_CHANNELS:
        raise InputError(f"{path} has {channels} channels; at most {MAX_CHANNELS} are taken.")
    if seconds * rate * channels > MAX_SAMPLES:
        raise InputError(
            f"{path} holds {seconds * rate * channels:.2g} samples in {channels} channels; at most "
            f"{MAX_SAMPLES:.2g} are taken: export it with one channel, at 48 kHz."
        )


def open_sound(path: Path, held: BinaryIO | None = None) -> soundfile.SoundFile:
    """A file as libsndfile reads it, whatever its suffix; LibsndfileError if it does not.

    Args:
        held: The open file to read, where `path` is only its name.
    """
    if held is not None:
        held.seek(0)
        return soundfile.SoundFile(held)
    if path.suffix.lower() != ".raw":
        return soundfile.SoundFile(str(path))
    # By such a name soundfile expects samples without a header, and to be told their rate.
    return soundfile.SoundFile(os.open(path, os.O_RDONLY), closefd=True)


class Sound:
    """What libsndfile reads: `rate` in Hz, `channels`, and blocks of at most `most` + 1 seconds.

    Args:
        held: The open file to read, where `path` is only its name.
    """

    def __init__(self, path: Path, least: float, most: float, held: BinaryIO | None = None):
        self.path, self.most, self._held = path, most, held
        with open_sound(path, held) as file:
            self.rate, self.channels = file.samplerate, file.channels
            seconds = file.frames / file.samplerate
        check_shape(path, self.rate, 1, 0.0)
        check_length(path, seconds, least, most)
        check_shape(path, self.rate, self.channels, seconds)

    def blocks(self) -> Iterator[np.ndarray]:
        """(samples, channels) float32, one after the other."""
        size, left = max(1, BLOCK // self.channels), math.ceil((self.most + 1) * self.rate)
        with open_sound(self.path, self._held) as file:
            while left > 0 and len(block := file.read(min(size, left), "float32", always_2d=True)):
                left -= len(block)
                yield block


class FfmpegSound:
    """The same of what only ffmpeg reads."""

    def __init__(
        self, path: Path, least: float, most: float, reason: str, held: BinaryIO | None = None
    ):
        self.path, self.most, self.reason, self._held = path, most, reason, held
        self.rate, seconds, self.channels = probe(path, held)
        check_shape(path, self.rate, 1, 0.0)
        if not math.isnan(seconds):
            check_length(path, seconds, least, most)
        check_shape(path, self.rate, self.channels, most + 1 if math.isnan(seconds) else seconds)

    def blocks(self) -> Iterator[np.ndarray]:
        """(samples, channels) float32, one after the other; InputError where ffmpeg fails."""
        source, stdin = _source(self.path, self._held)
        command = ["ffmpeg", "-v", "error", "-nostdin", *FFMPEG_SAFE, "-i", source]
        command += ["-map", "a:0", "-t", f"{self.most + 1:.3f}", "-ar", str(self.rate)]
        command += ["-ac", str(self.channels), "-f", "f32le", "-"]
        size, began = 4 * self.channels * max(1, BLOCK // self.channels), False
        with (
            tempfile.TemporaryFile() as said,
            subprocess.Popen(command, stdin=stdin, stdout=subprocess.PIPE, stderr=said) as running,
        ):
            patience = threading.Timer(FFMPEG_SECONDS, running.kill)
            patience.start()
            assert running.stdout is not None
            try:
                while data := running.stdout.read(size):
                    began = True
                    whole = len(data) // (4 * self.channels) * 4 * self.channels
                    yield np.frombuffer(data[:whole], dtype="<f4").reshape(-1, self.channels)
            finally:
                late = not patience.is_alive()
                patience.cancel()
                running.stdout.close()  # ffmpeg ends, should it not have
            if late:
                raise _too_slow(self.path, "ffmpeg", FFMPEG_SECONDS)
            if running.wait() != 0 or not began:
                said.seek(0)
                lines = said.read(10_000).decode(errors="replace").strip().splitlines()
                raise InputError(
                    f"{self.path} cannot be decoded: {lines[-1] if lines else self.reason}"
                )


def _source(path: Path, held: BinaryIO | None) -> tuple[str, int | BinaryIO]:
    """The address of a file for ffmpeg, and its standard input: the open file, if it is that."""
    if held is None:
        return f"file:{path}", subprocess.DEVNULL
    held.seek(0)
    return "file:/dev/stdin", held


def probe(path: Path, held: BinaryIO | None = None) -> tuple[int, float, int]:
    """Rate, length in seconds and channels, of what only ffmpeg reads; else InputError."""
    if not shutil.which("ffprobe") or not shutil.which("ffmpeg"):
        raise InputError(
            f"{path} is not WAV, FLAC, MP3, Ogg or Opus (or it is damaged), and the ffmpeg "
            "program, which reads other formats, is not installed."
        )
    command = ["ffprobe", "-v", "error", *FFMPEG_SAFE, "-select_streams", "a:0", "-of", "json"]
    command += ["-show_entries", "stream=sample_rate,channels,duration:format=duration"]
    source, stdin = _source(path, held)
    done = _run([*command, source], path, 60, stdin)
    found = json.loads(done.stdout or b"{}") if done.returncode == 0 else {}
    streams = found.get("streams") or []
    if not streams or not int(streams[0].get("sample_rate", 0)):
        raise InputError(f"{path} is not audio, or it is damaged: no sound was found in it.")
    # A stream without a stated length (raw AAC, some WebM) is cut by the limit while decoding.
    duration = streams[0].get("duration") or found.get("format", {}).get("duration") or "nan"
    return int(streams[0]["sample_rate"]), float(duration), int(streams[0]["channels"])


def _run(
    command: list[str], path: Path, seconds: int, stdin: int | BinaryIO
) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(
            command, stdin=stdin, capture_output=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        raise _too_slow(path, command[0], seconds) from None


def _too_slow(path: Path, program: str, seconds: int) -> InputError:
    return InputError(f"{path} keeps {program} busy for more than {seconds} s: export it again.")


def first_that_reads(
    read: "Callable[[Sound | FfmpegSound], T]",
    path: Path,
    least: float,
    most: float,
    held: BinaryIO | None = None,
) -> T:
    """What is read of a file by libsndfile or, where that fails, ffmpeg.

    Args:
        held: The open file to read, with a descriptor, where `path` is only its name.
    """
    if held is None:
        check_file(path)
    try:
        return read(Sound(path, least, most, held))
    except soundfile.LibsndfileError as error:
        return read(FfmpegSound(path, least, most, str(error), held))


def read_mono(
    path: Path,
    rates: Sequence[int],
    least: float,
    most: float,
    allow_silence: bool = False,
    held: BinaryIO | None = None,
) -> dict[int, np.ndarray]:
    """As `audio.read_audio`, decoded once: (samples,) float32 of `least` to `most` seconds, by rate
    in Hz; `held` as of `first_that_reads`."""
    mix = first_that_reads(lambda sound: mixed(sound, rates), path, least, most, held)
    check_peak(path, mix.peak, allow_silence)
    check_length(path, mix.seconds, least, most)
    return mix.sounds


def check_peak(path: Path, peak: float, allow_silence: bool) -> None:
    """InputError if the peak is beyond what audio has or, unless that is allowed, silence."""
    if peak > LOUDEST_PEAK:
        raise InputError(
            f"{path} reaches {peak:.3g} where full scale is 1; export it as 16-bit PCM, "
            "or divide its float samples by their full scale."
        )
    if peak < SILENT_PEAK and not allow_silence:
        raise InputError(f"{path} is silent (peak {peak:.1e}); give a recording with sound in it.")


class Mix(NamedTuple):
    """A file as one channel."""

    sounds: dict[int, np.ndarray]  # (samples,) float32, by rate
    peak: float  # this and the next before resampling
    seconds: float
    power: np.ndarray  # (channels,) sums of squares
    own: float  # the same of the mix


def mixed(sound: "Sound | FfmpegSound", rates: Sequence[int]) -> Mix:
    """The mean of the channels, or where they cancel out the loudest."""
    mix = _mix(sound, rates)
    if mix.own < CANCELLED * mix.power.max():
        return _mix(sound, rates, int(mix.power.argmax()))
    return mix


def _mix(sound: "Sound | FfmpegSound", rates: Sequence[int], channel: int | None = None) -> Mix:
    """The mean of the channels, or one of them."""
    streams = {
        rate: soxr.ResampleStream(sound.rate, rate, 1, "float32", "HQ")
        for rate in rates
        if rate != sound.rate
    }
    parts: dict[int, list[np.ndarray]] = {rate: [] for rate in rates}
    frames, peak = 0, 0.0
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
        for rate, found in parts.items():
            found.append(streams[rate].resample_chunk(mono) if rate in streams else mono)
    if not frames:
        raise InputError(f"{sound.path} holds no audio samples; give a recording with sound in it.")
    for rate, stream in streams.items():
        parts[rate].append(stream.resample_chunk(np.zeros(0, np.float32), last=True))
    sounds = {rate: np.concatenate(found) for rate, found in parts.items()}
    return Mix(sounds, peak, frames / sound.rate, power, own)
