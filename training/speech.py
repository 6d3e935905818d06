"""Which recordings are used, and one of them read for a codec."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sayso.model.audio import resample
from sayso.model.errors import InputError

from .recordings import Recording, samples_of

CLIPPED_SHARE = 0.001  # of samples at full scale, above which a recording counts as clipped


@dataclass(frozen=True)
class Filters:
    """Which recordings are used."""

    min_seconds: float = 0.5
    max_seconds: float = 20.0


class Unusable(Exception):
    """One utterance cannot be used; the message is the reason that is counted."""


def read_speech(recording: Recording, sample_rate: int, filters: Filters) -> Tensor:
    """One recording as (1, samples) float32 mono at `sample_rate`.

    Raises:
        Unusable: It cannot be decoded or is cut off, too short, too long, clipped, silent or not
            finite.
    """
    try:
        audio, rate, missing = samples_of(recording)
    except InputError as error:
        raise Unusable("unreadable") from error
    if missing:
        raise Unusable("cut off")
    seconds = len(audio) / rate
    if seconds < filters.min_seconds:
        raise Unusable("too short")
    if seconds > filters.max_seconds:
        raise Unusable("too long")
    if not np.isfinite(audio).all():
        raise Unusable("not finite")
    if (np.abs(audio) >= 0.999).mean() > CLIPPED_SHARE:
        raise Unusable("clipped")
    audio = audio.mean(axis=1)
    if np.abs(audio).max() < 1e-3:
        raise Unusable("silent")
    return torch.from_numpy(resample(audio, rate, sample_rate))[None]
