"""English words to CMU phones: the dictionary in pocketsphinx's wheel (BSD), then spelling rules.

Phones are ARPAbet without stress. The rules are ours and crude: they give names and rare words a
sayable reading, so that nothing is ever out of vocabulary.
"""

import hashlib
import json
from functools import cached_property
from pathlib import Path

from ..errors import CheckpointError

PHONES = [
    "AA", "AE", "AH", "AO", "AW", "AY", "B", "CH", "D", "DH", "EH", "ER", "EY", "F", "G",
    "HH", "IH", "IY", "JH", "K", "L", "M", "N", "NG", "OW", "OY", "P", "R", "S", "SH",
    "T", "TH", "UH", "UW", "V", "W", "Y", "Z", "ZH",
]  # fmt: skip

# Longest match first; `_` stands for the end of the word.
SPELLING = {
    **{"tion": "SH AH N", "sion": "ZH AH N", "cious": "SH AH S", "tious": "SH AH S"},
    **{"ture": "CH ER", "ight": "AY T", "ough": "AO", "augh": "AO", "eigh": "EY", "dge": "JH"},
    **{"tch": "CH", "sch": "SH", "ous": "AH S", "igh": "AY", "ing": "IH NG", "ness": "N AH S"},
    **{"ould": "UH D", "ear": "IH R", "air": "EH R", "eer": "IH R", "oor": "AO R"},
    **{"ch": "CH", "sh": "SH", "th": "TH", "ph": "F", "wh": "W", "gh": "G", "ck": "K", "qu": "K W"},
    **{"ng": "NG", "kn": "N", "wr": "R", "gn": "N", "mb_": "M", "ce": "S EH", "ci": "S IH"},
    **{"cy": "S IY", "ge_": "JH", "ce_": "S", "ar": "AA R", "er": "ER", "ir": "ER", "or": "AO R"},
    **{"ur": "ER", "ai": "EY", "ay": "EY", "au": "AO", "aw": "AO", "ea": "IY", "ee": "IY"},
    **{"ei": "EY", "eu": "Y UW", "ew": "Y UW", "ey_": "IY", "ie": "IY", "oa": "OW", "oi": "OY"},
    **{"oo": "UW", "ou": "AW", "ow": "OW", "oy": "OY", "ue_": "UW", "ui": "UW", "le_": "AH L"},
    **{"es_": "Z", "ed_": "D", "y_": "IY", "e_": "", "a_": "AH", "o_": "OW", "x": "K S"},
    **{"a": "AE", "b": "B", "c": "K", "d": "D", "e": "EH", "f": "F", "g": "G", "h": "HH"},
    **{"i": "IH", "j": "JH", "k": "K", "l": "L", "m": "M", "n": "N", "o": "AA", "p": "P"},
    **{"q": "K", "r": "R", "s": "S", "t": "T", "u": "AH", "v": "V", "w": "W", "y": "IH", "z": "Z"},
}
LONGEST = max(map(len, SPELLING))
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
        try:
            self._bytes = self.path.read_bytes()
        except OSError as error:
            raise CheckpointError(f"{self.path}: {error}; reinstall pocketsphinx") from None

    @cached_property
    def identity(self) -> str:
        """sha256 (hex) over the dictionary and the spelling rules."""
        digest = hashlib.sha256(self._bytes)
        digest.update(json.dumps(SPELLING, sort_keys=True).encode())
        return digest.hexdigest()

    @cached_property
    def words(self) -> dict[str, str]:
        lines = self._bytes.decode("utf-8").splitlines()
        pairs = (line.split(maxsplit=1) for line in lines if line.strip())
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
                return f"{stem} {past(stem)}"
        if word.endswith("ing"):
            stem = self.words.get(word[:-3]) or self.words.get(word[:-3] + "e")
            return stem and f"{stem} IH NG"
        return None

    def _compound(self, word: str) -> str | None:
        """Two known words of three letters or more, the halves as even as possible."""
        cuts = range(3, len(word) - 2)
        for cut in sorted(cuts, key=lambda cut: abs(2 * cut - len(word))):
            first, second = self.words.get(word[:cut]), self._known(word[cut:])
            if first and second:
                return f"{first} {second}"
        return None

    def _spelled(self, word: str) -> str:
        """By the rules; doubled consonants sound once, and no vowel at all means letter names."""
        if not set(word) & set("aeiouy"):
            return " ".join(self.words[f"{letter}."] for letter in word if letter != "'")
        rest, phones = word.replace("'", "") + "_", []
        while rest != "_":
            size = next(n for n in range(LONGEST, 0, -1) if rest[:n] in SPELLING)
            for phone in SPELLING[rest[:size]].split():
                if not phones or phones[-1] != phone:
                    phones.append(phone)
            rest = rest[size:] or "_"
        return " ".join(phones) or "AH"


def plural(stem: str) -> str:
    last = stem.split()[-1]
    return "IH Z" if last in HISSES else "S" if last in HARD else "Z"


def past(stem: str) -> str:
    last = stem.split()[-1]
    return "IH D" if last in ("T", "D") else "T" if last in ("S", "SH", "CH", *HARD) else "D"
