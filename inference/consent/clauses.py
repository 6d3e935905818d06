"""Whether a statement was said as shown: where the words heard differ, could they be those shown?

A recogniser writes "earnest" for "Ernest", and it writes "do not allow" for "do not allow". Both
differ from what was shown; which of the two was said is asked of the recogniser again: how much
less likely does the sound make its transcript with the words shown in that place (`doubt`, in
nats)? Mishearings cost little, other words much. A negation that was heard refuses in any case.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from functools import lru_cache
from typing import Protocol

from ..recognisers import Ears
from .challenge import distance, find_words, sounds, tokens
from .recording import RATE, Audio, speech_span
from .statement import NEGATIONS, Phrase

FILLERS = frozenset(["um", "uh", "er", "erm", "ah", "mm", "hmm"])
GRUNTED = re.compile(r"(?:n?uh|unh|h?m+)(?:-(?:n?uh|unh|m+))+")  # "uh-uh", "mm-mm"; not "mm-hmm"
SIGNS = '.,:;?!"'  # that a recogniser puts at a word
LAST_SHOWN = ("today", "are")
END_SECONDS = 8.0  # of a recording, heard again: five words, slowly
MOST_HEARD = 3  # words that may be heard of a session's word, if all are found in the end
MAX_DOUBT = 10.0  # nats, of a difference in one word
MAX_ANNOUNCED = 5.5  # the same if it is a name, a purpose, a number or of the date
MORE_DOUBT = 4.5  # for each further word, shown and heard, of three at most
LONG_RUN = 3  # words shown in a row, all misheard: from here on they must sound like those heard
MAX_UNLIKE = 0.6  # of their sounds; genuine readings reach 0.56, "as if" put in hid behind 0.9
MAX_FOREIGN = 4.5  # of words heard where none are, but for those that change nothing
MOST_FOREIGN = 3  # sounds of them: what is longer was said, whatever the recogniser doubts
MAX_LIGHT = 20.0  # of these
MAX_TO = 3.0  # of "to": all that is heard of "hate to"; one genuine reading reaches 2.4
NEVER = -1000.0  # a doubt that nothing has
LIGHT = frozenset(["a", "an", "and", "at", "for", "in", "is", "it", "of", "or", "so", "the", "to"])
HEDGES = ("might", "would", "won't")
"""Tried for a word heard that nothing stands for: may one of them have been said?"""
DENIALS = ("no", "not", "never", "don't")
"""Tried in every gap of a difference: do the words shown fit the sound better with one of them?"""


class Hearing(Protocol):
    """A recording as a recogniser heard it."""

    words: list[str]
    """As it writes them, with signs."""

    def doubt(self, start: int, stop: int, instead: str) -> float:
        """Nats by which the sound prefers words `start` to `stop` to those given instead."""
        ...


@dataclass(frozen=True)
class Difference:
    """One place where something else was heard than was shown.

    Args:
        clause: What is spoken of there.
        shown, heard: Words; one of the two may be empty.
        doubt: See `Hearing.doubt`.
        announced: Whether all words shown are the session's own: a name, a number ...
        denied: What fits the sound better than the words shown: the same with one of `DENIALS`, or
            one of `HEDGES`.
    """

    clause: str
    shown: str
    heard: str
    doubt: float
    announced: bool = False
    denied: str = ""

    @property
    def limit(self) -> float:
        """Doubt up to which the words shown may have been said."""
        if not self.shown:
            heard = _said(self.heard.split())
            if LIGHT.issuperset(heard):
                return MAX_TO if "to" in heard else MAX_LIGHT
            # a word of another script has no sounds here, and was said
            long = sum(len(sounds(word)) or 1 + MOST_FOREIGN for word in heard) > MOST_FOREIGN
            return NEVER if long else MAX_FOREIGN
        shown, heard = self.shown.split(), self.heard.split()
        if len(shown) >= LONG_RUN and _unlike(shown, heard) > MAX_UNLIKE:
            return NEVER  # a transcript that fits nothing fits badly anyhow, and its doubt is low
        if _vowels(heard) > _vowels(shown):
            return MAX_ANNOUNCED  # a word more may have been said
        least = MAX_ANNOUNCED if self.announced else MAX_DOUBT
        return least + MORE_DOUBT * (min(len(shown), max(1, len(heard)), LONG_RUN) - 1)

    @property
    def good(self) -> bool:
        """Whether the words shown may have been said."""
        return self.doubt <= self.limit and not self.denied


@dataclass(frozen=True)
class _Word:
    text: str  # as written, without signs
    of: Phrase
    first: bool  # whether it stands at the beginning of what is written in one piece


def differences(read: Sequence[Phrase], hearing: Hearing, stop: int) -> list[Difference]:
    """Where the first `stop` words heard are not those of the statement."""
    shown = [word for phrase in read for word in _spoken(phrase.text, phrase)]
    heard = [word for i in range(stop) for word in _spoken(hearing.words[i], Phrase(str(i), ""))]
    wanted = [_tokens(word.text)[0] for word in shown]
    said = [_tokens(word.text)[0] for word in heard]
    found: list[Difference] = []
    for i, k, j, m in _spans(wanted, said):
        # Whole written words on both sides: "5,000" is spoken as two, and heard as one.
        while (i < len(shown) and i and not shown[i].first) or (
            j < len(heard) and j and not heard[j].first
        ):
            i, j = max(0, i - 1), max(0, j - 1)
        while (k < len(shown) and not shown[k].first) or (m < len(heard) and not heard[m].first):
            k, m = min(len(shown), k + 1), min(len(heard), m + 1)
        begin = int(heard[j].of.clause) if j < len(heard) else stop
        end = int(heard[m - 1].of.clause) + 1 if m > j else begin
        texts = [word.text for word in shown[i:k]]
        if not texts and _silent(hearing.words[begin:end]):
            continue
        each = Difference(
            shown[min(i, len(shown) - 1)].of.clause,
            " ".join(texts),
            " ".join(hearing.words[begin:end]),
            hearing.doubt(begin, end, " ".join(texts)),
            bool(texts) and all(word.of.announced for word in shown[i:k]),
        )
        if each.good:
            each = replace(each, denied=_denied(hearing, begin, end, texts, each.doubt))
        found.append(each)
    return found


def _denied(hearing: Hearing, start: int, stop: int, shown: list[str], doubt: float) -> str:
    """The words shown with one of `DENIALS`, if the sound fits them better so; or one of `HEDGES`
    that may have been said where nothing was shown; or nothing."""
    if not shown and not LIGHT.issuperset(_said(hearing.words[start:stop])):
        for word in HEDGES:
            if hearing.doubt(start, stop, word) <= MAX_FOREIGN:
                return word
    for word in DENIALS:
        for gap in range(len(shown) + 1):
            text = " ".join([*shown[:gap], word, *shown[gap:]])
            if hearing.doubt(start, stop, text) < doubt:
                return text
    return ""


def denials(words: Sequence[str]) -> list[str]:
    """What of the words heard denies."""
    return [
        word
        for word in words
        if NEGATIONS.intersection(_tokens(word))
        or GRUNTED.fullmatch(re.sub(r"[^\w-]", "", re.sub(r"[\u2010-\u2015]", "-", word)).lower())
    ]


def _silent(words: Sequence[str]) -> bool:
    """Whether they say nothing: signs alone, or one filler by itself ("uh uh" is a no)."""
    left = [word.strip(SIGNS).lower() for word in words if _tokens(word)]
    return not left or (len(left) == 1 and left[0] in FILLERS)


def _spans(wanted: list[str], said: list[str]) -> list[tuple[int, int, int, int]]:
    matcher = SequenceMatcher(None, wanted, said, autojunk=False)
    return [span[1:] for span in matcher.get_opcodes() if span[0] != "equal"]


def _spoken(text: str, of: Phrase) -> list[_Word]:
    """One of them for each token of each written word."""
    found = []
    for written in text.split():
        parts = _tokens(written)
        plain = (written.strip(SIGNS),) if len(parts) == 1 else parts
        found += [_Word(word, of, place == 0) for place, word in enumerate(plain)]
    return found


@lru_cache(maxsize=100_000)
def _tokens(written: str) -> tuple[str, ...]:
    said = any(unicodedata.category(each)[0] not in "CPZ" for each in written)
    return tuple(tokens(written)) or ((written.strip(SIGNS),) if said else ())


def _said(words: Sequence[str]) -> list[str]:
    return [token for word in words for token in _tokens(word)]


def _unlike(shown: Sequence[str], heard: Sequence[str]) -> float:
    """How many sounds differ, as a share of those shown."""
    own = _sounds(shown)
    return distance(own, _sounds(heard)) / max(1, len(own))


def _vowels(words: Sequence[str]) -> int:
    return sum(sound[0] in "AEIOU" for sound in _sounds(words))


def _sounds(words: Sequence[str]) -> list[str]:
    return [sound for word in _said(words) for sound in sounds(word)]


@dataclass(frozen=True)
class Reading:
    """How a session was read.

    Args:
        found: How many of its words were found, in order, counted from the last.
        differences: From the statement, and between and behind the words.
        denied: Negations heard anywhere.
        said: All that was heard, as `tokens` gives it.
    """

    found: int
    differences: list[Difference]
    denied: list[str]
    said: list[str]

    def doubts(self, read: Sequence[Phrase]) -> dict[str, list[Difference]]:
        """The differences of each clause, in the statement's order, and of the words."""
        names = dict.fromkeys([phrase.clause for phrase in read] + ["words"])
        return {name: [each for each in self.differences if each.clause == name] for name in names}

    @property
    def good(self) -> bool:
        """Whether nothing was denied, and what was shown may have been said."""
        return not self.denied and all(each.good for each in self.differences)


