"""From sentences to their sound, inside the gate: all through the studio, in one batch.

A sentence fails that does not end within its limit, is silent, or is too short for its words. It is
said again with another seed while the others go on; after `TRIES` a long one is cut and said in
pieces, and a short one is an error that names it.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
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
from .studio import Job, Studio

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
    bundle, samples = studio.bundle, manner.samples
    codec = bundle.codec
    known = bundle.tokenizer.encode(normalise(grant.transcript))
    prompt = codec.read(grant.codes)
    limits = [_most_frames(bundle, grant, piece.text) for piece in spoken]
    running = [0] * len(spoken)
    tried = [0] * len(spoken)
    takes: list[dict[int, Tensor]] = [{} for _ in spoken]  # those that did not fail, by number
    with studio.visit(gone) as visit:

        def jobs_of(index: int) -> list[Job]:
            text = known + bundle.tokenizer.encode(spoken[index].text)
            least = shortest_seconds(spoken[index].text) * codec.frame_rate
            stressed = _stressed_ids(bundle, spoken[index], len(known))
            jobs = []
            for sample in range(samples):
                seed = own_seed(manner.seed, first + index, tried[index] * samples + sample)
                random = bundle.model.generator(seed)
                request = Request(text, prompt, limits[index], random, manner.sampling, len(known))
                key, how = (index, sample), (manner.alteration, least, stressed)
                job = Job(visit, key, request, grant.codes, *how)
                if hurried and not index and bundle.model.points:
                    fast = len(spoken[0].text) / FASTEST_CHARACTERS_PER_SECOND * codec.frame_rate
                    job.stops = tuple(stop for stop in STOPS if stop + LEAST_REST < fast)
                    job.pieces = codec.in_pieces(grant.codes) if job.stops else None
                jobs.append(job)
            running[index], tried[index] = samples, tried[index] + 1
            return jobs

        asked, left = 0, False
        # The best of several, and what is altered, is known when all of it is.
        plain = samples == 1 and manner.alteration.neutral and not spoken[0].stressed
        hurried = manner.hurry and not first and plain
        for index, (text, pause, _) in enumerate(spoken):
            # Who is in a hurry hears the first before another is begun.
            ahead = (index + 1,) if manner.hurry and not index else ()
            for most in (*ahead, index + 2 * ROWS):
                new = range(asked, max(asked, min(len(spoken), most)))
                studio.ask([job for number in new for job in jobs_of(number)])
                asked = new.stop
                while running[index] or not takes[index]:
                    (at, sample), audio = visit.next()
                    if audio is not None and sample >= samples:
                        left = True
                        yield audio, False
                        continue
                    running[at] -= 1
                    if audio is not None and (left or float(audio.abs().max()) >= SILENT_PEAK):
                        takes[at][sample] = audio
                    if not running[at] and not takes[at]:
                        gone_by = left and not at  # what has left cannot be said again
                        if tried[at] == TRIES and len(cut := _cut(spoken[at])) > 1 and not gone_by:
                            seed = own_seed(manner.seed, first + at, TRIES * samples)
                            again = replace(manner, seed=seed)
                            own = speech_of(studio, grant, cut, again, gone=gone)
                            takes[at][0] = torch.cat([sound for sound, _ in own])
                            continue
                        if tried[at] == TRIES or gone_by:
                            raise UnfinishedError(
                                f"No end within {limits[at] / codec.frame_rate:.1f} s, or words "
                                f"left out, in {TRIES} tries of {spoken[at].text[:60]!r}: try "
                                "another --seed, or shorter sentences"
                            )
                        studio.ask(jobs_of(at))
            own = [take for _, take in sorted(takes[index].items())]  # whichever ended first
            audio = _best(own, text, bundle, grant, manner)
            takes[index] = {}
            if pause is None:
                pause = PAUSE_SECONDS if index + 1 < len(spoken) else 0.0
            yield torch.cat([audio, torch.zeros(int(pause * codec.sample_rate))]), True


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


def _best(
    takes: list[Tensor], text: str, bundle: Bundle, grant: Grant, manner: Manner
) -> Tensor:  # (samples,)
    """The take that Eq. 23 prefers, measured against the prompt as altered as the takes are."""
    if len(takes) == 1 or manner.ears is None:
        return takes[0]
    rate = bundle.codec.sample_rate
    prompt = bundle.codec.hear(grant.codes, manner.alteration)
    heard = [soxr.resample(each.numpy(), rate, RATE) for each in (prompt, *takes)]
    return takes[best(heard[1:], heard[0], text, manner.ears)]


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
