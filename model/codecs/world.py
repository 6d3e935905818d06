"""WORLD codec: vocoder parameters through a residual quantizer, for where no EnCodec can be had.

Vocoder: Morise et al., WORLD (IEICE Trans. 2016), by `pyworld`. Nothing here is trained by
gradient. D = envelope coefficients + log F0 + voicing + aperiodicity bands.
"""

import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from .base import Said, check_audio, check_codes
from .residual import ResidualQuantizer
from .voice_edit import Alteration

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # pyworld asks pkg_resources for its version
    try:
        import pyworld as _pyworld
    except ImportError as error:
        raise InputError(
            f"pyworld (vocoder) cannot be imported ({error}): pip install pyworld 'setuptools<81'"
        ) from None

pyworld: Any = _pyworld  # its functions are compiled and carry no types

FINE = 5.0  # ms: the pitch tracker and the synthesiser run at this period, WORLD's own
FLOOR = 1e-9  # power: below the quietest recordings seen; keeps digital silence near them
LOWEST_F0, HIGHEST_F0 = 50.0, 800.0  # Hz
STRESS_POWER, STRESS_PITCH, STRESS_LENGTH = 3.0, 2.5, 1.25
"""dB, semitones and times that an emphasised word is above itself; a learnt decoder makes less of
the semitones (docs/text.md)."""
STRESS_EDGE = 5
"""Frames, odd, over which power and pitch rise and fall at its ends."""


@dataclass(frozen=True)
class WorldConfig:
    kind: str = "world"
    sample_rate: int = 24000
    """Hz."""
    frame_ms: float = 20.0
    """Frame period, a multiple of 5 ms."""
    envelope: int = 32
    """Coefficients of the coded spectral envelope; each weighs as much as it varies."""
    f0_weight: float = 0.35
    """Standard deviation of log F0 as the quantizer sees it, beside the envelope's nepers."""
    voicing_weight: float = 0.5
    aperiodicity_weight: float = 0.15
    codebooks: int = 8
    codebook_size: int = 1024

    def __post_init__(self):
        if self.kind != "world":
            raise ValueError(f"kind {self.kind!r} is not 'world'")
        if self.frame_ms < FINE or self.frame_ms % FINE:
            raise ValueError(f"frame_ms {self.frame_ms} is not a multiple of {FINE}")
        if self.sample_rate < 16000 or self.hop != self.sample_rate * self.frame_ms / 1000:
            raise ValueError(f"sample_rate {self.sample_rate} is too low or splits no frame evenly")
        if min(self.envelope, self.codebooks) < 1 or self.codebook_size < 2:
            raise ValueError("envelope and codebooks must be >= 1, codebook_size >= 2")

    @property
    def hop(self) -> int:
        """Samples per frame."""
        return round(self.sample_rate * self.frame_ms / 1000)

    @property
    def bands(self) -> int:
        """Bands of coded aperiodicity: 1 at 16 kHz, 3 at 24 kHz."""
        return pyworld.get_num_aperiodicities(self.sample_rate)

    @property
    def width(self) -> int:
        """D, the features of one frame."""
        return self.envelope + 2 + self.bands


class Features(NamedTuple):
    """One utterance in WORLD's terms, float64, a row per frame."""

    envelope: np.ndarray
    """(T, E) coded log spectral envelope, nepers of power."""
    f0: np.ndarray
    """(T,) Hz, 0 where unvoiced."""
    aperiodicity: np.ndarray
    """(T, bands) dB, 0 where all noise."""
    symbols: np.ndarray | None = None
    """(T,) int64, the text id that a frame says, -1 where none is known, if a model spoke."""


def concatenate(utterances: Iterable[Features]) -> Features:
    """Utterances, of which there must be one, one after the other."""
    rows = zip(*(features[:3] for features in utterances), strict=True)
    return Features(*map(np.concatenate, rows))


def analyse(audio: np.ndarray, config: WorldConfig) -> Features:
    """Audio (samples,) -> features of T = ceil(samples / hop) frames."""
    rate, frames = config.sample_rate, math.ceil(len(audio) / config.hop)
    audio = np.pad(audio.astype(np.float64), (0, frames * config.hop - len(audio)))
    # The tracker links neighbouring frames, which at 20 ms lie too far apart: track finely, thin.
    every = round(config.frame_ms / FINE)
    f0, times = pyworld.dio(audio, rate, frame_period=FINE)
    f0, times = f0[::every][:frames].copy(), times[::every][:frames].copy()
    f0 = pyworld.stonemask(audio, f0, times, rate)
    spectrum = np.maximum(pyworld.cheaptrick(audio, f0, times, rate), FLOOR)
    aperiodicity = pyworld.d4c(audio, f0, times, rate)
    return Features(
        pyworld.code_spectral_envelope(spectrum, rate, config.envelope),
        f0,
        pyworld.code_aperiodicity(aperiodicity, rate),
    )


