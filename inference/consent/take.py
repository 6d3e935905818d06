"""A recording as it is checked: read once, out of a file of our own."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from sayso.model.audio import seconds_of
from sayso.model.decoding import read_mono

from .recording import RATE, Audio, prepared

MOST_DECODED = 600.0  # seconds


@dataclass(frozen=True)
class Take:
    """One recording as it is checked.

    Args:
        file: What was given, open.
        path: Its name, for messages and formats: nothing is read there.
        raw: (samples,) float32 at 16 kHz, as it was read.
        name: "consent" or "prompt", for messages.
        beside: The manifest that stood beside it.
    """

    file: BinaryIO
    path: Path
    raw: Audio
    name: str
    beside: bytes | None = None
    decoded: Mapping[int, Audio] = field(default_factory=dict)
    """By rate in Hz, where somebody has decoded the file already."""

    def at(self, rate: int) -> Tensor:
        """(1, samples) float32 at a rate in Hz; InputError if it cannot be read."""
        if rate in self.decoded:
            return torch.from_numpy(self.decoded[rate])[None]
        return torch.from_numpy(_decoded(self.file, self.path, rate))[None]

    @property
    def seconds(self) -> float:
        """The recording's length."""
        return len(self.raw) / RATE

    @cached_property
    def audio(self) -> Audio:
        """(samples,), without offset and at one level."""
        return prepared(self.raw)


def read_take(
    file: BinaryIO,
    path: Path,
    name: str,
    beside: bytes | None = None,
    decoded: Mapping[int, Audio] | None = None,
) -> Take:
    """Read a recording without judging it; InputError when the file is no readable audio.

    A file of more than ten minutes is not decoded past that: it is too long either way.

    Args:
        file, path, name, beside: As of `Take`.
        decoded: (samples,) by rate in Hz, where that was done already, among them `RATE`.
    """
    if decoded:
        return Take(file, path, decoded[RATE], name, beside, decoded)
    long = seconds_of(path, file) > MOST_DECODED
    audio = np.zeros(601 * RATE, np.float32) if long else _decoded(file, path, RATE)
    return Take(file, path, audio, name, beside)


def _decoded(file: BinaryIO, path: Path, rate: int) -> Audio:
    return read_mono(path, [rate], 0.0, MOST_DECODED + 1, True, file)[rate]
