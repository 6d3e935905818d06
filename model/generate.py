"""Inference: codebook 0 by the AR model, the others by the NAR model (VALL-E 2, 3.4).

A step of decoding reads every weight once, for however many rows; so rows are decoded together,
join at any step and leave when they end (Yu et al., "Orca", OSDI 2022). What a row says does not
hang on who shares its steps: each draws from its own generator.

Two seams for what the paper does not have: a `Steer` for the AR, a `Choose` for the NAR. Without
them this is the paper's; nothing here makes one (`model/extras/`).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from .ar import AR, clip_to_groups
from .compiled import CompiledStep, rounded
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
    where: Tensor | None
    """(B, T) what a `Steer` kept of each frame, zeros beyond `lengths`."""


class Steer(Protocol):
    """What leads the AR beside its own codes; each row may be read R times, told otherwise."""

    def start(self, groups: Tensor) -> Tensor:
        """Added to <bos> and the prompts' `groups` (B,), right-padded: (B * R, N + 1, D)."""
        ...

    def logits(self, logits: Tensor) -> Tensor:
        """Of the model's (B * R, G, V + 1) those to draw a group from: (B, G, V + 1)."""
        ...

    def step(self, hidden: Tensor, random: Random) -> Tensor:
        """Added to the group just drawn, (B * R, 1, D), by what was known before it (B * R, D)."""
        ...

    def frames(self, row: int, count: int) -> Tensor:
        """What it kept of the first `count` frames that a row drew: (count,) int64."""
        ...

    def join(self, other: Self) -> None:
        """Take in another's rows, behind its own."""
        ...

    def keep(self, order: Tensor) -> None:
        """Go on with these rows, in this order."""
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


class Ended(NamedTuple):
    """A row that left a `Decoder`."""

    tag: int
    """As it was named when it joined."""
    codes: Tensor
    """(T,) int64 of codebook 0, without the prompt's."""
    finished: bool
    """Whether the model drew <eos> before the limit."""
    where: Tensor | None
    """(T,) what the `Steer` kept of each frame."""


