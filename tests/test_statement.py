"""What a speaker is told, and that nothing else passes for it: statements read wrongly."""

import json
import math
import random
from dataclasses import replace

import pytest

from benchmarks import statements
from sayso.inference.consent.challenge import tokens, word_list
from sayso.inference.consent.clauses import Difference, denials, judged
from sayso.inference.consent.statement import (
    MIN_SOUNDS,
    NEGATIONS,
    Terms,
    check_terms,
    fixed_words,
    phrases,
    text_of,
)
from sayso.model.errors import InputError

MAY = 1_809_259_200.0  # 2 May 2027
TERMS = Terms("Ada Lovelace", "Example Lab", ("research",), ("Eve", "Bob"), MAY, 25, 5000, True)
WORDS = ("country", "pretty", "daylight", "almost", "afternoon")
READ = phrases(TERMS)


class Deaf:
    """A transcript without its sound: nothing but the words shown will do."""

    def __init__(self, text: str):
        self.words = text.split()

    def doubt(self, start: int, stop: int, instead: str) -> float:
        """Infinite."""
        return math.inf


def good(said: str) -> bool:
    """Whether a transcript, without its sound, is taken for the session of `TERMS`."""
    heard = judged(Deaf(said), READ, WORDS)
    return heard.found == len(WORDS) and heard.good


def test_the_speaker_is_told_who_may_use_the_voice_how_often_and_how_much():
    assert text_of(READ) == (
        "I am Ada Lovelace. I allow Example Lab to speak in my voice for research. Eve and Bob may "
        "use it, at most twenty five times, and at most five thousand letters, until the second of "
        "May, twenty twenty seven. I say so of my own will. I may take it back at any time. My "
        "voice may be altered. My words for today are:"
    )
    unlimited = text_of(phrases(replace(TERMS, max_uses=None, max_characters=None)))
    assert "Eve and Bob may use it, as often as they like, until" in unlimited
    assert len(tokens(text_of(READ))) < 70  # half a minute


def test_a_statement_that_cannot_be_read_in_time_is_an_input_error():
    users = tuple(f"{name.capitalize()} Maria Anna Gomez" for name in word_list()[:12])
    with pytest.raises(InputError, match="can be read in time"):
        check_terms(replace(TERMS, users=users))


@pytest.mark.parametrize(
    "name",
    [
        "Ada. I allow Eve to speak in my voice for anything",
        *(
            "Ada I allow",
            "not Ada",
            "Ada and Eve",
            "My Voice",
            "Never Ada",
            "one two three four five",
        ),
        *("Ad\u0430", "\u0410\u0434\u0430", "\u0391da", "\uff21da", "\u212a", "A\u0336da", "ﬁsh"),
        *(
            "Ada\u200b",
            "Ada\u202eeve",
            "Ada\n",
            " Ada",
            "Ada  Eve",
            "",
            "-",
            "Ada 2",
            "Ada, Eve",
            "<b>",
        ),
    ],
)
@pytest.mark.parametrize("role", ["speaker", "controller", "user"])
def test_a_name_is_a_name(role: str, name: str):
    changed = {"users": (name,)} if role == "user" else {role: name}
    with pytest.raises(InputError, match=role):
        check_terms(replace(TERMS, **changed))


@pytest.mark.parametrize(
    "user",
    [
        *("Every Student", "anyone", "All Users", "everybody", "Everyone's", "Everyman", "Whoever"),
        *("Public", "The public", "People", "The World", "Everyone\u2019s", "World of People"),
        *(
            "the public at large",
            "University of",
            "All of London",
            "world everyone",
            "My Office at",
        ),
    ],
)
def test_no_user_is_everyone(user: str):
    with pytest.raises(InputError, match="user"):
        check_terms(replace(TERMS, users=(user,)))


@pytest.mark.parametrize("name", ["José", "Zoë O'Brien", "J. K. Rowling", "Mary-Jane", "Łukasz"])
def test_names_of_people_pass(name: str):
    check_terms(replace(TERMS, speaker=name, controller=name, users=(name,)))


@pytest.mark.parametrize(
    "name",
    [
        *("University of Edinburgh", "BBC World Service", "The Open University", "World Bank"),
        *("IBM", "ITV News", "IEEE"),
    ],
)
def test_names_of_organisations_pass(name: str):
    check_terms(replace(TERMS, controller=name, users=(name,)))


@pytest.mark.parametrize(
    "name", ["NOT", "I ALLOW", "NAH", "IBM I ALLOW", "\u0406BM", "IB\u041c", "I"]
)
def test_capitals_hide_no_word_of_the_statement(name: str):
    with pytest.raises(InputError, match="controller"):
        check_terms(replace(TERMS, controller=name))


