"""A text cut into sentences by sentencex (MIT, Wikimedia), and long ones into shorter pieces.

sentencex knows abbreviations; titles and lists on lines of their own are ours.
"""

import re

from sentencex import segment  # type: ignore[attr-defined]

from .words import ABBREVIATIONS, NUMBERED

WRAPPED = 60
"""Characters: a line as long that ends without a stop goes on in the next one."""


def sentences(text: str) -> list[str]:
    """Plain text cut behind its sentences, and between lines that are titles or items."""
    found: list[str] = []
    for block in joined_lines(text):
        start = len(found)
        for part in segment("en", block):
            if len(found) > start and goes_on(found[-1], part):
                found[-1] += f" {part.strip()}"
            elif part.strip():
                found.append(part.strip())
    return found


def goes_on(before: str, after: str) -> bool:
    """Whether a cut was made behind an abbreviation, before a number or a small letter."""
    short = re.search(r"(?<![\w.])([A-Za-z]+)\.$", before)
    counted = re.search(r"\d\s?[a-z]+\.$", before)
    if not short or not re.match(r"[a-z\d]|[IVXLC]+\b", after):
        return False
    name = short[1]
    return bool(counted and after[0].islower()) or name in (*ABBREVIATIONS, "Sat", "Sun") or (
        name.lower() in NUMBERED and name.lower() not in ("no", "art", "app", "tab", "ed")
    )  # fmt: skip


def joined_lines(text: str) -> list[str]:
    """The lines of a text, those of wrapped prose joined."""
    found: list[str] = []
    before = ""
    for line in map(str.strip, text.split("\n")):
        item = re.match(r"(?:[-*+•]|\d{1,3}[.)])\s", line)
        title = len(before) < WRAPPED and before[-1:] not in tuple(",;-") and not line[:1].islower()
        stopped = before[-1:] in tuple(".?!\"')")
        if before and line and not item and (stopped or not title):
            found[-1] += f" {line}"
        elif line:
            found.append(line)
        before = line
    return [
        re.sub(r"^(\d{1,3})[.)]\s+", r"\1, ", re.sub(r"^[-*+•]\s+", "", line)) for line in found
    ]


def shortened(sentence: str, most: int) -> list[str]:
    """A spoken sentence in pieces of at most `most` characters, cut at , else between words.

    A word that is longer by itself stays whole.
    """
    if len(sentence) <= most:
        return [sentence]
    for pattern in (r"(?<=,)\s+", r"\s+"):
        parts = re.split(pattern, sentence)
        if len(parts) > 1:
            packed = pack(parts, most)
            return [piece for part in packed for piece in shortened(part, most)]
    return [sentence]


def pack(parts: list[str], most: int) -> list[str]:
    """Neighbours joined as long as they are within `most`."""
    packed = [parts[0]]
    for part in parts[1:]:
        if len(packed[-1]) + 1 + len(part) <= most:
            packed[-1] += f" {part}"
        else:
            packed.append(part)
    return packed
