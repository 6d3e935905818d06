"""Text to tokens: normalised English (numbers, money, dates by `wetext`), then BPE or phonemes.

VALL-E 2 reads BPE (size not stated); phonemes are our option for models trained on little data.
"""
# ruff: noqa: RUF001

import hashlib
import json
import re
import unicodedata
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import tokenizers

from .checkpoint import CONFIG, read_config
from .errors import CheckpointError, InputError
from .phonemes import PHONES, Dictionary

MAX_CHARACTERS = 1000
PUNCTUATION = ",.?!"
BOUNDARY = "|"
VOCABULARY = "tokenizer.json"

ABBREVIATIONS = {
    "Mr": "Mister", "Mrs": "Missus", "Ms": "Miz", "Dr": "Doctor", "Prof": "Professor",
    "Capt": "Captain", "Col": "Colonel", "Gen": "General", "Lt": "Lieutenant",
    "Sgt": "Sergeant", "Rev": "Reverend", "Hon": "Honorable", "Jr": "Junior", "Sr": "Senior",
    "Messrs": "Messieurs", "Mt": "Mount", "Ave": "Avenue", "Blvd": "Boulevard", "Rd": "Road",
    "Co": "Company", "Corp": "Corporation", "Inc": "Incorporated", "Ltd": "Limited",
    "etc": "et cetera", "vs": "versus", "approx": "approximately", "dept": "department",
    "Jan": "January", "Feb": "February", "Mar": "March", "Apr": "April", "Aug": "August",
    "Sept": "September", "Oct": "October", "Nov": "November", "Dec": "December",
    "e.g": "for example", "i.e": "that is", "a.m": "A M", "p.m": "P M", "Ph.D": "P H D",
}  # fmt: skip
SYMBOLS = {"&": "and", "%": "percent", "@": "at", "+": "plus", "=": "equals"}
MONEY = {"$": ("dollar", "cent"), "£": ("pound", "penny"), "€": ("euro", "cent")}
# What compatibility decomposition leaves: quotes, dashes, and letters that are one stroke.
PLAIN = str.maketrans(
    {"‘": "'", "’": "'", "‛": "'", "ʼ": "'", "`": "'", "´": "'", "“": '"', "”": '"', "„": '"'}
    | {"–": "-", "—": ", ", "―": ", ", "−": "-", "⁄": "/", "…": ".", "°": "°"}
    | {"ß": "ss", "æ": "ae", "Æ": "Ae", "ø": "o", "Ø": "O", "œ": "oe", "Œ": "Oe", "ł": "l"}
    | {"Ł": "L", "đ": "d", "Đ": "D", "ð": "d", "Ð": "D", "þ": "th", "Þ": "Th", "ı": "i"}
)
QUIET_APOSTROPHES = re.compile(
    r"(?<![A-Za-z])'+(?!(?:em|til|tis|twas|bout|cause)\b)|'+(?![A-Za-z])"
)


def normalise(text: str) -> str:
    """English text as it is spoken: letters, apostrophes, spaces and , . ? ! only.

    Numbers, money, dates, units and common abbreviations become words. Symbols that nobody says
    (emoji among them) are dropped. Applying it twice changes nothing.

    Raises:
        InputError: Nothing speakable, more than MAX_CHARACTERS, letters of another script, or a
            number that has no known reading.
    """
    if len(text) > MAX_CHARACTERS:
        raise InputError(
            f"text of {len(text)} characters: at most {MAX_CHARACTERS} at a time, split it"
        )
    text = expand(plain(text))
    if not no_digit(text):
        text = expand(spell_numbers(text))
    text = tidy(text)
    while (said := tidy(expand(text))) != text:  # tidying lays bare what "Mr.Smith" hid
        text = said
    if not re.search("[A-Za-z]", text):
        raise InputError("text has nothing that can be spoken: write at least one word")
    return text


def plain(text: str) -> str:
    """ASCII letters, digits and symbols; accents are folded, other scripts refused."""
    text = re.sub(r"(?<=\d)(?=[¼½¾⅓⅔])", " and ", text.translate(PLAIN))
    text = unicodedata.normalize("NFKD", text).translate(PLAIN)
    kept = []
    for character in text:
        if character.isascii() or character in "£€°":
            kept.append(character if character.isprintable() else " ")
        elif character.isalnum():
            raise InputError(f"{character!r} is not an English letter: write the text in English")
        elif not unicodedata.combining(character):
            kept.append(" ")
    return re.sub(r'[*_~^<>|{}\[\]\\"`]', " ", "".join(kept))