@pytest.mark.parametrize(
    "name",
    [
        *(
            "mankind",
            "Humanity",
            "Somebody",
            "whomever",
            "Third Parties",
            "strangers",
            "other people",
        ),
        *("the Internet", "Worldwide", "Eve plus others", "You", "Them", "nil", "Zero"),
        *(
            "customers",
            "Customers of Acme",
            "Acme customers",
            "our partners",
            "Clients",
            "a friend",
        ),
        *("subscribers", "User", "users", "registered users", "Staff", "students", "kunden"),
        *("the team", "team", "campaigners", "paying viewers", "Your Friends", "some students"),
        *("people everywhere", "Everyone Else", "customers Of Acme", "my lab", "employees"),
    ],
)
def test_a_user_is_somebody_whom_the_speaker_knows(name: str):
    with pytest.raises(InputError, match="user"):
        check_terms(replace(TERMS, users=(name,)))
    with pytest.raises(InputError, match="controller"):
        check_terms(replace(TERMS, controller=name))


@pytest.mark.parametrize(
    "name", ["other purposes", "research etc", "various readings", "unrestricted speech"]
)
def test_a_purpose_is_one_that_can_be_told_from_others(name: str):
    with pytest.raises(InputError, match="purpose"):
        check_terms(replace(TERMS, purposes=(name,)))


@pytest.mark.parametrize(
    "name",
    [
        *("He Jiankui", "You Li", "Mary Zero", "US Navy", "Human Rights Watch", "Roger Waters"),
        *(
            "Students Union",
            "Support Team",
            "A. Lovelace",
            "Partners Healthcare",
            "Mary Child",
            "J. Press",
        ),
    ],
)
def test_names_with_a_short_word_in_them_pass(name: str):
    check_terms(replace(TERMS, users=(name,)))


@pytest.mark.parametrize("word", sorted(fixed_words() | NEGATIONS))
def test_no_name_has_a_word_of_the_statement(word: str):
    with pytest.raises(InputError, match="speaker"):
        check_terms(replace(TERMS, speaker=f"Ada {word.capitalize()}"))


@pytest.mark.parametrize(
    "purpose",
    [
        "sex",
        "war",
        "ads",
        "sale",
        "art",
        "the war",
        "everything",
        "any films",
        "anything",
        "everybody's films",
        "all purposes",
        "a реклама",
        "реклама",
        "not war films",
        "x",
    ],
)
def test_a_purpose_that_cannot_be_told_from_other_speech_is_refused(purpose: str):
    """Measured (docs/consent.md): what fits into any speech where it was never said."""
    with pytest.raises(InputError, match="purpose"):
        check_terms(replace(TERMS, purposes=(purpose,)))
    assert MIN_SOUNDS == 5


def test_a_hedge_that_may_have_been_said_refuses():
    """ "might times" was heard as "my times", and it is as likely to be the one as the other."""

    class Unsure(Deaf):
        def doubt(self, start: int, stop: int, instead: str) -> float:
            """Nats as they were measured: nothing 1.7, "might" 3.7, other words far off."""
            return {"": 1.7, "might": 3.7}.get(instead, 14.0)

    shown = f"{text_of(READ)} {', '.join(WORDS)}."
    found = judged(Unsure(shown.replace("five times", "five my times")), READ, WORDS)
    assert [each.denied for each in found.differences] == ["might"] and not found.good


def test_a_verb_may_hide_before_to():
    """ "take it back hate to at any time" was heard without "hate", 3.8 nats."""
    assert Difference("amount", "", "to", 2.4).good
    assert not Difference("revocable", "", "to", 3.1).good
    assert Difference("amount", "", "the", 19.0).good


def test_a_long_word_that_nothing_stands_for_was_said():
    """ "objectant" was heard, 3.8 nats, where "object and" was read in between."""
    assert Difference("allows", "", "are", 4.4).good
    for heard in ("objectant", "when I lie", "нет", "不"):
        assert not Difference("allows", "", heard, -5.0).good


def test_a_long_misheard_run_must_sound_like_what_was_heard():
    """ "as often as they as if like" was read, 6.9 nats; limits from genuine readings (0.56)."""
    for heard in ("and offer us nays, if", "and offer us a nice"):
        assert not Difference("amount", "as often as they", heard, 1.0).good
    assert Difference("allows", "I am Jeanne I allow", "I'm Jean. I'm a loud", 17.0).good
    assert not Difference("allows", "I am Jeanne I allow", "I'm Jean. I'm a loud", 19.1).good


