"""Finds PerTh's mark with a matched filter, at any speed, in one five-hundredth of real time.

Measured (docs/marks.md): to any speech PerTh's network answers with the same fixed filter, 1.75 dB
up or down in runs of 15.6 Hz bins below 2 kHz. So the best detector is linear: the mean log
spectrum, freed of its slow slope, against that pattern, weighted by what real speech does by
itself (Fisher's discriminant). A file played faster has the pattern stretched along frequency; one
spectrum serves for all factors. The network's own detector stays for what others run.
"""

import json
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import MarkError

RATE = 8000
WINDOW, HOP, FFT = 512, 80, 2048
"""PerTh's own 64 ms every 10 ms; padded to four points per bin, to read between them."""
BINS = 128
SPEEDS = tuple(round(0.9 + 0.0025 * i, 4) for i in range(81))
FINE = math.ceil(BINS * 4 * 1.1) + 2
SLOPE = 65
"""Points (254 Hz) over which the spectrum's slow slope is averaged."""
LEVELS = (6.0, 24.0)
"""dB over the noise floor from which a point counts: once generously, once only the strong ones."""
BLOCK = 50
"""Frames (0.5 s) that are summed up, to be added to windows of any length later."""
WINDOW_BLOCKS = 6
FITTED = Path(__file__).with_name("perth_filter.safetensors")


@dataclass(frozen=True)
class MatchedFilter:
    """The fitted detector.

    Attributes:
        mean, weights: (2 x BINS,); a feature's distance from real speech, scaled so that the mark
            at full strength gives 1.
        spread: Real speech's standard deviation is sqrt(spread[0] + spread[1] / seconds).
        limits: Thresholds in those deviations: whole file as it is, whole file at any speed, a
            window as it is, a window at any speed.
    """

    mean: Tensor
    weights: Tensor
    spread: tuple[float, float]
    limits: tuple[float, float, float, float]


@dataclass(frozen=True)
class Sums:
    """Weighted sums of one clip's spectra per block: (blocks, 2, FINE) each."""

    values: Tensor
    counts: Tensor

    def feature(self, start: int, stop: int) -> Tensor:
        """The mean deviation from the slope in dB, (2, FINE), over blocks [start, stop)."""
        counts = self.counts[start:stop].sum(0)
        return self.values[start:stop].sum(0) / (counts + 1.0)


@cache
def load_filter() -> MatchedFilter:
    """The fitted detector that comes with the package; MarkError if its file is damaged."""
    try:
        with safe_open(FITTED, "pt") as file:
            numbers = json.loads(file.metadata()["fitted"])
            mean, weights = file.get_tensor("mean"), file.get_tensor("weights")
        return MatchedFilter(mean, weights, tuple(numbers["spread"]), tuple(numbers["limits"]))
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise MarkError(
            f"The watermark detector's {FITTED.name} cannot be read ({error}): reinstall sayso."
        ) from error


def spectra(audio: Tensor) -> Sums:
    """Analyses (samples,) at `RATE`."""
    blocks = max(1, round(len(audio) / (HOP * BLOCK)))
    padded = torch.nn.functional.pad(audio, (WINDOW // 2, WINDOW // 2 + BLOCK * HOP))
    frames = padded.unfold(0, WINDOW, HOP)[: max(1, len(audio) // HOP)] * torch.hann_window(WINDOW)
    power = torch.fft.rfft(frames, FFT)[:, : FINE + SLOPE // 2].abs().square()  # (T, points)
    energy = power.sum(1, keepdim=True)
    level = 10 * torch.log10(power + 1e-10 * energy.max() + 1e-20)
    floor = torch.quantile(level[:: max(1, len(level) // 400)], 0.1, dim=0)
    near = SLOPE // 2
    padded_level = torch.nn.functional.pad(level[:, None], (near, near), mode="replicate")
    slope = torch.nn.functional.avg_pool1d(padded_level, SLOPE, stride=1)[:, 0]
    deviation = (level - slope)[:, :FINE]
    heard = (energy > 1e-5 * energy.max()).float()
    values, counts = [], []
    for threshold in LEVELS:
        weight = torch.sigmoid((level[:, :FINE] - floor[:FINE] - threshold) / 3) * heard
        values.append(weight * deviation)
        counts.append(weight)
    cut = [min(len(level), i * BLOCK) for i in range(blocks)] + [len(level)]
    return Sums(_block_sums(torch.stack(values, 1), cut), _block_sums(torch.stack(counts, 1), cut))


def at_speeds(feature: Tensor) -> Tensor:
    """The pattern's 128 places in (2, FINE), read for each factor of `SPEEDS`: (81, 256)."""
    places = torch.arange(BINS) * 4 * torch.tensor(SPEEDS)[:, None]  # (81, BINS)
    below = places.long()
    part = places - below
    read = feature[:, below] * (1 - part) + feature[:, below + 1] * part  # (2, 81, BINS)
    return read.transpose(0, 1).flatten(1)


def evidence(sums: Sums, fitted: MatchedFilter, start: int, stop: int) -> Tensor:
    """Standard deviations away from real speech at each of `SPEEDS`, (81,)."""
    distance = (at_speeds(sums.feature(start, stop)) - fitted.mean) @ fitted.weights
    seconds = (stop - start) * BLOCK * HOP / RATE
    return distance / math.sqrt(fitted.spread[0] + fitted.spread[1] / seconds)


def windows_of(blocks: int) -> list[tuple[int, int]]:
    """Overlapping windows of 3 s every 0.5 s; none where the whole is no longer than one."""
    if blocks <= WINDOW_BLOCKS:
        return []
    return [(i, i + WINDOW_BLOCKS) for i in range(blocks - WINDOW_BLOCKS + 1)]


def _block_sums(values: Tensor, cut: list[int]) -> Tensor:
    total = torch.cat([torch.zeros_like(values[:1]), values.cumsum(0)])
    return total[cut[1:]] - total[cut[:-1]]
