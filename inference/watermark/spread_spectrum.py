"""Spread spectrum in the loudness of bands over time (Cox et al. 1997): vocoders let it live.

A pattern of +-1 over cells of 43 ms x one of 24 bands; each cell is made a little louder or softer.
A decoder that takes speech apart and builds it anew (WORLD, a neural codec, a telephone) must keep
how loud each band is when, or it would not be understood: so it keeps the pattern, where a mark in
fine spectral lines or phases is lost. `keyed` says where a pattern comes from.
"""

import math
from collections.abc import Iterable, Iterator
from functools import cache

import torch
from torch import Tensor

RATE = 24_000
WINDOW, HOP = 1024, 256
BANDS = 24
CELL = 4
"""Frames (42.7 ms) of one cell."""
DECIBELS = 2.0
LOWEST, HIGHEST = 200.0, 6000.0
FLOOR = 1e-7
"""Of the loudest band: what is quieter carries nothing (-70 dB)."""


def embed(audio: Tensor, chips: Tensor, start: int, decibels: float = DECIBELS) -> Tensor:
    """Puts chips (cells, BANDS) into (samples,) at `RATE`, beginning with their frame `start`."""
    window = torch.hann_window(WINDOW)
    spectrum = torch.stft(audio, WINDOW, HOP, window=window, return_complex=True)
    turns = (torch.arange(spectrum.shape[1]) + start) % (len(chips) * CELL)
    gain = 10 ** (decibels / 20 * _smooth(chips)[turns] @ _shapes())  # (T, WINDOW // 2 + 1)
    return torch.istft(spectrum * gain.T, WINDOW, HOP, window=window, length=len(audio))


def spectra(blocks: Iterable[Tensor]) -> Iterator[Tensor]:
    """Power, (T, WINDOW // 2 + 1), of one sound at `RATE` in blocks (samples,), piece by piece.

    Both ends are mirrored; a sound that is shorter than a window is padded.
    """
    half, rest, begun = WINDOW // 2, torch.zeros(0), False
    for block in blocks:
        rest = torch.cat([rest, block])
        if len(rest) >= WINDOW:
            rest = rest if begun else torch.cat([rest[1 : half + 1].flip(0), rest])
            begun = True
            yield (power := _power(rest))
            rest = rest[HOP * len(power) :]
    if not begun:
        rest = torch.nn.functional.pad(rest, (0, WINDOW - len(rest)))
        rest = torch.cat([rest[1 : half + 1].flip(0), rest])
    rest = torch.cat([rest, rest[-half - 1 : -1].flip(0)])
    if len(rest) >= WINDOW:
        yield _power(rest)


def _power(audio: Tensor) -> Tensor:
    window = torch.hann_window(WINDOW)
    spectrum = torch.stft(audio, WINDOW, HOP, window=window, center=False, return_complex=True)
    return spectrum.abs().square().T


def spectrum_of(audio: Tensor) -> Tensor:
    """Power, (T, WINDOW // 2 + 1), of (samples,) at `RATE`; shorter than a window, it is padded."""
    return torch.cat([*spectra([audio])])


def bands_of(blocks: Iterable[Tensor]) -> Tensor:
    """Power of the bands, (T, BANDS), of one sound at `RATE` in blocks (samples,), as if in one."""
    return torch.cat([power @ _members(1.0) for power in spectra(blocks)])


def loudness(power: Tensor, speed: float) -> Tensor:
    """Band levels in dB, (T, BANDS), the bands read where a change of pitch has moved them."""
    return levels_of(power @ _members(speed))


def levels_of(bands: Tensor) -> Tensor:
    """Power of bands (T, BANDS) in dB, not below what is heard beside the loudest."""
    return 10 * torch.log10(bands + FLOOR * bands.max() + 1e-20)