def synthesise(features: Features, config: WorldConfig) -> np.ndarray:
    """Features of T frames -> audio (T * hop,) float32 within [-1, 1]."""
    rate, every = config.sample_rate, round(config.frame_ms / FINE)
    frames = len(features.f0)
    position = np.arange(frames * every) / every
    nearest = np.minimum(np.rint(position).astype(int), frames - 1)
    f0 = np.exp(interpolate(bridge(features.f0)[:, None], position)[:, 0])
    f0[features.f0[nearest] == 0] = 0.0
    size = pyworld.get_cheaptrick_fft_size(rate)
    spectrum = pyworld.decode_spectral_envelope(
        interpolate(features.envelope, position), rate, size
    )
    aperiodicity = pyworld.decode_aperiodicity(
        interpolate(features.aperiodicity, position), rate, size
    )
    audio = pyworld.synthesize(f0, spectrum, aperiodicity, rate, FINE)
    return np.clip(audio, -1.0, 1.0).astype(np.float32)  # a vocoder knows no full scale


def interpolate(rows: np.ndarray, position: np.ndarray) -> np.ndarray:
    """Rows (T, N) at fractional positions (P,): (P, N), C-contiguous; the last row holds on."""
    low = np.minimum(position.astype(int), len(rows) - 1)
    high = np.minimum(low + 1, len(rows) - 1)
    share = (position - low)[:, None].clip(0.0, 1.0)
    return np.ascontiguousarray(rows[low] * (1 - share) + rows[high] * share)


def bridge(f0: np.ndarray) -> np.ndarray:
    """F0 (T,) in Hz -> log F0 (T,), drawn straight across unvoiced stretches."""
    voiced = np.flatnonzero(f0)
    if len(voiced) == 0:
        return np.full(len(f0), math.log(150.0))  # never heard: any constant will do
    return np.interp(np.arange(len(f0)), voiced, np.log(f0[voiced]))


def to_rows(features: Features) -> np.ndarray:
    """Features -> (T, D): envelope, log F0, voicing 0 or 1, aperiodicity; unscaled."""
    voicing = (features.f0 > 0).astype(np.float64)
    columns = [bridge(features.f0), voicing]
    return np.concatenate([features.envelope, np.stack(columns, 1), features.aperiodicity], axis=1)


def from_rows(rows: np.ndarray, config: WorldConfig) -> Features:
    """(T, D) as of `to_rows`, perhaps quantized -> features WORLD can synthesise."""
    envelope, log_f0, voicing, aperiodicity = np.split(
        rows, [config.envelope, config.envelope + 1, config.envelope + 2], axis=1
    )
    f0 = np.exp(log_f0[:, 0].clip(math.log(LOWEST_F0), math.log(HIGHEST_F0)))
    voiced = voicing[:, 0] > 0.5
    return Features(
        envelope,
        np.where(voiced, f0, 0.0),
        np.where(voiced[:, None], aperiodicity, 0.0).clip(-60.0, 0.0),
    )


def alter(features: Features, config: WorldConfig, by: Alteration) -> Features:
    """The same words, otherwise said: T frames become round(T / speed)."""
    envelope, f0, aperiodicity, symbols = features
    if by.formant != 1.0:
        envelope = warp(envelope, config, by.formant)
    f0 = np.where(f0 > 0, (f0 * 2 ** (by.pitch / 12)).clip(LOWEST_F0, HIGHEST_F0), 0.0)
    altered = Features(envelope, f0, aperiodicity, symbols)
    if by.speed != 1.0:
        altered = _at(altered, np.arange(max(1, round(len(f0) / by.speed))) * by.speed)
    return altered


def emphasise(features: Features, stressed: np.ndarray, config: WorldConfig) -> Features:
    """Words made louder, higher and longer; which frames are theirs says `stressed` (T,) bool."""
    bell = np.hanning(STRESS_EDGE + 2)
    share = np.convolve(stressed, bell / bell.sum(), "same")  # (T,) 0 to 1, soft at the ends
    size = pyworld.get_cheaptrick_fft_size(config.sample_rate) // 2 + 1
    flat = np.stack([np.ones(size), np.full(size, 10 ** (STRESS_POWER / 10))])
    low, high = pyworld.code_spectral_envelope(flat, config.sample_rate, config.envelope)
    f0 = features.f0 * 2 ** (STRESS_PITCH / 12 * share)
    louder = Features(
        features.envelope + share[:, None] * (high - low),
        np.where(f0 > 0, f0.clip(LOWEST_F0, HIGHEST_F0), 0.0),
        features.aperiodicity,
        features.symbols,
    )
    length = np.where(stressed, STRESS_LENGTH, 1.0)
    begins = np.cumsum(length) - length
    return _at(louder, np.interp(np.arange(round(length.sum())), begins, np.arange(len(f0))))


