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
from functools import cache, lru_cache

from sayso.model.errors import InputError
from sayso.model.files import ASSETS, read_utf8
from sayso.model.text.normalization import MAX_CHARACTERS, normalise
from sayso.model.text.phonemes import Dictionary

BITS = 40.0
"""The least that a session's words must hold: guessing them is one chance in a million million."""
RADIUS = 1
"""Sounds or letters that may differ between the word asked and the word heard (see `near`)."""
LIST = ASSETS / "words" / "eff-512.txt"


@cache
def word_list() -> tuple[str, ...]:
    """The list, without its header."""
    lines = read_utf8(LIST).splitlines()
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
    """The CMU dictionary: word to its ways of being said."""
    found: dict[str, list[tuple[str, ...]]] = {}
    for line in _dictionary().lines:
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
    return re.findall(r"[^\W_]+", spoken.lower().replace("'", "").replace("\u2019", ""))


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


@lru_cache(maxsize=100_000)
def same_word(asked: str, heard: tuple[str, ...]) -> bool:
    """Whether one or two heard tokens are the asked word, give or take `RADIUS` sounds or letters.

    Recognisers split words ("foot hold"), so two tokens in a row may stand for one.
    """
    letters, said = _forms(heard)
    if near(asked, letters):
        return True
    return any(near(way, sounds) for way in pronunciations()[asked] for sounds in said)


@lru_cache(maxsize=100_000)
def _forms(heard: tuple[str, ...]) -> tuple[str, tuple[tuple[str, ...], ...]]:
    """Tokens as one word: its letters, and every way to say it."""
    said: list[tuple[str, ...]] = [()]
    for token in heard:
        said = [first + second for first in said for second in pronunciations().get(token, ())]
    return "".join(heard), tuple(said)


@lru_cache(maxsize=100_000)
def sounds(word: str) -> tuple[str, ...]:
    """The sounds of a token; of one that no dictionary has, by its spelling. Digits have none."""
    letters = re.sub("[^a-z]", "", word)
    return tuple(_dictionary().phones(letters)) if letters else ()


@cache
def _dictionary() -> Dictionary:
    return Dictionary()


def find_words(said: Sequence[str], words: Sequence[str]) -> list[tuple[int, int]]:
    """Where the last of the words are, in order: for each its first token and how many it has.

    Words are sought from the last one back, each as late as it can be.

    Args:
        said: As `tokens` gives it.
        words: Of the list.
    """
    end, found = len(said), []
    for asked in reversed(words):
        place = _find_last(asked, said, end)
        if place is None:
            break
        end = place[0]
        found.append(place)
    return found[::-1]


def _find_last(asked: str, said: Sequence[str], end: int) -> tuple[int, int] | None:
    """Where the last match before `end` begins, and how many tokens it takes."""
    for start in range(end - 1, -1, -1):
        for width in (1, 2):
            if start + width <= end and same_word(asked, tuple(said[start : start + width])):
                return start, width
    return None
