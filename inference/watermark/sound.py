"""What a file sounds like, in 18 bytes a second: a fingerprint that finds it again.

After Haitsma and Kalker (ISMIR 2002): the sign of how loud each of 12 bands is every 85 ms, against
its own and the other bands' mean around. Words and voice make these signs, so codecs, vocoders and
noise leave most of them; another sentence, or the same one said again, has others.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from . import spread_spectrum as spread
from .spread_spectrum import BANDS, HOP, RATE

PITCHES = 12  # bands of a fingerprint
STEP = 8
"""Frames (85 ms) from one moment of a fingerprint to the next."""
AROUND = 33  # frames (0.35 s) of the mean that is taken off
LENGTH = 35
"""Moments (3 s) that are compared at once."""
PHASES = range(0, STEP, 2)
APART = 12  # moments (1 s) from one window to the next
SPEEDS = tuple(round(0.8 * 1.025**i, 4) for i in range(19))
"""0.8 to 1.25; a fingerprint bears half a step of error."""
SEARCHED = 3
"""Windows of a long file in which other speeds are tried: the loudest ones."""
AT_ONCE = 2048  # places in the library


@dataclass(frozen=True)
class Place:
    """Where a window of a file is most like a fingerprint.

    Attributes:
        likeness: The correlation times the root of the window's moments.
        row: Which fingerprint.
        speed: The factor by which the file was sped up; `pitched`: its pitch went along.
        shift: The frame of the fingerprint's file at which the looked-at file would begin.
        window: The part of the file that was compared, in frames at the file's own pace.
    """

    likeness: float
    row: int
    speed: float
    pitched: bool
    shift: int
    window: tuple[int, int]


def fingerprint(levels: Tensor) -> bytes:
    """Of (T, BANDS) dB, see `spread_spectrum.loudness`."""
    signs = _moments(levels)[::STEP] > 0
    return np.packbits(signs.numpy()).tobytes()


def signs_of(fingerprint: bytes) -> Tensor:
    """(moments, PITCHES) of -1 and 1, int8."""
    bits = np.unpackbits(np.frombuffer(fingerprint, np.uint8))
    moments = len(bits) // PITCHES
    return torch.from_numpy(2 * bits[: moments * PITCHES].astype(np.int8) - 1).reshape(-1, PITCHES)


class Library:
    """Fingerprints to look among.

    Args:
        fingerprints: As `fingerprint` makes them.
    """

    def __init__(self, fingerprints: Sequence[bytes]):
        signs = [signs_of(each) for each in fingerprints]
        gap = torch.zeros(LENGTH, PITCHES, dtype=torch.int8)
        self.signs = torch.cat([*(part for each in signs for part in (gap, each)), gap])
        self.lengths = torch.tensor([len(each) for each in signs], dtype=torch.long)
        starts = (self.lengths + LENGTH).cumsum(0)
        self.starts = LENGTH + torch.cat([starts.new_zeros(1), starts[:-1]])[: len(signs)]

    def tries(self, seconds: float) -> float:
        """Of how many comparisons a file's best is the best: the size of library and file."""
        windows = max(1.0, seconds * RATE / HOP / STEP / APART)
        return max(1.0, float(len(self.signs)) * windows)

    def nearest(self, power: Tensor, changed: bool) -> list[Place]:
        """The best place in each fingerprint, best first.

        Args:
            power: (T, bins).
            changed: Try other speeds, in the loudest windows; else as it is, in all.
        """
        if not len(self.lengths):
            return []
        ways = [(s, p) for p in (True, False) for s in SPEEDS] if changed else [(1.0, True)]
        # one length for all, so that likenesses can be compared
        length = int((len(power) - 1) * min(ways)[0]) // STEP - 1
        length = max(1, min(LENGTH, length))
        most = SEARCHED if changed else None
        windows = [each for way in ways for each in _windows(power, *way, length, most)]
        asked = torch.stack([window.moments.flatten() for window in windows])
        asked = asked / asked.norm(dim=1, keepdim=True).clamp(min=1e-6) / math.sqrt(PITCHES)
        places = self.signs.unfold(0, length, 1)  # (places, PITCHES, length), a view
        values, which = torch.zeros(len(places)), torch.zeros(len(places), dtype=torch.long)
        for start in range(0, len(places), AT_ONCE):
            part = places[start : start + AT_ONCE].transpose(1, 2).flatten(1).float()
            top = (part @ asked.T).max(1)
            values[start : start + len(part)] = top.values
            which[start : start + len(part)] = top.indices
        index = torch.arange(len(places))
        rows = torch.searchsorted(self.starts + self.lengths, index, right=True)
        rows = rows.clamp(max=len(self.lengths) - 1)
        best = torch.full((len(self.lengths),), -1.0).scatter_reduce(0, rows, values, "amax")
        at = torch.zeros(len(self.lengths), dtype=torch.long)
        is_best = values == best[rows]
        at[rows[is_best]] = index[is_best]
        found = []
        for row in best.argsort(descending=True).tolist():
            place = int(at[row])
            window = windows[int(which[place])]
            shift = (place - int(self.starts[row])) * STEP - window.start
            begin = int(window.start / window.speed)
            stop = begin + int(length * STEP / window.speed)
            found.append(
                Place(float(best[row]), row, window.speed, window.pitched, shift, (begin, stop))
            )
        return found

    def along(self, power: Tensor, place: Place) -> list[tuple[int, int, float]]:
        """Likeness to one fingerprint, lying as at a place, in each window: (start, stop, it).

        Start and stop in frames at the file's own pace.
        """
        levels = spread.loudness(power, place.speed if place.pitched else 1.0)
        moments = _moments(spread.at_speed(levels, place.speed))
        first = -place.shift % STEP
        moments = moments[first::STEP]
        before = (first + place.shift) // STEP  # moments of the row before the file begins
        start, count = int(self.starts[place.row]), int(self.lengths[place.row])
        row = torch.zeros(len(moments), PITCHES)
        low, high = max(0, -before), min(len(moments), count - before)
        row[low:high] = self.signs[start + before + low : start + before + high].float()
        length = min(LENGTH, len(moments))
        found = []
        for begin in range(0, len(moments) - length + 1, APART):
            mine, its = moments[begin : begin + length], row[begin : begin + length]
            norm = float(mine.norm()) * math.sqrt(PITCHES)
            at = (first + begin * STEP) / place.speed
            stop = at + length * STEP / place.speed
            found.append((int(at), int(stop), float((mine * its).sum()) / max(norm, 1e-6)))
        return found


