"""What every inaudible mark here has in common: its interface, and what a search for it returns."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import soxr
import torch
from torch import Tensor

from sayso.model.audio import resample

from ..errors import MarkError

THRESHOLD = 0.5
"""A score from here on means marked: every mark's scores are scaled to it."""


@dataclass(frozen=True)
class Stretch:
    """A part of a file and how marked it looks, from `start` to `stop` in seconds."""

    start: float
    stop: float
    score: float


@dataclass(frozen=True)
class Trace:
    """What the search for one mark found in one file.

    Attributes:
        score: 0 to 1; half is where 1 in 1000 clips of real speech would begin to be called marked.
        speed: The factor by which the file seems to have been sped up since it was marked.
        windows: Overlapping windows, each with its own score; empty for a short file.
    """

    score: float
    speed: float = 1.0
    windows: tuple[Stretch, ...] = ()

    @property
    def present(self) -> bool:
        """Whether the score reaches the threshold."""
        return self.score >= THRESHOLD

    def where(self) -> list[tuple[float, float]]:
        """The marked stretches in seconds, joined where their windows touch."""
        joined: list[tuple[float, float]] = []
        for window in self.windows:
            if window.score < THRESHOLD:
                continue
            if joined and window.start <= joined[-1][1]:
                joined[-1] = (joined[-1][0], max(joined[-1][1], window.stop))
            else:
                joined.append((window.start, window.stop))
        return joined


TraceKind = TypeVar("TraceKind", bound=Trace)


def check_audio(audio: Tensor) -> None:
    """Raises MarkError unless it is (samples,), not empty and finite."""
    if audio.ndim != 1 or not len(audio):
        raise MarkError(f"The mark needs audio of shape (samples,), not {tuple(audio.shape)}.")
    if not torch.isfinite(audio).all():
        raise MarkError("The audio holds samples that are not numbers; it cannot carry a mark.")


def at_rate(blocks: Iterable[Tensor], from_rate: int, to_rate: int) -> Iterator[Tensor]:
    """One sound in blocks (samples,), each looked at by `check_audio` and resampled."""
    stream = soxr.ResampleStream(from_rate, to_rate, 1, "float32", "HQ")
    for block in blocks:
        check_audio(block)
        same = from_rate == to_rate
        yield block if same else torch.from_numpy(stream.resample_chunk(block.numpy()))
    if from_rate != to_rate:
        yield torch.from_numpy(stream.resample_chunk(np.zeros(0, np.float32), last=True))


def to_rate(audio: Tensor, from_rate: int, to_rate: int, samples: int) -> Tensor:
    """Resampled (samples,), cut or padded to a given length."""
    out = torch.from_numpy(resample(audio.numpy(), from_rate, to_rate))
    return torch.nn.functional.pad(out, (0, max(0, samples - len(out))))[:samples]
