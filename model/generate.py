"""Inference: codebook 0 by the AR model, the others by the NAR model (VALL-E 2, 3.4).

`generate_ar(..., cached=False)` re-reads everything at each step. It is the slow oracle that the
fast path is tested against, token for token.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from .ar import AR, clip_to_groups
from .extras.alignment import NONE, allowed
from .nar import NAR
from .sampling import EMPTY, Sampling, guided, sample
from .transformer import Cache


class Codes(NamedTuple):
    """New codes of codebook 0, without the prompt's."""

    codes: Tensor
    """(B, T) int64, zeros beyond `lengths`."""
    lengths: Tensor
    """(B,) frames."""
    finished: Tensor
    """(B,) bool: the model drew <eos> before its limit."""
    pointer: Tensor | None = None
    """(B, T) where each frame is in the text, for models with `alignment`."""


class Walk(NamedTuple):
    """Where the pointer of each row stands before a group is drawn."""

    pointer: Tensor
    """(B,)"""
    age: Tensor
    """(B,) groups for which it has stood there."""
    stayed: Tensor
    """(B,) the chance that a drawn pointer would have stood there for so long."""


def sample_group(
    logits: Tensor,
    history: Tensor,
    model: AR,
    sampling: Sampling,
    generator: torch.Generator,
    early: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Draw one group from (B, G, V + 1) logits; returns codes (B, G) and whether it is <eos> (B,).

    `history` is (B, window). The first place decides on <eos>, see `model/ar.py`; rows that are
    `early` (B,) may not end.
    """
    if early is not None:
        first_logits = logits[:, 0].clone()
        first_logits[early, model.eos_id] = float("-inf")
        logits = torch.cat([first_logits[:, None], logits[:, 1:]], 1)
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


def step_on(
    walk: Walk,
    hidden: Tensor,
    lengths: Tensor,
    model: AR,
    sampling: Sampling,
    generator: torch.Generator,
) -> Walk:
    """How far each pointer moves, from what is known before the group just drawn."""
    assert model.move is not None
    chances = allowed(model.move(hidden).float(), walk.pointer, lengths).softmax(-1)
    stayed = walk.stayed * chances[:, 0]
    if sampling.stay is None:
        move = torch.multinomial(chances, 1, generator=generator)[:, 0]
    else:
        # Drawn lengths scatter widely around the likely ones, as each step is a draw of its own.
        onward = chances[:, 1:]
        goes = (stayed < sampling.stay) & (onward.sum(1) > 0)  # at the last token it stays
        move = torch.where(goes, 1 + onward.argmax(1), 0)
    moved = move > 0
    return Walk(
        walk.pointer + move,
        torch.where(moved, 0, walk.age + 1),
        torch.where(moved, torch.ones_like(stayed), stayed),
    )


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
    said: Tensor | None = None,
) -> Codes:
    """Continue each prompt until <eos> or the row's limit.

    Args:
        text: (B, S) int64, the prompt's text and the new text, right-padded beyond `text_lengths`.
        prompt: (B, T) int64 of codebook 0, right-padded beyond `prompt_lengths` (B,), which may be
            zero. Clipped at its start to whole groups.
        limits: (B,) most new frames, rounded up to whole groups.
        generator: On the model's device.
        cached: False re-reads the whole sequence at each step (the oracle).
        said: (B,) text tokens that are the prompt's; needed by models with `alignment`, which
            start to walk behind them and may not end before the last token.

    Raises:
        ValueError: Text, prompt and limit are more than the model's positions hold, or `said` or
            guidance is missing or not wanted.
    """
    G = model.config.group_size
    codes, lengths = clip_to_groups(prompt, prompt_lengths, G)
    codes = codes[:, : int(lengths.max())]
    steps = -(-limits // G)  # (B,)
    total = int((lengths + steps * G).max())
    if total > model.config.max_frames:
        raise ValueError(f"prompt and limit are {total} frames, {model.config.max_frames} fit")
    if (said is None) == model.config.alignment:
        raise ValueError(f"alignment is {model.config.alignment}: said must fit it")
    if said is None and sampling.guidance:
        raise ValueError(f"guidance {sampling.guidance} needs a model with alignment")

    B = len(text)
    start, new = lengths, torch.zeros_like(lengths)  # prompt frames, groups drawn so far
    finished = torch.zeros(B, dtype=torch.bool, device=text.device)
    capacity = text.shape[1] + 2 + codes.shape[1] // G + int(steps.max())
    # With guidance every row is read twice, the second time without being told where it is.
    times = 2 if sampling.guidance else 1
    cache = Cache(model.config.size, times * B, capacity, model.bos) if cached else None
    walk = guide = None
    if said is not None:
        walk = Walk(said, torch.zeros_like(said), torch.ones(B, device=said.device))
        # Of <bos> and of every group read so far; the newest tells what the next group says.
        guide = first_guide(model, text, text_lengths, lengths, walk)
        guide = with_unaware(model, guide, times)
    trail: list[Tensor] = []  # pointers of the groups drawn, each (B,)
    hidden = None
    while bool((~finished & (new < steps)).any()):
        if cache is None or hidden is None:
            state = [each.repeat(times, 1) for each in (text, codes)]
            sizes = [each.repeat(times) for each in (text_lengths, lengths)]
            if cache is None:
                hidden = model.read(state[0], sizes[0], state[1], sizes[1], guide)
                hidden = at_end(hidden, sizes[1] // G)
            else:
                hidden = model.prefill(state[0], sizes[0], state[1], sizes[1], cache, guide)
        logits = model.predict(hidden)
        if sampling.guidance:
            logits = guided(logits[:B], logits[B:], sampling.guidance)
        history = last_codes(codes, lengths, sampling.window)
        early = None if walk is None else walk.pointer < text_lengths
        group, ended = sample_group(logits, history, model, sampling, generator, early)
        running = ~finished & (new < steps)
        finished = finished | (running & ended)
        running = running & ~ended
        new = new + running
        codes = put(codes, lengths, group, running)
        latest = None
        if walk is not None and guide is not None:
            trail.append(walk.pointer)
            walk = step_on(walk, hidden[:B], text_lengths, model, sampling, generator)
            latest = model.guide(text, text_lengths, walk.pointer[:, None], walk.age[:, None])
            latest = with_unaware(model, latest, times)
            if cache is None:
                place = (1 + lengths // G).repeat(times)
                guide = put_guide(guide, place, latest, running.repeat(times))
        if cache is not None:  # rows that have ended go on with a group that nobody reads
            number = (1 + lengths // G).repeat(times)
            hidden = model.decode(group.repeat(times, 1), number, cache, latest)
        lengths = lengths + G * running
    frames = lengths - start
    result = codes.new_zeros(B, int(frames.max()))
    for row in range(B):
        result[row, : int(frames[row])] = codes[row, int(start[row]) : int(lengths[row])]
    pointer = None
    if walk is not None:
        pointer = torch.stack(trail, 1).repeat_interleave(G, 1)[:, : result.shape[1]]
    return Codes(result, frames, finished, pointer)


def first_guide(
    model: AR, text: Tensor, text_lengths: Tensor, lengths: Tensor, walk: Walk
) -> Tensor:
    """Guides of <bos> and the prompt's groups (B, N + 1, D): none but for the last of each row."""
    groups = lengths // model.config.group_size
    number = torch.arange(int(groups.max()) + 1, device=text.device)
    pointer = torch.where(number == groups[:, None], walk.pointer[:, None], NONE)
    return model.guide(text, text_lengths, pointer, torch.zeros_like(pointer))


def with_unaware(model: AR, guide: Tensor, times: int) -> Tensor:
    """For `times` 2, guides (B, N, D) and behind them as many that tell nothing: (2 * B, N, D)."""
    if times == 1 or model.pointer is None:
        return guide
    return torch.cat([guide, model.pointer.none.expand_as(guide)])


def put_guide(guide: Tensor, place: Tensor, latest: Tensor, running: Tensor) -> Tensor:
    """Append `latest` (B, 1, D) to each running row of guides (B, N, D) at its `place` (B,)."""
    if int(place.max()) >= guide.shape[1]:
        guide = torch.cat([guide, torch.zeros_like(latest)], 1)
    rows = running.nonzero()[:, 0]
    guide = guide.clone()
    guide[rows, place[rows]] = latest[rows, 0]
    return guide


def at_end(hidden: Tensor, groups: Tensor) -> Tensor:
    """Of (B, N + 1, D) what is known behind each row's last group: (B, D)."""
    return hidden[torch.arange(len(hidden), device=hidden.device), groups]


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
    pointer: Tensor | None = None,
    entries: Tensor | None = None,
) -> Tensor:
    """Fill codebooks 1..K-1, one pass each: the likeliest code, or with `expected` the middle one.

    Args:
        text: (B, S) int64, right-padded beyond `text_lengths` (B,).
        prompt: (B, K, T) int64, right-padded beyond `prompt_lengths` (B,).
        codes: (B, T') int64 of codebook 0, right-padded beyond `lengths` (B,).
        pointer: (B, T') int64, where each new frame is in the text, for models with `alignment`.
        entries: (K, V, features) of the codec, for models with `expected`.

    Returns:
        (B, K, T') int64, zeros beyond `lengths`.
    """
    B, K = prompt.shape[:2]
    if (entries is not None) != model.config.expected:
        raise ValueError(f"expected is {model.config.expected} in this model's config")
    total = prompt_lengths + lengths
    full = prompt.new_zeros(B, K, int(total.max()))
    where = None if pointer is None else prompt.new_zeros(B, int(total.max()))
    for row in range(B):
        head, end = int(prompt_lengths[row]), int(total[row])
        full[row, :, :head] = prompt[row, :, :head]
        full[row, 0, head:end] = codes[row, : end - head]
        if where is not None and pointer is not None:
            where[row, head:end] = pointer[row, : end - head]
    frame = torch.arange(full.shape[2], device=full.device)
    target = (frame >= prompt_lengths[:, None]) & (frame < total[:, None])  # (B, T)
    for level in range(1, K):
        logits = model(text, text_lengths, full, total, prompt_lengths, level, where)
        best = logits.argmax(-1) if entries is None else nearest_expected(logits, entries[level])
        full[:, level] = torch.where(target, best, full[:, level])
    result = prompt.new_zeros(B, K, codes.shape[1])
    for row in range(B):
        head, end = int(prompt_lengths[row]), int(total[row])
        result[row, :, : end - head] = full[row, :, head:end]
    return result


def nearest_expected(logits: Tensor, entries: Tensor) -> Tensor:
    """Of (B, T, V) logits over `entries` (V, features) the code (B, T) with the least mean error.

    The mean squared error of an entry is its distance to the expected entry and a constant.
    """
    expected = logits.softmax(-1) @ entries  # (B, T, features)
    return torch.cdist(expected, entries.expand(len(logits), -1, -1)).argmin(-1)
