"""One engine and one codec for all who speak in a process, each in a thread of its own.

What several callers ask for is decoded in one batch: it joins at the next step, whoever has the
fewest rows first, and leaves when it ends (Yu et al., "Orca", OSDI 2022). What was decoded waits
for the codec, which makes a sound of all that waits in one batch. Both threads are there only while
there is work, so nobody has to end them.
"""

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from sayso.model.bundle import Bundle
from sayso.model.codecs.base import NOTHING, Pieces, Said
from sayso.model.codecs.voice_edit import Alteration
from sayso.model.engine import ROWS, Engine, Request, Speech
from sayso.model.valle2 import pure_ar

from .errors import GoneError
from .recognisers import Ears, load_ears
from .shift import Shift, alone

AHEAD = 16
"""Frames behind a piece that are known when it is made: what the decoder looks at."""
SOUNDED = ROWS
"""Sentences that the codec makes a sound of at once, of those that wait for it."""
SMALL = 1e7
"""Layers x width x feed-forward width of an AR of which one thread does a step sooner than two,
which wait for each other at each layer: the bundled one has 9e5, the paper's 5e7."""


@dataclass(eq=False)
class Visit:
    """One caller in the studio.

    Args:
        gone: Set, by any thread, when the caller does not wait any more.
    """

    gone: threading.Event
    pause: Callable[[], None] | None = None
    """Called before it waits, of a caller in a `Seat`."""
    ended: bool = False
    found: queue.SimpleQueue = field(default_factory=queue.SimpleQueue)

    @property
    def over(self) -> bool:
        """Whether nobody waits for what was asked for."""
        return self.ended or self.gone.is_set()

    def next(self) -> tuple[tuple[int, int], Tensor | None]:
        """Wait for one of the jobs: its key, and the sound of it, or None where it failed.

        Raises:
            GoneError: The caller is gone; what was asked for is dropped at the next step.
        """
        if self.pause is not None:
            self.pause()
        found = self.found.get()
        if isinstance(found, BaseException):
            raise found
        return found


@dataclass(eq=False)
class Job:
    """What shall be said, and how it shall sound."""

    visit: Visit
    key: tuple[int, int]
    """What it is told by; the caller's own: sentence and sample."""
    request: Request
    prompt: Tensor
    """(K', T'), in whose voice."""
    alteration: Alteration
    least: float
    """Frames; of fewer the words were not said."""
    stressed: Tensor | None = None
    """(1 + N,) bool: whether the text id at a place, from 1, is of an emphasised word."""
    speech: Speech | None = None
    """Once it is there."""
    pieces: Pieces | None = None
    """What makes its sound piece by piece, where that is asked for: a piece's key has its number,
    from 1, the last piece's the sample, 0."""
    stops: tuple[int, ...] = ()
    """At which frames a piece ends."""
    frames: int | None = None
    """Of a piece that is not the last, its stop."""
    told: int = 0
    """Pieces that there were."""

    def piece(self, engine: Engine, number: int) -> "Job | None":
        """Its next piece as a job of its own, once enough was said."""
        speech = engine.so_far(number, self.stops[0] + AHEAD)
        if speech is None:
            return None
        stop, *stops = self.stops
        self.stops, self.told = tuple(stops), self.told + 1
        return replace(self, key=(self.key[0], self.told), speech=speech, frames=stop, stops=())

    def was_said(self, speech: Speech) -> bool:
        """Keep what a model said to it; whether it ended, and is not too short."""
        self.speech = speech
        return speech.finished and speech.codes.shape[1] >= self.least

    @property
    def said(self) -> Said:
        """What the codec is to make a sound of; only once the speech is there."""
        assert self.speech is not None
        codes, _, where = self.speech
        stressed = symbols = None
        if where is not None:
            where = where.cpu()
            symbols = torch.tensor([NOTHING, *self.request.text])[where]
            stressed = None if self.stressed is None else self.stressed[where]
        return Said(codes, self.prompt, self.alteration, stressed, symbols)


