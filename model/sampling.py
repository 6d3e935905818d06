"""Drawing codes: greedy, random, nucleus and repetition aware (VALL-E 2, 3.4.1, Algorithm 1).

A chain of pure functions on (B, V) logits. Randomness is an argument; nothing here keeps state.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

EMPTY = -1
"""Fills the history where there is no code yet; equal to no code."""


@dataclass(frozen=True)
class Sampling:
    """How the next code is drawn."""

    method: Literal["ras", "nucleus", "random", "greedy"] = "ras"
    """ras: Algorithm 1. nucleus: top-p alone. random: VALL-E's, from the whole distribution."""
    top_p: float = 0.8
    """v, the probability mass that nucleus sampling keeps; 0 keeps the likeliest code alone."""
    window: int = 10
    """K of Algorithm 1 (not the codebooks): how many past codes are looked at."""
    threshold: float = 0.1
    """t_r: a code that makes up a larger share of the window than this is drawn again."""
    temperature: float = 1.0
    """Divides the logits; the paper's is 1."""
    stay: float | None = None
    """For models with `alignment` only, and so not in VALL-E 2: the pointer moves on once the
    chance that a drawn one would have stayed for so long is below this; 0.5 gives every phoneme
    its median length. None draws each move."""
    guidance: float = 0.0
    """For models with `alignment` only, and not in VALL-E 2: how much further the logits go away
    from what the model would say if it were not told where it is in the text (`guided`)."""

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
        if self.stay is not None and not 0 < self.stay < 1:
            raise ValueError(f"stay {self.stay} is outside (0, 1)")
        if not 0 <= self.guidance < float("inf"):
            raise ValueError(f"guidance {self.guidance} is below 0 or not finite")


def probabilities(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """(B, V) logits to probabilities, in fp32."""
    return torch.softmax(logits.float() / temperature, -1)


def guided(logits: Tensor, unaware: Tensor, guidance: float) -> Tensor:
    """Classifier-free guidance (Ho and Salimans, arXiv:2207.12598) on logits (..., V).

    `unaware` are the logits of the same model without what it should heed. Guidance 0 gives the
    log probabilities of `logits`.
    """
    aware, unaware = logits.float().log_softmax(-1), unaware.float().log_softmax(-1)
    return aware + guidance * (aware - unaware)


def without(p: Tensor, code: int) -> Tensor:
    """The distribution (B, V) given that the draw is not `code`."""
    p = p.index_fill(1, torch.tensor([code], device=p.device), 0.0)
    return p / p.sum(1, keepdim=True)


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


def draw(p: Tensor, generator: torch.Generator) -> Tensor:
    """One code (B,) from each row of p (B, V), by the exponential race: argmax of p / Exp(1)."""
    race = torch.empty_like(p).exponential_(generator=generator)
    return (p / race).argmax(1)


def repetition(candidate: Tensor, history: Tensor) -> Tensor:
    """r of Algorithm 1: the share (B,) of the window (B, K) that equals the candidate (B,).

    The share is of the whole window also at the start, where some of it is EMPTY.
    """
    return (history == candidate[:, None]).float().mean(1)


def sample(
    logits: Tensor,
    history: Tensor,
    sampling: Sampling,
    generator: torch.Generator,
    exclude: int | None = None,
) -> Tensor:
    """The next code (B,) of each row.

    Args:
        logits: (B, V).
        history: (B, window) int64, the codes before this one, the newest last, EMPTY where there is
            none. The prompt's codes count, and those of the same group drawn just before.
        generator: On the device of `logits`; every call of a method draws equally much from it, so
            that a row's fate never moves another row's.
        exclude: A code that is known not to come.
    """
    if sampling.method == "greedy":
        if exclude is not None:
            logits = logits.index_fill(1, torch.tensor([exclude], device=logits.device), -torch.inf)
        return logits.argmax(1)
    p = probabilities(logits, sampling.temperature)
    if exclude is not None:
        p = without(p, exclude)
    if sampling.method == "random":
        return draw(p, generator)
    candidate = draw(nucleus(p, sampling.top_p), generator)
    if sampling.method == "nucleus":
        return candidate
    redrawn = draw(p, generator)  # from the full distribution: no top-p, nothing banned
    repeated = repetition(candidate, history[:, -sampling.window :]) > sampling.threshold
    return torch.where(repeated, redrawn, candidate)
