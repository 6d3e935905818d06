"""The engine: requests in, codes out; the one way from text ids to codes (VALL-E 2, 3.4).

Requests join the AR's rows at the next step and leave when they end; those that ended together go
through the NAR together. Requests with one text and one prompt (the samples of Eq. 23) are read
once. Two sentences in one voice share but the prompt's transcript, as the paper puts the whole text
in front of the codes: what comes behind it is read anew for each. What a request says hangs on
itself and its generator, not on who shares its steps (in exact arithmetic: the sums of a batch of
another size are rounded otherwise, which now and then turns a draw).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor

from .errors import InputError
from .extras.alignment import NONE, AlignedAR, AlignedNAR, Walk
from .generate import generate_nar
from .rows import Decoder, Ended
from .sampling import Sampling
from .transformer import join
from .valle2 import Valle2, pure_ar, pure_nar

ROWS = 16
"""Requests that are decoded together; more wait. A step of the bundled model takes hardly longer
for them than for one, and their cache has 12 MB each."""


@dataclass(frozen=True)
class Request:
    """What shall be said."""

    text: list[int]
    """Text ids, the prompt's transcript in front of the new text."""
    prompt: Tensor
    """Codes (K, T) int64 of the codec that the models were trained with; T may be 0."""
    limit: int
    """Most new frames."""
    random: torch.Generator
    """Its own, on the model's device, as of `Valle2.generator`."""
    sampling: Sampling = field(default_factory=Sampling)
    said: int = 0
    """Text ids that are the prompt's."""


class Speech(NamedTuple):
    """What was said to a request."""

    codes: Tensor
    """(K, T) int64 on the CPU, without the prompt's."""
    finished: bool
    """Whether the model drew <eos> before the limit."""
    where: Tensor | None = None
    """(T,) at which text id each frame was, from 1, of a model with a pointer."""