class Studio:
    """A model that several threads may speak with at once."""

    def __init__(self, bundle: Bundle, rows: int = ROWS):
        """Decode `rows` sentences at a time, whoever asked for them."""
        self.bundle = bundle
        self.engine = Engine(bundle.model, rows)
        self._waiting: list[Job] = []
        self._decoding: dict[int, Job] = {}
        self._decoded: list[Job] = []
        size = pure_ar(bundle.model.ar).config.size
        small = size.layers * size.width * size.feed_forward < SMALL
        self._decoder = Shift("sayso-decode", self._decode, alone if small else nullcontext)
        self._sounder = Shift("sayso-sound", self._sound, alone)  # FARGAN's steps are small
        self._hearing, self._ears = threading.Lock(), None

    @property
    def ears(self) -> Ears:
        """For ranking samples; loaded when they are first asked for."""
        with self._hearing:
            self._ears = self._ears or load_ears()
            return self._ears

    @contextmanager
    def visit(self, gone: threading.Event | None = None) -> Iterator[Visit]:
        """Come in; what was not answered when one leaves is dropped at the next step."""
        visit = Visit(gone or threading.Event())
        try:
            yield visit
        finally:
            visit.ended = True

    def ask(self, jobs: list[Job]) -> None:
        """Let jobs be done, begun at one step if there is room: their visit is told.

        Raises:
            InputError: Text or speech is longer than the models hold.
        """
        for job in jobs:
            self.engine.check(job.request)
        self._decoder.give(jobs)

    def _decode(self, new: list[Job]) -> bool:
        self._waiting += new
        try:
            self._dismiss()
            self._let_in()
            ended = self.engine.step()
            running = [(n, job) for n, job in self._decoding.items() if job.stops]
            early = [job.piece(self.engine, number) for number, job in running]
        except Exception as error:
            for job in (*self._waiting, *self._decoding.values()):
                job.visit.found.put(error)
            self._waiting, self._decoding, ended, early = [], {}, [], []
            self.engine = Engine(self.bundle.model, self.engine.most_rows)
        pieces = [job for job in early if job is not None]
        if len(self._decoding) == 1 and [job.told for job in pieces] == [1]:
            # Two threads of small steps wait for Python's lock in turn: whoever is alone hears
            # something before more is decoded.
            self._answer(pieces)
        else:
            self._sounder.give(pieces)
        for number, speech in ended:
            job = self._decoding.pop(number)
            if job.was_said(speech):
                self._sounder.give([job])
            else:
                job.visit.found.put((job.key, None))
        return bool(self._waiting or self._decoding)

    def _dismiss(self) -> None:
        """Drop what nobody waits for."""
        over = {number for number, job in self._decoding.items() if job.visit.over}
        self.engine.drop(over)
        self._waiting = _still_wanted(self._waiting)
        _still_wanted([self._decoding.pop(number) for number in over])

    def _let_in(self) -> None:
        """Give the free rows to whoever has the fewest; among equals, to who asked first."""
        rows = [job.visit for job in self._decoding.values()]
        for _ in range(min(self.engine.free, len(self._waiting))):
            job = min(self._waiting, key=lambda job: rows.count(job.visit))
            self._waiting.remove(job)
            rows.append(job.visit)
            self._decoding[self.engine.submit(job.request)] = job

    def _sound(self, new: list[Job]) -> bool:
        self._decoded = _still_wanted(self._decoded + new)
        if not self._decoded:
            return False
        jobs, self._decoded = self._decoded[:SOUNDED], self._decoded[SOUNDED:]
        if whole := [job for job in jobs if job.pieces is None]:
            self._answer(whole)
        for job in jobs:
            if job.pieces is not None:
                self._answer([job])
        return bool(self._decoded)

    def _answer(self, jobs: list[Job]) -> None:
        """Make the sound of jobs in one batch; an error is told to those alone whose it is."""
        pieces = jobs[0].pieces
        try:
            if pieces is None:
                sounds = self.bundle.codec.speak_all([job.said for job in jobs])
            else:
                sounds = [pieces.add(jobs[0].said, jobs[0].frames)]
        except Exception as error:
            if len(jobs) == 1:
                jobs[0].visit.found.put(error)
            else:
                for job in jobs:
                    self._answer([job])
            return
        for job, sound in zip(jobs, sounds, strict=True):
            job.visit.found.put((job.key, sound))


class Rounds:
    """So many callers, each in a thread: what they ask for is done in rounds, in their order.

    A round begins when every caller waits or has left. So who shares a batch hangs on what is asked
    alone: whenever the same is asked by as many, the same is said, bit for bit.
    """

    def __init__(self, bundle: Bundle, callers: int):
        """Make room for so many callers; each must leave its seat by `idle`."""
        self.seats = [Seat(self, bundle) for _ in range(callers)]
        self._lock, self._busy = threading.Lock(), callers

    def idle(self, visit: Visit | None = None) -> None:
        """A caller waits for more in a visit, or has left; the last one does the round."""
        with self._lock:
            if visit is not None and not visit.found.empty():
                return
            self._busy -= 1
            if self._busy == 0:
                asked = [_still_wanted(seat.taken()) for seat in self.seats]
                self._busy = sum(map(bool, asked))  # whoever asked waits: a caller is one thread
                if self._busy:
                    self.seats[0].answer([job for own in asked for job in own])


class Seat(Studio):
    """The place of one caller in `Rounds`."""

    def __init__(self, rounds: Rounds, bundle: Bundle):
        super().__init__(bundle)
        self._rounds, self._asked = rounds, list[Job]()

    @contextmanager
    def visit(self, gone: threading.Event | None = None) -> Iterator[Visit]:
        """As the studio's; what is asked for there waits for the round."""
        with super().visit(gone) as visit:
            visit.pause = lambda: self._rounds.idle(visit)
            yield visit

    def ask(self, jobs: list[Job]) -> None:
        """Let jobs be done in the next round; InputError as of the studio."""
        for job in jobs:
            self.engine.check(job.request)
        self._asked += jobs

    def taken(self) -> list[Job]:
        """What was asked for since the last round."""
        asked, self._asked = self._asked, []
        return asked

    def answer(self, jobs: list[Job]) -> None:
        """Decode jobs from first to last, and make the sound of them, `SOUNDED` at a time."""
        try:
            said = Engine(self.bundle.model).answer([job.request for job in jobs])
        except Exception as error:
            for job in jobs:
                job.visit.found.put(error)
            return
        done = list[Job]()
        for job, speech in zip(jobs, said, strict=True):
            if job.was_said(speech):
                done.append(job)
            else:
                job.visit.found.put((job.key, None))
        for start in range(0, len(done), SOUNDED):
            self._answer(done[start : start + SOUNDED])


def _still_wanted(jobs: list[Job]) -> list[Job]:
    """Those of which the caller still waits; the others are told that they are gone."""
    for job in jobs:
        if job.visit.over:
            job.visit.found.put(GoneError("whoever asked is gone"))
    return [job for job in jobs if not job.visit.over]
