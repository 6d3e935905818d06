"""Inference: codebook 0 by the AR model, the others by the NAR model (VALL-E 2, 3.4).

Two seams for what the paper does not have: a `Steer` for the AR, a `Choose` for the NAR. Without
them this is the paper's; nothing here makes one (`model/extras/`).
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from .ar import AR, clip_to_groups
from .nar import NAR
from .sampling import EMPTY, Random, Sampling, sample
from .transformer import Cache, join, part

LOOK_EVERY = {"cpu": 1, "cuda": 16, "mps": 16}
"""Steps between two looks at whether all rows have ended: on a GPU a look waits for it."""


class Codes(NamedTuple):
    """New codes of codebook 0, without the prompt's."""

    codes: Tensor
    """(B, T) int64, zeros beyond `lengths`."""
    lengths: Tensor
    """(B,) frames."""
    finished: Tensor
    """(B,) bool: the model drew <eos> before its limit."""


class Steer(Protocol):
    """What leads the AR beside its own codes; each row may be read R times, told otherwise."""

    def start(self, groups: Tensor) -> Tensor:
        """Added to <bos> and the prompts' `groups` (B,), right-padded: (R * B, N + 1, D)."""
        ...

    def logits(self, logits: Tensor) -> Tensor:
        """Of the model's (R * B, G, V + 1) those to draw a group from: (B, G, V + 1)."""
        ...

    def step(self, hidden: Tensor) -> Tensor:
        """Added to the group just drawn, (R * B, 1, D), by what was known before it (R * B, D)."""
        ...


Choose = Callable[[Tensor, int], Tensor]
"""The NAR's codes (B, T) of logits (B, T, V) of one level."""


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


def put(codes: Tensor, lengths: Tensor, group: Tensor, running: Tensor) -> Tensor:
    """Write a group (B, G) into each running row of codes (B, T) behind its `lengths`."""
    slots = lengths[:, None] + torch.arange(group.shape[1], device=codes.device)
    slots = slots.clamp(max=codes.shape[1] - 1)  # of rows that are full and so not running
    return codes.scatter(1, slots, torch.where(running[:, None], group, codes.gather(1, slots)))


@torch.inference_mode()
def generate_ar(
    model: AR,
    text: Tensor,
    text_lengths: Tensor,
    prompt: Tensor,
    prompt_lengths: Tensor,
    limits: Tensor,
    sampling: Sampling,
    random: Random,
    steer: Steer | None = None,
) -> Codes:
    """Continue each prompt until <eos> or the row's limit.

    Args:
        text: (B, S) int64, the prompt's text and the new text, right-padded beyond `text_lengths`.
        prompt: (B, T) int64 of codebook 0, right-padded beyond `prompt_lengths` (B,), which may be
            zero. Clipped at its start to whole groups.
        limits: (B,) most new frames, rounded up to whole groups.
        random: On the model's device.
        steer: Leads the model; none does in VALL-E 2.

    Raises:
        ValueError: Text, prompt and limit are more than the model's positions hold.
    """
    G = model.config.group_size
    codes, lengths = clip_to_groups(prompt, prompt_lengths, G)
    steps = -(-limits // G)  # (B,)
    longest, most, total = (int(n.max()) for n in (lengths, steps, lengths + steps * G))
    if total > model.config.max_frames:
        raise ValueError(f"prompt and limit are {total} frames, {model.config.max_frames} fit")
    codes = codes[:, :longest]
    extra = None if steer is None else steer.start(lengths // G)
    R = 1 if extra is None else len(extra) // len(text)

    cache = Cache(
        model.config.size, R * len(text), text.shape[1] + 2 + longest // G + most, model.bos
    )
    known = [each.repeat(R, 1) for each in (text, codes)]
    sizes = [each.repeat(R) for each in (text_lengths, lengths)]
    hidden = model.prefill(known[0], sizes[0], known[1], sizes[1], cache, extra)
    codes = F.pad(codes, (0, most * G))
    start, new = lengths, torch.zeros_like(lengths)  # prompt frames, groups drawn so far
    finished = torch.zeros_like(lengths, dtype=torch.bool)
    look = LOOK_EVERY[text.device.type]
    for step in range(most):
        logits = model.predict(hidden)
        if steer is not None:
            logits = steer.logits(logits)
        history = last_codes(codes, lengths, sampling.window)
        group, ended = sample_group(logits, history, model.eos_id, sampling, random)
        running = ~finished & (new < steps)
        finished = finished | (running & ended)
        running = running & ~ended
        codes, new = put(codes, lengths, group, running), new + running
        if steer is not None:
            extra = steer.step(hidden)
        number, lengths = 1 + lengths // G, lengths + G * running
        if step + 1 == most or (step % look == 0 and not bool((running & (new < steps)).any())):
            break
        # Rows that have ended go on with a group that nobody reads.
        hidden = model.decode(group.repeat(R, 1), number.repeat(R), cache, extra)
    frames = lengths - start
    return Codes(cut(codes, start, frames), frames, finished)


def cut(codes: Tensor, start: Tensor, frames: Tensor) -> Tensor:
    """`frames` (B,) codes of each row (B, T) from `start` (B,), zeros behind: (B, T')."""
    longest = int(frames.max())
    kept = part(F.pad(codes, (0, longest))[..., None], start, longest)[..., 0]
    return kept.masked_fill(torch.arange(longest, device=codes.device) >= frames[:, None], 0)


@torch.inference_mode()
def generate_nar(
    model: NAR,
    text: Tensor,
    text_lengths: Tensor,
    prompt: Tensor,
    prompt_lengths: Tensor,
    codes: Tensor,
    lengths: Tensor,
    extra: Tensor | None = None,
    choose: Choose | None = None,
) -> Tensor:
    """Fill codebooks 1..K-1, one pass each, with the likeliest codes.

    Args:
        text: (B, S) int64, right-padded beyond `text_lengths` (B,).
        prompt: (B, K, T) int64, right-padded beyond `prompt_lengths` (B,).
        codes: (B, T') int64 of codebook 0, right-padded beyond `lengths` (B,).
        extra: (B, longest prompt and codes, D), added to the frames; none is in VALL-E 2.
        choose: Picks other codes than the likeliest; none does in VALL-E 2.

    Returns:
        (B, K, T') int64, zeros beyond `lengths`.

    Raises:
        ValueError: The model has another K, or its positions do not hold text, prompt and codes.
    """
    K, total = prompt.shape[1], prompt_lengths + lengths
    others = codes.new_zeros(len(codes), K - 1, codes.shape[1])
    target = torch.cat([codes[:, None], others], 1)
    full = join(prompt.transpose(1, 2), prompt_lengths, target.transpose(1, 2)).transpose(1, 2)
    full = full[..., : int(total.max())].contiguous()  # (B, K, longest)
    for level in range(1, K):
        logits = model(text, text_lengths, full, total, prompt_lengths, level, extra)
        best = logits.argmax(-1) if choose is None else choose(logits, level)
        frame = torch.arange(full.shape[2], device=full.device)
        full[:, level] = torch.where(frame < prompt_lengths[:, None], full[:, level], best)
    said = [cut(full[:, level], prompt_lengths, lengths) for level in range(K)]
    return F.pad(torch.stack(said, 1), (0, codes.shape[1] - said[0].shape[1]))