@dataclass(frozen=True)
class _Window:
    moments: Tensor  # (moments, PITCHES)
    start: int  # frame, at the corrected pace
    speed: float
    pitched: bool


def _windows(
    power: Tensor, speed: float, pitched: bool, length: int, most: int | None
) -> Iterator[_Window]:
    """Windows of `length` moments at each phase: the loudest, or all."""
    levels = spread.at_speed(spread.loudness(power, speed if pitched else 1.0), speed)
    moments = _moments(levels)
    starts = list(range(0, max(1, len(moments) // STEP - length), APART))
    if most is not None and len(starts) > most:
        level = levels.mean(1)
        starts.sort(key=lambda start: -float(level[start * STEP :][: length * STEP].mean()))
        starts = starts[:most]
    for start in starts:
        for phase in PHASES:
            first = start * STEP + phase
            part = moments[first::STEP][:length]
            if len(part) == length:
                yield _Window(part, first, speed, pitched)


def _moments(levels: Tensor) -> Tensor:
    """(T, BANDS) dB to (T, PITCHES), about 1 in size: smoothed, without the means around."""
    bands = levels.reshape(len(levels), PITCHES, BANDS // PITCHES).mean(-1)
    bands = spread.mean_over_time(bands, STEP + 1)
    bands = bands - spread.mean_over_time(bands, AROUND)
    bands = bands - 0.7 * bands.mean(1, keepdim=True)
    size = spread.mean_over_time(bands.square(), AROUND).mean(1, keepdim=True)
    return (bands / (size + 4.0).sqrt()).clamp(-2.0, 2.0)
