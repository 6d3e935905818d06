"""Tables of what was measured: means, bootstrap intervals, paired differences, the best of several.

Intervals are percentiles of `DRAWS` bootstraps, over utterances and over speakers; rows are drawn
together, so a difference is of the same sentences. Eq. 23 of VALL-E 2 keeps, of several samples,
the lexicographic argmax of [min(SIM, bar), 1 - WER].
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .metrics import Values

DRAWS = 2000
TAIL = 0.025


@dataclass(frozen=True)
class Column:
    """One figure: the sum of `top` over that of `bottom`, or over the utterances."""

    name: str
    top: str
    bottom: str = ""
    better: int = 0
    """1: more is better; -1: less is."""
    percent: bool = False


COLUMNS = (
    Column("WER", "errors", "words", -1, True),
    Column("CER", "character errors", "characters", -1, True),
    Column("SIM-o", "SIM-o", better=1),
    Column("SIM-r", "SIM-r", better=1),
    Column("nearest", "nearest", better=1, percent=True),
    Column("P.808", "P.808", better=1),
    Column("OVRL", "OVRL", better=1),
    Column("DistillMOS", "DistillMOS", better=1),
    Column("insertions", "insertions", "words", -1, True),
    Column("deletions", "deletions", "words", -1, True),
    Column("repeats", "repeats", "words", -1, True),
    Column("skipped", "skipped", "words", -1, True),
    Column("unfinished", "unfinished", better=-1, percent=True),
    Column("over-long", "over-long", better=-1, percent=True),
    Column("same pitch", "same pitch", better=1, percent=True),
    Column("rate", "rate"),
    Column("level", "level"),
    Column("clicks", "clicks", better=-1),
    Column("clipped", "clipped", better=-1),
)


def parts(column: Column, values: Values) -> tuple[float, float]:
    """What an utterance adds to both sums of a column; nothing where it was not measured."""
    if column.top not in values:
        return 0.0, 0.0
    return float(values[column.top]), float(values[column.bottom]) if column.bottom else 1.0


def eq23(takes: Sequence[Values], bar: float) -> Values:
    """The take that Eq. 23 keeps; without a SIM the one with the fewest word errors."""
    return max(
        takes,
        key=lambda take: (min(take.get("SIM-o", 0.0), bar), -take["errors"] / take["words"]),
    )


def oracle(takes: Sequence[Values]) -> Values:
    """For each column the best take's value: no one sample has them all."""
    found = dict(takes[0])
    for column in COLUMNS:
        there = [take for take in takes if column.top in take]
        if column.better and there:
            best = max(there, key=lambda take, c=column: c.better * take[c.top])
            found[column.top] = best[column.top]  # the bottoms, words and letters, are all the same
    return found


def mark_nearest(rows: Mapping[str, Sequence[Values]], speakers: Sequence[str]) -> None:
    """Put into each utterance with vectors whether its own speaker's prompts are the nearest."""
    names = sorted(set(speakers))
    sums = {name: np.zeros(0) for name in names}
    for values in rows.values():
        for name, each in zip(speakers, values, strict=True):
            if "prompt's" in each and not sums[name].any():
                sums[name] = np.array(each["prompt's"])
    known = [name for name in names if sums[name].any()]
    if len(known) < 3:
        return
    prompts = np.stack([sums[name] / np.linalg.norm(sums[name]) for name in known])
    for values in rows.values():
        for name, each in zip(speakers, values, strict=True):
            if "own" in each and name in known:
                likest = int((prompts @ np.array(each["own"])).argmax())
                each["nearest"] = int(known[likest] == name)


def summarise(rows: Mapping[str, Sequence[Values]], speakers: Sequence[str]) -> dict[str, Any]:
    """Row to column to value, intervals, and the difference to the first row with its intervals.

    Args:
        rows: The first is compared with; each has the values of the same utterances, in order.
        speakers: Of those utterances.
    """
    names, index = np.unique(np.array(speakers), return_inverse=True)
    draw = np.random.default_rng(0)
    each = np.full(len(speakers), 1 / len(speakers))
    weights = {"utterances": draw.multinomial(len(speakers), each, DRAWS).astype(float)}
    if len(names) > 1:
        chosen = draw.multinomial(len(names), np.full(len(names), 1 / len(names)), DRAWS)
        weights["speakers"] = chosen[:, index].astype(float)
    found: dict[str, Any] = {}
    base: dict[str, tuple[float, dict[str, NDArray]]] = {}
    for row, values in rows.items():
        found[row] = {"utterances": len(values)}
        for column in COLUMNS:
            sums = np.array([parts(column, value) for value in values])  # (N, 2)
            if not sums[:, 1].sum():
                continue
            value = float(sums[:, 0].sum() / sums[:, 1].sum())
            with np.errstate(invalid="ignore"):
                drawn = {kind: np.divide(*(w @ sums).T) for kind, w in weights.items()}
            entry: dict[str, Any] = {"value": _short(value)} | _intervals(drawn)
            if column.name in base:
                first, others = base[column.name]
                apart = {kind: drawn[kind] - others[kind] for kind in drawn}
                entry["difference"] = {"value": _short(value - first)} | _intervals(apart)
            elif row == next(iter(rows)):
                base[column.name] = value, drawn
            found[row][column.name] = entry
    return found


def _intervals(drawn: Mapping[str, NDArray]) -> dict[str, list[float]]:
    bounds = {kind: np.nanquantile(values, [TAIL, 1 - TAIL]) for kind, values in drawn.items()}
    return {kind: [_short(float(bound)) for bound in both] for kind, both in bounds.items()}


def _short(value: float) -> float:
    return round(value, 5)
