"""A long text cut into parts of some ten minutes: chapters, or as much as goes into a file."""

import re
from dataclasses import dataclass

from ..errors import InputError
from .normalization import MAX_CHARACTERS, Piece, pieces
from .sentences import pack, sentences

PART_CHARACTERS = 8000
"""A longer chapter goes into several files: some ten minutes of speech each."""
PARAGRAPH_SECONDS, HEADING_SECONDS = 0.7, 1.0
"""Silence behind a paragraph, and behind a heading."""
HEADING = re.compile(r"#{1,6}\s+\S|(?:chapter|part|book)\s+(?:\d+|[ivxlc]+)\b.{0,60}$", re.I)
CHAPTER = re.compile(r"#{1,2}\s+\S|(?:chapter|part|book)\s+(?:\d+|[ivxlc]+)\b.{0,60}$", re.I)


@dataclass(frozen=True)
class Part:
    """A stretch of a text that becomes one file."""

    number: int
    """From 1."""
    title: str
    """The chapter's heading, or "" before the first."""
    text: str
    """As it stands in the whole."""


def parts_of(text: str) -> list[Part]:
    """The parts of a plain or Markdown text; what has no word in it belongs to none."""
    found: list[Part] = []
    title, start, end = "", 0, 0
    for match in re.finditer(r"\S(?:.|\n(?!\s*\n))*", text):  # paragraphs
        new = CHAPTER.match(match[0])
        if end > start and (new or match.end() - start > PART_CHARACTERS):
            found.append(Part(len(found) + 1, title, text[start:end]))
            start = match.start()
        elif end == start:
            start = match.start()
        if new:
            title = match[0].strip("# \n").split("\n")[0]
        end = match.end()
    if end > start:
        found.append(Part(len(found) + 1, title, text[start:end]))
    return [part for part in found if re.search(r"\w", part.text)]


def sentences_of(text: str, most: int | None = None) -> list[Piece]:
    """The sentences of a part, each of at most `most` characters, with the pauses behind them.

    Raises:
        InputError: Nothing speakable, letters or signs without a reading, or a sentence of over
            1,000 characters.
    """
    found: list[Piece] = []
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        if not re.search(r"\w", paragraph):
            continue  # * * *
        heading = HEADING.match(paragraph)
        blocks = [paragraph]
        if len(paragraph) > MAX_CHARACTERS:
            blocks = pack(sentences(paragraph), MAX_CHARACTERS)
            if (size := max(map(len, blocks))) > MAX_CHARACTERS:
                raise InputError(
                    f"sentence of {size} characters: at most {MAX_CHARACTERS}, end it earlier"
                )
        said = [piece for block in blocks for piece in pieces(block, most)]
        pause = HEADING_SECONDS if heading else PARAGRAPH_SECONDS
        found += [*said[:-1], said[-1]._replace(pause=max(said[-1].pause or 0.0, pause))]
    if not found:
        raise InputError("text has nothing that can be spoken: write at least one word")
    return found
