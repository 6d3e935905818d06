"""What of speech is its speaker's own: measured in a prompt, and put on what the model says.

An option for models with a WORLD codec, not in VALL-E 2: from a few hundred speakers a language
model does not learn what all the others are like. Speech in general is a mixture of Gaussians;
a speaker is how it has to be adapted, as in speaker recognition (Reynolds et al., "Speaker
verification using adapted Gaussian mixture models", 2000): median and spread of log F0, mean and
spread of the envelope of voiced and of unvoiced frames, and how far each class of sounds lies from
where it usually does. All of it leans towards the usual where little was heard.

The model reads every prompt in one timbre that it knows well, the pivot, and so speaks in that; its
codes are heard in the prompt's own. `timbre_codec` does both.

E envelope coefficients, C classes of sounds; index 0 is unvoiced, 1 voiced.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from scipy.special import softmax
from torch import Tensor

from .base import Stored
from .world import Features, bridge, concatenate

PRIOR_FRAMES = 1.0
"""As many usual frames are added to a speaker's own before means and spreads are taken."""
PRIOR_CLASS_FRAMES = 1.0
"""The same for each class of sounds."""
ACOUSTIC_SCALE = 1 / 3
"""On log likelihoods, as coefficients of a frame are less independent than their sum says. At 1 a
frame is all of one class, the next of another, and what was changed is harder to understand."""

TIMBRE_SECONDS = 60.0
"""Speech of a speaker of the training corpora in which the timbre is measured."""


@dataclass(frozen=True)
class TimbreConfig:
    envelope: int = 32
    """E, as the codec's."""
    classes: int = 16
    """C, Gaussians for voiced and as many for unvoiced frames."""

    def __post_init__(self):
        if min(self.envelope, self.classes) < 1:
            raise ValueError(f"sizes must be at least 1: {self}")


class Timbre(NamedTuple):
    """What is a speaker's own, float64."""

    pitch: np.ndarray
    """(2,) median and spread of log F0."""
    level: np.ndarray
    """(2, E) means of the envelope."""
    spread: np.ndarray
    """(2, E) standard deviations of the envelope."""
    shift: np.ndarray
    """(2, C, E) from each class's usual place to the speaker's, in spreads."""


class SpeechModel(Stored):
    """Speech in general: measures timbres against it, and changes one for another.

    Freshly built it knows nothing; `training.fitting.world` fits it.
    """

    config_class = TimbreConfig
    pitch: Tensor
    level: Tensor
    spread: Tensor
    centres: Tensor
    variances: Tensor
    weights: Tensor
    pivot_pitch: Tensor
    pivot_level: Tensor
    pivot_spread: Tensor
    pivot_shift: Tensor

    def __init__(self, config: TimbreConfig):
        super().__init__()
        self.config = config
        E, C = config.envelope, config.classes
        self.register_buffer("pitch", torch.tensor([5.0, 0.2]))
        self.register_buffer("level", torch.zeros(2, E))
        self.register_buffer("spread", torch.ones(2, E))
        self.register_buffer("centres", torch.randn(2, C, E))  # in spreads, as the next
        self.register_buffer("variances", torch.ones(2, C, E))
        self.register_buffer("weights", torch.full((2, C), 1 / C))
        for name, shape in (("pitch", (2,)), ("level", (2, E)), ("spread", (2, E))):
            self.register_buffer(f"pivot_{name}", torch.ones(shape))
        self.register_buffer("pivot_shift", torch.zeros(2, C, E))

    @property
    def pivot(self) -> Timbre:
        """The timbre in which the model reads and speaks."""
        return Timbre(*(self._of(f"pivot_{name}") for name in Timbre._fields))

    @pivot.setter
    def pivot(self, timbre: Timbre) -> None:
        """Copy another one into the buffers."""
        for name, value in timbre._asdict().items():
            getattr(self, f"pivot_{name}").copy_(torch.from_numpy(value))

    @property
    def usual(self) -> Timbre:
        """The timbre of nobody in particular."""
        nothing = np.zeros_like(self._of("centres"))
        return Timbre(self._of("pitch"), self._of("level"), self._of("spread"), nothing)

    def measure(self, features: Features) -> Timbre:
        """The timbre of an utterance of T frames, which may be none: then the usual one."""
        voiced = features.f0 > 0
        _, level, spread, shift = self.usual
        for kind in (0, 1):
            rows = features.envelope[voiced == kind]
            if not len(rows):
                continue
            share = len(rows) / (len(rows) + PRIOR_FRAMES)
            level[kind] += share * (rows.mean(0) - level[kind])
            spread[kind] = np.sqrt(share * rows.var(0) + (1 - share) * spread[kind] ** 2)
            own = (rows - level[kind]) / spread[kind]
            shares = self._classes(own, kind)  # (N, C)
            count = shares.sum(0)[:, None]
            shift[kind] = shares.T @ own - count * self._of("centres")[kind]
            shift[kind] /= count + PRIOR_CLASS_FRAMES
        return Timbre(self.measure_pitch(features), level, spread, shift)

    def measure_pitch(self, features: Features) -> np.ndarray:
        """Median and spread of log F0, as of `measure`, at hardly any cost."""
        pitch = self._of("pitch")
        log_f0 = np.log(features.f0[features.f0 > 0])
        share = len(log_f0) / (len(log_f0) + PRIOR_FRAMES)
        if len(log_f0):
            middle = float(np.median(log_f0))
            around = float(np.mean((log_f0 - middle) ** 2))
            pitch[1] = np.sqrt(share * around + (1 - share) * pitch[1] ** 2)
            pitch[0] += share * (middle - pitch[0])
        return pitch

    def change(self, features: Features, old: Timbre, new: Timbre) -> Features:
        """The same words at the same speed, in another timbre than the `old` they have."""
        voiced = features.f0 > 0
        envelope = np.empty_like(features.envelope)
        for kind in (0, 1):
            frames = voiced == kind
            own = (features.envelope[frames] - old.level[kind]) / old.spread[kind]
            own = own + self._classes(own, kind) @ (new.shift - old.shift)[kind]
            envelope[frames] = own * new.spread[kind] + new.level[kind]
        log_f0 = (bridge(features.f0) - old.pitch[0]) / old.pitch[1] * new.pitch[1] + new.pitch[0]
        return Features(
            envelope, np.where(voiced, np.exp(log_f0), 0.0), features.aperiodicity, features.symbols
        )

    def _classes(self, own: np.ndarray, kind: int) -> np.ndarray:
        """How likely each of the frames (N, E), in spreads, is of each class: (N, C)."""
        variances = self._of("variances")[kind]
        away = (own[:, None] - self._of("centres")[kind]) ** 2 / variances  # (N, C, E)
        logs = np.log(self._of("weights")[kind]) - np.log(variances).sum(1) / 2
        return softmax(ACOUSTIC_SCALE * (logs - away.sum(2) / 2), axis=1)

    def _of(self, name: str) -> np.ndarray:
        """A buffer as float64; a copy."""
        return getattr(self, name).detach().cpu().double().numpy().copy()


def speaker_timbre(spoken: Iterable[Features], model: SpeechModel, frame_rate: float) -> Timbre:
    """A speaker's timbre in the first `TIMBRE_SECONDS` of utterances, of which it needs one."""
    heard, frames = [], 0
    for features in spoken:
        heard.append(features)
        frames += len(features.f0)
        if frames >= TIMBRE_SECONDS * frame_rate:
            break
    return model.measure(concatenate(heard))
