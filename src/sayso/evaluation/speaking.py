"""How trials are spoken: through the gate, in threads, whose sentences are said in rounds."""

import re
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from sayso.inference.errors import MarkError
from sayso.inference.store.store import Store
from sayso.inference.studio import Rounds, Seat
from sayso.model.errors import InputError, UnfinishedError
from sayso.model.sampling import Sampling

from .metrics import Prompt
from .protocols import Trial
from .sound import Audio
from .voices import Voices

SEEDS_APART = 100  # a sentence that did not end is tried again with the next ones


@dataclass(frozen=True)
class Row:
    """One way to speak with one model."""

    name: str
    voices: Voices
    sampling: Sampling
    takes: int


@dataclass(frozen=True)
class Asked:
    """A trial as it is asked of models."""

    trial: Trial
    text: str
    """To be said: the trial's, or what of it is behind the prompt."""
    prompt: Prompt | None = None
    before: Audio | None = None
    """(samples,) at 16 kHz, judged in front of what is said."""


class Said(NamedTuple):
    """What one row said of one trial."""

    takes: Sequence[Path | str]
    """Files that were released, or why there is none."""
    coded: Prompt | None
    """The prompt through the codec."""
    cost: float
    """Seconds of work: an equal part of what all that were spoken together took."""


def speak(asked: Sequence[Asked], row: Row, folder: Path, purpose: str, seed: int) -> list[Said]:
    """Let a row say these trials, each as often as the row has takes, into a folder.

    What is said, and its mark, hangs on trial, take and seed; and on who is asked beside it only by
    how the sums of another batch are rounded (see `engine`): the same trials sound the same again.

    Raises:
        RefusedError: A receipt does not allow it.
    """
    speaker = row.voices.speaker
    folder.mkdir(parents=True, exist_ok=True)

    def say(each: Asked, voice: str, take: int, rounds: Rounds, seat: Seat) -> Path | str:
        path, own = folder / _name(each.trial.id, take), seed + take * SEEDS_APART
        how = {"purpose": purpose, "seed": own, "sampling": row.sampling, "again": True}
        try:
            with Store.open(speaker.store.home) as store:  # each thread has its own
                return speaker.beside(store, seat).speak(each.text, voice, path, **how).path
        except (UnfinishedError, MarkError, InputError) as error:
            return str(error)
        finally:
            rounds.idle()

    with ExitStack() as stack:
        of = row.voices.of
        voices = [stack.enter_context(of(x.trial, x.prompt, x.text)) for x in asked]
        start = time.perf_counter()
        takes = []
        for take in range(row.takes if asked else 0):
            rounds = Rounds(speaker.bundle, len(asked))
            with ThreadPoolExecutor(len(asked)) as pool:
                begun = [
                    pool.submit(say, each, voice, take, rounds, seat)
                    for each, (voice, _), seat in zip(asked, voices, rounds.seats, strict=True)
                ]
            takes.append([one.result() for one in begun])
        cost = (time.perf_counter() - start) / max(1, len(asked))
    own = zip(*takes, strict=True)
    return [Said(each, coded, cost) for each, (_, coded) in zip(own, voices, strict=True)]


def folder_of(out: Path, row: str) -> Path:
    """Where a run in OUT keeps what a row said."""
    return out / "speech" / re.sub(r"[^\w.-]+", "-", row)


def said_in(out: Path, row: str, id: str) -> Path:
    """Where a run in OUT keeps the first take of a trial."""
    return folder_of(out, row) / _name(id, 0)


def _name(id: str, take: int) -> str:
    return f"{id}-take-{take}.wav" if take else f"{id}.wav"