class Engine:
    """Takes requests at any time, and answers each when it has ended."""

    def __init__(self, model: Valle2, rows: int = ROWS):
        """Decode `rows` requests at a time with a model; use it from one thread."""
        self.model, self.most_rows = model, rows
        self.decoder = Decoder(pure_ar(model.ar), model.compiled)
        self.new: list[int] = []  # they join at the next step
        self.requests: dict[int, Request] = {}
        self.count = 0

    @property
    def free(self) -> int:
        """Rows that no request has."""
        return self.most_rows - len(self.decoder.tags) - len(self.new)

    def check(self, request: Request) -> None:
        """InputError if text or speech is longer than the models hold; from any thread."""
        ar, nar = pure_ar(self.model.ar).config, pure_nar(self.model.nar).config
        room = self.model.room(request.prompt.shape[1])
        for name, over in (
            ("text tokens", len(request.text) + 1 - min(ar.max_text, nar.max_text)),  # and <eos>
            ("frames of prompt and speech", request.limit - room),
        ):
            if over > 0:
                raise InputError(
                    f"{over} {name} more than this model holds: speak shorter sentences or enrol "
                    "a shorter prompt"
                )

    def submit(self, request: Request) -> int:
        """Let a request join at the next step: its number.

        Raises:
            InputError: Text or speech is longer than the models hold.
            ValueError: No row is free.
        """
        self.check(request)
        if self.free < 1:
            raise ValueError(f"all {self.most_rows} rows are taken: wait until one is free")
        self.count += 1
        self.requests[self.count] = request
        self.new.append(self.count)
        return self.count

    def drop(self, numbers: set[int]) -> None:
        """Forget requests that have not ended: their rows are free at the next step."""
        self.new = [number for number in self.new if number not in numbers]
        self.decoder.drop(numbers)
        for number in numbers:
            self.requests.pop(number, None)

    @torch.inference_mode()
    def step(self) -> list[tuple[int, Speech]]:
        """Let the new join, and decode one group for each: who ended, and what they said."""
        if self.new:
            self._join(self.new)
            self.new = []
        if not self.decoder.tags:
            return []
        found = self._fill(self.decoder.step())
        for number, _ in found:
            del self.requests[number]
        return found

    @torch.inference_mode()
    def so_far(self, number: int, least: int) -> Speech | None:
        """What a request that goes on has said, in all codebooks; None before `least` frames.

        The NAR has not seen what is said next: codes of other codebooks may be others in the end.
        """
        if number not in self.decoder.tags:
            return None
        row = self.decoder.tags.index(number)
        if int(self.decoder.lengths[row] - self.decoder.start[row]) < least:
            return None
        return self._fill([self.decoder.said(row)])[0][1]

    def run(self, requests: Iterable[Request]) -> Iterator[tuple[int, Speech]]:
        """Answer these: their numbers, from 0, with what was said, in the order in which they end.

        Raises:
            InputError: As of `submit`, before any is decoded.
        """
        waiting = list(enumerate(requests))[::-1]
        for _, request in waiting:
            self.check(request)
        numbers: dict[int, int] = {}
        while waiting or numbers:
            while waiting and self.free:
                index, request = waiting.pop()
                numbers[self.submit(request)] = index
            for number, speech in self.step():
                yield numbers.pop(number), speech

    def answer(self, requests: list[Request]) -> list[Speech]:
        """As `run`, all of them in their own order."""
        return [speech for _, speech in sorted(self.run(requests), key=lambda found: found[0])]

    def _join(self, numbers: list[int]) -> None:
        asked = [self._told(self.requests[number], "AR") for number in numbers]
        text, text_lengths, prompt, prompt_lengths = self._read(asked)
        limits, said = (
            torch.tensor(each, device=self.model.device)
            for each in ([request.limit for request in asked], [request.said for request in asked])
        )
        steer = None
        if isinstance(self.model.ar, AlignedAR):
            how = self.model.extras
            steer = Walk(self.model.ar, text, text_lengths, said, how.stay, how.guidance)
        alike = [(request.text, id(request.prompt), request.said) for request in asked]
        self.decoder.join(
            numbers,
            *(text, text_lengths, prompt[:, 0], prompt_lengths, limits),
            [request.sampling for request in asked],
            [request.random for request in asked],
            steer,
            [alike.index(one) for one in alike],
        )

    def _fill(self, ended: list[Ended]) -> list[tuple[int, Speech]]:
        """Rows with all codebooks."""
        if not ended:
            return []
        whole = [self.requests[row.tag] for row in ended]
        asked, nar = [self._told(each, "NAR") for each in whole], self.model.nar
        where = [  # pointers count from the start of what the AR was told
            None if row.where is None else row.where + each.said - self._told(each, "AR").said
            for row, each in zip(ended, whole, strict=True)
        ]
        text, text_lengths, prompt, prompt_lengths = self._read(asked)
        codes = pad([row.codes for row in ended])
        lengths = torch.tensor([len(row.codes) for row in ended], device=codes.device)
        extra = None
        if isinstance(nar, AlignedNAR):
            before = torch.zeros_like(prompt[:, 0])  # a prompt's pointers are not read
            both = zip(where, whole, asked, strict=True)
            heard = pad([x - each.said + own.said for x, each, own in both if x is not None])
            heard = join(before[..., None], prompt_lengths, heard[..., None])[..., 0]
            heard = heard[:, : int((prompt_lengths + lengths).max())]
            if self.model.without == "NAR text":
                heard = torch.full_like(heard, NONE)
            extra = nar.told(text, text_lengths, heard, prompt_lengths)
        given = text, text_lengths, prompt, prompt_lengths, codes, lengths
        full = generate_nar(pure_nar(nar), *given, extra, self.model.choose).cpu()
        return [
            (row.tag, Speech(each[:, : len(row.codes)].clone(), row.finished, place))
            for row, each, place in zip(ended, full, where, strict=True)
        ]

    def _told(self, request: Request, model: str) -> Request:
        """The request as the AR or the NAR reads it: without what `Valle2.ablated` left out."""
        if self.model.without == f"{model} prompt":
            new = request.text[request.said :]
            return replace(request, text=new, prompt=request.prompt[:, :0], said=0)
        if self.model.without == f"{model} text":
            return replace(request, text=[], said=0)
        return request

    def _read(self, asked: list[Request]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Texts (B, S), their lengths (B,), prompts (B, K, T) and their lengths (B,)."""
        here = self.model.device
        ids = (each.text or [0] for each in asked)  # one that is not read, where there is none
        text = pad([torch.tensor(each, dtype=torch.long, device=here) for each in ids])
        prompt = pad([each.prompt.to(here).T for each in asked]).transpose(1, 2)
        sizes = [len(each.text) for each in asked], [each.prompt.shape[1] for each in asked]
        text_lengths, prompt_lengths = (torch.tensor(each, device=here) for each in sizes)
        return text, text_lengths, prompt, prompt_lengths


def pad(rows: list[Tensor]) -> Tensor:
    """Stack (T_b, ...) tensors of unequal lengths, right-padded with zeros: (B, T, ...)."""
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
