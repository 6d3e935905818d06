"""From sentences to their sound, inside the gate: all through the studio, in one batch.

A sentence fails that does not end within its limit, is silent, or is too short for its words. It is
said again with another seed while the others go on; after `TRIES` a long one is cut and said in
pieces, and a short one is an error that names it.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from threading import Event

import soxr
import torch
from torch import Tensor

from sayso.model.bundle import Bundle
from sayso.model.codecs.voice_edit import Alteration
from sayso.model.decoding import SILENT_PEAK
from sayso.model.engine import ROWS, Request
from sayso.model.errors import InputError, UnfinishedError
from sayso.model.sampling import Sampling
from sayso.model.text.normalization import WORD, Piece, normalise, pieces

from .consent.recording import RATE
from .gate import Grant
from .ranking import best
from .recognisers import Ears
from .studio import Job, Studio, Visit

PAUSE_SECONDS = 0.25
"""Silence between sentences, where the text asks for no other."""
CHARACTERS_PER_SECOND = 12.0
"""A slow reading speed: a sentence that does not fit at it is cut. At 14 one of 60 had no end."""
SLOWEST_CHARACTERS_PER_SECOND = 7.0
"""Half of a normal reading speed; slower speech is taken for a loop."""
FASTEST_CHARACTERS_PER_SECOND = 20.0
"""A sentence that would not fit even when read this fast is refused."""
SWALLOWED_CHARACTERS_PER_SECOND = 40.0
"""Twice that, and twice what the bundled model reaches: faster speech has left words out."""
GRACE_SECONDS = 1.5
"""Added to every limit, as short texts are read slower."""
TRIES = 3
"""Of a sentence that failed."""
STOPS = (70, 220, 520)
"""Frames at which pieces of a sentence end: each is twice as long as that before, which is heard
while it is made."""
LEAST_REST = 75
"""Frames: a sentence that may end sooner behind a stop has no piece there. Marks hold in 50."""
CUT = 60
"""Characters: a longer sentence that failed in all tries is cut. A slow one may not fit behind the
prompt (one of 1,200 in a book), and a long text must not end there."""


@dataclass(frozen=True)
class Manner:
    """How a text is to be said."""

    seed: int
    """Of the random draws; each sentence and sample has its own, made of it."""
    sampling: Sampling
    alteration: Alteration = field(default_factory=Alteration)
    samples: int = 1
    """Of each sentence; the best is kept (Eq. 23)."""
    ears: Ears | None = None
    """By which the best is found; not needed for one sample."""
    hurry: bool = False
    """Whether the first sentence is not to wait for those behind it; a long one comes in pieces."""


def limit_seconds(text: str) -> float:
    """How long `text` may take before its speech is given up as a loop."""
    return GRACE_SECONDS + len(text) / SLOWEST_CHARACTERS_PER_SECOND


def shortest_seconds(text: str) -> float:
    """How long the words of `text` must take: what is said faster was not said."""
    return max(len(text), 1) / SWALLOWED_CHARACTERS_PER_SECOND


def most_characters(bundle: Bundle, grant: Grant) -> int:
    """The longest sentence that fits behind the prompt at a normal speed."""
    return int(_room(bundle, grant) / bundle.codec.frame_rate * CHARACTERS_PER_SECOND)


@dataclass(eq=False)
class Sentence:
    """One sentence, and what was said of it so far."""

    number: int
    """In the text."""
    piece: Piece
    limit: int
    """Frames."""
    running: int = 0
    """Takes that are being made."""
    tried: int = 0
    left: bool = False
    """Whether a piece of it has left: it cannot be said again."""
    takes: dict[int, Tensor] = field(default_factory=dict)
    """Those that did not fail, by number, whichever ended first."""


def speech_of(
    studio: Studio,
    grant: Grant,
    spoken: Sequence[Piece],
    manner: Manner,
    first: int = 0,
    gone: Event | None = None,
) -> Iterator[tuple[Tensor, bool]]:
    """The sound of each sentence with the pause behind it, (samples,), in order, once it is there.

    With it whether the sentence has ended: of what is said in a hurry the first may come in pieces.
    What a sentence sounds like hangs on its number in the text and the manner, not on the others.
    Some `ROWS` sentences ahead of the next are held, never all of a long text.

    Args:
        first: The number, in its text, of the first sentence given.
        gone: Set, by another thread, when nobody waits for it any more.

    Raises:
        GoneError: Nobody does.
        InputError: A sentence is longer than the model holds, before anything is said.
        UnfinishedError: A sentence failed in all tries.
    """
    limits = [_most_frames(studio.bundle, grant, piece.text) for piece in spoken]
    said = [Sentence(*each) for each in zip(count(first), spoken, limits)]
    with studio.visit(gone) as visit:
        text, asked = _Text(studio, visit, grant, manner), 0
        for index, sentence in enumerate(said):
            # Who is in a hurry hears the first before another is begun.
            for most in (1, 2 * ROWS) if manner.hurry and not index else (index + 2 * ROWS,):
                text.ask(said[asked:most])
                asked = max(asked, most)
                while sentence.running or not sentence.takes:
                    (number, sample), audio = visit.next()
                    if audio is None or sample < manner.samples:
                        text.hear(said[number - first], sample, audio)
                    else:
                        said[number - first].left = True
                        yield audio, False
            audio = _best(sentence, studio.bundle, grant, manner)
            sentence.takes.clear()
            pause = sentence.piece.pause
            if pause is None:
                pause = PAUSE_SECONDS if sentence is not said[-1] else 0.0
            silence = torch.zeros(int(pause * studio.bundle.codec.sample_rate))
            yield torch.cat([audio, silence]), True


class _Text:
    """What all sentences that are said in one visit share."""

    def __init__(self, studio: Studio, visit: Visit, grant: Grant, manner: Manner):
        self.studio, self.visit, self.grant, self.manner = studio, visit, grant, manner
        self.bundle = studio.bundle
        self.known = self.bundle.tokenizer.encode(normalise(grant.transcript))
        self.prompt = self.bundle.codec.read(grant.codes)

    def ask(self, sentences: Sequence[Sentence]) -> None:
        """Have a take of each made, or one for each sample."""
        self.studio.ask([job for sentence in sentences for job in self._jobs(sentence)])

    def hear(self, sentence: Sentence, sample: int, audio: Tensor | None) -> None:
        """Keep a take, None where it failed; if all have, ask again, or cut it, or give it up."""
        sentence.running -= 1
        if audio is not None and (sentence.left or float(audio.abs().max()) >= SILENT_PEAK):
            sentence.takes[sample] = audio
        if sentence.running or sentence.takes:
            return
        if sentence.tried < TRIES and not sentence.left:
            return self.ask([sentence])
        if sentence.left or len(parts := _cut(sentence.piece)) == 1:
            seconds = sentence.limit / self.bundle.codec.frame_rate
            raise UnfinishedError(
                f"No end within {seconds:.1f} s, or words left out, in {TRIES} tries of "
                f"{sentence.piece.text[:60]!r}: try another --seed, or shorter sentences"
            )
        seed = own_seed(self.manner.seed, sentence.number, TRIES * self.manner.samples)
        again = replace(self.manner, seed=seed)
        own = speech_of(self.studio, self.grant, parts, again, gone=self.visit.gone)
        sentence.takes[0] = torch.cat([sound for sound, _ in own])

    def _jobs(self, sentence: Sentence) -> list[Job]:
        bundle, manner, jobs = self.bundle, self.manner, []
        text = self.known + bundle.tokenizer.encode(sentence.piece.text)
        least = shortest_seconds(sentence.piece.text) * bundle.codec.frame_rate
        stressed = _stressed_ids(bundle, sentence.piece, len(self.known))
        stops = self._stops(sentence)
        for sample in range(manner.samples):
            take = sentence.tried * manner.samples + sample
            random = bundle.model.generator(own_seed(manner.seed, sentence.number, take))
            asked = text, self.prompt, sentence.limit, random, manner.sampling, len(self.known)
            how = self.grant.codes, manner.alteration, least, stressed
            job = Job(self.visit, (sentence.number, sample), Request(*asked), *how)
            job.pieces = bundle.codec.in_pieces(self.grant.codes) if stops else None
            job.stops = () if job.pieces is None else stops
            jobs.append(job)
        sentence.running, sentence.tried = manner.samples, sentence.tried + 1
        return jobs

    def _stops(self, sentence: Sentence) -> tuple[int, ...]:
        """Frames at which pieces of it end: of the first, in a hurry, where it is as it is said."""
        manner, piece, bundle = self.manner, sentence.piece, self.bundle
        # The best of several, and what is altered, is known when all of it is.
        plain = manner.samples == 1 and manner.alteration.neutral and not piece.stressed
        if sentence.number or not (manner.hurry and plain and bundle.model.points):
            return ()
        fast = len(piece.text) / FASTEST_CHARACTERS_PER_SECOND * bundle.codec.frame_rate
        return tuple(stop for stop in STOPS if stop + LEAST_REST < fast)


def _cut(piece: Piece) -> list[Piece]:
    """A long sentence in shorter pieces; one that is short or has emphasis as it is."""
    if piece.stressed or len(piece.text) <= CUT:
        return [piece]
    return pieces(piece.text, len(piece.text) * 3 // 5)


def check_emphasis(bundle: Bundle, spoken: Sequence[Piece]) -> bool:
    """Whether a word is to be emphasised; InputError if the model cannot."""
    found = next((piece for piece in spoken if piece.stressed), None)
    if found is None:
        return False
    if not (bundle.codec.stresses and bundle.model.points and bundle.tokenizer.words([]) == []):
        word = WORD.findall(found.text)[found.stressed[0]]
        raise InputError(
            f"*{word}* asks for emphasis, which this model does not speak: it needs `alignment`, "
            "phonemes and a WORLD codec; take the * or _ away"
        )
    return True


def _stressed_ids(bundle: Bundle, piece: Piece, known: int) -> Tensor | None:
    """Which places of a text are of emphasised words, from 0, where none is; None if none are.

    Args:
        known: Text ids in front of the sentence's.
    """
    if not piece.stressed:
        return None
    words = bundle.tokenizer.words(bundle.tokenizer.encode(piece.text)) or []
    return torch.tensor([*[False] * (known + 1), *(word in piece.stressed for word in words)])


def own_seed(seed: int, sentence: int, take: int) -> int:
    """The seed of one take of a sentence; that of the first take of the first is the given one."""
    if not sentence and not take:
        return seed
    digest = hashlib.sha256(f"{seed} {sentence} {take}".encode()).digest()
    return int.from_bytes(digest[:8]) >> 1


def _best(sentence: Sentence, bundle: Bundle, grant: Grant, manner: Manner) -> Tensor:  # (samples,)
    """The take that Eq. 23 prefers, measured against the prompt as altered as the takes are."""
    takes = [take for _, take in sorted(sentence.takes.items())]
    if len(takes) == 1 or manner.ears is None:
        return takes[0]
    rate = bundle.codec.sample_rate
    prompt = bundle.codec.hear(grant.codes, manner.alteration)
    heard = [soxr.resample(each.numpy(), rate, RATE) for each in (prompt, *takes)]
    return takes[best(heard[1:], heard[0], sentence.piece.text, manner.ears)]


def _room(bundle: Bundle, grant: Grant) -> int:
    """Frames that the model holds behind the prompt."""
    return max(bundle.model.room(grant.codes.shape[1]), 0)


def _most_frames(bundle: Bundle, grant: Grant, text: str) -> int:
    """The length limit of one sentence, within what the model holds behind the prompt."""
    rate, room = bundle.codec.frame_rate, _room(bundle, grant)
    if room < len(text) / FASTEST_CHARACTERS_PER_SECOND * rate:
        raise InputError(
            f"{text[:60]!r} has {len(text)} characters, and behind this prompt the model "
            f"holds {room / rate:.1f} s: speak shorter sentences"
        )
    return min(room, int(limit_seconds(text) * rate))
