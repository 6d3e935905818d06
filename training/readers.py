"""From a corpus folder to its utterances: id, speaker, text and audio file, in a fixed order."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from sayso.model.errors import CorpusError

from . import corpora


@dataclass(frozen=True)
class Utterance:
    """One recording and what was said."""

    id: str
    speaker: str
    text: str
    path: Path


def read_corpus(name: str, root: Path) -> list[Utterance]:
    """All utterances of a listed corpus, sorted by id.

    Args:
        name: Name on the list of consented corpora.
        root: The unpacked corpus, as its publisher lays it out.

    Raises:
        CorpusError: The corpus is not listed, has no reader, or `root` does not look like it.
    """
    corpora.get(name)
    if not root.is_dir():
        raise CorpusError(f"{name}: the folder {root} does not exist")
    match name:
        case "kathleen":
            found = [u for u in _table(root) if u.speaker == ""]
            found = [Utterance(u.id, "kathleen", u.text, u.path) for u in found]
        case "librispeech-clips":
            found = [Utterance(u.id, u.id.split("-")[0], u.text, u.path) for u in _table(root)]
        case _:
            raise CorpusError(f"{name}: no reader yet; see training/readers.py")
    if not found:
        raise CorpusError(f"{name}: no utterance found in {root}; is it the unpacked corpus?")
    found.sort(key=lambda utterance: utterance.id)
    twice = {a.id for a, b in pairwise(found) if a.id == b.id}
    if twice:
        raise CorpusError(f"{name}: {len(twice)} ids occur twice, such as {min(twice)}")
    return found


def _table(root: Path) -> Iterator[Utterance]:
    """``metadata.tsv`` with id and text beside ``audio/ID.flac``."""
    table = root / "metadata.tsv"
    if not table.is_file():
        raise CorpusError(f"{table} is missing; is {root} the unpacked corpus?")
    with table.open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE):
            if not row.get("id") or row.get("text") is None:
                raise CorpusError(f"{table}: a row without id or text: {row}")
            yield Utterance(row["id"], "", row["text"], root / "audio" / f"{row['id']}.flac")
