"""The keyed mark as a mark of a store: embedded with a ledger id, found again with the key.

`spread_spectrum` has the pattern and the arithmetic; here are its thresholds (docs/marks.md), the
search over speeds, where in a file the mark is, and which ledger rows its 21 bits may stand for.
"""

import hashlib
import hmac
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sayso.model.audio import resample

from ..errors import MarkError
from . import spread_spectrum
from .base import THRESHOLD, Stretch, Trace, check_audio, to_rate
from .spread_spectrum import FRAMES, HOP, RATE, Fit, Pattern

KEY_FILE = "marks/weave.key"
"""Under the store's folder."""
LIMIT_WHOLE, LIMIT_WINDOW, LIMIT_PITCHED, LIMIT_TEMPO = 7.0, 7.0, 7.8, 7.8
"""Evidence beyond these is called marked; see `tools.fit_watermark`."""
GROWTH = 0.29
"""By how much the highest of n windows grows with ln(n) in unmarked speech."""
SURE = 0.9
"""The lead of the weakest group of bits from which they are believed."""
SPAN, STEP = FRAMES, FRAMES // 4
SEARCHED = 3
"""Windows of a long file in which other speeds are tried: the loudest ones."""


@dataclass(frozen=True)
class KeyedTrace(Trace):
    """A `Trace` with the 21 bits read, or None where they are not sure enough."""

    payload: int | None = None


class Keyed:
    """The keyed mark with one store's key.

    Args:
        key: 32 bytes, see `spread_spectrum.ensure_key`.
    """

    name = "keyed"

    def __init__(self, key: bytes):
        self.key = key
        self.pattern = Pattern.of(key)

    @torch.inference_mode()
    def embed(
        self,
        audio: Tensor,
        sample_rate: int,
        ledger_id: str = "",
        decibels: float = spread_spectrum.DECIBELS,
    ) -> Tensor:
        """Marks (samples,) with the bits of a ledger id; MarkError for silence or NaN.

        Args:
            decibels: How much louder or softer the cells are made.
        """
        check_audio(audio)
        if float(audio.abs().max()) == 0:
            raise MarkError("There is nothing to mark: the audio is silent.")
        host = torch.from_numpy(resample(audio.numpy(), sample_rate, RATE))
        host = torch.nn.functional.pad(host, (0, max(0, spread_spectrum.WINDOW - len(host))))
        # Another beginning for every file, so that files cannot be laid over each other and
        # averaged to show the pattern.
        digest = hmac.new(self.key, b"sayso weave start" + ledger_id.encode(), hashlib.sha256)
        start = int.from_bytes(digest.digest()[:4], "big") % FRAMES
        payload = spread_spectrum.payload_of(self.key, ledger_id)
        marked = spread_spectrum.embed(host, self.pattern, payload, start, decibels)
        return audio + to_rate(marked - host, RATE, sample_rate, len(audio))

    @torch.inference_mode()
    def search(self, audio: Tensor, sample_rate: int) -> KeyedTrace:
        """Looks for the pattern at every offset, and at speeds from 0.9 to 1.1."""
        check_audio(audio)
        if float(audio.abs().max()) == 0:
            return KeyedTrace(0.0)
        host = torch.from_numpy(resample(audio.numpy(), sample_rate, RATE))
        power = spread_spectrum.spectrum_of(
            torch.nn.functional.pad(host, (0, max(0, 1024 - len(host))))
        )
        whole = spread_spectrum.fit(power, self.pattern, (1.0,), True)
        spans = spans_of(len(power))
        found = self._windows(power, whole, spans)
        ratio = whole.evidence / LIMIT_WHOLE
        best, best_power = whole, power
        allowance = GROWTH * math.log(max(1, len(spans)))
        if found and max(z for z in found) > LIMIT_WINDOW + allowance:
            at = max(range(len(found)), key=found.__getitem__)
            ratio_there = (found[at] - allowance) / LIMIT_WINDOW
            if ratio_there > ratio:
                ratio, best_power = ratio_there, power[slice(*spans[at])]
                best = spread_spectrum.fit(best_power, self.pattern, (1.0,), True)
        payload, lead = spread_spectrum.read_payload(best_power, self.pattern, best)
        if ratio < 1 or lead < SURE:  # not found, or found although the speed is a little off
            for start, stop in loudest(power, spans):
                part = power[start:stop]
                for pitched, limit in ((True, LIMIT_PITCHED), (False, LIMIT_TEMPO)):
                    tried = spread_spectrum.fit(part, self.pattern, spread_spectrum.SPEEDS, pitched)
                    if tried.evidence / limit > ratio:
                        ratio, best, best_power = tried.evidence / limit, tried, part
        if best.speed != 1.0:
            found = self._windows(power, best, spans)
        score = min(max(THRESHOLD * ratio, 0.0), 1.0)
        if best_power is not power or best is not whole:
            payload, lead = spread_spectrum.read_payload(best_power, self.pattern, best)
        return KeyedTrace(
            score,
            best.speed,
            tuple(
                Stretch(start * HOP / RATE, stop * HOP / RATE, _score(z, allowance))
                for (start, stop), z in zip(spans, found, strict=True)
            ),
            payload if score >= THRESHOLD and lead >= SURE else None,
        )

    @torch.inference_mode()
    def statistics(self, power: Tensor) -> tuple[float, float, float, float]:
        """The four numbers that have a limit each: whole, windows, and both kinds of speed."""
        spans = spans_of(len(power))
        whole = spread_spectrum.fit(power, self.pattern, (1.0,), True)
        window = max(self._windows(power, whole, spans), default=whole.evidence)
        parts = [power[start:stop] for start, stop in loudest(power, spans)]
        pitched, tempo = (
            max(
                spread_spectrum.fit(part, self.pattern, spread_spectrum.SPEEDS, how).evidence
                for part in parts
            )
            for how in (True, False)
        )
        return whole.evidence, window - GROWTH * math.log(max(1, len(spans))), pitched, tempo

    def score(self, audio: Tensor, sample_rate: int) -> float:
        """0 to 1 at the best speed; 0 for silence."""
        return self.search(audio, sample_rate).score

    def rows(self, payload: int, ledger_ids: Iterable[str]) -> list[str]:
        """The ledger ids that the bits may stand for; by chance one in two million fits too."""
        return [i for i in ledger_ids if spread_spectrum.payload_of(self.key, i) == payload]

    def _windows(self, power: Tensor, found: Fit, spans: list[tuple[int, int]]) -> list[float]:
        """Evidence in each window, at the speed of `found` and any offset."""
        levels = spread_spectrum.loudness(power, found.speed if found.pitched else 1.0)
        return [
            float(
                spread_spectrum.joint(
                    spread_spectrum.correlate(spread_spectrum.whitened(part), self.pattern)
                ).max()
            )
            for part in (spread_spectrum.at_speed(levels[a:b], found.speed) for a, b in spans)
        ]


