"""The keyed mark of older stores: one pattern for all files of a store, only looked for now.

Whoever has a few such files and their unmarked originals knows the pattern and can put it on any
recording: it says "marked as this store's older files were", and nothing about who did it.

The pattern comes again every 5.46 s. Twelve bands are the pilot: they say that the mark is there,
where the pattern starts and how fast the file runs. Three groups of four bands carry the same kind
of pattern, each turned by 0 to 127 cells against the pilot: 21 bits, which name the ledger's row.
"""

import hashlib
import hmac
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from . import spread_spectrum as spread
from .base import THRESHOLD, Trace
from .spread_spectrum import BANDS, CELL

GROUPS = 3
PERIOD = 128
"""Cells until the pattern comes again."""
FRAMES = PERIOD * CELL
BITS = 7 * GROUPS
SPEEDS = tuple(round(1 + 0.008 * i, 4) for i in range(-13, 14))
LIMIT_WHOLE, LIMIT_SPEED = 7.0, 7.8
"""Evidence beyond these is called marked: as it is, and at another speed."""
SURE = 0.9
"""The lead of the weakest group of bits from which they are believed."""


@dataclass(frozen=True)
class FixedTrace(Trace):
    """A `Trace` with the 21 bits read, or None where they are not sure enough."""

    payload: int | None = None


class FixedPattern:
    """The fixed pattern of one store.

    Args:
        key: 32 bytes, the store's.
    """

    def __init__(self, key: bytes):
        self.key = key
        bits = hashlib.shake_256(b"sayso weave 1" + key).digest(PERIOD * BANDS // 8)
        flat = [1.0 if byte >> i & 1 else -1.0 for byte in bits for i in range(8)]
        self.chips = torch.tensor(flat).reshape(PERIOD, BANDS)
        left = spread.template(self.chips)
        self.power = left.square().mean(0) @ _groups() / _groups().sum(0)
        self.wave = torch.fft.rfft(left, dim=0)

    def search(self, power: Tensor) -> FixedTrace:
        """Looks in (T, bins) power at every offset, and at speeds from 0.9 to 1.1."""
        evidence, offset = self._fit(power, 1.0, True)
        best = (evidence / LIMIT_WHOLE, offset, 1.0, True)
        payload, lead = self._read(power, *best[1:])
        if best[0] < 1 or lead < SURE:  # not found, or found although the speed is a little off
            part = power[: 4 * FRAMES]
            for speed in SPEEDS:
                for pitched in (True, False):
                    evidence, offset = self._fit(part, speed, pitched)
                    best = max(best, (evidence / LIMIT_SPEED, offset, speed, pitched))
            payload, lead = self._read(part, *best[1:])
        score = min(max(THRESHOLD * best[0], 0.0), 1.0)
        read = payload if score >= THRESHOLD and lead >= SURE else None
        return FixedTrace(score, best[2], payload=read)

    def rows(self, payload: int, ledger_ids: Iterable[str]) -> list[str]:
        """The ledger ids that the bits may stand for; by chance one in two million fits too."""
        return [i for i in ledger_ids if payload_of(self.key, i) == payload]

    def _fit(self, power: Tensor, speed: float, pitched: bool) -> tuple[float, int]:
        """Evidence at the best offset, and that: the pilot's and, at any turn, the other groups'.

        A group may be turned by any number of cells, so only the offset within a cell binds it.
        """
        z = self._correlate(power, speed, pitched)
        sizes = _groups().sum(0).sqrt()
        turned = z[:, 1:].reshape(PERIOD, CELL, GROUPS).amax(0) @ sizes[1:]  # (CELL,)
        joint = (z[:, 0] * sizes[0] + turned.repeat(PERIOD)) / math.sqrt(BANDS)
        offset = int(joint.argmax())
        return float(joint[offset]), offset

    def _read(self, power: Tensor, offset: int, speed: float, pitched: bool) -> tuple[int, float]:
        """The 21 bits, and how far the least sure group is ahead of its second best."""
        z = self._correlate(power, speed, pitched).roll(-offset, 0)
        # turned by s cells, a group's own best offset lies s cells before the pilot's
        turns = z[(-torch.arange(PERIOD) * CELL) % FRAMES, 1:]  # (PERIOD, GROUPS)
        first, second = turns.topk(2, dim=0).values
        payload = sum(turn << (7 * group) for group, turn in enumerate(turns.argmax(0).tolist()))
        return payload, float((first - second).min())

    def _correlate(self, power: Tensor, speed: float, pitched: bool) -> Tensor:
        """How each group fits at each offset, (FRAMES, GROUPS + 1), in standard deviations."""
        levels = spread.loudness(power, speed if pitched else 1.0)
        rest = spread.whitened(spread.at_speed(levels, speed))
        product = torch.fft.rfft(spread.fold(rest, FRAMES), dim=0).conj() * self.wave
        total = torch.fft.irfft(
            torch.complex(product.real @ _groups(), product.imag @ _groups()), dim=0
        )
        scale = rest.square().sum(0) @ _groups() * self.power
        return total / (2.0 * scale.clamp(min=1e-9).sqrt())  # frames within a cell say the same


def payload_of(key: bytes, ledger_id: str) -> int:
    """The 21 bits that stand for a ledger row; without the key they say nothing."""
    digest = hmac.new(key, b"sayso weave payload" + ledger_id.encode(), hashlib.sha256).digest()
    return int.from_bytes(digest[:4], "big") >> (32 - BITS)


def group_of() -> Tensor:
    """Which bands belong to the pilot (0) and to groups 1 to 3, spread over the spectrum: (24,)."""
    return torch.tensor([0, 1, 0, 2, 0, 3] * (BANDS // 6))


@cache
def _groups() -> Tensor:
    """`group_of` as a matrix of 0 and 1, (BANDS, GROUPS + 1)."""
    return torch.nn.functional.one_hot(group_of(), GROUPS + 1).float()