def expand(text: str) -> str:
    """Abbreviations, initials, money with cents, and symbols between words."""
    text = re.sub(r"\bSt\.(?=\s+[A-Z])", "Saint", text)
    text = re.sub(r"\bSt\.", "Street", text)
    text = re.sub(r"\bNo\.(?=\s*\d)|#(?=\d)", "Number ", text)
    text = re.sub(
        r"\b1,(?:000|0{0,2}(\d{1,3}))(?![\d,]*\d)", r"1 thousand \1", text
    )  # wetext: "thousand"
    text = re.sub(r"(?<!\d)\+(?=\d)", "plus ", text)
    text = re.sub(r"\betc\.(?=\s+[A-Z])", "et cetera.", text)
    for short, full in ABBREVIATIONS.items():
        text = re.sub(rf"(?<![\w.]){re.escape(short)}\.(?!\w)", full, text)
        capital = short[0].upper() + short[1:]
        text = re.sub(rf"(?<![\w.]){re.escape(capital)}\.(?!\w)", full, text)
    text = re.sub(r"\b(?:[A-Za-z]\.){2,}", lambda m: m[0].replace(".", " ").upper(), text)
    text = re.sub(r"([$£€])\s?(\d[\d,]*)(?:\.(\d\d))?(?![\d.,]*\d)(?! ?[mb]illion)", money, text)
    text = re.sub(r"(?<=\w)\.(?=[a-z])", " dot ", text)
    text = re.sub(r"(?<=\D)/|/(?=\D)", " ", text)
    for symbol, word in SYMBOLS.items():
        # wetext reads the symbol itself where it stands by a number
        text = re.sub(rf"(?<![\d\s]){re.escape(symbol)}|{re.escape(symbol)}(?!\s*\d)(?<!\d.)",
                      f" {word} ", text)  # fmt: skip
    return text


def money(match: re.Match[str]) -> str:
    """`$5.20` -> `5 dollars and 20 cents`."""
    whole, part = MONEY[match[1]]
    said = f"{match[2]} {whole}" + ("" if match[2] == "1" else "s")
    if match[3] and int(match[3]):
        parts = "pence" if part == "penny" else f"{part}s"
        said += f" and {int(match[3])} " + (part if int(match[3]) == 1 else parts)
    return said


def spell_numbers(text: str) -> str:
    """Each sentence that holds digits, in words."""
    sentences = re.split(r"(?<=[.?!])\s+", text)
    return " ".join(s if no_digit(s) else spell_sentence(s) for s in sentences)


def spell_sentence(text: str) -> str:
    try:
        return read_numbers(text)
    except (AssertionError, ValueError):  # wetext has no reading of the whole: word by word, then
        return " ".join(word if no_digit(word) else read_word(word) for word in text.split())


def read_word(word: str) -> str:
    try:
        return read_numbers(word)
    except (AssertionError, ValueError):
        raise InputError(f"no known reading of {word!r}: write it in words") from None


def read_numbers(text: str) -> str:
    """wetext's reading; AssertionError or ValueError where it has none or leaves a digit."""
    said = str(number_reader().normalize(text.strip())).replace("\\", "")
    if not no_digit(said):
        raise ValueError(said)
    return re.sub(r"\b([AP])M\b", r"\1 M", said)


def no_digit(text: str) -> bool:
    return not any(character.isdigit() for character in text)


@cache
def number_reader():
    from wetext import Normalizer  # its grammars take a second to load, and few texts need them

    return Normalizer(lang="en", operator="tn")


def tidy(text: str) -> str:
    """Only letters, inner apostrophes and , . ? ! with single spaces; ends in a stop."""
    text = re.sub(r"[;:()]|(?<!\w)-+|-+(?!\w)", ",", text)
    text = re.sub(r"[^A-Za-z',.?!]", " ", text)
    text = QUIET_APOSTROPHES.sub("", text)
    text = re.sub(r"\s*([,.?!])[\s,.?!]*", stop, text)
    text = re.sub(r"\s+", " ", text).strip(" ,")
    text = re.sub(r"^[\s,.?!]+", "", text)
    return text if not text or text[-1] in ".?!" else f"{text}."


