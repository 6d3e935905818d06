"""What a session has its speaker read: clauses, each with its fixed and its announced words.

Names, purposes and numbers stand between fixed words, and could say anything: so a name is letters
of one script, four words at most, and none of the statement's own.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache

from sayso.model.errors import InputError
from sayso.model.text.normalization import normalise

from .challenge import sounds, tokens

NEGATIONS = frozenset(
    ("no", "not", "non", "never", "none", "nobody", "nothing", "nowhere", "neither", "nor",
     "cannot", "cant", "dont", "doesnt", "didnt", "wont", "wouldnt", "shouldnt", "couldnt", "isnt",
     "arent", "wasnt", "aint", "mustnt", "neednt", "maynt", "without", "against", "except",
     "unless", "refuse", "refused", "deny", "denied", "forbid", "forbidden", "prohibit", "disallow",
     "reject", "revoke", "hardly", "barely", "ever", "false", "untrue", "lying", "joke",
     "joking", "pretend", "pretending", "forced", "nope", "nah", "nuh", "nay", "negative")
)  # fmt: skip
"""Heard anywhere they refuse: no statement has one, no name, and no word of a session."""
EVERYONE = frozenset(
    ("all", "any", "anybody", "anyone", "anything", "cetera", "each", "every", "everybody",
     "everyone", "everything", "everywhere", "misc", "miscellaneous", "other", "something",
     "unlimited", "unrestricted", "various", "whatever", "whichever", "whoever", "whomever")
)  # fmt: skip
"""A consent is never for all users, nor for all purposes."""
GROUPS = frozenset(
    ("actor", "adult", "advertiser", "affiliate", "agent", "artist", "associate", "audience",
     "author", "bearer", "business", "businesses", "buyer", "caller", "child", "children",
     "citizen", "client", "clientele", "colleague", "community", "companies", "consumer",
     "contractor", "coworker", "creator", "crowd", "customer", "developer", "doctor",
     "donor", "driver", "employee", "enemies", "engineer", "expert", "families", "fan",
     "firm", "folk", "follower", "friend", "gentlemen", "girl", "guest", "guy", "human",
     "humanity", "humankind", "internet", "investor", "journalist", "kid", "ladies",
     "lawyer", "learner", "licensee", "listener", "man", "media", "member", "men",
     "minister", "neighbor", "neighbour", "nurse", "official", "organisation",
     "organization", "owner", "parent", "participant", "parties", "partner", "patient",
     "peer", "people", "person", "player", "press", "public", "pupil", "reader",
     "recipient", "relative", "researcher", "reseller", "scientist", "seller",
     "shareholder", "sponsor", "staff", "student", "subscriber", "supplier", "supporter",
     "teacher", "tenant", "user", "vendor", "viewer", "visitor", "volunteer", "winner",
     "woman", "women", "worker", "world")
)  # fmt: skip
"""Many, or whoever happens to be one: a user is a person, a team or an organisation by name. Such
a name may have one before another capital: "BBC World Service", "Students Union"."""
CROWDS = EVERYONE | GROUPS | frozenset(
    ("alle", "clientes", "cualquiera", "everyman", "jeder", "jedermann", "kunden", "mankind",
     "quiconque", "somebody", "someone", "stranger", "todo", "tous", "toutes", "tutti",
     "whosoever", "worldwide",
     "a", "an", "another", "both", "certain", "few", "her", "his", "its", "many", "most", "my",
     "our", "several", "some", "such", "their", "these", "those", "your")
)  # fmt: skip
"""No user and no controller is one of them either; a purpose may be: "public radio"."""
SURNAMES = frozenset(["child", "friend", "guy", "man", "player", "press", "reader"])
"""Of these that people have behind a first name."""
WHOEVER = re.compile(r"[a-z]{2,}(?:er|or|ee|ist|ian|ant|ent)s")
"""Those who do something, in small letters: "campaigners". Rogers and Sanders have capitals."""
NOBODY_KNOWS = frozenset(
    ("company", "crew", "department", "family", "group", "he", "her", "him", "institute", "it",
     "lab", "me", "mine", "nada", "naught", "nil", "nought", "office", "one", "ours", "school",
     "she", "team", "theirs", "them", "they", "this", "university", "us", "we", "you", "yours",
     "zero")
)  # fmt: skip
"""No user and no controller alone: who heard "you may use it" does not know whom they allowed."""
PLAIN = frozenset(["the", "of", "in", "at"])
"""Words of the statement that a purpose may have as well, "readings at the museum", and those of a
user or a controller inside: "University of Edinburgh"."""
LETTERS = "ÆÐØÞßæðøþĐđŁłŒœ"
"""Latin letters that are no letter of ASCII with a mark, in names of people."""
MAX_NAME_LENGTH, MAX_NAME_WORDS = 60, 4
MIN_SOUNDS = 5  # of a purpose; shorter ones fit into other words (docs/consent.md)
MAX_WORDS = 110  # of a statement: 50 s, read slowly; a recording has 90


@dataclass(frozen=True)
class Phrase:
    """A run of words of one clause.

    Args:
        announced: Whether these are the session's own words: a name, a purpose, a number, a date.
    """

    clause: str
    text: str
    announced: bool = False


@dataclass(frozen=True)
class Terms:
    """What is consented to.

    Args:
        until: The last moment, in seconds since 1970.
    """

    speaker: str
    controller: str
    purposes: tuple[str, ...]
    users: tuple[str, ...]
    until: float
    max_uses: int | None = None
    max_characters: int | None = None
    may_alter: bool = False


def phrases(terms: Terms) -> list[Phrase]:
    """The statement, phrase by phrase, without the words of the session that follow it."""
    read = [Phrase("who", "I am"), Phrase("who", f"{terms.speaker}.", True)]
    read += [Phrase("allows", "I allow"), Phrase("whom", terms.controller, True)]
    read += [Phrase("allows", "to speak in my voice")]
    read += _listed("what for", "for", terms.purposes, ".")
    read += _listed("users", "", terms.users, "")
    read += [Phrase("users", "may use it,"), *_amount(terms)]
    read += [Phrase("until", "until"), Phrase("until", f"{spoken_date(terms.until)}.", True)]
    read += [Phrase("freely", "I say so of my own will.")]
    read += [Phrase("revocable", "I may take it back at any time.")]
    if terms.may_alter:
        read += [Phrase("alteration", "My voice may be altered.")]
    return [*read, Phrase("words", "My words for today are:")]


def check_terms(terms: Terms) -> None:
    """InputError unless all of it can be read aloud, heard, and taken for nothing else."""
    for role, names in (
        ("speaker", (terms.speaker,)),
        ("controller", (terms.controller,)),
        ("user", terms.users),
        ("purpose", terms.purposes),
    ):
        for name in names:
            _check_name(role, name)
        if len({tuple(tokens(name)) for name in names}) < len(names):
            raise InputError(f"A {role} is named twice: {', '.join(names)}.")
    for purpose in terms.purposes:
        heard = sum(len(sounds(token)) for token in tokens(purpose) if token not in PLAIN)
        if heard < MIN_SOUNDS:
            raise InputError(
                f"The purpose {purpose!r} has {heard} sounds, and would be heard in other words: "
                f"say it at greater length ({MIN_SOUNDS} sounds or more), as in 'radio drama'."
            )
    words = len(tokens(text_of(phrases(terms))))
    if words > MAX_WORDS:
        raise InputError(
            f"The statement has {words} words; {MAX_WORDS} can be read in time: ask for fewer "
            "users or purposes at once."
        )


def _check_name(role: str, name: str) -> None:
    shown = repr(name[:80])
    letters = name.replace("\u2019", "'")
    word = r"[^\W\d_]+(?:['-][^\W\d_]+)*|[^\W\d_]\."
    if (
        not re.fullmatch(rf"(?:{word})(?: (?:{word}))*", letters)
        or len(name) > MAX_NAME_LENGTH
        or len(name.split()) > MAX_NAME_WORDS
        or not all(_is_latin(letter) for letter in letters if letter.isalpha())
    ):
        raise InputError(
            f"The {role} {shown} cannot be read aloud and heard: Latin letters alone, "
            f"1 to {MAX_NAME_WORDS} words, {MAX_NAME_LENGTH} letters at most."
        )
    own = fixed_words() - PLAIN if role == "purpose" else fixed_words()
    words = name.split()
    beside = zip(["", *words[:-1]], words, [*words[1:], ""], strict=True)  # what is on each side
    said = [
        token for three in beside if not _part_of_a_name(role, *three) for token in tokens(three[1])
    ]
    # capitals may be read letter by letter, or as the word that they spell
    found = [token for token in said if token in own | NEGATIONS]
    found += [word for word in tokens(name.lower()) if word in NEGATIONS]
    if role != "speaker":
        many = EVERYONE if role == "purpose" else CROWDS
        found += [token for token in said if many & {token, token.removesuffix("s")}]
    if role in ("user", "controller"):
        found += [word for word in words if WHOEVER.fullmatch(word)]
        found += [name] if name.lower().removeprefix("the ") in NOBODY_KNOWS else []
    if found:
        raise InputError(
            f"The {role} {shown} has the word {found[0]!r}, which would change what the statement "
            "means: use another name."
        )


def _part_of_a_name(role: str, before: str, word: str, following: str) -> bool:
    """Whether a word that elsewhere would count is part of an ordinary name: "of", "World", "IBM"
    (whose letters are read one by one, "I" among them)."""
    if role not in ("user", "controller"):
        return False
    written = {word.lower()} & (fixed_words() | NEGATIONS | CROWDS)
    if word.isalpha() and word.isupper() and len(word) == len(tokens(word)) > 1 and not written:
        return True
    if word == "A." or (before[:1].isupper() and word[0].isupper() and word.lower() in SURNAMES):
        return True
    if not following:
        return False
    group = bool(GROUPS & {word.lower(), word.lower().removesuffix("s")})
    return word.lower() in PLAIN or (group and following[0].isupper() and word[0].isupper())


def _is_latin(letter: str) -> bool:
    """Whether a letter is one of ASCII, with a mark or without, or of `LETTERS`."""
    base = unicodedata.normalize("NFD", letter)
    return letter in LETTERS or (
        base[0].isascii() and unicodedata.normalize("NFC", letter) == letter
    )


@cache
def fixed_words() -> frozenset[str]:
    """All that any statement says besides what is announced."""
    longest = Terms("", "", ("", ""), ("", ""), 0.0, 2, 2, True), Terms("", "", (), (), 0.0, 1, 1)
    texts = [
        p.text
        for terms in (*longest, Terms("", "", (), (), 0.0))
        for p in phrases(terms)
        if not p.announced
    ]
    return frozenset(token for text in texts for token in tokens(text))


def text_of(read: Sequence[Phrase]) -> str:
    """The phrases as they are shown."""
    return " ".join(phrase.text for phrase in read)


def _listed(clause: str, first: str, names: Sequence[str], stop: str) -> list[Phrase]:
    found = []
    for place, name in enumerate(names):
        if place or first:
            found.append(Phrase(clause, "and" if place else first))
        found.append(Phrase(clause, name + (stop if place == len(names) - 1 else ""), True))
    return found


def _amount(terms: Terms) -> list[Phrase]:
    if terms.max_uses is None:
        found = [Phrase("amount", "as often as they like,")]
    else:
        found = [
            Phrase("amount", "at most"),
            Phrase("amount", _number(terms.max_uses), True),
            Phrase("amount", "time," if terms.max_uses == 1 else "times,"),
        ]
    if terms.max_characters is not None:
        found += [
            Phrase("amount", "and at most"),
            Phrase("amount", _number(terms.max_characters), True),
            Phrase("amount", "letter," if terms.max_characters == 1 else "letters,"),
        ]
    return found


def _number(value: int) -> str:
    return normalise(f"{value:,}").strip(" .")


def spoken_date(time: float) -> str:
    """A date as it is read aloud: "the twenty second of December, twenty twenty six"."""
    date = datetime.fromtimestamp(time, UTC)
    ending = {1: "st", 2: "nd", 3: "rd"}.get(date.day % 10 if date.day // 10 != 1 else 0, "th")
    day, year = (normalise(part).strip(" .") for part in (f"{date.day}{ending}", str(date.year)))
    return f"the {day} of {date:%B}, {year}"
