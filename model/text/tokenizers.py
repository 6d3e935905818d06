"""Text to tokens: normalised English (numbers, money, dates by `wetext`), then BPE or phonemes.

VALL-E 2 reads BPE (size not stated); phonemes are our option for models trained on little data.
"""
# ruff: noqa: RUF001

import hashlib
import json
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import tokenizers

from ..checkpoint import CONFIG, read_config
from ..errors import CheckpointError, InputError
from .normalization import expand, no_digit, spell_numbers
from .phonemes import PHONES, Dictionary

MAX_CHARACTERS = 1000
PUNCTUATION = ",.?!"
BOUNDARY = "|"
VOCABULARY = "tokenizer.json"

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
    """CMU phones without stress, a boundary between words, and the four marks.

    Args:
        read_as: Marks that a model never met in training, and what it is given in their place;
            stored with the model. Not part of `identity`, as the ids stay what they are.
    """

    kind = "phonemes"

    def __init__(self, read_as: dict[str, str] | None = None):
        self.read_as = read_as or {}
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
        config = read_config(folder)
        read_as = config.get("read_as", {})
        if not isinstance(read_as, dict) or not {*read_as, *read_as.values()} <= set(PUNCTUATION):
            raise CheckpointError(f"{folder / CONFIG}: read_as is {read_as!r}, not marks for marks")
        tokenizer = cls(read_as)
        for key, value in tokenizer._config.items():
            if config.get(key) != value:
                raise CheckpointError(
                    f"{folder / CONFIG} was made with another {key} of phonemes: install the "
                    "versions of pocketsphinx and Sayso that the model was trained with"
                )
        return tokenizer

    def save(self, folder: Path) -> None:
        write_config(folder, self._config | ({"read_as": self.read_as} if self.read_as else {}))

    def encode(self, text: str) -> list[int]:
        """Ids of a normalised text; raises InputError if it is not normalised."""
        symbols: list[str] = []
        for part in re.findall(r"[A-Za-z']+|\S", text):
            if part in PUNCTUATION:
                symbols.append(self.read_as.get(part, part))
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
