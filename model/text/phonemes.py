"""English words to CMU phones: the dictionary in pocketsphinx's wheel (BSD), then `letters`.

Phones are ARPAbet without stress. Nothing is ever out of vocabulary: names and rare words are read
from their letters by a small model.
"""

import hashlib
from functools import cached_property
from pathlib import Path

from ..checkpoint import WEIGHTS, load_module, read_known
from ..errors import CheckpointError
from ..files import ASSETS, file_hash
from .letters import Letters, LettersConfig

PHONES = [
    "AA", "AE", "AH", "AO", "AW", "AY", "B", "CH", "D", "DH", "EH", "ER", "EY", "F", "G",
    "HH", "IH", "IY", "JH", "K", "L", "M", "N", "NG", "OW", "OY", "P", "R", "S", "SH",
    "T", "TH", "UH", "UW", "V", "W", "Y", "Z", "ZH",
]  # fmt: skip

LETTERS = ASSETS / "letters"
DICTIONARY_SHA256 = "20b5c293e1f311fb375fe067e500ec5636f4fc7af5594967263696def9b23bfe"
HISSES, HARD = ("S", "Z", "SH", "ZH", "CH", "JH"), ("P", "T", "K", "F", "TH")


class Dictionary:
    """Pronunciations of single words, the first listed of each; read on first use."""

    def __init__(self):
        try:
            import pocketsphinx
        except ImportError as error:
            raise CheckpointError(
                f"phonemes need pocketsphinx's dictionary ({error}): pip install pocketsphinx"
            ) from None
        self.path = Path(str(pocketsphinx.get_model_path())) / "en-us" / "cmudict-en-us.dict"
        self._read: dict[str, str] = {}
        remedy = "reinstall pocketsphinx (5.1 has that one)"
        self._bytes = read_known(self.path, DICTIONARY_SHA256, remedy)

    @cached_property
    def identity(self) -> str:
        """sha256 (hex) over the dictionary and the weights that read other words."""
        weights = file_hash(LETTERS / WEIGHTS)
        return hashlib.sha256(self._bytes + weights.encode()).hexdigest()

    @property
    def lines(self) -> list[str]:
        """The file: a word and its phones each; further ways of saying it have `(2)` behind it."""
        return self._bytes.decode("utf-8").splitlines()

    @cached_property
    def words(self) -> dict[str, str]:
        """Phones between spaces of each listed word, the first listed of each."""
        pairs = (line.split(maxsplit=1) for line in self.lines if line.strip())
        return {word: phones for word, phones in pairs if not word.endswith(")")}

    def phones(self, word: str) -> list[str]:
        """Phones of a word in lower case, made of letters and apostrophes."""
        return (self._known(word) or self._compound(word) or self._spelled(word)).split()

    def _known(self, word: str) -> str | None:
        """A listed word, or a listed stem with 's, s, ed, d or ing."""
        if word in self.words:
            return self.words[word]
        if word.endswith(("'s", "s'", "s")):
            stem = self.words.get(word.rstrip("s").rstrip("'") if "'" in word else word[:-1])
            return stem and f"{stem} {plural(stem)}"
        for ending in ("ed", "d"):
            stem = self.words.get(word.removesuffix(ending)) if word.endswith(ending) else None
            if stem:
                return f"{stem} {_past(stem)}"
        if word.endswith("ing"):
            stem = self.words.get(word[:-3]) or self.words.get(word[:-3] + "e")
            return stem and f"{stem} IH NG"
        return None

    def _compound(self, word: str) -> str | None:
        """Two known words of four letters or more, the halves as even as possible."""
        cuts = range(4, len(word) - 3)
        for cut in sorted(cuts, key=lambda cut: abs(2 * cut - len(word))):
            first, second = self.words.get(word[:cut]), self._known(word[cut:])
            if first and second:
                return f"{first} {second}"
        return None

    def _spelled(self, word: str) -> str:
        """From the letters; no vowel at all means their names."""
        plain = word.replace("'", "")
        if not set(plain) & set("aeiouy"):
            return " ".join(self.words[f"{letter}."] for letter in plain)
        if plain not in self._read:
            self._read[plain] = " ".join(self._letters(plain)) or "AH"
        return self._read[plain]

    @cached_property
    def _letters(self) -> Letters:
        return load_module(LETTERS, Letters, LettersConfig)


def plural(stem: str) -> str:
    """What a plural s, or 's, adds to the phones of a stem."""
    last = stem.split()[-1]
    return "IH Z" if last in HISSES else "S" if last in HARD else "Z"


def _past(stem: str) -> str:
    last = stem.split()[-1]
    return "IH D" if last in ("T", "D") else "T" if last in ("S", "SH", "CH", *HARD) else "D"