def judged(hearing: Hearing, read: Sequence[Phrase], asked: Sequence[str]) -> Reading:
    """How a session was read, by one hearing of all of it."""
    parts = _split(hearing, asked)
    stop = parts.places[0][0] if len(parts.places) == len(asked) else parts.stop
    found = differences(read, hearing, stop)
    if len(parts.places) == len(asked):
        found += _between(hearing, parts.places)
    return Reading(len(parts.places), found, denials(hearing.words), parts.said)


def spoken(audio: Audio, read: Sequence[Phrase], asked: Sequence[str], ears: Ears) -> Reading:
    """Hear a session's recording, (samples,) at 16 kHz.

    The end is heard again by itself: a recogniser bends a word to fit the sentence before it, and
    without the sentence it does so less; and it may stop before the end.
    """
    start, stop = speech_span(audio)
    audio = audio[start:stop]
    hearing, end = ears.hear(audio), ears.hear(audio[-int(END_SECONDS * RATE) :])
    whole = judged(hearing, read, asked)
    parts, behind = _split(end, asked), len(hearing.words) - _split(hearing, asked).stop
    whole = replace(whole, denied=[*whole.denied, *denials(end.words)])
    if len(parts.places) < len(asked) or (
        whole.found < len(asked) and behind > MOST_HEARD * len(asked)
    ):
        return whole
    if parts.stop < len(end.words):  # what stands between the statement and the words counts, too
        parts.places.insert(0, (parts.stop, parts.stop))
    found = [*whole.differences, *_between(end, parts.places)]
    return replace(whole, found=len(asked), differences=found)


@dataclass(frozen=True)
class _Parts:
    said: list[str]
    places: list[tuple[int, int]]  # of each word of the session: first and behind the last written
    stop: int  # where the statement ends if its own last words were heard


def _split(hearing: Hearing, asked: Sequence[str]) -> _Parts:
    said = [(token, place) for place, word in enumerate(hearing.words) for token in _tokens(word)]
    plain = [token for token, _ in said]
    found = find_words(plain, asked)
    places = [(said[start][1], said[start + width - 1][1] + 1) for start, width in found]
    marks = [place for token, place in said if token in LAST_SHOWN]
    return _Parts(plain, places, marks[-1] + 1 if marks else len(hearing.words))


def _between(hearing: Hearing, places: list[tuple[int, int]]) -> list[Difference]:
    """What else was heard between and behind the words of a session."""
    found, edges = [], [stop for _, stop in places]
    for start, stop in zip(
        edges, [*(start for start, _ in places[1:]), len(hearing.words)], strict=True
    ):
        heard = " ".join(hearing.words[start:stop])
        if not _silent(hearing.words[start:stop]):
            found.append(Difference("words", "", heard, hearing.doubt(start, stop, "")))
    return found
