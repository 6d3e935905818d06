"""Drawing codes: greedy, random, nucleus and repetition aware (VALL-E 2, 3.4.1).

A chain of pure functions on (B, V) logits. Randomness is an argument; nothing here keeps state.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

EMPTY = -1
"""Fills the history where there is no code yet; equal to no code."""

Random = torch.Generator | Sequence[torch.Generator]
"""One generator for a batch, or one for each row: then no row's draws hang on who shares it."""


@dataclass(frozen=True)
class Sampling:
    """How the next code is drawn."""

    method: Literal["ras", "nucleus", "random", "greedy"] = "ras"
    """ras: repetition aware. nucleus: top-p alone. random: the whole distribution, VALL-E's."""
    top_p: float = 0.8
    """v, the probability mass that nucleus sampling keeps; 0 keeps the likeliest code alone."""
    window: int = 10
    """K of the algorithm (not the codebooks): how many past codes are looked at."""
    threshold: float = 0.1
    """t_r: a code that makes up a larger share of the window than this is drawn again; at 0 one
    hit fires, which is CosyVoice's rule."""
    temperature: float = 1.0
    """Divides the logits; the paper's is 1."""

    def __post_init__(self):
        if self.method not in ("ras", "nucleus", "random", "greedy"):
            raise ValueError(f"method {self.method!r} is none of ras, nucleus, random, greedy")
        if not 0 <= self.top_p <= 1:
            raise ValueError(f"top_p {self.top_p} is outside [0, 1]")
        if self.window < 1:
            raise ValueError(f"window {self.window} is below 1")
        if self.threshold < 0:
            raise ValueError(f"threshold {self.threshold} is below 0")
        if not self.temperature > 0:
            raise ValueError(f"temperature {self.temperature} is not above 0; use method greedy")


def probabilities(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """(B, V) logits to probabilities, in fp32."""
    return torch.softmax(logits.float() / temperature, -1)


def without(logits: Tensor, code: int) -> Tensor:
    """Logits (B, V) given that the draw is not `code`, however sure the model was of it."""
    logits = logits.clone()
    logits[:, code] = -torch.inf
    return logits


def nucleus(p: Tensor, top_p: float) -> Tensor:
    """Keep the fewest likeliest codes whose mass reaches `top_p`, at least one, and renormalise.

    With p = [.5, .3, .15, .05], top_p .5 keeps one code, .6 two, .8 two, .81 three and 0 one.
    Codes of equal probability are kept in the order of their ids, never as a whole.
    """
    if top_p >= 1:
        return p
    ordered, ids = p.sort(descending=True, stable=True)
    before = ordered.cumsum(-1) - ordered  # mass of the codes that are likelier
    keep = before < top_p
    keep[:, 0] = True
    kept = torch.zeros_like(p).scatter(1, ids, ordered * keep)
    return kept / kept.sum(1, keepdim=True)


def draw(p: Tensor, random: Random) -> Tensor:
    """One code (B,) from each row of p (B, V), by the exponential race: argmax of p / Exp(1)."""
    race = torch.empty_like(p)
    if isinstance(random, torch.Generator):
        race.exponential_(generator=random)
    else:
        for row, own in zip(race, random, strict=True):
            row.exponential_(generator=own)
    return (p / race).argmax(1)


def repetition(candidate: Tensor, history: Tensor) -> Tensor:
    """r, the share (B,) of the window (B, K) that equals the candidate (B,).

    The paper prints the sum over k = 0..K of "c_t = c_(t-k)", whose term k = 0 compares the
    candidate with itself: K + 1 terms over K, and always one hit. We count k = 1..K, the codes
    before. Of a window of 10 and t_r .1 the print redraws after one hit, we after two; so the print
    is `threshold: 0` here. The share is of the whole window also at the start, where some of it is
    EMPTY.
    """
    return (history == candidate[:, None]).float().mean(1)


def sample(
    logits: Tensor,
    history: Tensor,
    sampling: Sampling,
    random: Random,
    exclude: int | None = None,
) -> Tensor:
    """The next code (B,) of each row; with method ras by Algorithm 1.

    Args:
        logits: (B, V).
        history: (B, window) int64, the codes before this one, the newest last, EMPTY where there is
            none. The prompt's codes count, and those of the same group drawn just before.
        random: On the device of `logits`; every call of a method draws equally much from it, so
            that a row's fate never moves another row's.
        exclude: A code that is known not to come.
    """
    if exclude is not None:
        logits = without(logits, exclude)
    if sampling.method == "greedy":
        return logits.argmax(1)
    p = probabilities(logits, sampling.temperature)
    if sampling.method == "random":
        return draw(p, random)
    candidate = draw(nucleus(p, sampling.top_p), random)
    if sampling.method == "nucleus":
        return candidate
    redrawn = draw(p, random)  # from the full distribution: no top-p, nothing banned
    repeated = repetition(candidate, history[:, -sampling.window :]) > sampling.threshold
    return torch.where(repeated, redrawn, candidate)


def sample_group(
    logits: Tensor, history: Tensor, eos_id: int, sampling: Sampling, random: Random
) -> tuple[Tensor, Tensor]:
    """Draw one group from (B, G, V + 1) logits; returns codes (B, G) and whether it is <eos> (B,).

    `history` is (B, window). The first place decides on <eos>, see `model/ar.py`.
    """
    first = sample(logits[:, 0], history, sampling, random)
    ended = first == eos_id
    group = [first.masked_fill(ended, 0)]
    for place in range(1, logits.shape[1]):
        history = torch.cat([history, group[-1][:, None]], 1)[:, 1:]
        group.append(sample(logits[:, place], history, sampling, random, exclude=eos_id))
    return torch.stack(group, 1), ended


def last_codes(codes: Tensor, lengths: Tensor, window: int) -> Tensor:
    """The last `window` real codes of each row, the newest last: (B, window), EMPTY in front."""
    index = lengths[:, None] + torch.arange(-window, 0, device=codes.device)
    found = F.pad(codes, (0, 1)).gather(1, index.clamp(min=0))  # padded: there may be no code
    return torch.where(index < 0, EMPTY, found)
