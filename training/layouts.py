"""How publishers lay out their corpora: where in a folder transcripts and recordings are.

What cannot be read is named with its fault, never skipped and never an error: `readers` counts it.
"""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

from sayso.model.errors import CorpusError
from sayso.model.files import MOST_JSON, open_regular, read_bounded

from .recordings import Recording

DEVELOPMENT = "dev"
AUDIO = (".flac", ".wav", ".opus", ".mp3", ".ogg", ".webm")
MOST_TABLE = 2**32
"""Bytes of all transcripts of a corpus in one file; of MLS, the largest, they are about 2**31."""
LITTER = ("Thumbs.db", "desktop.ini")


@dataclass(frozen=True)
class Transcript:
    """What a corpus says was said, or the fault for which that cannot be used."""

    id: str
    speaker: str
    text: str
    part: str = "train"
    fault: str = ""


Found = tuple[list[Transcript], list[tuple[str, Recording]]]
"""Transcripts, and recordings by id: what a reader finds, before one is laid beside the other."""


def reader_of(name: str) -> Callable[[Path], Found]:
    """What finds transcripts and recordings in the folder of a listed corpus.

    Raises:
        CorpusError: The corpus has no reader.
    """
    match name:
        case "kathleen":
            return partial(_metadata, speaker="kathleen")
        case "ljspeech-part":
            return partial(_metadata, speaker="lj")  # as in the whole of it
        case "librispeech-clips":
            return partial(_metadata, speaker=None)
        case "librispeech-three-readers" | "speechocean762-adults" | "vctk-p239":
            return _metadata
        case "libritts" | "libritts-r":
            return _libritts
        case "librispeech":
            return _librispeech
        case "vctk":
            return _vctk
        case "ljspeech":
            return _ljspeech
        case "hifi-tts":
            return _hifi_tts
        case "mls-english":
            return _mls
        case "common-voice":
            return _common_voice
        case "joe":
            return _joe
    raise CorpusError(f"{name} is listed but has no reader yet: add one to training/layouts.py")


def inside(root: Path, name: str) -> Path | None:
    """A file that a manifest names; None if its name leads out of the corpus."""
    if "\0" in name:
        return None
    place = Path(os.path.abspath(root / name))  # lexically: links of the corpus's own are its own
    within = any(place.is_relative_to(each) for each in (os.path.abspath(root), root.resolve()))
    return place if within else None


def files(root: Path, pattern: str) -> list[Path]:
    """Files that match, without what other systems leave, in a fixed order."""
    found = sorted(path for path in root.glob(pattern) if path.is_file())
    return [p for p in found if not p.name.startswith(".") and p.name not in LITTER]


def _recordings(root: Path, pattern: str, ending: str = "") -> list[tuple[str, Recording]]:
    """Ids, which end before `ending`, and audio files."""
    found = [path for path in files(root, pattern) if path.suffix.lower() in AUDIO]
    return [(path.stem.removesuffix(ending), Recording(path)) for path in found]


def _decode(raw: bytes) -> tuple[str, str]:
    """Text without byte order mark and ends of lines, and the fault if it is not UTF-8."""
    fault = ""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        text, fault = raw.decode("utf-8", "replace"), "text is not UTF-8"
    return text.removeprefix("\ufeff").rstrip("\r\n"), fault


def lines_of(path: Path, file: BinaryIO) -> Iterator[tuple[int, str, str]]:
    """Number, text and fault of each line that is not blank.

    They end with LF or CRLF alone: a text may hold U+2028, at which Python would split it.

    Raises:
        ValueError: A line is longer than `MOST_JSON` bytes, or all are than `MOST_TABLE`: a packed
            file may be any length.
    """
    size = 0
    for number, raw in enumerate(iter(lambda: file.readline(MOST_JSON + 1), b""), start=1):
        size += len(raw)
        if len(raw) > MOST_JSON or size > MOST_TABLE:
            raise ValueError(f"line {number} of {path} is longer than a transcript, or all are")
        if raw.strip(b"\xef\xbb\xbf\r\n \t"):
            yield number, *_decode(raw)


def _lines(path: Path) -> Iterator[tuple[int, str, str]]:
    with open_regular(path) as file:
        yield from lines_of(path, file)


def _rows(
    path: Path, delimiter: str, columns: tuple[str, ...] | None, count: int = 0
) -> Iterator[tuple[list[str], str]]:
    """These columns, of which the first has the id, of each row, and its fault.

    Without `columns` there is no header, and every row has `count`.

    Raises:
        ValueError: A column is missing.
    """
    lines = _lines(path)
    where = list(range(count))
    if columns is not None:
        _, head, _ = next(lines, (0, "", ""))
        missing = [column for column in columns if column not in head.split(delimiter)]
        if missing:
            raise ValueError(f"{path} has no column {' and no '.join(missing)}")
        where = [head.split(delimiter).index(column) for column in columns]
    for number, line, fault in lines:
        cells = [cell.strip() for cell in line.split(delimiter)]
        if len(cells) <= max(where):
            id = cells[where[0]] if where[0] < len(cells) else ""
            yield [id or f"{path.name}:{number}", *[""] * (len(where) - 1)], "line is cut off"
        else:
            yield [cells[at] for at in where], fault


def _of_file(path: Path, id: str, speaker: str, part: str = "train") -> Transcript:
    """The transcript in a file of its own."""
    try:
        text, fault = _decode(read_bounded(path, MOST_JSON))
    except OSError:
        text, fault = "", "text cannot be read"
    return Transcript(id, speaker, " ".join(text.split()), part, fault)