def _at(features: Features, position: np.ndarray) -> Features:
    """Features at fractional places (P,) among their frames."""
    nearest = np.minimum(np.rint(position).astype(int), len(features.f0) - 1)
    f0 = np.exp(interpolate(bridge(features.f0)[:, None], position)[:, 0])
    return Features(
        interpolate(features.envelope, position),
        np.where(features.f0[nearest] > 0, f0, 0.0),
        interpolate(features.aperiodicity, position),
        None if features.symbols is None else features.symbols[nearest],
    )


def warp(envelope: np.ndarray, config: WorldConfig, factor: float) -> np.ndarray:
    """Coded envelopes (T, E) with every resonance at `factor` times its frequency."""
    size = pyworld.get_cheaptrick_fft_size(config.sample_rate)
    spectrum = pyworld.decode_spectral_envelope(
        np.ascontiguousarray(envelope), config.sample_rate, size
    )
    bins = np.arange(spectrum.shape[1])
    source = np.minimum(bins / factor, bins[-1])
    low = source.astype(int)
    high = np.minimum(low + 1, bins[-1])
    share = source - low
    logs = np.log(np.maximum(spectrum, FLOOR))
    warped = np.exp(logs[:, low] * (1 - share) + logs[:, high] * share)
    return pyworld.code_spectral_envelope(
        np.ascontiguousarray(warped), config.sample_rate, config.envelope
    )


class WorldCodec(ResidualQuantizer):
    """A codec over WORLD parameters; `training.fitting.world.fit_world` fits it."""

    config_class = WorldConfig
    edits = True
    stresses = True

    def __init__(self, config: WorldConfig):
        super().__init__(config.width, config.codebooks, config.codebook_size)
        self.config = config
        self.sample_rate = config.sample_rate
        self.frame_rate = 1000 / config.frame_ms

    def encode(self, audio: Tensor) -> Tensor:
        """Audio (B, samples) -> codes (B, K, ceil(samples / hop)); raises InputError."""
        check_audio(audio)
        return torch.stack([self.quantize(analyse(a.cpu().numpy(), self.config)) for a in audio])

    def quantize(self, features: Features) -> Tensor:
        """Features of one utterance -> codes (K, T)."""
        return self.quantize_rows(torch.from_numpy(to_rows(features)))

    def features(self, codes: Tensor) -> Features:
        """Codes (k, T) of one utterance -> its features; raises InputError."""
        return from_rows(self.rows(codes).cpu().double().numpy(), self.config)

    def decode(self, codes: Tensor) -> Tensor:
        """Codes (B, k, T) -> audio (B, T * hop) float32; raises InputError."""
        check_codes(codes, self.codebooks, self.codebook_size)
        return torch.stack([self.hear(one) for one in codes])

    def hear(self, prompt: Tensor, edit: Alteration | None = None) -> Tensor:
        """Codes (k, T) -> audio (samples,), edited; raises InputError."""
        return self.render(self.features(prompt), edit)

    def say(self, one: Said) -> Tensor:
        """As of `Codec`: neither prompt nor symbols are needed; raises InputError."""
        features = self.features(one.codes)
        if one.stressed is not None:
            features = emphasise(features, one.stressed.numpy(), self.config)
        return self.render(features, one.edit)

    def render(self, features: Features, edit: Alteration | None = None) -> Tensor:
        """Features, edited -> audio (samples,) float32."""
        if edit is not None and not edit.neutral:
            features = alter(features, self.config, edit)
        return torch.from_numpy(synthesise(features, self.config))

    def quantize_edited(self, features: Features, edits: Sequence[Alteration]) -> list[Tensor]:
        """Codes (K, T) of an utterance, then of its edited copies."""
        copies = [alter(features, self.config, edit) for edit in edits]
        return [self.quantize(each) for each in (features, *copies)]

    def model_codes(
        self, audio: Tensor, speaker: None = None, edits: Sequence[Alteration] = ()
    ) -> list[Tensor]:
        """Codes (K, T) of audio (1, samples), then of its edited copies; raises InputError."""
        check_audio(audio)
        return self.quantize_edited(analyse(audio[0].cpu().numpy(), self.config), edits)