def stop(match: re.Match[str]) -> str:
    """Of several marks in a row the weightiest: ? ! . before a comma."""
    return next(mark for mark in "?!.," if mark in match[0]) + " "


class Tokenizer(Protocol):
    """Normalised text to ids and, for people, back."""

    kind: str
    size: int
    """Ids are 0 <= id < size."""
    identity: str
    """sha256 (hex) over everything that decides the ids."""

    def encode(self, text: str) -> list[int]: ...
    def decode(self, ids: Sequence[int]) -> str: ...
    def save(self, folder: Path) -> None: ...


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer stored in a folder, by the `kind` in its `config.json`.

    Raises:
        CheckpointError: A file is missing, damaged, of an unknown kind, or the phoneme dictionary
            installed is not the one the tokenizer was made with.
    """
    config = read_config(folder)
    if config.get("kind") == "bpe":
        return BPE.load(folder)
    if config.get("kind") == "phonemes":
        return Phonemes.load(folder)
    raise CheckpointError(
        f"{folder / CONFIG} has kind {config.get('kind')!r}: it must be 'bpe' or 'phonemes'"
    )


class Phonemes:
    """CMU phones without stress, a boundary between words, and the four marks."""

    kind = "phonemes"

    def __init__(self):
        self.dictionary = Dictionary()
        self.symbols = [BOUNDARY, *PUNCTUATION, *PHONES]
        self.size = len(self.symbols)
        self._ids = {symbol: index for index, symbol in enumerate(self.symbols)}
        self._config = {
            "kind": self.kind,
            "symbols": self.symbols,
            "dictionary": self.dictionary.identity,
        }
        self.identity = digest(self._config)

    @classmethod
    def load(cls, folder: Path) -> "Phonemes":
        tokenizer, config = cls(), read_config(folder)
        for key, value in tokenizer._config.items():
            if config.get(key) != value:
                raise CheckpointError(
                    f"{folder / CONFIG} was made with another {key} of phonemes: install the "
                    "versions of pocketsphinx and Sayso that the model was trained with"
                )
        return tokenizer

    def save(self, folder: Path) -> None:
        write_config(folder, self._config)

    def encode(self, text: str) -> list[int]:
        """Ids of a normalised text; raises InputError if it is not normalised."""
        symbols: list[str] = []
        for part in re.findall(r"[A-Za-z']+|\S", text):
            if part in PUNCTUATION:
                symbols.append(part)
            elif re.fullmatch(r"[A-Za-z']*[A-Za-z][A-Za-z']*", part):
                # "A" within a sentence is the letter (ten A M, vitamin A), not the article.
                letter = part == "A" and symbols and symbols[-1] not in ".?!"
                if symbols:
                    symbols.append(BOUNDARY)
                symbols.extend(["EY"] if letter else self.dictionary.phones(part.lower()))
            else:
                raise InputError(f"{part!r} has no phonemes: normalise the text first")
        return [self._ids[symbol] for symbol in symbols]

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(self.symbols[index] for index in ids)


class BPE:
    """Byte-pair encoding; its vocabulary lies in the folder."""

    kind = "bpe"

    def __init__(self, tokenizer: tokenizers.Tokenizer):
        self._tokenizer = tokenizer
        self.size = tokenizer.get_vocab_size()
        self.identity = digest({"kind": self.kind, "vocabulary": json.loads(tokenizer.to_str())})

    @classmethod
    def load(cls, folder: Path) -> "BPE":
        path = folder / VOCABULARY
        try:
            return cls(tokenizers.Tokenizer.from_str(path.read_text()))
        except Exception as error:  # tokenizers raises no narrower type
            raise CheckpointError(
                f"{path} cannot be read ({error}): restore it or train it anew"
            ) from None

    def save(self, folder: Path) -> None:
        write_config(folder, {"kind": self.kind})
        (folder / VOCABULARY).write_text(self._tokenizer.to_str())

    def encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text).ids

    def decode(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(list(ids)).strip()


def write_config(folder: Path, config: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")


def digest(config: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()