class Decoder:
    """Rows of an AR model that are decoded in step; they join and leave between two steps."""

    def __init__(self, model: AR, compiled: bool = False):
        """Of a model; `compiled` for `CompiledStep`."""
        self.model = model
        self.compiled = CompiledStep(model) if compiled else None
        self.look = LOOK_EVERY[model.bos.device.type]
        self.readings, self.steps = 1, 0
        self.steer: Steer | None = None
        self.cache: Cache | None = None
        # Of each row, on the host: its name, how it draws, and the tokens in the cache.
        self.tags: list[int] = []
        self.sampling: list[Sampling] = []
        self.random: list[torch.Generator] = []
        self.held: list[int] = []

    @torch.inference_mode()
    def join(
        self,
        tags: list[int],
        text: Tensor,
        text_lengths: Tensor,
        prompt: Tensor,
        prompt_lengths: Tensor,
        limits: Tensor,
        sampling: list[Sampling],
        random: list[torch.Generator],
        steer: Steer | None = None,
        same: list[int] | None = None,
    ) -> None:
        """Take rows in: text and prompt are read here, a group is drawn at the next step.

        Args:
            tags: B names.
            text: (B, S) int64, the prompt's text and the new text, right-padded to `text_lengths`.
            prompt: (B, T) int64 of codebook 0, right-padded beyond `prompt_lengths` (B,), which
                may be zero. Clipped at its start to whole groups.
            limits: (B,) most new frames, rounded up to whole groups.
            random: On the model's device, one for each row.
            steer: Leads these rows; every row has one, or none.
            same: Of each row the first that has its text and prompt, which is read once for all.

        Raises:
            ValueError: Text, prompt and limit are more than the model's positions hold.
        """
        G, here, B = self.model.config.group_size, len(self.tags), len(tags)
        codes, lengths = clip_to_groups(prompt, prompt_lengths, G)
        left = -(-limits // G)  # (B,) groups
        longest, most, total = (int(n.max()) for n in (lengths, left, lengths + left * G))
        if total > self.model.config.max_frames:
            raise ValueError(
                f"prompt and limit are {total} frames, {self.model.config.max_frames} fit"
            )
        codes = codes[:, :longest]
        extra = None if steer is None else steer.start(lengths // G)
        R = 1 if extra is None else len(extra) // B
        held = (text_lengths + 2 + lengths // G).tolist()
        self._reserve((here + B) * R, R, max(held) + most + self.look)
        assert self.cache is not None
        same = list(range(B)) if same is None else same
        read = sorted(set(same))  # B' rows
        every = [row * R + reading for row in read for reading in range(R)]
        first = here * R
        cache = self.cache.rows(first, first + len(every))
        cache.lengths.zero_()
        texts, codes_read = (x[read].repeat_interleave(R, 0) for x in (text, codes))
        sizes = [x[read].repeat_interleave(R, 0) for x in (text_lengths, lengths)]
        extra = extra if extra is None else extra[every]
        hidden = self.model.prefill(texts, sizes[0], codes_read, sizes[1], cache, extra)
        hidden = hidden.unflatten(0, (-1, R))  # (B', R, D)
        found = [read.index(row) for row in same]  # each at or before its row: copied from behind
        for row in reversed(range(B)):
            for reading in range(R if found[row] != row else 0):
                source, target = (first + r * R + reading for r in (found[row], row))
                self.cache.copy_row(source, target, held[row])
        rows = (
            F.pad(codes, (0, most * G)),
            lengths,  # where the row begins to draw
            lengths,  # frames so far
            left,
            torch.zeros_like(lengths, dtype=torch.bool),
            hidden[found],
        )
        if here:
            codes, *others = (self.codes, *self._rows())
            wide = max(codes.shape[1], rows[0].shape[1])
            codes = torch.cat([F.pad(x, (0, wide - x.shape[1])) for x in (codes, rows[0])])
            rows = codes, *map(torch.cat, zip(others, rows[1:], strict=True))
            if self.steer is not None and steer is not None:
                self.steer.join(steer)
        else:
            self.steer, self.readings = steer, R
        self.codes, self.start, self.lengths, self.left, self.finished, self.hidden = rows
        self.tags += tags
        self.sampling += sampling
        self.random += random
        self.held += held

    @torch.inference_mode()
    def step(self) -> list[Ended]:
        """Draw a group for every row; those that ended, if it was looked for, leave."""
        hidden = self.hidden.flatten(0, 1)  # (B * R, D)
        logits = self.model.predict(hidden)
        if self.steer is not None:
            logits = self.steer.logits(logits)
        group, ended = self._draw(logits)
        running = ~self.finished & (self.left > 0)
        self.finished = self.finished | (running & ended)
        running = running & ~ended
        self.codes = put(self.codes, self.lengths, group, running)
        number = 1 + self.lengths // group.shape[1]
        extra = None if self.steer is None else self.steer.step(hidden, self.random)
        self.lengths = self.lengths + group.shape[1] * running
        self.left = self.left - running.long()
        self.steps += 1
        gone: list[Ended] = []
        if self.steps % self.look == 0:
            over = (self.finished | (self.left == 0)).tolist()
            if any(over):
                gone = [self.said(row) for row, is_over in enumerate(over) if is_over]
                order = self._leave(over)
                group, number = group[order], number[order]
                extra = extra if extra is None else extra.unflatten(0, (len(over), -1))[order]
                extra = extra if extra is None else extra.flatten(0, 1)
        if self.tags:
            # Rows that have ended go on with a group that nobody reads.
            R, used, cache = self.readings, max(self.held), self.cache
            assert cache is not None
            group, number = (x.repeat_interleave(R, 0) for x in (group, number))
            if self.compiled is None:
                rows = cache.rows(0, len(group), used, min(self.held) == used)
                hidden = self.model.decode(group, number, rows, extra)
            else:
                hidden = self.compiled(group, number, cache, extra)
            self.hidden = hidden.unflatten(0, (-1, R))
            self.held = [tokens + 1 for tokens in self.held]
        return gone

    @torch.inference_mode()
    def drop(self, tags: set[int]) -> None:
        """Let rows leave before they have ended."""
        over = [tag in tags for tag in self.tags]
        if any(over):
            self._leave(over)

    def _draw(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Groups (B, G) of logits (B, G, V + 1), and whether each is <eos> (B,)."""
        groups, ends = torch.zeros_like(logits[..., 0], dtype=torch.long), self.finished.clone()
        ways = dict.fromkeys(self.sampling)
        for how in ways:
            rows = [row for row, own in enumerate(self.sampling) if own == how]
            random = [self.random[row] for row in rows]
            which = rows if len(ways) > 1 else slice(None)  # no copies where all draw alike
            history = last_codes(self.codes[which], self.lengths[which], how.window)
            groups[which], ends[which] = sample_group(
                logits[which], history, self.model.eos_id, how, random
            )
        return groups, ends

    def _rows(self) -> tuple[Tensor, ...]:
        return self.start, self.lengths, self.left, self.finished, self.hidden

    def said(self, row: int) -> Ended:
        """What a row has drawn so far, by its place in `tags`."""
        start, end = int(self.start[row]), int(self.lengths[row])
        where = None if self.steer is None else self.steer.frames(row, end - start)
        return Ended(
            self.tags[row], self.codes[row, start:end].clone(), bool(self.finished[row]), where
        )

    def _leave(self, over: list[bool]) -> Tensor:
        """Close up: the last rows take the places of those that are over. The rows kept (B',)."""
        kept = [row for row, is_over in enumerate(over) if not is_over]
        count, R = len(kept), self.readings
        free = [row for row in range(count) if over[row]]
        order = list(range(count))
        for place, row in zip(free, [row for row in kept if row >= count], strict=True):
            order[place] = row
            for reading in range(R):
                assert self.cache is not None
                self.cache.copy_row(row * R + reading, place * R + reading, self.held[row])
        index = torch.tensor(order, dtype=torch.long, device=self.codes.device)
        self.codes = self.codes[index]
        self.start, self.lengths, self.left, self.finished, self.hidden = (
            x[index] for x in self._rows()
        )
        if self.steer is not None:
            self.steer.keep(index)
        self.tags = [self.tags[row] for row in order]
        self.sampling = [self.sampling[row] for row in order]
        self.random = [self.random[row] for row in order]
        self.held = [self.held[row] for row in order]
        if not order:
            self.cache = None  # its memory is given back
        return index

    def _reserve(self, rows: int, readings: int, capacity: int) -> None:
        """Make the cache large enough, without losing what it holds."""
        old, size = self.cache, self.model.config.size
        if old is not None:
            rows, capacity = max(rows, len(old.lengths)), max(capacity, old.capacity)
        if self.compiled is not None:
            rows, capacity = rounded(rows, capacity)
        if old is None or (rows, capacity) != (len(old.lengths), old.capacity):
            self.cache = Cache(size, rows, capacity, self.model.bos)
            if self.compiled is not None:  # a CUDA graph writes where it first did
                for held in (self.cache.keys, self.cache.values, self.cache.lengths):
                    torch._dynamo.mark_static_address(held)
            used, live = max(self.held, default=0), len(self.tags) * readings
            if old is not None and live:
                self.cache.keys[:, :live, ..., :used] = old.keys[:, :live, ..., :used]
                self.cache.values[:, :live, :, :used] = old.values[:, :live, :, :used]
                self.cache.lengths[:live] = old.lengths[:live]


def generate_ar(
    model: AR,
    text: Tensor,
    text_lengths: Tensor,
    prompt: Tensor,
    prompt_lengths: Tensor,
    limits: Tensor,
    sampling: Sampling,
    random: Sequence[torch.Generator],
    steer: Steer | None = None,
) -> Codes:
    """Continue each prompt until <eos> or the row's limit: one batch from first to last.

    Arguments and errors as of `Decoder.join`.
    """
    decoder, rows = Decoder(model), list(range(len(text)))
    given = text, text_lengths, prompt, prompt_lengths, limits
    decoder.join(rows, *given, [sampling] * len(rows), list(random), steer)
    ended: dict[int, Ended] = {}
    while len(ended) < len(rows):
        ended |= {row.tag: row for row in decoder.step()}
    found = [ended[row] for row in rows]
    codes, where = (
        torch.nn.utils.rnn.pad_sequence([x for x in each if x is not None], batch_first=True)
        if each[0] is not None
        else None
        for each in ([row.codes for row in found], [row.where for row in found])
    )
    assert codes is not None
    lengths, finished = (
        torch.tensor(each, device=codes.device)
        for each in ([len(row.codes) for row in found], [row.finished for row in found])
    )
    return Codes(codes, lengths, finished, where)


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
    is_target = torch.arange(full.shape[2], device=full.device) >= prompt_lengths[:, None]
    # What the passes share is summed once; each adds one codebook, in the order of the sum.
    read = model.read_text(text, text_lengths)
    frames = model.read_frames(full, prompt_lengths, 1)
    for level in range(1, K):
        heard = frames if extra is None else frames + extra
        logits = model.say(read, text_lengths, heard, total, prompt_lengths, codes.shape[1], level)
        best = logits.argmax(-1) if choose is None else choose(logits, level)  # (B, T')
        best = join(full[:, level, :, None], prompt_lengths, best[..., None])[..., 0]
        full[:, level] = torch.where(is_target, best[:, : full.shape[2]], full[:, level])
        frames = frames + model.embedded(full[:, level], level) * is_target[..., None]
    said = [cut(full[:, level], prompt_lengths, lengths) for level in range(K)]
    return F.pad(torch.stack(said, 1), (0, codes.shape[1] - said[0].shape[1]))