def load_keyed(home: Path, create: bool = True) -> Keyed | None:
    """The keyed mark of the store in `home`; None if it has no key yet and none is to be made.

    Raises:
        MarkError: The key is unreadable.
    """
    file = Path(home) / KEY_FILE
    if not create and not file.exists():
        return None
    return Keyed(spread_spectrum.ensure_key(file) if create else spread_spectrum.load_key(file))


def spans_of(frames: int) -> list[tuple[int, int]]:
    """Overlapping windows of one period; none where the file is hardly longer than that."""
    if frames < SPAN + STEP:
        return []
    starts = list(range(0, frames - SPAN + 1, STEP))
    if starts[-1] + SPAN < frames:
        starts.append(frames - SPAN)
    return [(start, start + SPAN) for start in starts]


def loudest(power: Tensor, spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Up to `SEARCHED` windows that do not overlap, loudest first; a short file as a whole."""
    if not spans:
        return [(0, len(power))]
    level = (power.sum(1) + 1e-20).log()
    order = sorted(spans, key=lambda span: -float(level[slice(*span)].mean()))
    chosen: list[tuple[int, int]] = []
    for span in order:
        if len(chosen) < SEARCHED and all(abs(span[0] - c[0]) >= SPAN for c in chosen):
            chosen.append(span)
    return chosen


def _score(evidence: float, allowance: float) -> float:
    return min(max(THRESHOLD * (evidence - allowance) / LIMIT_WINDOW, 0.0), 1.0)
