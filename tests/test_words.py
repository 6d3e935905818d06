"""The words of a session: the list, the draw, and what a transcript must hold."""

import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sayso.inference.consent.challenge import (
    BITS,
    RADIUS,
    distance,
    draw_words,
    find_words,
    near,
    pronunciations,
    same_word,
    tokens,
    word_list,
    words_needed,
)

STATEMENT = tokens(
    "I am Vera. I allow the lab to speak in my voice for research, until the second of May, "
    "twenty twenty seven. My words for today are:"
)


def test_the_list_is_a_code_that_corrects_one_error():
    assert len(set(word_list())) == 512
    known = pronunciations()
    for first, second in itertools.combinations(word_list(), 2):
        for one, other in ((first, second), (known[first][0], known[second][0])):
            assert abs(len(one) - len(other)) > 2 * RADIUS or distance(one, other) > 2 * RADIUS


@given(first=st.text("abc", max_size=5), second=st.text("abc", max_size=5))
def test_near_is_a_distance_of_at_most_one(first: str, second: str):
    assert near(first, second) == (distance(first, second) <= RADIUS)


def test_a_draw_holds_forty_bits_and_no_word_twice():
    count = words_needed(500)
    assert sum(math.log2(500 - drawn) for drawn in range(count)) >= BITS
    draws = [draw_words(STATEMENT) for _ in range(60)]
    assert len(set(draws)) == 60
    assert all(len(set(draw)) == count and set(draw) <= set(word_list()) for draw in draws)
    assert len({word for draw in draws for word in draw}) > 180  # 300 draws from 512: about 227
    assert not any("research" in draw for draw in draws)  # it is in the statement


def test_ten_thousand_wrong_readings_are_all_refused():
    """The right statement, the wrong words: others, swapped, left out, one changed, the order."""
    rng = random.Random(3)
    accepted = 0
    pool = [word for word in word_list() if not find_words(STATEMENT, [word])]
    assert len(pool) > 500
    for trial in range(10_000):
        asked = rng.sample(pool, words_needed(len(pool)))
        said = list(asked)
        kind, place = trial % 5, rng.randrange(len(asked))
        if kind == 0:
            said = rng.sample(pool, len(asked))
        elif kind == 1:
            other = (place + 1) % len(asked)
            said[place], said[other] = said[other], said[place]
        elif kind == 2:
            del said[place]
        elif kind == 3:
            said[place] = rng.choice([word for word in pool if word not in asked])
        else:
            said = said[::-1]
        accepted += len(find_words(STATEMENT + said, asked)) == len(asked)
    assert accepted == 0


def test_right_words_are_found_through_small_errors():
    rng = random.Random(4)
    for _ in range(500):
        asked = rng.sample(word_list()[::7], 5)
        said = list(asked)
        place = rng.randrange(len(asked))
        letter = rng.randrange(len(said[place]))
        said[place] = said[place][:letter] + "x" + said[place][letter + 1 :]
        found = find_words([*STATEMENT, "um", *said, "thanks"], asked)
        assert found == [(len(STATEMENT) + 1 + i, 1) for i in range(5)]


@pytest.mark.parametrize(
    ("asked", "heard", "same"),
    [
        ("asleep", ["a", "sleep"], True),
        ("foothold", ["foot", "hold"], True),
        ("patrol", ["petrol"], True),
        ("patrol", ["control"], False),
        ("asleep", ["sleepy"], False),
        ("wisdom", ["wisdoms"], True),
    ],
)
def test_same_word(asked: str, heard: list[str], same: bool):
    assert same_word(asked, tuple(heard)) is same


def test_tokens_are_spoken_forms():
    assert tokens("It's June 22nd, 2027!") == tokens(
        "its the twenty second of june twenty twenty seven"
    )
    assert tokens("...") == [] and tokens("") == []
    assert tokens("пять words") == ["пять", "words"]  # or a no in another script would vanish
