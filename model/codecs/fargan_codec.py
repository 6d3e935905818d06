"""FARGAN codec: a neural vocoder's features through a residual quantizer, 16 kHz, 50 frames/s.

Two frames of 10 ms make one row: their mean and, but for pitch, half their difference, D = 39. The
vocoder is upstream's (`fargan`); the quantizer is fitted by `training.fitting.fargan`.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .base import check_audio, check_codes, fingerprint
from .fargan import CEPSTRA, FEATURES, HOP, SAMPLE_RATE, FarganVocoder
from .fargan_features import PEAKS, FarganFeatures, band_shapes, cosines
from .fargan_weights import SHA256
from .residual import ResidualQuantizer
from .voice_edit import Alteration

FRAMES = 2  # of 10 ms, per code
WIDTH = FRAMES * FEATURES - 1  # D
VOICED = -0.25
"""Pitch correlation, -.5 to .5, above which what the pitch network says is taken for a pitch."""
LOWEST, HIGHEST = -1.5, 1.5  # pitch: 62.5 and 500 Hz
SMOOTH, REACH = 2.0, 6  # frames: deviation of the bell that smooths pitch, and how far it goes


@dataclass(frozen=True)
class FarganConfig:
    kind: str = "fargan"
    codebooks: int = 16
    codebook_size: int = 1024

    def __post_init__(self):
        if self.kind != "fargan":
            raise ValueError(f"kind {self.kind!r} is not 'fargan'")
        if self.codebooks < 1 or self.codebook_size < 2:
            raise ValueError("codebooks must be >= 1, codebook_size >= 2")


def to_rows(features: Tensor) -> Tensor:
    """Features (2 T, 20) of one utterance -> rows (T, 39), pitch drawn across unvoiced frames."""
    pairs = bridged(features).view(-1, FRAMES, FEATURES)
    half = (pairs[:, 1] - pairs[:, 0]) / 2
    return torch.cat([pairs.mean(1), half[:, :CEPSTRA], half[:, CEPSTRA + 1 :]], 1)


def from_rows(rows: Tensor) -> Tensor:
    """(T, 39) as of `to_rows`, perhaps quantized -> features (2 T, 20), pitch smooth."""
    middle, cepstra, correlation = rows.split([FEATURES, CEPSTRA, 1], 1)
    half = torch.cat([cepstra, torch.zeros_like(correlation), correlation], 1)
    features = torch.stack([middle - half, middle + half], 1).flatten(0, 1)
    features[:, CEPSTRA] = smoothed(features[:, CEPSTRA]).clamp(LOWEST, HIGHEST)
    return features


def smoothed(pitch: Tensor) -> Tensor:
    """Pitch (T,) without its jitter, which quantizing adds and which is heard as roughness."""
    bell = torch.exp(-0.5 * (torch.arange(-REACH, REACH + 1) / SMOOTH) ** 2).to(pitch)
    padded = F.pad(pitch[None, None], (REACH, REACH), mode="replicate")
    return F.conv1d(padded, (bell / bell.sum())[None, None])[0, 0]


def bridged(features: Tensor) -> Tensor:
    """Features (T, 20) with the pitch of unvoiced frames drawn straight between voiced ones.

    There the pitch network guesses; the vocoder does as well without (docs/log.md), and the
    quantizer need not say it.
    """
    pitch, voiced = features[:, CEPSTRA].cpu().numpy(), features[:, CEPSTRA + 1].cpu() > VOICED
    if not voiced.any():
        return features
    places = np.flatnonzero(voiced.numpy())
    drawn = np.interp(np.arange(len(pitch)), places, pitch[places])
    features = features.clone()
    features[:, CEPSTRA] = torch.from_numpy(drawn).to(features)
    return features


def alter(features: Tensor, by: Alteration) -> Tensor:
    """The same words, otherwise said, within FARGAN's pitches: T frames become round(T / speed)."""
    if by.neutral:
        return features
    rows = bridged(features).double().cpu().numpy()
    rows[:, CEPSTRA] = (rows[:, CEPSTRA] + by.pitch / 12).clip(LOWEST, HIGHEST)
    if by.formant != 1.0:
        rows[:, :CEPSTRA] = warp(rows[:, :CEPSTRA], by.formant)
    if by.speed != 1.0:
        position = np.arange(max(1, round(len(rows) / by.speed))) * by.speed
        frames = np.arange(len(rows))
        rows = np.stack([np.interp(position, frames, column) for column in rows.T], 1)
    return torch.from_numpy(rows).to(features)


