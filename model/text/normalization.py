"""English text as it is spoken: words and the marks , . ? ! alone, by rules (docs/text.md)."""
# ruff: noqa: RUF001

import re
import unicodedata
from typing import NamedTuple

from ..errors import InputError
from .dates import read_dates
from .markup import RELAX, SPELLING, STRESS, prose, set_apart, split_pauses
from .money import CURRENCIES
from .phonemes import PHONES
from .quantities import read_quantities
from .sentences import sentences, shortened
from .tables import pairs
from .words import read_abbreviations, read_signs, read_words

MAX_CHARACTERS = 1000
PASSES = 5
SPELLED = "\ue000"
"""Stands for a spelling `{EY AY}` while the text around it is read."""

# What compatibility decomposition leaves: quotes, dashes, and letters that are one stroke.
PLAIN = str.maketrans(
    {"‘": "'", "’": "'", "‛": "'", "ʼ": "'", "`": "'", "´": "'", "′": "'", "‹": "'", "›": "'"}
    | {"“": '"', "”": '"', "„": '"', "″": '"', "«": '"', "»": '"', "‟": '"', "º": "°"}
    | {"–": "-", "—": ", ", "―": ", ", "−": "-", "‐": "-", "‑": "-", "‒": "-", "⁄": "/", "…": "."}
    | {"ß": "ss", "æ": "ae", "Æ": "Ae", "ø": "o", "Ø": "O", "œ": "oe", "Œ": "Oe", "ł": "l"}
    | {"Ł": "L", "đ": "d", "Đ": "D", "ð": "d", "Ð": "D", "þ": "th", "Þ": "Th", "ı": "i"}
    | {
        "\u2028": "\n",
        "\u2029": "\n\n",
        "\x85": "\n",
        "\x0b": "\n",
        "\x0c": "\n\n",
        "¿": "",
        "¡": "",
    }
)
SAID = pairs("symbols")
GREEK = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho sigma "
    "sigma tau upsilon phi chi psi omega"
).split()
"""From alpha on; sigma has two letters."""
LOW = str.maketrans("₀₁₂₃₄₅₆₇₈₉₊₋", "0123456789+-")
HIGH = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿⁱ", "0123456789+-ni")
KEPT = {*"\n°¢", STRESS, RELAX, *CURRENCIES}
VULGAR = "¼½¾⅐⅑⅒⅓⅔⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞"
QUIET_APOSTROPHES = re.compile(
    r"(?<![A-Za-z])'+(?!(?:em|til|tis|twas|bout|cause)\b)|'+(?![A-Za-z])"
)


WORD = re.compile(r"\{[A-Z ]+\}|[A-Za-z']+")
"""A word of normalised text, or a spelling."""


class Piece(NamedTuple):
    """What is spoken in one breath of the model."""

    text: str
    """Normalised."""
    pause: float | None
    """Seconds of silence asked for behind it; None where the text says nothing."""
    stressed: tuple[int, ...] = ()
    """Which of its words (`WORD`) are emphasised, from 0."""


def normalise(text: str) -> str:
    """English text as it is spoken: letters, apostrophes, spaces and , . ? ! only.

    Besides, phones may stand in it as they are written in text, `{EY AY}`. Emoji, ornaments and
    the stars of footnotes are not said; every other sign is. Applying it twice changes nothing.

    Raises:
        InputError: Nothing speakable, more than MAX_CHARACTERS, letters of another script, signs
            without a reading, or markup for a pause or another way of speaking.
    """
    return " ".join(piece.text for piece in pieces(text, acted=False))


def pieces(text: str, most: int | None = None, acted: bool = True) -> list[Piece]:
    """The sentences of a text, normalised; those over `most` characters are cut.

    Cut at ; and, if that is not enough, at , and then between words.

    Args:
        acted: Whether pauses and emphasis are understood; else they are refused.

    Raises:
        InputError: As `normalise`; a pause before the first word; emphasis that splits what is
            read as one.
    """
    if len(text) > MAX_CHARACTERS:
        raise InputError(
            f"text of {len(text)} characters: at most {MAX_CHARACTERS} at a time, split it"
        )
    found: list[Piece] = []
    if not any(character.isalnum() or character in SAID for character in text):
        raise InputError("text has nothing that can be spoken: write at least one word")
    for stretch, pause in split_pauses(text):
        found += _emphasised(prose(stretch, acted), most)
        if pause is not None and not (acted and found):
            where = "behind words" if acted else "in a text to be said"
            raise InputError(f"[pause {pause:g}s] is only understood {where}: take it away")
        if pause is not None:
            found[-1] = found[-1]._replace(pause=(found[-1].pause or 0.0) + pause)
    if not found:
        raise InputError("text has nothing that can be spoken: write at least one word")
    return found


