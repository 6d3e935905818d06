"""Text to tokens: normalised English, then BPE or phonemes.

VALL-E 2 reads BPE (size not stated); phonemes are our option for models trained on little data.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import tokenizers

from ..checkpoint import CONFIG, read_config
from ..errors import CheckpointError, InputError
from ..files import read_regular, replacing
from .homographs import homograph
from .phonemes import PHONES, Dictionary

PUNCTUATION = ",.?!"
BOUNDARY = "|"
VOCABULARY = "tokenizer.json"
BY_RULES = "5f70ead4de1b4fb081f01ac0f37de9b43c2d7db339800f1d5bc82340c5326101"
"""Identity of the same dictionary when other words were read by rules: such models stay usable."""


class Tokenizer(Protocol):
    """Normalised text to ids and, for people, back."""

    kind: str
    size: int
    """Ids are 0 <= id < size."""
    identity: str
    """sha256 (hex) over everything that decides the ids."""

    def encode(self, text: str) -> list[int]:
        """Ids of a normalised text; InputError where it holds what the kind cannot read."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Symbols or text, for people."""
        ...

    def words(self, ids: Sequence[int]) -> list[int] | None:
        """Of each id the number of its word in the text, -1 for marks; None where the kind has no
        words."""
        ...

    def save(self, folder: Path) -> None:
        """Write what `load_tokenizer` reads."""
        ...


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
        self.identity = _digest(self._config)

    @classmethod
    def load(cls, folder: Path) -> "Phonemes":
        """As `load_tokenizer`; CheckpointError for another dictionary, symbols or marks."""
        config = read_config(folder)
        read_as = config.get("read_as", {})
        if not isinstance(read_as, dict) or not {*read_as, *read_as.values()} <= set(PUNCTUATION):
            raise CheckpointError(f"{folder / CONFIG}: read_as is {read_as!r}, not marks for marks")
        tokenizer = cls(read_as)
        for key, value in tokenizer._config.items():
            if config.get(key) not in (value, BY_RULES):
                raise CheckpointError(
                    f"{folder / CONFIG} was made with another {key} of phonemes: install the "
                    "versions of pocketsphinx and Sayso that the model was trained with"
                )
        return tokenizer

    def save(self, folder: Path) -> None:
        """Write its config.json, which has no copy of the dictionary."""
        _write_config(folder, self._config | ({"read_as": self.read_as} if self.read_as else {}))

    def encode(self, text: str) -> list[int]:
        """Ids of a normalised text; raises InputError if it is not normalised."""
        parts: list[str] = re.findall(r"\{[A-Z ]+\}|[A-Za-z']+|\S", text)
        symbols: list[str] = []
        for place, part in enumerate(parts):
            if part in PUNCTUATION:
                symbols.append(self.read_as.get(part, part))
                continue
            if symbols:
                symbols.append(BOUNDARY)
            symbols.extend(self._phones(parts, place))
        try:
            return [self._ids[symbol] for symbol in symbols]
        except KeyError as error:
            raise InputError(f"{error} is no phone: write those of ARPAbet in braces") from None

    def _phones(self, parts: list[str], place: int) -> list[str]:
        """Those of one word among its neighbours, or of a spelling `{EY AY}`."""
        part = parts[place]
        if part.startswith("{"):
            return part[1:-1].split()
        if not re.fullmatch(r"[A-Za-z']*[A-Za-z][A-Za-z']*", part):
            raise InputError(f"{part!r} has no phonemes: normalise the text first")
        if part == "A":
            # The letter within a sentence (ten A M, vitamin A), before a letter (A I), or alone.
            after = "".join(parts[place + 1 : place + 2])
            within = place > 0 and parts[place - 1] not in ".?!"
            if within or re.fullmatch(r"[.?!]?|[A-Z]", after):
                return ["EY"]
        said = homograph([word.lower() for word in parts], place)
        return said.split() if said else self.dictionary.phones(part.lower())

    def words(self, ids: Sequence[int]) -> list[int]:
        """Of each id the number of its word in the text (`normalization.WORD`), -1 for marks."""
        silent, number, found = {self._ids[mark] for mark in PUNCTUATION}, 0, []
        for one in ids:
            number += one == self._ids[BOUNDARY]
            found.append(-1 if one in silent or one == self._ids[BOUNDARY] else number)
        return found

    def decode(self, ids: Sequence[int]) -> str:
        """Phones, marks and boundaries between spaces."""
        return " ".join(self.symbols[index] for index in ids)


MOST_VOCABULARY = 2**24  # bytes


class BPE:
    """Byte-pair encoding; its vocabulary lies in the folder."""

    kind = "bpe"

    def __init__(self, tokenizer: tokenizers.Tokenizer):
        self._tokenizer = tokenizer
        self.size = tokenizer.get_vocab_size()
        self.identity = _digest({"kind": self.kind, "vocabulary": json.loads(tokenizer.to_str())})

    @classmethod
    def load(cls, folder: Path) -> "BPE":
        """As `load_tokenizer`; CheckpointError where the vocabulary cannot be read."""
        path = folder / VOCABULARY
        try:
            return cls(tokenizers.Tokenizer.from_str(read_regular(path, MOST_VOCABULARY).decode()))
        except Exception as error:  # tokenizers raises no narrower type
            raise CheckpointError(
                f"{path} cannot be read ({error}): restore it or train it anew"
            ) from None

    def save(self, folder: Path) -> None:
        """Write its config.json and its vocabulary."""
        _write_config(folder, {"kind": self.kind})
        with replacing(folder / VOCABULARY) as part:
            part.write_text(self._tokenizer.to_str())

    def encode(self, text: str) -> list[int]:
        """Ids of a normalised text; InputError for spellings `{EY AY}`."""
        if "{" in text:
            raise InputError("this model reads letters, not phones: take the spellings out")
        return self._tokenizer.encode(text).ids

    def words(self, ids: Sequence[int]) -> None:
        """None: a pair of bytes may belong to two words."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of the ids."""
        return self._tokenizer.decode(list(ids)).strip()


def _write_config(folder: Path, config: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / CONFIG) as part:
        part.write_text(json.dumps(config, indent=2) + "\n")


def _digest(config: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()
