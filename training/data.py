"""Batches from token files: filled to a budget of frames, the same on any number of processes.

Everything random in a batch is drawn from (seed, number of the batch), so a run is resumed by
counting, in mid-epoch and on another number of processes.
"""

import math
from collections.abc import Callable, Generator, Iterator
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from sayso.model.errors import InputError
from sayso.model.extras.alignment import NONE

from .extras.align import pointers
from .recipe import PromptRule
from .tokens import TRAIN, VALIDATION, Tokens

Item = TypeVar("Item")
SHORTEST_PROMPT, LONGEST_PROMPT = 3.0, 30.0  # seconds, VALL-E 2, section 4.1.1
ICEFALL_PROMPT = 3.0  # seconds, k2-fsa/icefall, egs/libritts/TTS/valle
PATIENCE = 600.0
"""Seconds after which a batch that does not come is an error: a disk that hangs ends a run."""


class Batch(NamedTuple):
    """What one device reads at once."""

    text: Tensor  # (B, S) int64, right-padded with 0
    text_lengths: Tensor  # (B,)
    codes: Tensor  # (B, K, T) int64, right-padded with 0
    lengths: Tensor  # (B,) frames
    prompt_lengths: Tensor  # (B,) frames that the NAR is given whole
    level: int  # codebook the NAR predicts, 1..K-1, the same in all batches of a step
    pointer: Tensor | None  # (B, T) where each frame is in the text, if the tokens are aligned
    step_frames: int  # frames in all batches of the step, on all devices
    step_targets: int  # of these, frames after the prompts

    def to(self, device: torch.device) -> "Batch":
        """The same batch on a device."""
        return self._replace(
            **{
                name: value.to(device, non_blocking=True)
                for name, value in self._asdict().items()
                if isinstance(value, Tensor)
            }
        )


