"""Rows of the AR model, decoded in step (VALL-E 2, 3.4).

A step of decoding reads every weight once, for however many rows; so rows are decoded together,
join at any step and leave when they end (Yu et al., "Orca", OSDI 2022). What a row says does not
hang on who shares its steps: each draws from its own generator.
"""

from typing import NamedTuple, Protocol, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from .ar import AR, clip_to_groups
from .compiled import CompiledStep, rounded
from .sampling import Random, Sampling, last_codes, sample_group
from .transformer import Cache

LOOK_EVERY = {"cpu": 1, "cuda": 16, "mps": 16}
"""Steps between two looks at whether all rows have ended: on a GPU a look waits for it."""

READ_AT_ONCE = 4
"""Prompts that a CPU reads together: more only overflow its caches."""


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
        self.cache.lengths[first : first + len(every)] = 0
        texts, sizes, prompts, frames = (
            x[read].repeat_interleave(R, 0) for x in (text, text_lengths, codes, lengths)
        )
        extra, hidden = None if extra is None else extra[every], list[Tensor]()
        at_once = READ_AT_ONCE if codes.is_cpu else len(every)
        for start in range(0, len(every), at_once):
            own = slice(start, start + at_once)
            cache = self.cache.rows(first + start, first + start + len(sizes[own]))
            given = texts[own, : int(sizes[own].max())], sizes[own], prompts[own], frames[own]
            more = None if extra is None else extra[own]
            hidden.append(self.model.prefill(*given, cache, more))
        read_to = torch.cat(hidden).unflatten(0, (-1, R))  # (B', R, D)
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
            read_to[found],
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
        old = self.cache
        if old is not None:
            rows, capacity = max(rows, len(old.lengths)), max(capacity, old.capacity)
        if self.compiled is not None:
            rows, capacity = rounded(rows, capacity)
        if old is None or (rows, capacity) != (len(old.lengths), old.capacity):
            self.cache = self.model.transformer.cache(rows, capacity)
            if self.compiled is not None and self.model.bos.is_cuda:
                # A CUDA graph writes where it first did; on a CPU this would make a constant of it.
                for held in (*self.cache.keys, *self.cache.values, self.cache.lengths):
                    torch._dynamo.mark_static_address(held)
            used, live = max(self.held, default=0), len(self.tags) * readings
            if old is not None and live:
                new = (*self.cache.keys, *self.cache.values)
                for own, before in zip(new, (*old.keys, *old.values), strict=True):
                    own[:live, :, :used] = before[:live, :, :used]
                self.cache.lengths[:live] = old.lengths[:live]
