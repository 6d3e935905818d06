"""From a corpus folder to its utterances: id, speaker, text and audio file, in a fixed order.

Where a corpus has parts for evaluation (dev-*, test-*), only train-* is read: benchmarks made on
the others stay honest. LibriSpeech is read through torchaudio's metadata; torchaudio offers none
for the others, and decodes audio with what may not be installed: audio is soundfile's business.
"""

import csv
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from sayso.model import corpora
from sayso.model.errors import CorpusError


@dataclass(frozen=True)
class Utterance:
    """One recording and what was said."""

    id: str
    speaker: str
    text: str
    path: Path


def held_out(utterance_id: str, every: int = 47) -> bool:
    """Whether an utterance is kept out: one in `every`, the same ones on every machine.

    Args:
        utterance_id: The id in the corpus's metadata, such as ``arctic_a0001``.
        every: 1 keeps everything out; must be at least 1.
    """
    return int(hashlib.sha256(utterance_id.encode()).hexdigest(), 16) % every == 0


def read_corpus(name: str, root: Path) -> list[Utterance]:
    """All utterances of a listed corpus, sorted by id.

    Args:
        name: Name on the list of consented corpora.
        root: The unpacked corpus, as its publisher lays it out: the folder that holds
            train-clean-100 (LibriTTS, LibriSpeech), wav48_silence_trimmed (VCTK), metadata.csv
            (LJSpeech), the manifests (Hi-Fi TTS), train (MLS), train.tsv (Common Voice), the
            recordings (Joe).

    Raises:
        CorpusError: The corpus is not listed, has no reader, or `root` does not look like it.
    """
    corpora.get(name)
    if not root.is_dir():
        raise CorpusError(f"{name}: the folder {root} does not exist")
    reader = _reader(name)
    try:
        found = sorted(reader(root), key=lambda utterance: utterance.id)
    except (OSError, KeyError, ValueError, IndexError) as error:
        raise CorpusError(f"{name}: {root} is not laid out as published ({error!r})") from error
    if not found:
        raise CorpusError(f"{name}: no utterance found in {root}; is it the unpacked corpus?")
    twice = [a.id for a, b in pairwise(found) if a.id == b.id]
    if twice:
        raise CorpusError(f"{name}: {len(twice)} ids occur twice, such as {twice[0]}")
    return found


def _reader(name: str) -> Callable[[Path], Iterator[Utterance]]:
    match name:
        case "kathleen":
            return _kathleen
        case "librispeech-clips":
            return _librispeech_clips
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
    raise CorpusError(f"{name} is listed but has no reader yet: add one to training/readers.py")


def _said(path: Path) -> str:
    """What a text file says; nothing if it cannot be read, which prepare lists and counts."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _rows(path: Path, *columns: str) -> Iterator[list[str]]:
    """These columns of a tab-separated file with a header."""
    with path.open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE):
            if any(row.get(column) is None for column in columns):
                raise ValueError(f"{path.name}: a row without {' or '.join(columns)}: {row}")
            yield [row[column] for column in columns]


def _recording(folder: Path, id: str) -> Path:
    """FLAC as published, or Opus where a small copy was made (tests/data/speech)."""
    opus = folder / f"{id}.opus"
    return opus if opus.is_file() else folder / f"{id}.flac"


def _kathleen(root: Path) -> Iterator[Utterance]:
    for id, text in _rows(root / "metadata.tsv", "id", "text"):
        yield Utterance(id, "kathleen", text, _recording(root / "audio", id))


def _librispeech_clips(root: Path) -> Iterator[Utterance]:
    for id, text in _rows(root / "metadata.tsv", "id", "text"):
        yield Utterance(id, id.split("-")[0], text, _recording(root / "audio", id))


def _libritts(root: Path) -> Iterator[Utterance]:
    """train-clean-100/SPEAKER/CHAPTER/ID.wav with ID.normalized.txt beside it."""
    for path in root.glob("train-*/*/*/*.wav"):
        text = path.with_name(f"{path.stem}.normalized.txt")
        if text.is_file():  # a few recordings of LibriTTS-R were left without one
            yield Utterance(path.stem, path.parts[-3], _said(text), path)


def _librispeech(root: Path) -> Iterator[Utterance]:
    """train-clean-100/SPEAKER/CHAPTER/ID.flac with one .trans.txt; capitals, no punctuation."""
    from torchaudio.datasets import LIBRISPEECH  # slow to import, and only needed here

    for part in sorted(root.glob("train-*")):
        listing = LIBRISPEECH(root.parent, url=part.name, folder_in_archive=root.name)
        for i in range(len(listing)):
            path, _, text, speaker, _, _ = listing.get_metadata(i)
            path = root / path
            yield Utterance(path.stem, str(speaker), text.lower(), path)


def _vctk(root: Path) -> Iterator[Utterance]:
    """wav48_silence_trimmed/p225/p225_001_mic1.flac and txt/p225/p225_001.txt; first microphone."""
    for path in root.glob("wav48_silence_trimmed/*/*_mic1.flac"):
        id = path.stem.removesuffix("_mic1")
        text = root / "txt" / path.parent.name / f"{id}.txt"
        if text.is_file():  # p315 was published without texts
            yield Utterance(id, path.parent.name, _said(text), path)


def _ljspeech(root: Path) -> Iterator[Utterance]:
    """metadata.csv with id|text|normalised text, wavs/ID.wav."""
    for line in (root / "metadata.csv").read_text(encoding="utf-8").splitlines():
        id, _, normalised = line.split("|")
        yield Utterance(id, "lj", normalised, root / "wavs" / f"{id}.wav")


def _hifi_tts(root: Path) -> Iterator[Utterance]:
    """READER_manifest_{clean,other}_train.json, a JSON object a line."""
    for manifest in sorted(root.glob("*_manifest_*_train.json")):
        speaker = manifest.name.split("_")[0]
        for line in manifest.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            path = root / row["audio_filepath"]
            yield Utterance(f"{speaker}_{path.stem}", speaker, row["text"], path)


def _mls(root: Path) -> Iterator[Utterance]:
    """train/transcripts.txt with id and text; train/audio/SPEAKER/BOOK/ID.flac."""
    for line in (root / "train" / "transcripts.txt").read_text(encoding="utf-8").splitlines():
        id, text = line.split("\t")
        speaker, book, _ = id.split("_")
        yield Utterance(id, speaker, text, root / "train" / "audio" / speaker / book / f"{id}.flac")


def _common_voice(root: Path) -> Iterator[Utterance]:
    """train.tsv with client_id, path and sentence; clips/PATH."""
    for speaker, path, text in _rows(root / "train.tsv", "client_id", "path", "sentence"):
        yield Utterance(Path(path).stem, speaker, text, root / "clips" / path)


def _joe(root: Path) -> Iterator[Utterance]:
    """ID.txt with the text beside each ID.flac or ID.webm.

    The layout of Nabu Casa's archives as Matcha-TTS reads them (matcha/utils/data/nabucasa.py,
    80b66ea); we had no copy of Joe. libsndfile
    cannot decode WebM: a WAV or FLAC file made from it, in the same place, is taken instead.
    """
    for text in root.rglob("*.txt"):
        made = [text.with_suffix(ending) for ending in (".flac", ".wav", ".webm")]
        for path in [each for each in made if each.is_file()][:1]:
            if path.suffix == ".webm":
                raise ValueError(f"{path.name}: make a FLAC of each: ffmpeg -i A.webm A.flac")
            yield Utterance(text.stem, "joe", _said(text), path)
