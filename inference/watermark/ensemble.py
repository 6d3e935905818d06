"""All the inaudible marks of one store together: put in, looked for, and demanded.

PerTh is the public one (anyone with the package can find it, and forge it); the keyed one, bound to
an output's sound, only the store can find; AudioSeal joins where its weights are. A mark is made
stronger until it is found with a margin, because a short or noisy sentence carries less.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from torch import Tensor

from ..errors import MarkError
from .audioseal import AudioSealMark, audioseal_files, load_audioseal
from .base import THRESHOLD, Stretch, Trace, TraceKind, check_audio
from .fixed_pattern import FixedTrace, payload_of
from .keyed import Keyed, KeyedTrace, Row, load_keyed
from .perth import Perth, PerthTrace, load_watermarker

PERTH_STRENGTHS = (0.65, 0.8, 1.0, 1.3, 1.7, 2.2)
KEYED_DECIBELS = (2.0, 2.5, 3.5, 5.0, 7.0)
MARGIN = 0.65
"""The score that each mark must reach when it is put in, well above the threshold."""
PIECE, OVERLAP = 60.0, 6.0
"""Seconds: longer files are looked at in pieces, as memory grows with the length (0.4 GB/min)."""
CALIBRATED, PERTH_GROWTH, FIXED_GROWTH = 15.0, 0.055, 0.016
"""The highest score of an unmarked file grows with the logarithm of its length over 15 s, by the
scale of the (Gumbel) distribution of scores over all real clips; so much is taken off."""


@dataclass(frozen=True)
class Found:
    """What was found of each mark in one file; None for a mark that cannot be looked for here.

    `fixed` is that of older stores, looked for where the ledger has outputs without a fingerprint.
    """

    perth: PerthTrace
    keyed: KeyedTrace | None
    fixed: FixedTrace | None = None
    audioseal: Trace | None = None

    def named(self) -> dict[str, Trace | None]:
        """Each mark's trace by its name."""
        keyed = {"perth": self.perth, "keyed": self.keyed, "fixed": self.fixed}
        return {**keyed, "audioseal": self.audioseal}

    @property
    def traces(self) -> list[Trace]:
        """Those of the marks that were looked for."""
        return [trace for trace in self.named().values() if trace is not None]

    @property
    def score(self) -> float:
        """The highest of the marks' scores."""
        return max(trace.score for trace in self.traces)

    @property
    def present(self) -> bool:
        """Whether any mark is there."""
        return self.score >= THRESHOLD


class Marks:
    """The marks of a store.

    Args:
        perth: From `load_watermarker`.
        keyed: From `load_keyed`; None where there is no key: then nothing can be marked, only
            PerTh's mark be found.
        audioseal: From `load_audioseal_if_there`, or None.
    """

    def __init__(self, perth: Perth, keyed: Keyed | None, audioseal: AudioSealMark | None = None):
        self.perth = perth
        self.keyed = keyed
        self.audioseal = audioseal

    def embed(self, audio: Tensor, sample_rate: int, pattern: str, start: int = 0) -> Tensor:
        """Puts every mark into (samples,); MarkError if one cannot be made strong enough.

        `start` samples of the same output come before it. `pattern` is the name of the keyed mark's
        pattern: the ledger id, or `again`.
        """
        if self.keyed is None:
            raise MarkError("There is no key for the keyed mark; nothing can be marked without it.")
        if self.audioseal is not None:
            bits = payload_of(self.keyed.key, pattern) & 0xFFFF
            audio = self.audioseal.embed(audio, sample_rate, bits)
        audio = self._embed_perth(audio, sample_rate)
        return self._embed_keyed(self.keyed, audio, sample_rate, pattern, start)

    def again(self, audio: Tensor, sample_rate: int) -> str:
        """See `Keyed.again`; MarkError without a key."""
        if self.keyed is None:
            raise MarkError("There is no key for the keyed mark; nothing can be marked without it.")
        return self.keyed.again(audio, sample_rate)

    def fingerprint(self, blocks: Iterable[Tensor], sample_rate: int) -> bytes:
        """What the ledger keeps of an output in blocks (samples,); MarkError without a key."""
        if self.keyed is None:
            raise MarkError("There is no key for the keyed mark: its outputs are not found again.")
        return self.keyed.fingerprint(blocks, sample_rate)

    def search(self, audio: Tensor, sample_rate: int) -> Found:
        """Looks for every mark in (samples,), in pieces where it is long."""
        check_audio(audio)
        length, step = int(PIECE * sample_rate), int((PIECE - OVERLAP) * sample_rate)
        starts = range(0, max(1, len(audio) - int(OVERLAP * sample_rate)), step)
        whole = len(audio) / sample_rate
        parts = (audio[start : start + length] for start in starts)
        found = [self._search(part, sample_rate, whole) for part in parts]
        begins = [start / sample_rate for start in starts]
        seconds = len(audio) / sample_rate
        keyed = [each.keyed for each in found if each.keyed is not None]
        fixed = [each.fixed for each in found if each.fixed is not None]
        seal = [each.audioseal for each in found if each.audioseal is not None]
        return Found(
            joined([each.perth for each in found], begins, seconds, PERTH_GROWTH),
            joined_keyed(keyed, begins) if keyed else None,
            joined(fixed, begins, seconds, FIXED_GROWTH) if fixed else None,
            joined(seal, begins, seconds, 0.0) if seal else None,
        )

    def _search(self, audio: Tensor, sample_rate: int, whole: float) -> Found:
        keyed = self.keyed
        return Found(
            self.perth.search(audio, sample_rate),
            None if keyed is None else keyed.search(audio, sample_rate, whole),
            None if keyed is None or not keyed.older else keyed.search_fixed(audio, sample_rate),
            None if self.audioseal is None else self.audioseal.search(audio, sample_rate),
        )

    def demand(self, audio: Tensor, sample_rate: int, pattern: str) -> float:
        """The highest score of an output's marks (samples,); MarkError unless each is there."""
        if self.keyed is None:
            raise MarkError("There is no key for the keyed mark; nothing is released without it.")
        scores = {
            "perth": self.perth.score(audio, sample_rate),
            "keyed": self.keyed.score(audio, sample_rate, pattern),
        }
        if self.audioseal is not None:
            scores["audioseal"] = self.audioseal.score(audio, sample_rate)
        for name, score in scores.items():
            if score < THRESHOLD:
                raise MarkError(
                    f"The {name} watermark was not found in the result (score {score:.2f}, "
                    f"needed {THRESHOLD:g}); nothing is released."
                )
        return max(scores.values())

    def _embed_perth(self, audio: Tensor, sample_rate: int) -> Tensor:
        score = 0.0
        for strength in PERTH_STRENGTHS:
            marked = self.perth.embed(audio, sample_rate, strength)
            score = self.perth.search(marked, sample_rate).score
            if score >= MARGIN:
                return marked
        raise MarkError(_too_weak("perth", score, audio, sample_rate))

    def _embed_keyed(
        self, keyed: Keyed, audio: Tensor, sample_rate: int, pattern: str, start: int
    ) -> Tensor:
        score = 0.0
        for decibels in KEYED_DECIBELS:
            marked = keyed.embed(audio, sample_rate, pattern, decibels, start)
            score = keyed.score(marked, sample_rate, pattern)
            if score >= MARGIN:
                return marked
        raise MarkError(_too_weak("keyed", score, audio, sample_rate))


