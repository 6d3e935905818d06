"""A keyed mark of our own, in the loudness of bands over time: vocoders let it live.

A secret key gives a pattern of +-1 over cells of 43 ms x one of 24 bands; each cell is made a
little louder or softer. A decoder that takes speech apart and builds it anew (WORLD, a neural
codec, a telephone) must keep how loud each band is when, or it would not be understood: so it
keeps the pattern, where a mark in fine spectral lines or phases is lost. Without the key
the pattern cannot be seen, nor put on another's speech. Spread spectrum after Cox et al. 1997.

Twelve bands are the pilot: they say that the mark is there, where the pattern starts and how fast
the file runs. Three groups of four bands carry the same kind of pattern, each turned by 0 to 127
cells against the pilot: 21 bits, which name the ledger's row.
"""

import hashlib
import hmac
import json
import math
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from sayso.model.files import create_file, unique

from ..errors import MarkError

RATE = 24_000
WINDOW, HOP = 1024, 256
BANDS, GROUPS = 24, 3
CELL = 4
"""Frames (42.7 ms) of one cell."""
PERIOD = 128
"""Cells (5.46 s) until the pattern comes again."""
BITS = 7 * GROUPS
DECIBELS = 2.0
LOWEST, HIGHEST = 200.0, 6000.0
FLOOR = 1e-7
"""Of the loudest band: what is quieter carries nothing (-70 dB)."""
SPEEDS = tuple(round(1 + 0.008 * i, 4) for i in range(-13, 14))
FRAMES = PERIOD * CELL


@dataclass(frozen=True)
class Fit:
    """How well a stretch of audio fits the pattern.

    Attributes:
        evidence: Of the pilot and the best turns of the other groups; see `joint`.
        speed: The factor by which the stretch was sped up; `pitched`: its pitch went along.
        offset: The frame of the pattern at which the stretch starts.
    """

    evidence: float
    speed: float
    pitched: bool
    offset: int


