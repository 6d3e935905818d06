"""Inference: codebook 0 by the AR model, the others by the NAR model (VALL-E 2, 3.4).

`generate_ar(..., cached=False)` re-reads everything at each step. It is the slow oracle that the
fast path is tested against, token for token.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from .ar import AR, clip_to_groups
from .nar import NAR
from .sampling import EMPTY, Sampling, sample
from .transformer import Cache


class Codes(NamedTuple):
    """New codes of codebook 0, without the prompt's."""

    codes: Tensor
    """(B, T) int64, zeros beyond `lengths`."""
    lengths: Tensor
    """(B,) frames."""
    finished: Tensor
    """(B,) bool: the model drew <eos> before its limit."""


def sample_group(
    logits: Tensor, history: Tensor, model: AR, sampling: Sampling, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw one group from (B, G, V + 1) logits; returns codes (B, G) and whether it is <eos> (B,).

    `history` is (B, window). The first place decides on <eos>, see `model/ar.py`.
    """
    first = sample(logits[:, 0], history, sampling, generator)
    ended = first == model.eos_id
    group = [first.masked_fill(ended, 0)]
    for place in range(1, logits.shape[1]):
        history = torch.cat([history, group[-1][:, None]], 1)[:, 1:]
        group.append(sample(logits[:, place], history, sampling, generator, exclude=model.eos_id))
    return torch.stack(group, 1), ended


def last_codes(codes: Tensor, lengths: Tensor, window: int) -> Tensor:
    """The last `window` real codes of each row, the newest last: (B, window), EMPTY in front."""
    padded = torch.cat([codes.new_full((len(codes), window), EMPTY), codes], 1)
    index = lengths[:, None] + torch.arange(window, device=codes.device)
    return padded.gather(1, index)


@torch.inference_mode()
def generate_ar(
    model: AR,
    text: Tensor,
    text_lengths: Tensor,
    prompt: Tensor,
    prompt_lengths: Tensor,
    limits: Tensor,
    sampling: Sampling,
    generator: torch.Generator,
    cached: bool = True,
) -> Codes:
    """Continue each prompt until <eos> or the row's limit.

    Args:
        text: (B, S) int64, the prompt's text and the new text, right-padded beyond `text_lengths`.
        prompt: (B, T) int64 of codebook 0, right-padded beyond `prompt_lengths` (B,), which may be
            zero. Clipped at its start to whole groups.
        limits: (B,) most new frames, rounded up to whole groups.
        generator: On the model's device.
        cached: False re-reads the whole sequence at each step (the oracle).

    Raises:
        ValueError: Text, prompt and limit are more than the model's positions hold.
    """
    G = model.config.group_size
    codes, lengths = clip_to_groups(prompt, prompt_lengths, G)
    codes = codes[:, : int(lengths.max())]
    steps = -(-limits // G)  # (B,)
    total = int((lengths + steps * G).max())
    if total > model.config.max_frames:
        raise ValueError(f"prompt and limit are {total} frames, {model.config.max_frames} fit")

    B = len(text)
    start, new = lengths, torch.zeros_like(lengths)  # prompt frames, groups drawn so far
    finished = torch.zeros(B, dtype=torch.bool, device=text.device)
    capacity = text.shape[1] + 2 + codes.shape[1] // G + int(steps.max())
    cache = Cache(model.config.size, B, capacity, model.bos) if cached else None
    logits = None
    while bool((~finished & (new < steps)).any()):
        if cache is None:
            logits = at_end(model(text, text_lengths, codes, lengths), lengths // G)
        elif logits is None:
            logits = model.prefill(text, text_lengths, codes, lengths, cache)
        history = last_codes(codes, lengths, sampling.window)
        group, ended = sample_group(logits, history, model, sampling, generator)
        running = ~finished & (new < steps)
        finished = finished | (running & ended)
        running = running & ~ended
        new = new + running
        codes = put(codes, lengths, group, running)
        if cache is not None:  # rows that have ended go on with a group that nobody reads
            logits = model.decode(group, 1 + lengths // G, cache)
        lengths = lengths + G * running
    frames = lengths - start
    result = codes.new_zeros(B, int(frames.max()))
    for row in range(B):
        result[row, : int(frames[row])] = codes[row, int(start[row]) : int(lengths[row])]
    return Codes(result, frames, finished)


def at_end(logits: Tensor, groups: Tensor) -> Tensor:
    """Of (B, N + 1, G, V) the prediction that follows each row's last group: (B, G, V)."""
    return logits[torch.arange(len(logits), device=logits.device), groups]


def put(codes: Tensor, lengths: Tensor, group: Tensor, running: Tensor) -> Tensor:
    """Append a group (B, G) to each running row of codes (B, T) behind its `lengths`."""
    G = group.shape[1]
    if int(lengths.max()) + G > codes.shape[1]:
        codes = torch.cat([codes, codes.new_zeros(len(codes), G)], 1)
    slots = lengths[:, None] + torch.arange(G, device=codes.device)
    slots = slots.clamp(max=codes.shape[1] - 1)
    kept = codes.gather(1, slots)
    return codes.scatter(1, slots, torch.where(running[:, None], group, kept))


@torch.inference_mode()
def generate_nar(
    model: NAR,
    text: Tensor,
    text_lengths: Tensor,
    prompt: Tensor,
    prompt_lengths: Tensor,
    codes: Tensor,
    lengths: Tensor,
) -> Tensor:
    """Fill codebooks 1..K-1 greedily, one pass each.

    Args:
        text: (B, S) int64, right-padded beyond `text_lengths` (B,).
        prompt: (B, K, T) int64, right-padded beyond `prompt_lengths` (B,).
        codes: (B, T') int64 of codebook 0, right-padded beyond `lengths` (B,).

    Returns:
        (B, K, T') int64, zeros beyond `lengths`.
    """
    B, K = prompt.shape[:2]
    total = prompt_lengths + lengths
    full = prompt.new_zeros(B, K, int(total.max()))
    for row in range(B):
        head, end = int(prompt_lengths[row]), int(total[row])
        full[row, :, :head] = prompt[row, :, :head]
        full[row, 0, head:end] = codes[row, : end - head]
    frame = torch.arange(full.shape[2], device=full.device)
    target = (frame >= prompt_lengths[:, None]) & (frame < total[:, None])  # (B, T)
    for level in range(1, K):
        logits = model(text, text_lengths, full, total, prompt_lengths, level)
        full[:, level] = torch.where(target, logits.argmax(-1), full[:, level])
    result = prompt.new_zeros(B, K, codes.shape[1])
    for row in range(B):
        head, end = int(prompt_lengths[row]), int(total[row])
        result[row, :, : end - head] = full[row, :, head:end]
    return result