def whitened(levels: Tensor) -> Tensor:
    """What is left of the levels once syllables, colour and big jumps are taken out."""
    rest = levels - mean_over_time(levels, 4 * CELL + 1)
    rest = rest - _mean_over_bands(rest)
    spread = mean_over_time(rest.square(), 8 * CELL + 1)
    return (rest / (spread + 4.0).sqrt()).clamp(-2.0, 2.0)


def template(chips: Tensor) -> Tensor:
    """What `whitened` leaves of a pattern itself: (cells, BANDS) to (cells * CELL, BANDS)."""
    frames = _smooth(chips)
    around = torch.cat([frames[-2 * CELL :], frames, frames[: 2 * CELL]])
    frames = frames - torch.nn.functional.avg_pool1d(around.T[None], 4 * CELL + 1, 1)[0].T
    return frames - _mean_over_bands(frames)


def fold(rest: Tensor, frames: int) -> Tensor:
    """(T, BANDS) laid over itself in periods of (frames, BANDS), so that all of it adds up."""
    rounds = math.ceil(len(rest) / frames)
    padded = torch.nn.functional.pad(rest, (0, 0, 0, rounds * frames - len(rest)))
    return padded.reshape(rounds, frames, BANDS).sum(0)


def at_speed(levels: Tensor, speed: float) -> Tensor:
    """Levels of a file that runs `speed` times too fast, read at the pattern's own pace."""
    if speed == 1.0:
        return levels
    places = torch.arange(int((len(levels) - 1) * speed)) / speed
    below = places.long()
    part = (places - below)[:, None]
    return levels[below] * (1 - part) + levels[below + 1] * part


def mean_over_time(values: Tensor, length: int) -> Tensor:
    """A running mean of (T, n) over an odd number of frames."""
    around = torch.nn.functional.pad(values.T[None], (length // 2, length // 2), mode="replicate")
    return torch.nn.functional.avg_pool1d(around, length, 1)[0].T


def _mean_over_bands(values: Tensor) -> Tensor:
    around = torch.nn.functional.pad(values[None], (2, 2), mode="replicate")
    return torch.nn.functional.avg_pool1d(around, 5, 1)[0]


def _smooth(chips: Tensor) -> Tensor:
    """Cells to frames, with a raised cosine over the middle half of each step."""
    times = torch.arange(len(chips) * CELL) / CELL
    cell = times.long()
    part = ((times - cell - 0.25) / 0.5).clamp(0, 1)
    part = (0.5 - 0.5 * torch.cos(math.pi * part))[:, None]
    return chips[cell] * (1 - part) + chips[(cell + 1) % len(chips)] * part


def _edges() -> Tensor:
    """Band edges in Hz, (BANDS + 1,): even below, geometric above, as hearing is."""
    steps = torch.linspace(0, 1, BANDS + 1, dtype=torch.float64)
    low, high = math.log(LOWEST + 600), math.log(HIGHEST + 600)
    return torch.exp(low + (high - low) * steps) - 600


@cache
def _shapes() -> Tensor:
    """Each band's share in each bin's gain, (BANDS, WINDOW // 2 + 1): trapezoids that overlap."""
    hertz = torch.arange(WINDOW // 2 + 1, dtype=torch.float64) * RATE / WINDOW
    edges = _edges()
    ramp = 0.25 * (edges[1:] - edges[:-1])[:, None]
    rising = (hertz - edges[:-1, None]) / ramp + 0.5
    falling = (edges[1:, None] - hertz) / ramp + 0.5
    return torch.minimum(rising, falling).clamp(0, 1).float()


@cache
def _members(speed: float) -> Tensor:
    """Which bins make up each band of a file `speed` times too fast, (WINDOW // 2 + 1, BANDS)."""
    hertz = torch.arange(WINDOW // 2 + 1, dtype=torch.float64)[:, None] * RATE / WINDOW
    edges = _edges() * speed
    inside = ((hertz >= edges[:-1]) & (hertz < edges[1:])).float()
    return inside / inside.sum(0).clamp(min=1.0)