def _emphasised(text: str, most: int | None) -> list[Piece]:
    """The pieces of prose; InputError if its marks of emphasis change what is said."""
    found = _without_marks(_read(set_apart(text), most))
    if STRESS not in text:
        return found
    plain = re.sub(f"[{STRESS}{RELAX}]", "", text)
    if [piece.text for piece in found] == _read(plain, most):
        return found
    wanted = " ".join(_read(plain, None))
    marked = re.findall(rf"{STRESS}[^{STRESS}{RELAX}]*{RELAX}?", text)
    split = [each for each in marked if " ".join(_alone(text, each)) != wanted] or marked
    word = split[0].strip(STRESS + RELAX)
    raise InputError(
        f"*{word}* is only a part of what is read as one: put the marks around all of it "
        "(*Gov. Brown*, *$3 million*), or write it out in words"
    )


def _alone(text: str, marked: str) -> list[str]:
    """Prose as it is said with one emphasis of it alone."""
    rest = [re.sub(f"[{STRESS}{RELAX}]", "", part) for part in text.partition(marked)[::2]]
    said = _read(set_apart(rest[0] + marked + rest[1]), None)
    return [piece.text for piece in _without_marks(said)]


def _without_marks(said: list[str]) -> list[Piece]:
    """Sentences with `STRESS` and `RELAX` in them as pieces; emphasis may go on in the next one."""
    found, inside = [], False
    for each in said:
        parts = re.split(f"([{STRESS}{RELAX}])", each)
        text, spans = "", []
        for part in parts:
            if part in (STRESS, RELAX):
                inside = part == STRESS
                continue
            if inside:
                spans.append((len(text), len(text) + len(part)))
            text += part
        words = [match.span() for match in WORD.finditer(text)]
        stressed = [
            number
            for number, (start, end) in enumerate(words)
            if any(start < stop and begin < end for begin, stop in spans)
        ]
        found.append(Piece(text, None, tuple(stressed)))
    return found


def _read(text: str, most: int | None) -> list[str]:
    """Sentences of prose as they are spoken, each of at most `most` characters."""
    if any(unicodedata.category(character) == "Co" for character in text):
        raise InputError("private-use characters have no reading: take them away")
    spelled: list[str] = []

    def keep(match: re.Match[str]) -> str:
        if not set(match[1].split()) <= set(PHONES):
            return match[0]
        spelled.append(match[0])
        return f" {SPELLED} "

    text = plain(SPELLING.sub(keep, text))
    said = read_sentences(text)
    for _ in range(PASSES):  # reading lays bare what "Mr.Smith" hid
        again = read_sentences(" ".join(spoken for _, spoken in said))
        if [spoken for _, spoken in again] == [spoken for _, spoken in said]:
            break
        said = again
    cut: list[str] = []
    for written, spoken in said:
        if most is None or len(spoken) <= most:
            cut.append(spoken)
        else:
            parts = [read_sentence(part) for part in re.split(r"(?<=;)\s+", written)]
            cut += [tidy(short) for part in parts if part for short in shortened(part, most)]
    return [re.sub(SPELLED, lambda _: spelled.pop(0), one) for one in cut]


def read_sentences(text: str) -> list[tuple[str, str]]:
    """Each sentence as it is written and as it is spoken; those of no words are left out."""
    pairs = [(written, read_sentence(written)) for written in sentences(text)]
    return [
        (written, spoken) for written, spoken in pairs if re.search(rf"[A-Za-z{SPELLED}]", spoken)
    ]


def read_sentence(text: str) -> str:
    """One plain sentence in words."""
    text = read_abbreviations(text)
    if re.search(r"[\d^]", text):
        text = read_quantities(read_dates(text))
    return tidy(read_signs(read_words(text)))