@dataclass(frozen=True)
class Pattern:
    """What follows from the key.

    Attributes:
        chips: +-1, (PERIOD, BANDS).
        wave: Spectrum over time of what `whitened` leaves of them, (FRAMES // 2 + 1, BANDS).
        power: Its mean square in each of the four groups of bands, (GROUPS + 1,).
    """

    chips: Tensor
    wave: Tensor
    power: Tensor

    @classmethod
    def of(cls, key: bytes) -> "Pattern":
        bits = hashlib.shake_256(b"sayso weave 1" + key).digest(PERIOD * BANDS // 8)
        flat = [1.0 if byte >> i & 1 else -1.0 for byte in bits for i in range(8)]
        chips = torch.tensor(flat).reshape(PERIOD, BANDS)
        left = _template(chips)
        power = left.square().mean(0) @ _groups() / _groups().sum(0)
        return cls(chips, torch.fft.rfft(left, dim=0), power)


def payload_of(key: bytes, ledger_id: str) -> int:
    """The 21 bits that stand for a ledger row; without the key they say nothing."""
    digest = hmac.new(key, b"sayso weave payload" + ledger_id.encode(), hashlib.sha256).digest()
    return int.from_bytes(digest[:4], "big") >> (32 - BITS)


def group_of() -> Tensor:
    """Which bands belong to the pilot (0) and to groups 1 to 3, spread over the spectrum: (24,)."""
    return torch.tensor([0, 1, 0, 2, 0, 3] * (BANDS // 6))


def turned(chips: Tensor, payload: int) -> Tensor:
    """The pattern with each payload group turned by its 7 bits."""
    out = chips.clone()
    for group in range(1, GROUPS + 1):
        bands = group_of() == group
        shift = payload >> (7 * (group - 1)) & 127
        out[:, bands] = chips[:, bands].roll(shift, 0)
    return out


def embed(
    audio: Tensor, pattern: Pattern, payload: int, start: int, decibels: float = DECIBELS
) -> Tensor:
    """Puts the pattern into (samples,) at `RATE`, beginning with its frame `start`."""
    window = torch.hann_window(WINDOW)
    spectrum = torch.stft(audio, WINDOW, HOP, window=window, return_complex=True)
    levels = _smooth(turned(pattern.chips, payload))  # (FRAMES, BANDS)
    turns = (torch.arange(spectrum.shape[1]) + start) % FRAMES
    gain = 10 ** (decibels / 20 * levels[turns] @ _shapes())  # (T, WINDOW // 2 + 1)
    return torch.istft(spectrum * gain.T, WINDOW, HOP, window=window, length=len(audio))


def spectrum_of(audio: Tensor) -> Tensor:
    """Power, (T, WINDOW // 2 + 1), of (samples,) at `RATE`."""
    window = torch.hann_window(WINDOW)
    return torch.stft(audio, WINDOW, HOP, window=window, return_complex=True).abs().square().T


def loudness(power: Tensor, speed: float) -> Tensor:
    """Band levels in dB, (T, BANDS), the bands read where a change of pitch has moved them."""
    bands = power @ _members(speed)
    return 10 * torch.log10(bands + FLOOR * bands.max() + 1e-20)


def whitened(levels: Tensor) -> Tensor:
    """What is left of the levels once syllables, colour and big jumps are taken out."""
    rest = levels - _mean_over_time(levels, 4 * CELL + 1)
    rest = rest - _mean_over_bands(rest)
    spread = _mean_over_time(rest.square(), 8 * CELL + 1)
    return (rest / (spread + 4.0).sqrt()).clamp(-2.0, 2.0)


def correlate(rest: Tensor, pattern: Pattern) -> Tensor:
    """How each group fits at each offset, (FRAMES, GROUPS + 1), in rough standard deviations.

    The stretch is folded onto one period, so that all of a long file adds up.
    """
    rounds = math.ceil(len(rest) / FRAMES)
    folded = torch.nn.functional.pad(rest, (0, 0, 0, rounds * FRAMES - len(rest)))
    folded = folded.reshape(rounds, FRAMES, BANDS).sum(0)
    product = torch.fft.rfft(folded, dim=0).conj() * pattern.wave
    total = torch.fft.irfft(
        torch.complex(product.real @ _groups(), product.imag @ _groups()), dim=0
    )
    scale = rest.square().sum(0) @ _groups() * pattern.power
    return total / (2.0 * scale.clamp(min=1e-9).sqrt())  # frames within a cell say the same: / 2


def joint(z: Tensor) -> Tensor:
    """Evidence at each offset, (FRAMES,): the pilot's and, at any turn, that of the other groups.

    A group may be turned by any number of cells, so only the offset within a cell binds it.
    """
    sizes = _groups().sum(0).sqrt()
    turned_best = z[:, 1:].reshape(PERIOD, CELL, GROUPS).amax(0) @ sizes[1:]  # (CELL,)
    return (z[:, 0] * sizes[0] + turned_best.repeat(PERIOD)) / math.sqrt(BANDS)


def fit(power: Tensor, pattern: Pattern, speeds: tuple[float, ...], pitched: bool) -> Fit:
    """The best of all offsets and speeds; `pitched`: the bands move with the speed."""
    best = Fit(-math.inf, 1.0, pitched, 0)
    levels = None if pitched else loudness(power, 1.0)
    for speed in speeds:
        found = loudness(power, speed) if levels is None else levels
        evidence = joint(correlate(whitened(at_speed(found, speed)), pattern))
        offset = int(evidence.argmax())
        if float(evidence[offset]) > best.evidence:
            best = Fit(float(evidence[offset]), speed, pitched, offset)
    return best


def read_payload(power: Tensor, pattern: Pattern, found: Fit) -> tuple[int, float]:
    """The 21 bits at a fit, and how far the least sure group is ahead of its second best."""
    levels = loudness(power, found.speed if found.pitched else 1.0)
    z = correlate(whitened(at_speed(levels, found.speed)), pattern).roll(-found.offset, 0)
    # turned by s cells, a group's own best offset lies s cells before the pilot's
    turns = z[(-torch.arange(PERIOD) * CELL) % FRAMES, 1:]  # (PERIOD, GROUPS)
    best = turns.argmax(0).tolist()
    first, second = turns.topk(2, dim=0).values
    payload = sum(turn << (7 * group) for group, turn in enumerate(best))
    return payload, float((first - second).min())


def at_speed(levels: Tensor, speed: float) -> Tensor:
    """Levels of a file that runs `speed` times too fast, read at the pattern's own pace."""
    if speed == 1.0:
        return levels
    places = torch.arange(int((len(levels) - 1) * speed)) / speed
    below = places.long()
    part = (places - below)[:, None]
    return levels[below] * (1 - part) + levels[below + 1] * part


def ensure_key(file: Path) -> bytes:
    """The store's key for this mark, made on first use (32 random bytes, mode 0600).

    Raises:
        MarkError: The key is there but unreadable, or not 32 bytes, or open to other users.
    """
    file = Path(file)
    try:
        if not file.exists():
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            content = {"kind": "weave", "version": 1, "key": os.urandom(32).hex()}
            draft = file.with_name(f".{file.name}.{unique()}")
            create_file(draft, json.dumps(content).encode())
            try:
                os.link(draft, file)  # fails if another process was first; then its key is used
            finally:
                os.unlink(draft)
    except FileExistsError:
        pass
    except OSError as error:
        raise MarkError(f"The key of the keyed mark cannot be made: {error}.") from error
    return load_key(file)


def load_key(file: Path) -> bytes:
    """The key, or a MarkError that says what is wrong with the file."""
    try:
        if file.stat().st_mode & 0o077:
            raise ValueError("open to other users: chmod 600 it")
        stored = json.loads(file.read_text())
        key = bytes.fromhex(stored["key"])
        if stored["kind"] != "weave" or stored["version"] != 1 or len(key) != 32:
            raise ValueError("not a key of this version")
        return key
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MarkError(
            f"The key of the keyed mark, {file}, cannot be used ({error}). Restore it from a "
            "backup; or move it away: a new one is made, which does not find older marks."
        ) from error


def _smooth(chips: Tensor) -> Tensor:
    """Cells to frames (FRAMES, BANDS), with a raised cosine over the middle half of each step."""
    times = torch.arange(FRAMES) / CELL
    cell = times.long()
    part = ((times - cell - 0.25) / 0.5).clamp(0, 1)
    part = (0.5 - 0.5 * torch.cos(math.pi * part))[:, None]
    return chips[cell] * (1 - part) + chips[(cell + 1) % PERIOD] * part


def _template(chips: Tensor) -> Tensor:
    """What `whitened` leaves of the pattern itself, (FRAMES, BANDS)."""
    frames = _smooth(chips)
    around = torch.cat([frames[-2 * CELL :], frames, frames[: 2 * CELL]])
    frames = frames - torch.nn.functional.avg_pool1d(around.T[None], 4 * CELL + 1, 1)[0].T
    return frames - _mean_over_bands(frames)


@cache
def _groups() -> Tensor:
    """`group_of` as a matrix of 0 and 1, (BANDS, GROUPS + 1)."""
    return torch.nn.functional.one_hot(group_of(), GROUPS + 1).float()


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
    return inside / inside.sum(0)


def _mean_over_time(values: Tensor, length: int) -> Tensor:
    around = torch.nn.functional.pad(values.T[None], (length // 2, length // 2), mode="replicate")
    return torch.nn.functional.avg_pool1d(around, length, 1)[0].T


def _mean_over_bands(values: Tensor) -> Tensor:
    around = torch.nn.functional.pad(values[None], (2, 2), mode="replicate")
    return torch.nn.functional.avg_pool1d(around, 5, 1)[0]