def joined(
    pieces: list[TraceKind], begins: list[float], seconds: float, growth: float
) -> TraceKind:
    """What was found in the overlapping pieces of a file as one: the best of them, for its length.

    Args:
        begins: Where each piece begins, in seconds.
        growth: See `CALIBRATED`.
    """
    less = growth * math.log(max(1.0, seconds / CALIBRATED))
    best = max(pieces, key=lambda trace: trace.score)
    windows: list[Stretch] = []
    for trace, begin in zip(pieces, begins, strict=True):
        own = trace.windows
        if not own and len(pieces) > 1:  # a short rest
            own = (Stretch(0.0, min(PIECE, seconds - begin), trace.score),)
        # Where a piece is over the limit for the whole file, its windows speak for themselves.
        taken = 0.0 if trace.score - less >= THRESHOLD else less
        windows += [
            Stretch(begin + w.start, begin + w.stop, max(w.score - taken, 0.0)) for w in own
        ]
    windows.sort(key=lambda window: window.start)
    score = max(best.score - less, 0.0)
    out = replace(best, score=score, windows=tuple(windows))
    if isinstance(out, FixedTrace) and score < THRESHOLD:
        out = replace(out, payload=None)
    return out


def joined_keyed(pieces: list[KeyedTrace], begins: list[float]) -> KeyedTrace:
    """What was found of outputs in the overlapping pieces of a file: all rows, the best's score."""
    best = max(pieces, key=lambda trace: (trace.score, trace.likeness))
    rows = dict.fromkeys(row for trace in pieces for row in trace.rows)
    alike = dict.fromkeys(row for trace in pieces for row in trace.alike)
    copied = dict.fromkeys(row for trace in pieces for row in trace.copied)
    windows = [
        Stretch(begin + w.start, begin + w.stop, w.score)
        for trace, begin in zip(pieces, begins, strict=True)
        for w in trace.windows
    ]
    windows.sort(key=lambda window: window.start)
    return replace(
        best,
        rows=tuple(rows),
        alike=tuple(row for row in alike if row not in rows),
        copied=tuple(row for row in copied if row not in rows),
        windows=tuple(windows),
    )


def load_marks(home: Path | None, rows: Sequence[Row] = ()) -> Marks:
    """The marks of the store in `home`, fail closed.

    Args:
        home: The store's folder; None for a reader without a store, who finds PerTh's mark only.
        rows: The outputs to look for, see `Keyed`.

    Raises:
        MarkError: PerTh or its weights are missing or damaged, or the key is.
    """
    keyed = None if home is None else load_keyed(home, rows=rows)
    return Marks(load_watermarker(), keyed, load_audioseal_if_there())


def load_audioseal_if_there() -> AudioSealMark | None:
    """AudioSeal where its package and weights are; MarkError if they are there but damaged."""
    there = find_spec("audioseal") is not None and audioseal_files() is not None
    return load_audioseal() if there else None


def _too_weak(name: str, score: float, audio: Tensor, sample_rate: int) -> str:
    return (
        f"The {name} watermark does not hold in this speech ({len(audio) / sample_rate:.2f} s, "
        f"score {score:.2f} at the strongest, {MARGIN:g} needed); nothing is released. Say more."
    )