def plain(text: str) -> str:
    """ASCII letters, digits and signs, signs of money and degrees; accents are folded.

    Raises:
        InputError: A letter of another script, or a sign without a reading.
    """
    text = re.sub(r"(?<=\d)[\u00a0\u2009\u202f](?=\d{3}(?!\d))", ",", text)
    text = re.sub(r"(?<=\d)\s?×\s?(?=\d)", " x ", text)
    text = re.sub(r"(?<=[\w)])\s?−\s?(?=[\w(])", " minus ", text)
    text = re.sub(r"(?<=\d)\s?[·∙⋅]\s?(?=\d)", " x ", text)
    text = re.sub(r"[µμ](?=(?:m|g|s|l|L|F|A|V|W|Sv)\b)", "u", text)
    text = re.sub(r"(?<=\d)(\s?[kM]?)[Ω\u2126]", r"\1ohm", text)
    text = re.sub(rf"(\d)\s?(?=[{VULGAR}])", r"\1 and ", text)
    text = re.sub(rf"[{VULGAR}]", lambda m: f"{unicodedata.normalize('NFKC', m[0])} ", text)
    text = re.sub("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+", lambda m: f"^{m[0].translate(HIGH)}", text)
    text = re.sub("[A-Z]{2,}(?=[₀-₉])", lambda m: " ".join(m[0]), text)
    text = re.sub("[₀₁₂₃₄₅₆₇₈₉₊₋]+", lambda m: f" {m[0].translate(LOW)} ", text)
    text = re.sub("§§|" + "|".join(map(re.escape, SAID)), lambda m: _spaced(SAID[m[0]]), text)
    text = unicodedata.normalize("NFKD", text.translate(PLAIN)).translate(PLAIN)
    text = re.sub(
        r"(?<![Ͱ-Ͽ])[Α-Ωα-ω](?![Ͱ-Ͽ])", lambda m: f" {GREEK[ord(m[0].lower()) - ord('α')]} ", text
    )
    kept = "".join(
        character if _is_plain(character) else _replaced(character) for character in text
    )
    return re.sub(r"[\[\]{}]", lambda m: "(" if m[0] in "[{" else ")", kept)


def _spaced(said: str) -> str:
    return said if said in KEPT or said in "|°C°F" else f" {said} "


def _is_plain(character: str) -> bool:
    return (
        character in KEPT
        or character == SPELLED
        or (character.isascii() and character.isprintable())
    )


def _replaced(character: str) -> str:
    """What stands for a character that is not plain: nothing, a space, a hyphen or a bracket."""
    kind = unicodedata.category(character)
    if character.isalnum():
        raise InputError(f"{character!r} is not an English letter: write the text in English")
    if kind in ("Sm", "Sc"):
        name = unicodedata.name(character, "a sign").lower()
        raise InputError(f"{character!r} ({name}) has no known reading: write it in words")
    if kind[0] == "M" or kind == "Cf":
        return ""
    return {"Pd": "-", "Ps": "(", "Pe": ")"}.get(kind, " ")


def tidy(text: str) -> str:
    """Only letters, inner apostrophes and , . ? ! with single spaces; ends in a stop."""
    text = text.replace("'n'", " and ")
    text = re.sub(r"(?<=\w)\s\*\s(?=\w)", " times ", text)
    text = re.sub(r"[;:()]|(?<!\w)-+|-+(?!\w)", ",", text)
    text = re.sub(rf"[^A-Za-z',.?!{SPELLED}{STRESS}{RELAX}]", " ", text)
    text = QUIET_APOSTROPHES.sub("", text)
    text = re.sub(r"\s*([,.?!])[\s,.?!]*", _stop, text)
    text = re.sub(rf"({STRESS})\s*", r" \1", text)
    text = re.sub(rf"\s*{RELAX}\s*", f"{RELAX} ", text)
    text = re.sub(rf"{RELAX} (?=[,.?!])", RELAX, text)
    text = re.sub(r"\s+", " ", text).strip(" ,")
    text = re.sub(r"^[\s,.?!]+", "", text)
    return text if not text or text[-1] in ".?!" else f"{text}."


def _stop(match: re.Match[str]) -> str:
    """Of several marks in a row the weightiest: ? ! . before a comma."""
    return next(mark for mark in "?!.," if mark in match[0]) + " "
