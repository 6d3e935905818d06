"""Which speech is held out for validation: by names alone, the same on every machine, for ever.

Whole speakers are, so that the validation loss is of voices that were never heard; single
utterances only where a corpus has one speaker. Nothing of it is in the token files: another rule
encodes nothing anew.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sayso.model import corpora

from .layouts import DEVELOPMENT
from .readers import Utterance, read_corpus
from .shards import COPY


@dataclass(frozen=True)
class HeldOut:
    """The rule. What a corpus itself keeps for development (dev-*) is always held out."""

    speakers: dict[str, int] = field(default_factory=dict)
    """Corpus: one speaker in this many."""
    utterances: dict[str, int] = field(default_factory=dict)
    """Corpus: one utterance in this many."""


def held_out(name: str, every: int = 47) -> bool:
    """Whether an utterance or a speaker is kept out: one in `every`, by the hash of its name.

    Args:
        name: The id in the corpus's metadata, such as ``arctic_a0001``.
        every: 1 keeps everything out; must be at least 1.
    """
    return int(hashlib.sha256(name.encode()).hexdigest(), 16) % every == 0


def split(
    corpus: Sequence[str],
    speaker: Sequence[str],
    id: Sequence[str],
    part: Sequence[str],
    rule: HeldOut,
) -> tuple[NDArray[np.bool_], set[str]]:
    """Which of N utterances are held out (N,), and the people of whom nothing is trained on.

    A person held out in one corpus is in all: LibriSpeech and LibriTTS have the same readers. So
    is one of whom a corpus keeps every utterance out. Altered copies go with what they are of.
    """
    entries = {name: corpora.get(name) for name in set(corpus)}
    people: dict[tuple[str, str], str] = {}
    out: set[str] = set()
    some: dict[tuple[str, str], bool] = {}
    chosen = np.zeros(len(id), bool)
    who = []
    for i, (c, s, u, p) in enumerate(zip(corpus, speaker, id, part, strict=True)):
        if (c, s) not in people:
            person = people[c, s] = entries[c].person(s.partition(COPY)[0])
            if c in rule.speakers and held_out(person, rule.speakers[c]):
                out.add(person)
        person = people[c, s]
        who.append(person)
        if p == DEVELOPMENT:
            out.add(person)
        elif c in rule.utterances:
            chosen[i] = held_out(u.partition(COPY)[0], rule.utterances[c])
        some[c, person] = some.get((c, person), True) and bool(chosen[i])
    out |= {person for (_, person), every in some.items() if every}
    return np.array([person in out for person in who]) | chosen, out


def trained_on(roots: dict[str, Path], rule: HeldOut) -> dict[str, list[Utterance]]:
    """The utterances of each corpus that are not held out, for what is fitted before the models.

    Args:
        roots: Name on the list of consented corpora -> the unpacked corpus.

    Raises:
        CorpusError: A corpus is not listed, or not where it should be.
    """
    found = {name: read_corpus(name, root) for name, root in roots.items()}
    flat = [(name, u) for name, utterances in found.items() for u in utterances]
    corpus, found_in = [name for name, _ in flat], [u for _, u in flat]
    speaker, id = [u.speaker for u in found_in], [u.id for u in found_in]
    held, _ = split(corpus, speaker, id, [u.part for u in found_in], rule)
    taken: dict[str, list[Utterance]] = {name: [] for name in roots}
    for (name, utterance), out in zip(flat, held, strict=True):
        if not out:
            taken[name].append(utterance)
    return taken