def warp(cepstra: np.ndarray, factor: float) -> np.ndarray:
    """Cepstra (T, 18) with every resonance at `factor` times its frequency."""
    width = band_shapes().sum(0)
    width[[0, -1]] *= 2
    tilt, basis = np.log10(width), cosines()  # wide bands hold more
    heights = cepstra @ basis.T - tilt  # (T, 18 bands), decades
    warped = [np.interp(np.array(PEAKS) / factor, PEAKS, row) for row in heights]
    return (np.stack(warped) + tilt) @ basis


def even(features: Tensor) -> Tensor:
    """Features (T, 20), the last twice if T is odd: two make a row."""
    return torch.cat([features, features[-1:]]) if len(features) % 2 else features


class FarganCodec(ResidualQuantizer):
    """A codec over FARGAN's features; `training.fitting.fargan.fit_fargan` fits it."""

    config_class = FarganConfig
    edits = True

    def __init__(self, config: FarganConfig):
        super().__init__(WIDTH, config.codebooks, config.codebook_size)
        self.config = config
        self.sample_rate = SAMPLE_RATE
        self.hop = FRAMES * HOP
        self.frame_rate = SAMPLE_RATE / self.hop
        self.measure, self.vocoder = FarganFeatures(), FarganVocoder()
        self.eval()

    @property
    def identity(self) -> str:
        """sha256 (hex) over config, every tensor and the vocoder's weights."""
        return fingerprint(dataclasses.asdict(self.config) | {"vocoder": SHA256}, self)

    def analyse(self, audio: Tensor) -> Tensor:
        """Audio (B, samples) -> features (B, 2 * ceil(samples / 320), 20); raises InputError."""
        check_audio(audio)
        audio = audio.to(self.mean.device)
        return self.measure(F.pad(audio, (0, -audio.shape[1] % self.hop)))

    def encode(self, audio: Tensor) -> Tensor:
        """Audio (B, samples) -> codes (B, K, ceil(samples / 320)); raises InputError."""
        return torch.stack([self.quantize(features) for features in self.analyse(audio)])

    def quantize(self, features: Tensor) -> Tensor:
        """Features (2 T, 20) of one utterance -> codes (K, T)."""
        return self.quantize_rows(to_rows(features))

    def features(self, codes: Tensor) -> Tensor:
        """Codes (k, T) of one utterance -> its features (2 T, 20); raises InputError."""
        return from_rows(self.rows(codes))

    def decode(self, codes: Tensor) -> Tensor:
        """Codes (B, k, T) -> audio (B, T * 320) float32; raises InputError."""
        check_codes(codes, self.codebooks, self.codebook_size)
        return self.vocoder(torch.stack([self.features(one) for one in codes])).cpu()

    def hear(self, prompt: Tensor, edit: Alteration | None = None) -> Tensor:
        """Codes (k, T) -> audio (samples,), edited; raises InputError."""
        features = alter(self.features(prompt), edit or Alteration())
        return self.vocoder(features[None])[0].cpu()

    def model_codes(
        self, audio: Tensor, speaker: None = None, edits: Sequence[Alteration] = ()
    ) -> list[Tensor]:
        """Codes (K, T) of audio (1, samples), then of its edited copies; raises InputError."""
        features = self.analyse(audio)[0]
        return [self.quantize(even(alter(features, edit))) for edit in (Alteration(), *edits)]