def _part(folder: str) -> str:
    return DEVELOPMENT if folder.startswith(DEVELOPMENT) else "train"


def _metadata(root: Path, speaker: str | None = "") -> Found:
    """metadata.tsv with id, text and, unless `speaker` says who, speaker; audio/[SPEAKER/]ID.flac.

    With None it is the reader's number, with which LibriSpeech's ids begin.
    """
    columns = ("id", "speaker", "text") if speaker == "" else ("id", "text")
    transcripts = []
    for row, fault in _rows(root / "metadata.tsv", "\t", columns):
        who = row[1] if speaker == "" else speaker or row[0].split("-")[0]
        transcripts.append(Transcript(row[0], who, row[-1], fault=fault))
    return transcripts, _recordings(root / "audio", "**/*")


def _libritts(root: Path) -> Found:
    """train-clean-100/SPEAKER/CHAPTER/ID.wav with ID.normalized.txt beside it."""
    transcripts, recordings = [], []
    for split in ("train-*", "dev-*"):
        for path in files(root, f"{split}/*/*/*.normalized.txt"):
            id = path.name.removesuffix(".normalized.txt")
            transcripts.append(_of_file(path, id, path.parts[-3], _part(path.parts[-4])))
        recordings += _recordings(root, f"{split}/*/*/*.wav")
    return transcripts, recordings


def _librispeech(root: Path) -> Found:
    """train-clean-100/SPEAKER/CHAPTER/ID.flac with one .trans.txt; capitals, no punctuation."""
    transcripts, recordings = [], []
    for split in ("train-*", "dev-*"):
        for path in files(root, f"{split}/*/*/*.trans.txt"):
            for _, line, fault in _lines(path):
                id, _, text = line.partition(" ")
                part = _part(path.parts[-4])
                transcripts.append(Transcript(id, path.parts[-3], text.lower(), part, fault))
        recordings += _recordings(root, f"{split}/*/*/*.flac")
    return transcripts, recordings


def _vctk(root: Path) -> Found:
    """wav48_silence_trimmed/p225/p225_001_mic1.flac and txt/p225/p225_001.txt; first microphone."""
    texts = files(root, "txt/*/*.txt")
    return (
        [_of_file(path, path.stem, path.parent.name) for path in texts],
        _recordings(root, "wav48_silence_trimmed/*/*_mic1.flac", "_mic1"),
    )


def _ljspeech(root: Path) -> Found:
    """metadata.csv with id|text|normalised text, wavs/ID.wav."""
    rows = _rows(root / "metadata.csv", "|", None, 3)
    return (
        [Transcript(row[0], "lj", row[2], fault=fault) for row, fault in rows],
        _recordings(root, "wavs/*"),
    )


def _hifi_tts(root: Path) -> Found:
    """READER_manifest_{clean,other}_train.json, a JSON object a line.

    Its dev parts are of the same readers: they are not read.
    """
    transcripts, recordings = [], []
    for manifest in files(root, "*_manifest_*_train.json"):
        speaker = manifest.name.split("_")[0]
        for number, line, fault in _lines(manifest):
            try:
                row = json.loads(line)
                path, text = inside(root, row["audio_filepath"]), str(row["text"])
            except (ValueError, KeyError, TypeError):
                id = f"{manifest.name}:{number}"
                transcripts.append(Transcript(id, speaker, "", fault="line is cut off"))
                continue
            id = f"{speaker}_{Path(row['audio_filepath']).stem}"
            transcripts.append(Transcript(id, speaker, text, fault=fault))
            if path is not None and path.is_file():
                recordings.append((id, Recording(path)))
    return transcripts, recordings


def _mls(root: Path) -> Found:
    """train/transcripts.txt with id and text; train/audio/SPEAKER/BOOK/ID.flac; dev as train."""
    transcripts, recordings = [], []
    for part in ("train", DEVELOPMENT):
        listing = root / part / "transcripts.txt"
        if part == DEVELOPMENT and not listing.is_file():
            continue
        for (id, text), fault in _rows(listing, "\t", None, 2):
            transcripts.append(Transcript(id, id.split("_")[0], text, part, fault))
        recordings += _recordings(root, f"{part}/audio/*/*/*")
    return transcripts, recordings


def _common_voice(root: Path) -> Found:
    """train.tsv (and dev.tsv) with client_id, path and sentence; clips/PATH."""
    transcripts, recordings = [], []
    clips = {path.name for path in (root / "clips").glob("*")}
    for part in ("train", DEVELOPMENT):
        listing = root / f"{part}.tsv"
        if part == DEVELOPMENT and not listing.is_file():
            continue
        for (name, who, text), fault in _rows(listing, "\t", ("path", "client_id", "sentence")):
            id = Path(name).stem
            transcripts.append(Transcript(id, who, text, part, fault))
            if name in clips:
                recordings.append((id, Recording(root / "clips" / name)))
    return transcripts, recordings


def _joe(root: Path) -> Found:
    """ID.txt with the text beside each ID.flac or ID.webm.

    The layout of Nabu Casa's archives as Matcha-TTS reads them (matcha/utils/data/nabucasa.py,
    80b66ea); we had no copy of Joe. A FLAC file made of a WebM file, in the same place, goes first.
    """
    texts = [path for path in files(root, "**/*.txt") if not path.stem.isupper()]  # LICENSE.txt
    found = sorted(_recordings(root, "**/*"), key=lambda one: one[1].path.suffix)
    recordings = dict(reversed(found))
    return [_of_file(path, path.stem, "joe") for path in texts], list(recordings.items())