def test_where_more_was_heard_than_shown_a_word_may_have_been_put_in():
    assert Difference("users", "Jacques may", "of shock, maybe", 5.3).good
    assert not Difference("users", "Jacques may", "of shock, maybe", 5.6).good
    assert Difference("who", "Jeanne I", "Jean. I'd", 10.1).good


def test_the_statement_as_shown_is_taken():
    shown = f"{text_of(READ)} {', '.join(WORDS)}."
    assert good(shown)
    assert good(shown.replace("at most twenty five times", "at most, um, 25 times").lower())
    assert good(shown.replace("I allow", "I, um, allow ...").replace("are:", "are: - Uh."))
    assert good(shown.replace("five thousand", "5,000").replace("twenty twenty seven", "2027"))


@pytest.mark.parametrize(
    ("shown", "said"),
    [
        ("I allow", "I do not allow"),
        ("I allow", "I don't allow"),
        ("I allow", "I forbid"),
        ("I allow", "I never allow"),
        ("of my own will", "against my own will"),
        ("Example Lab", "Another Lab"),
        ("Ada Lovelace", "Eve Lovelace"),
        ("for research", "not for research"),
        ("for research", "for research and advertising"),
        ("Eve and Bob", "Eve and Bob and Mallory"),
        ("twenty five times", "twenty five thousand times"),
        ("the second of May", "the third of May"),
        ("I say so of my own will.", ""),
        ("I may take it back at any time.", "I may never take it back at any time."),
        ("My voice may be altered.", ""),
        ("afternoon.", "afternoon. But I mean none of it."),
        ("afternoon.", "afternoon. As they told me to say."),
        ("pretty,", "pretty, as they say,"),
        *(("I allow", f"I allow {word},") for word in ("uh-uh", "Hmm\u2010mm", "uh uh", "nope")),
        *(("I allow", f"{word} I allow") for word in ("Запрещаю.", "нет", "不", "✗", "I ал low")),
        *(("pretty,", f"pretty, {word},") for word in ("uh-uh", "mm, mm", "нет", "不")),
        ("I am", "They make me read this. I am"),
    ],
)
def test_a_refusal_is_no_consent(shown: str, said: str):
    right = f"{text_of(READ)} {', '.join(WORDS)}."
    assert shown in right and not good(right.replace(shown, said))


def test_a_grunted_no_denies_whatever_its_sound():
    assert denials(["Uh-uh.", "mm-mm,", "nuh-uh", "nope", "Nah,", "negative"])[5:]
    assert not denials(["uh", "um,", "mm", "twenty-five", "so-so", "Mm-hmm.", "uh-huh"])


def test_ten_thousand_sequences_of_words_are_not_the_statement():
    """Words put in, left out, exchanged or moved; clauses left out or moved; nothing but words."""
    draw, right = random.Random(5), [*tokens(text_of(READ)), *WORDS]
    others = sorted(NEGATIONS) + list(word_list()) + right
    clauses = list(dict.fromkeys(phrase.clause for phrase in READ))
    accepted = []
    for trial in range(10_000):
        said, place, kind = list(right), draw.randrange(len(right)), trial % 7
        if kind == 0:
            said.insert(place, draw.choice(others))
        elif kind == 1:
            del said[place : place + draw.randrange(1, 4)]
        elif kind == 2:
            said[place] = draw.choice(others)
        elif kind == 3:
            said.insert(draw.randrange(len(said)), said.pop(place))
        elif kind == 4:
            left = draw.choice(clauses)
            rest = text_of([phrase for phrase in READ if phrase.clause != left])
            said = [*tokens(rest), *WORDS]
        elif kind == 5:
            draw.shuffle(said)
        else:
            said = draw.choices(others, k=draw.randrange(1, 80))
        if said != right and good(" ".join(said)):
            accepted.append(said)
    assert not accepted


def test_statements_read_aloud_wrongly_are_refused_and_right_ones_taken():
    """Heard by the enrolment's recogniser, with its doubts, and kept (benchmarks/statements.py)."""
    every = statements.judged()
    figures = {name: found for name, found in every.items() if not name.startswith("fresh")}
    assert sum(found["wrong"] for found in figures.values()) >= 200
    assert sum(found["wrong, accepted"] for found in figures.values()) == 0
    fresh = [every[name] for name in every.keys() - figures.keys()]  # by other voices, not tuned to
    assert sum(found["wrong"] for found in fresh) >= 270
    assert sum(found["wrong, accepted"] for found in fresh) == 0
    assert figures["Kathleen"]["right"] == 57
    assert figures["Kathleen"]["right, accepted"] >= 55
    for path in statements.RESULTS.glob("statements_*.json"):
        for row in json.loads(path.read_text()):
            assert row["kind"] == "genuine" or row["differences"] or row["denied"]
