"""Fresh words for a consent session, and whether a transcript holds them.

The list is 512 of the EFF's long list (CC BY 3.0 US), chosen by tools/choose_words.py so that any
two differ in at least three sounds (CMU dictionary) and three letters. That makes it a code that
corrects one error, as in Hamming (1950): a heard word within one sound or letter of the asked word
is taken for it, and can never be another word of the list.
"""

import math
import re
import secrets
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

import pocketsphinx

from sayso.model.errors import InputError
from sayso.model.files import ASSETS
from sayso.model.text.normalization import MAX_CHARACTERS, normalise
from sayso.model.text.phonemes import Dictionary

BITS = 40.0
"""The least that a session's words must hold: guessing them is one chance in a million million."""
RADIUS = 1
"""Sounds or letters that may differ between the word asked and the word heard (see `near`)."""
LIST = ASSETS / "words" / "eff-512.txt"


@dataclass(frozen=True)
class Heard:
    """What a transcript holds of a session.

    Args:
        found: How many of the words were found, in order, counted from the last one.
        extra: Tokens between and after the words found that belong to none of them.
        statement_wer: Word errors before the first word found, over the statement's length.
    """

    found: int
    extra: int
    statement_wer: float


@cache
def word_list() -> tuple[str, ...]:
    """The list, without its header."""
    lines = LIST.read_text("ascii").splitlines()
    return tuple(line for line in lines if line and not line.startswith("#"))


def words_needed(size: int) -> int:
    """How many different words out of `size` hold `BITS` bits in order."""
    count, bits = 0, 0.0
    while bits < BITS:
        bits += math.log2(size - count)
        count += 1
    return count


def draw_words(statement: Sequence[str]) -> tuple[str, ...]:
    """Fresh words from the operating system's randomness, no word twice.

    Args:
        statement: Tokens of what is read before them: a word that sounds like a part of it would
            be heard there, and is not drawn.
    """
    left = [word for word in word_list() if _find_last(word, statement, len(statement)) is None]
    return tuple(left.pop(secrets.randbelow(len(left))) for _ in range(words_needed(len(left))))


@cache
def pronunciations() -> dict[str, tuple[tuple[str, ...], ...]]:
    """The CMU dictionary that comes with pocketsphinx: word to its ways of being said."""
    found: dict[str, list[tuple[str, ...]]] = {}
    path = Path(pocketsphinx.get_model_path()) / "en-us" / "cmudict-en-us.dict"
    for line in path.read_text("utf-8").splitlines():
        word, *sounds = line.split()
        found.setdefault(re.sub(r"\(\d+\)$", "", word), []).append(tuple(sounds))
    return {word: tuple(ways) for word, ways in found.items()}


def tokens(text: str) -> list[str]:
    """Words of a text as they are spoken: numbers and dates in words, lower case, no signs."""
    spoken = ""
    for piece in textwrap.wrap(text, MAX_CHARACTERS // 2):
        try:
            spoken += " " + normalise(piece)
        except InputError:  # a recogniser may write anything: then its letters as they stand
            spoken += " " + piece
    return re.findall(r"[a-z0-9]+", spoken.lower().replace("'", "").replace("\u2019", ""))


def distance(first: Sequence[str], second: Sequence[str]) -> int:
    """Levenshtein distance between two sequences."""
    row = list(range(len(second) + 1))
    for i, left in enumerate(first, 1):
        before, row[0] = row[0], i
        for j, right in enumerate(second, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (left != right))
    return row[-1]


def near(first: Sequence[str], second: Sequence[str]) -> bool:
    """Whether at most one sound or letter was changed, put in or left out (distance <= RADIUS)."""
    if abs(len(first) - len(second)) > RADIUS:
        return False
    same = 0
    while same < min(len(first), len(second)) and first[same] == second[same]:
        same += 1
    left, right = first[same:], second[same:]
    return left[1:] == right[1:] or left[1:] == right or left == right[1:]


def same_word(asked: str, heard: Sequence[str]) -> bool:
    """Whether one or two heard tokens are the asked word, give or take `RADIUS` sounds or letters.

    Recognisers split words ("foot hold"), so two tokens in a row may stand for one.
    """
    letters, sounds = _forms(tuple(heard))
    if near(asked, letters):
        return True
    return any(near(way, sound) for way in pronunciations()[asked] for sound in sounds)


@lru_cache(maxsize=100_000)
def _forms(heard: tuple[str, ...]) -> tuple[str, tuple[tuple[str, ...], ...]]:
    """Tokens as one word: its letters, and every way to say it."""
    said: list[tuple[str, ...]] = [()]
    for token in heard:
        said = [first + second for first in said for second in pronunciations().get(token, ())]
    return "".join(heard), tuple(said)


def said_share(claim: Sequence[str], said: Sequence[str]) -> float:
    """How much of a claim's sounds was said in one place, 0 to 1 (Sellers' edit distance, 1980).

    By sounds, because a recogniser may write "twentieth" for "twenty", and one short word decides.
    """
    sounds, heard = _sounds(claim), _sounds(said)
    row = [0] * (len(heard) + 1)  # the place may begin anywhere
    for i, left in enumerate(sounds, 1):
        above, row = row, [i]
        for j, right in enumerate(heard, 1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (left != right)))
    return 1 - min(row) / max(1, len(sounds))


def _sounds(text: Sequence[str]) -> list[str]:
    """The sounds of tokens one after the other, without stress; digits have none here."""
    letters = [re.sub("[^a-z]", "", token) for token in text]
    dictionary = _dictionary()
    return [sound.rstrip("012") for word in letters if word for sound in dictionary.phones(word)]


@cache
def _dictionary() -> Dictionary:
    return Dictionary()


def listen(said: Sequence[str], statement: Sequence[str], words: Sequence[str]) -> Heard:
    """Look for the words, in order, at the end of what was said, and the statement before them.

    Words are sought from the last one back, each as late as it can be; what is said between or
    after them is counted as `extra`: a slip put right at once does no harm, a recital does.

    Args:
        said, statement: As `tokens` gives them.
        words: Of the list.
    """
    end, found, used = len(said), 0, 0
    for asked in reversed(words):
        place = _find_last(asked, said, end)
        if place is None:
            break
        end, found, used = place[0], found + 1, used + place[1]
    begin = end if found else len(said)
    errors = distance(statement, said[:begin])
    return Heard(found, len(said) - begin - used, errors / max(1, len(statement)))


def _find_last(asked: str, said: Sequence[str], end: int) -> tuple[int, int] | None:
    """Where the last match before `end` begins, and how many tokens it takes."""
    for start in range(end - 1, -1, -1):
        for width in (1, 2):
            if start + width <= end and same_word(asked, said[start : start + width]):
                return start, width
    return None
