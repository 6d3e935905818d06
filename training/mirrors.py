"""Listed corpora as labs keep them: lhotse's cuts (JSON lines) and Hugging Face's Parquet files.

Both say of themselves only what is in them, not whose it is. So each id must have the form of its
corpus's ids, and who speaks is read from it: another corpus under a listed name is refused. The
layout of lhotse's cuts is as Libriheavy's README shows it (k2-fsa/libriheavy, 2564dfc).
"""

import functools
import gzip
import json
import math
import re
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

from sayso.model.files import open_regular

from .layouts import DEVELOPMENT, Found, Transcript, files, inside, lines_of, reader_of
from .recordings import AUDIO_COLUMN, Recording

IDS = {
    "libriheavy": r"(?:small|medium|large)/(?P<speaker>\d+)/.+",
    "libritts": r"(?P<speaker>\d+)_\d+_\d{6}_\d{6}",
    "libritts-r": r"(?P<speaker>\d+)_\d+_\d{6}_\d{6}",
    "librispeech": r"(?P<speaker>\d+)-\d+-\d{4}",
    "mls-english": r"(?P<speaker>\d+)_\d+_\d{6}",
    "ljspeech": r"(?P<speaker>LJ)\d{3}-\d{4}",
}
TEXTS = ("text_normalized", "normalized_text", "transcript", "text")
"""Columns with what was said, the best first."""
LIBRI_LIGHT = "download/librilight/"
"""Where Libriheavy's cuts say the recordings are."""


def reader_in(name: str, root: Path) -> Callable[[Path], Found]:
    """What reads a listed corpus as it lies in `root`: as cuts, else Parquet, else published.

    Raises:
        CorpusError: The corpus has no reader.
    """
    if name not in IDS:
        return reader_of(name)
    if _cuts(root):
        return partial(_lhotse, name)
    if _tables(root):
        return partial(_parquet, name)
    return partial(_lhotse, name) if name == "libriheavy" else reader_of(name)


def _at_most_two_down(root: Path, pattern: str) -> list[Path]:
    return [path for down in ("", "*/", "*/*/") for path in files(root, down + pattern)]


def _cuts(root: Path) -> list[Path]:
    return _at_most_two_down(root, "*_cuts_*.jsonl") + _at_most_two_down(root, "*_cuts_*.jsonl.gz")


def _tables(root: Path) -> list[Path]:
    """Parquet files of a part; token files have no such names."""
    return [p for p in _at_most_two_down(root, "*.parquet") if _part_of(p.relative_to(root))]


def _part_of(path: Path) -> str:
    """train, dev or test, by the first folder or file whose name begins so; or nothing."""
    for name in path.parts:
        if found := re.match("train|dev|valid|test", name):
            return {"valid": DEVELOPMENT}.get(found[0], found[0])
    return ""


def _transcript(name: str, id: str, text: str, part: str, fault: str) -> Transcript:
    """With who speaks, and a fault if the id is no id of the corpus."""
    form = re.fullmatch(IDS[name], id)
    if form is None:
        return Transcript(id, "", text, part, fault or f"no id of {name}")
    speaker = form["speaker"].lower()  # LJ is lj in the corpus as published
    return Transcript(id, speaker, text.lower() if text.isupper() else text, part, fault)


def _lhotse(name: str, root: Path) -> Found:
    """NAME_cuts_PART.jsonl[.gz]: a cut a line, whose one supervision says what was said."""
    transcripts, recordings = [], []
    for path in _cuts(root):
        stem = path.name.partition("_cuts_")[2]
        if stem.startswith("test"):
            continue
        part = DEVELOPMENT if stem.startswith(DEVELOPMENT) else "train"
        for number, line, fault in _json_lines(path):
            try:
                id, text, recording, wrong = _cut(json.loads(line), root)
            except (ValueError, KeyError, TypeError, IndexError, AttributeError):
                where = f"{path.name}:{number}"
                transcripts.append(Transcript(where, "", "", part, fault or "line is cut off"))
                continue
            transcripts.append(_transcript(name, id, text, part, fault or wrong))
            if recording is not None:
                recordings.append((id, recording))
    if not transcripts:
        raise ValueError("there is no *_cuts_*.jsonl or .jsonl.gz in it, or two folders down")
    return transcripts, recordings