class Batches:
    """The endless row of training batches, and the fixed row of validation batches."""

    def __init__(
        self,
        tokens: Tokens,
        budget: int,
        seed: int,
        max_text: int,
        max_frames: int,
        join_seconds: float = 0.0,
        group_size: int = 1,
        prompts: PromptRule = "paper",
        validation_minutes: float = math.inf,
    ):
        """Leaves out what the model cannot hold, and counts it in `left_out`.

        Args:
            tokens: The utterances.
            budget: Frames in a batch, padding included.
            seed: Of order, joins, prompts and levels.
            max_text: Longest text, in tokens.
            max_frames: Longest utterance.
            join_seconds: Utterances of a speaker are joined up to a length drawn below this.
            group_size: Frames for which one pointer stands, where the tokens are aligned.
            prompts: How many frames the NAR is given whole; see `recipe.NARRecipe.prompts`.
            validation_minutes: A random part of what is held out is taken, of at most this length.

        Raises:
            InputError: Nothing is left to train on.
        """
        self.tokens, self.budget, self.seed = tokens, budget, seed
        self.group_size, self.prompts, self.reading = group_size, prompts, ""
        self.max_text, self.max_frames = max_text, min(max_frames, budget)
        self.join_frames = int(join_seconds * tokens.codec["frame_rate"])
        fits = (tokens.frames <= self.max_frames) & (tokens.text_size <= max_text)
        self.left_out = int((~fits).sum())
        self.train = np.flatnonzero(fits & (tokens.split == TRAIN))
        held = np.flatnonzero(fits & (tokens.split == VALIDATION))
        held = np.random.default_rng(0).permutation(held)  # the same part in each run
        minutes = tokens.frames[held].cumsum() / tokens.codec["frame_rate"] / 60
        self.validation = np.sort(held[minutes <= validation_minutes])
        if not len(self.train):
            raise InputError(
                f"nothing to train on: {self.left_out} utterances are longer than {max_text} text "
                f"tokens or {self.max_frames} frames"
            )

    def _examples(self, random: np.random.Generator) -> list[tuple[int, ...]]:
        """Every training utterance once, some joined with others of their speaker."""
        order = random.permutation(self.train)
        if not self.join_frames:
            return [(int(i),) for i in order]
        tokens, examples = self.tokens, []
        order = order[np.argsort(tokens.speaker[order], kind="stable")]
        members: list[int] = []
        frames = text = aim = 0
        for i in order.tolist():
            fits = members and tokens.speaker[i] == tokens.speaker[members[0]]
            fits = fits and frames + tokens.frames[i] <= min(aim, self.max_frames)
            if fits and text + tokens.text_size[i] <= self.max_text:
                members.append(i)
            else:
                if members:
                    examples.append(tuple(members))
                members, frames, text = [i], 0, 0
                aim = random.integers(0, self.join_frames)
            frames += tokens.frames[i]
            text += tokens.text_size[i]
        return [*examples, tuple(members)]

    def _fill(self, examples: list[tuple[int, ...]], noise: np.ndarray) -> list[list]:
        """Examples of similar length together, as many as the budget holds once padded."""
        frames = np.array([self.tokens.frames[list(members)].sum() for members in examples])
        batches, batch, longest = [], [], 0
        for i in np.argsort(frames * noise, kind="stable"):
            longest = max(longest, int(frames[i]))
            if batch and longest * (len(batch) + 1) > self.budget:
                batches.append(batch)
                batch, longest = [], int(frames[i])
            batch.append(examples[i])
        return [*batches, batch]

    def epoch(self, number: int) -> list[list[tuple[int, ...]]]:
        """The batches of one epoch, as lists of lists of utterances."""
        random = np.random.default_rng([self.seed, number])
        examples = self._examples(random)
        batches = self._fill(examples, random.uniform(0.97, 1.03, len(examples)))
        return [batches[i] for i in random.permutation(len(batches))]

    def _stream(self, start: int) -> Iterator[list[tuple[int, ...]]]:
        """Batches from number `start` on, epoch after epoch."""
        number = 0
        while True:
            batches = self.epoch(number)
            yield from batches[start:]
            start = max(0, start - len(batches))
            number += 1

    def _prompts(self, frames: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Frames of each that the NAR is given whole, T'.

        The paper's rule is min(half, U(3 s, 30 s)); its "maximum" cannot hold.
        """
        rate = self.tokens.codec["frame_rate"]
        if self.prompts == "icefall":
            share = random.uniform(0.25, 0.5, len(frames))
            return np.minimum(frames * share, ICEFALL_PROMPT * rate).astype(int)
        if self.prompts == "wide":
            return (frames * random.uniform(0.0, 0.5, len(frames))).astype(int)
        seconds = random.uniform(SHORTEST_PROMPT, LONGEST_PROMPT, len(frames))
        return np.minimum(frames // 2, (seconds * rate).astype(int))

    def _batch(
        self, members: list, prompts: np.ndarray, hidden: np.ndarray, level: int, totals: tuple
    ) -> Batch:
        """`hidden` (B,) frames of each have no pointer, as an enrolled prompt has none."""
        examples = []
        for each in members:
            self.reading = self.tokens.shard_of(each[0])
            examples.append(self.tokens.example(each))
        text_lengths = torch.tensor([len(text) for text, _, _ in examples])
        lengths = torch.tensor([len(codes) for _, codes, _ in examples])
        books = self.tokens.codec["codebooks"]
        text = torch.zeros(len(members), int(text_lengths.max()), dtype=torch.int64)
        codes = torch.zeros(len(members), books, int(lengths.max()), dtype=torch.int64)
        pointer = torch.zeros(len(members), codes.shape[2], dtype=torch.int64)
        for i, (ids, frames, starts) in enumerate(examples):
            text[i, : len(ids)] = torch.from_numpy(ids.astype(np.int64))
            codes[i, :, : len(frames)] = torch.from_numpy(frames.T.astype(np.int64))
            if self.tokens.aligned:
                found = pointers(starts, len(frames), self.group_size)
                pointer[i, : len(frames)] = torch.from_numpy(found)
                pointer[i, : hidden[i]] = NONE
        where = pointer if self.tokens.aligned else None
        given = torch.from_numpy(prompts)
        return Batch(text, text_lengths, codes, lengths, given, level, where, *totals)

    def steps(
        self, start: int, accumulation: int = 1, rank: int = 0, world: int = 1
    ) -> Iterator[list[Batch]]:
        """For each step from `start` on, the batches of this process, one per accumulation.

        A step takes accumulation * world batches; what they are does not depend on how they
        are shared out.
        """
        size = accumulation * world
        stream = self._stream(start * size)
        step = start
        while True:
            random = np.random.default_rng([self.seed, step, 1])
            level = int(random.integers(1, max(2, self.tokens.codec["codebooks"])))
            drawn = []
            for _ in range(size):
                members = next(stream)
                frames = np.array([self.tokens.frames[list(each)].sum() for each in members])
                prompts = self._prompts(frames, random)
                hidden = prompts * random.integers(0, 2, len(frames))  # half begin aligned
                drawn.append((members, frames, prompts, hidden))
            frames = sum(int(each[1].sum()) for each in drawn)
            targets = frames - sum(int(each[2].sum()) for each in drawn)
            yield [
                self._batch(members, prompts, hidden, level, (frames, targets))
                for members, _, prompts, hidden in drawn[rank::world]
            ]
            step += 1

    def validation_batches(self, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        """The held-out utterances, in a fixed order, shared out among processes; prompts halved.

        Every process gets as many batches, for sharded models must be called together: one that
        only fills up has ``step_frames`` 0 and does not count.
        """
        examples = [(int(i),) for i in self.validation]
        batches = self._fill(examples, np.ones(len(examples))) if examples else []
        for first in range(0, len(batches), world):
            counts = first + rank < len(batches)
            members = batches[first + rank if counts else first]
            frames = np.array([self.tokens.frames[list(each)].sum() for each in members])
            total = int(frames.sum()) if counts else 0
            yield self._batch(members, frames // 2, frames * 0, 1, (total, total))


def ahead(
    batches: Iterator[Item],
    patience: float = PATIENCE,
    reading: Callable[[], str] = str,
) -> Generator[Item, None, None]:
    """The same items, made in a thread while those before them are used.

    Args:
        patience: Seconds to wait for one.
        reading: Says what the thread is at.

    Raises:
        InputError: The next does not come.
    """
    queue: Queue[Item | BaseException] = Queue(2)
    stopped = Event()

    def put(item: Item | BaseException) -> None:
        while not stopped.is_set():
            try:
                return queue.put(item, timeout=0.5)
            except Full:
                continue

    def fill() -> None:
        try:
            for item in batches:
                put(item)
                if stopped.is_set():
                    return
        except BaseException as error:  # raised again where the item is asked for
            put(error)

    thread = Thread(target=fill, daemon=True)
    thread.start()
    try:
        while True:
            try:
                item = queue.get(timeout=patience)
            except Empty:
                raise InputError(
                    f"no batch in {patience:g} s; the last that was read is {reading()}: is its "
                    "disk still there?"
                ) from None
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:  # a thread that still makes tensors while Python ends would crash it
        stopped.set()
        thread.join(timeout=patience)
