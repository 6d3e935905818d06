"""Speed, pitch and formants changed in the vocoder's own terms (WORLD, IEICE Trans. 2016).

For the controls of `speak`, and in training for more speakers than there are recordings of. Only
codecs that know these terms can do it: `WorldCodec` does, EnCodec does not.
"""

import math
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from .world import FLOOR, HIGHEST_F0, LOWEST_F0, Features, WorldConfig, bridge, interpolate, pyworld

SPEEDS, PITCHES, FORMANTS = (0.5, 2.0), (-12.0, 12.0), (0.7, 1.4)


@dataclass(frozen=True)
class Alteration:
    """How a voice is altered; the defaults alter nothing.

    Raises:
        InputError: A value is not finite or out of its range.
    """

    speed: float = 1.0
    """Twice as fast at 2; `SPEEDS`."""
    pitch: float = 0.0
    """Semitones up; `PITCHES`."""
    formant: float = 1.0
    """Factor on the resonances: above 1 a smaller head, below 1 a larger one; `FORMANTS`."""

    def __post_init__(self):
        for name, (least, most) in (("speed", SPEEDS), ("pitch", PITCHES), ("formant", FORMANTS)):
            value = getattr(self, name)
            if not (math.isfinite(value) and least <= value <= most):
                raise InputError(f"{name} is {value}: it must be from {least:g} to {most:g}")

    @property
    def neutral(self) -> bool:
        """Whether nothing is altered."""
        return self == Alteration()

    @property
    def changes_voice(self) -> bool:
        """Whether the voice itself is changed, which its speaker must have allowed."""
        return (self.pitch, self.formant) != (0.0, 1.0)


def alter(features: Features, config: WorldConfig, by: Alteration) -> Features:
    """The same words, otherwise said: T frames become round(T / speed)."""
    envelope, f0, aperiodicity = features
    if by.formant != 1.0:
        envelope = warp(envelope, config, by.formant)
    f0 = np.where(f0 > 0, (f0 * 2 ** (by.pitch / 12)).clip(LOWEST_F0, HIGHEST_F0), 0.0)
    if by.speed != 1.0:
        frames = len(f0)
        position = np.arange(max(1, round(frames / by.speed))) * by.speed
        nearest = np.minimum(np.rint(position).astype(int), frames - 1)
        voiced = f0[nearest] > 0
        f0 = np.where(voiced, np.exp(interpolate(bridge(f0)[:, None], position)[:, 0]), 0.0)
        envelope = interpolate(envelope, position)
        aperiodicity = interpolate(aperiodicity, position)
    return Features(envelope, f0, aperiodicity)


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