def _json_lines(path: Path) -> Iterator[tuple[int, str, str]]:
    """As `layouts.lines_of`, packed or not."""
    try:
        with open_regular(path) as file, gzip.GzipFile(fileobj=file) as unpacked:
            packed = path.suffix == ".gz"
            yield from lines_of(path, cast(BinaryIO, unpacked) if packed else file)
    except (EOFError, zlib.error):
        raise ValueError(f"{path} is cut off: download it anew") from None


def _cut(cut: dict[str, Any], root: Path) -> tuple[str, str, Recording | None, str]:
    """Id, text, recording if it is there, and fault; ValueError and its like if it is no cut."""
    said, source = cut["supervisions"], cut["recording"]["sources"][0]
    own = said[0] if said else {"id": cut["id"], "text": ""}
    texts = (own.get("custom") or {}).get("texts")  # as in the book, as a recogniser heard it
    text = str(texts[0] if texts else own.get("text") or "")
    start = float(cut["start"]) + float(own.get("start", 0))
    seconds = float(own.get("duration", cut["duration"]))
    fault = "several supervisions" if len(said) > 1 else ""
    if not (0 <= start < math.inf and 0 < seconds < math.inf):
        fault, start, seconds = "no length", 0.0, 1.0
    if source["type"] != "file":
        fault = f"recording is a {source['type']}"
    path = _place(root, str(source["source"]))
    recording = None if path is None else Recording(path, None, start, seconds)
    return str(own["id"]), " ".join(text.split()), recording, fault


@functools.lru_cache(maxsize=1024)  # the next cut is mostly of the same file
def _place(root: Path, source: str) -> Path | None:
    """Where a source lies under `root`, with or without Libri-light's own folder."""
    tries = (inside(root, source.removeprefix(LIBRI_LIGHT)), inside(root, source))
    return next((path for path in tries if path is not None and path.is_file()), None)


def _parquet(name: str, root: Path) -> Found:
    """[CONFIG/][PART/]*.parquet with a text, audio as bytes, and the id: a column or a name."""
    transcripts, recordings = [], []
    for path in _tables(root):
        part = _part_of(path.relative_to(root))
        if part == "test":
            continue
        for place, id, text in _table_rows(path):
            own = id or f"{path.relative_to(root)}:{place[0]}:{place[1]}"
            transcripts.append(_transcript(name, own, text, part, ""))
            recordings.append((own, Recording(path, place)))
    return transcripts, recordings


def _table_rows(path: Path) -> Iterator[tuple[tuple[int, int], str, str]]:
    """Row group and row, id and text of each row; ValueError names the file if it is none."""
    import pyarrow as pa  # of the extra `train`; other layouts are read without it
    import pyarrow.parquet as pq

    from .shards import batches

    try:
        columns = _columns(pq.read_schema(path))
        for group in range(pq.read_metadata(path).num_row_groups):
            place = -1
            for batch in batches(path, columns, group):
                table = pa.Table.from_batches([batch]).flatten()
                text, id = (table[name].to_pylist() for name in columns)
                for place, (said, name) in enumerate(zip(text, id, strict=True), place + 1):  # noqa: B020
                    yield (group, place), Path(name or "").stem, " ".join((said or "").split())
    except (ValueError, OSError) as error:
        raise ValueError(f"{path}: {error}") from None


def _columns(schema: Any) -> list[str]:
    """The columns with the text and with the id; ValueError if they or the bytes are missing."""
    text = next((each for each in TEXTS if each in schema.names), None)
    if text is None:
        raise ValueError(f"it has no column {' or '.join(TEXTS)}")
    kind = schema.field(AUDIO_COLUMN).type if AUDIO_COLUMN in schema.names else None
    inside = {kind.field(i).name for i in range(kind.num_fields)} if kind is not None else set()
    if not {"bytes", "path"} <= inside:
        raise ValueError(f"it has no column {AUDIO_COLUMN} of bytes and path")
    return [text, "id" if "id" in schema.names else f"{AUDIO_COLUMN}.path"]
