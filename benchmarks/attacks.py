"""What happens to speech on its way, by accident or on purpose: the rows of the robustness table.

Every attack takes and returns (samples,) float32 at `RATE` and uses the generator it is given, so
that a marked clip and the same clip unmarked meet the same noise. Codecs run in ffmpeg, exactly as
people would use it.
"""

import math
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyworld
import scipy.signal
import soundfile
import soxr
import torch

from benchmarks.clips import RATE
from sayso.model.audio import resample
from sayso.model.bundle import BUNDLED
from sayso.model.codecs.base import Codec
from sayso.model.codecs.load import load_codec

VOCODER: Any = pyworld  # it has no types
Attack = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def codec(suffix: str, *options: str) -> Attack:
    """Through an encoder of ffmpeg and back."""

    def attack(audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        with tempfile.TemporaryDirectory() as folder:
            source, sent, back = (str(Path(folder) / n) for n in ("a.wav", f"b.{suffix}", "c.wav"))
            soundfile.write(source, audio, RATE, subtype="FLOAT")
            run = ["ffmpeg", "-v", "error", "-nostdin", "-y", "-i"]
            subprocess.run([*run, source, *options, sent], check=True)
            subprocess.run([*run, sent, "-ar", str(RATE), "-c:a", "pcm_f32le", back], check=True)
            return np.asarray(soundfile.read(back, dtype="float32")[0])

    return attack


def tempo(factor: float) -> Attack:
    """Faster or slower at the same pitch (ffmpeg's atempo)."""
    return codec("wav", "-filter:a", f"atempo={factor}", "-c:a", "pcm_f32le")


def speed(factor: float) -> Attack:
    """Faster or slower with the pitch going along: plain resampling."""
    return lambda audio, rng: soxr.resample(audio, RATE * factor, RATE).astype(np.float32)


def resampled(rate: int) -> Attack:
    return lambda audio, rng: resample(resample(audio, RATE, rate), rate, RATE)


def noise(decibels: float) -> Attack:
    """White noise at a signal-to-noise ratio over the whole clip."""

    def attack(audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        level = np.sqrt(np.mean(audio**2)) * 10 ** (-decibels / 20)
        return (audio + level * rng.standard_normal(len(audio))).astype(np.float32)

    return attack


def pink_noise(decibels: float) -> Attack:
    """1/f noise, as rooms and roads have it: stronger where the marks are."""

    def attack(audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        spectrum = np.fft.rfft(rng.standard_normal(len(audio)))
        spectrum /= np.sqrt(np.maximum(np.arange(len(spectrum)), 1.0))
        pink = np.fft.irfft(spectrum, len(audio))
        level = np.sqrt(np.mean(audio**2) / np.mean(pink**2)) * 10 ** (-decibels / 20)
        return (audio + level * pink).astype(np.float32)

    return attack


def filtered(kind: str, edge: float) -> Attack:
    sections = scipy.signal.butter(6, edge, kind, fs=RATE, output="sos")
    return lambda audio, rng: np.asarray(scipy.signal.sosfilt(sections, audio), np.float32)


def telephone(audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """300 to 3400 Hz at 8 kHz with 8-bit mu-law steps."""
    sections = scipy.signal.butter(4, (300, 3400), "bandpass", fs=RATE, output="sos")
    narrow = soxr.resample(scipy.signal.sosfilt(sections, audio), RATE, 8000)
    peak = max(float(np.abs(narrow).max()), 1e-9)
    law = np.sign(narrow) * np.log1p(255 * np.abs(narrow) / peak) / np.log(256)
    law = np.round(law * 127) / 127
    narrow = np.sign(law) * (256 ** np.abs(law) - 1) / 255 * peak
    return soxr.resample(narrow, 8000, RATE).astype(np.float32)


def equalised(audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random graphic equaliser: ten bands, each up to 6 dB up or down."""
    edges = np.geomspace(60, RATE / 2, 10)
    gains = rng.uniform(-6, 6, 10)
    response = np.interp(np.fft.rfftfreq(len(audio), 1 / RATE), edges, gains)
    return np.fft.irfft(np.fft.rfft(audio) * 10 ** (response / 20), len(audio)).astype(np.float32)


def gain(decibels: float) -> Attack:
    return lambda audio, rng: (audio * 10 ** (decibels / 20)).astype(np.float32)


def pcm16(audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return (np.round(audio * 32767) / 32767).astype(np.float32)


def clipped(audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The loudest 2 % of samples cut off, as by a microphone that is turned up too far."""
    limit = np.quantile(np.abs(audio), 0.98)
    return np.clip(audio, -limit, limit)


def compressed(audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A broadcast compressor: 4 to 1 above -20 dB under the peak, 5 ms and 100 ms."""
    level = np.abs(audio)
    fast, slow = np.exp(-1 / (0.005 * RATE)), np.exp(-1 / (0.1 * RATE))
    attack = scipy.signal.lfilter([1 - fast], [1, -fast], level)
    envelope = np.maximum(attack, scipy.signal.lfilter([1 - slow], [1, -slow], level))
    limit = level.max() * 0.1
    return (audio * np.maximum(envelope / limit, 1.0) ** -0.75).astype(np.float32)


def cropped(seconds: float) -> Attack:
    """A stretch from a random place."""

    def attack(audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        length = int(seconds * RATE)
        start = int(rng.integers(0, max(1, len(audio) - length + 1)))
        return audio[start : start + length]

    return attack


def shifted(audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """100 ms of quiet noise in front."""
    quiet = rng.standard_normal(RATE // 10) * 1e-4
    return np.concatenate([quiet, audio]).astype(np.float32)


def cut_up(audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Pieces of 0.5 to 1 s in another order."""
    pieces, start = [], 0
    while start < len(audio):
        length = int(rng.uniform(0.5, 1.0) * RATE)
        pieces.append(audio[start : start + length])
        start += length
    return np.concatenate([pieces[i] for i in rng.permutation(len(pieces))])


def reverberated(audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A synthetic room: RT60 0.4 s, direct sound 3 dB above the rest."""
    length = int(0.4 * RATE)
    tail = rng.standard_normal(length) * 10 ** (-3 * np.arange(length) / length)
    tail *= 10 ** (-3 / 20) / np.sqrt(np.sum(tail**2))
    tail[0] = 1.0
    return scipy.signal.fftconvolve(audio, tail)[: len(audio)].astype(np.float32)


def echo(audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    delay = int(0.12 * RATE)
    late = np.concatenate([np.zeros(delay), audio[:-delay]])
    return (audio + 0.4 * late).astype(np.float32)


def denoised(audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Spectral subtraction, the way simple noise reducers work."""
    _, _, spectrum = scipy.signal.stft(audio, RATE, nperseg=1024)
    power = np.abs(spectrum) ** 2
    floor = np.quantile(power, 0.2, axis=1, keepdims=True)
    kept = np.maximum(1 - 2 * floor / np.maximum(power, 1e-12), 0.05)
    _, out = scipy.signal.istft(spectrum * np.sqrt(kept), RATE, nperseg=1024)
    return out[: len(audio)].astype(np.float32)


def world(audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Taken apart into pitch, envelope and breath and synthesised anew (WORLD, 5 ms)."""
    host = soxr.resample(audio, RATE, 16_000).astype(np.float64)
    pitch, times = VOCODER.dio(host, 16_000)
    pitch = VOCODER.stonemask(host, pitch, times, 16_000)
    envelope = VOCODER.cheaptrick(host, pitch, times, 16_000)
    breath = VOCODER.d4c(host, pitch, times, 16_000)
    made = VOCODER.synthesize(pitch, envelope, breath, 16_000)
    return soxr.resample(made, 16_000, RATE)[: len(audio)].astype(np.float32)


@cache
def bundled_codec() -> Codec:
    return load_codec(BUNDLED / "codec")


def codec_name() -> str:
    """The bundled codec's row; another codec, another row: old figures are never shown as new."""
    codec = bundled_codec()
    rate = codec.codebooks * math.log2(codec.codebook_size) * codec.frame_rate / 1000
    return f"bundled codec {codec.identity[:8]}, {rate:g} kbit/s"


def our_codec(audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Through the bundled model's codec as codes, and back."""
    with torch.inference_mode():
        codes = bundled_codec().encode(torch.from_numpy(audio)[None])
        return bundled_codec().decode(codes)[0, : len(audio)].numpy().copy()


def spliced(other: np.ndarray) -> Attack:
    """3 s of it (at most) in the middle of 6 s of somebody else, recorded and unmarked."""

    def attack(audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        middle = cropped(3)(audio, rng)
        level = np.sqrt(np.mean(middle**2) / np.mean(other**2))
        around = (other[: 6 * RATE] * level).astype(np.float32)
        half = len(around) // 2
        return np.concatenate([around[:half], middle, around[half:]])

    return attack


def inverted(pattern: np.ndarray) -> Attack:
    """The informed attack on PerTh: its fixed filter undone.

    Args:
        pattern: The mark's gain in dB at every 15.625 Hz from 0.
    """

    def attack(audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        window, hop = 2048 * RATE // 32_000, 240
        _, _, spectrum = scipy.signal.stft(audio, RATE, nperseg=window, noverlap=window - hop)
        spectrum[: len(pattern)] *= 10 ** (-pattern[:, None] / 20)
        _, out = scipy.signal.istft(spectrum, RATE, nperseg=window, noverlap=window - hop)
        return out[: len(audio)].astype(np.float32)

    return attack


ATTACKS: dict[str, Attack] = {
    "none": lambda audio, rng: audio,
    "16-bit": pcm16,
    "resampled to 16 kHz": resampled(16_000),
    "resampled to 8 kHz": resampled(8_000),
    "MP3 64 kbit/s": codec("mp3", "-b:a", "64k"),
    "MP3 32 kbit/s": codec("mp3", "-b:a", "32k"),
    "AAC 48 kbit/s": codec("m4a", "-b:a", "48k"),
    "Opus 24 kbit/s": codec("opus", "-b:a", "24k"),
    "Opus 16 kbit/s": codec("opus", "-b:a", "16k"),
    "Vorbis q2": codec("ogg", "-c:a", "libvorbis", "-q:a", "2"),
    "gain +6 dB": gain(6),
    "gain -20 dB": gain(-20),
    "polarity": lambda audio, rng: -audio,
    "speed +1 %": speed(1.01),
    "speed -1 %": speed(0.99),
    "speed +2 %": speed(1.02),
    "speed -2 %": speed(0.98),
    "speed +5 %": speed(1.05),
    "speed -5 %": speed(0.95),
    "crop to 2 s": cropped(2),
    "100 ms in front": shifted,
    "crop to 1 s": cropped(1),
    "pieces reordered": cut_up,
    "speed +10 %": speed(1.10),
    "tempo +5 %": tempo(1.05),
    "tempo -5 %": tempo(0.95),
    "noise 20 dB": noise(20),
    "noise 10 dB": noise(10),
    "noise 5 dB": noise(5),
    "pink noise 10 dB": pink_noise(10),
    "low-pass 4 kHz": filtered("lowpass", 4000),
    "low-pass 2 kHz": filtered("lowpass", 2000),
    "high-pass 300 Hz": filtered("highpass", 300),
    "high-pass 1 kHz": filtered("highpass", 1000),
    "equaliser +-6 dB": equalised,
    "telephone": telephone,
    "clipping 2 %": clipped,
    "compressor 4:1": compressed,
    "reverberation 0.4 s": reverberated,
    "echo 120 ms": echo,
    "noise reduction": denoised,
    "WORLD resynthesis": world,
    "Codec2 3.2 kbit/s": codec("c2", "-ar", "8000", "-c:a", "libcodec2", "-mode", "3200"),
    codec_name(): our_codec,
}
WIDE: dict[str, Attack] = {
    "speed -20 %": speed(0.8),
    "speed -15 %": speed(0.85),
    "speed +15 %": speed(1.15),
    "speed +20 %": speed(1.2),
    "speed +25 %": speed(1.25),
    "Opus 12 kbit/s": codec("opus", "-b:a", "12k"),
    "Opus 8 kbit/s": codec("opus", "-b:a", "8k"),
    "2.9 s of it": cropped(2.9),
    "2.9 s, Opus 16 kbit/s": lambda a, rng: codec("opus", "-b:a", "16k")(cropped(2.9)(a, rng), rng),
    "2.9 s, noise 20 dB": lambda a, rng: noise(20)(cropped(2.9)(a, rng), rng),
}
PROMISED = tuple(ATTACKS)[:21]
"""The rows that must hold at 99 %: clean, codecs, resampling, gain, polarity, speed, crop."""
