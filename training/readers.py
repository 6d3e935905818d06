"""From a corpus folder to its utterances: id, speaker, text and audio file, sorted by id.

One policy for all corpora: an utterance that is broken (no recording, no transcript, a text that
is not UTF-8, an id that occurs twice) is left out, named with its reason, and counted. A corpus is
refused only if more than `MOST_BROKEN` of it is. Files that other systems leave in folders
(``._*``, ``.DS_Store``, ``Thumbs.db``, ``desktop.ini``) are none of it.

Of corpora with parts, ``train-*`` is read and, as held-out speech, ``dev-*``; never ``test-*``:
benchmarks made on it stay honest.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from sayso.model import corpora
from sayso.model.errors import CorpusError

from .layouts import Transcript
from .mirrors import reader_in
from .recordings import Recording, bytes_hash

MOST_BROKEN = 0.1
"""Share of a corpus's utterances; above it the folder is not the corpus, or half unpacked."""


@dataclass(frozen=True)
class Utterance:
    """One recording and what was said."""

    id: str
    speaker: str
    text: str
    recording: Recording
    part: str = "train"
    """Or `layouts.DEVELOPMENT`: never trained on."""

    @property
    def path(self) -> Path:
        """The file that holds the recording, alone or among others."""
        return self.recording.path

    def sha256(self) -> str:
        """Of the recording, then the speaker and the text, a line each; see `bytes_hash`."""
        digest = bytes_hash(self.recording)
        if digest is None:
            return ""
        digest.update(f"\n{self.speaker}\n{self.text}".encode())
        return digest.hexdigest()


@dataclass(frozen=True)
class LeftOut:
    """An utterance that is not used, and why."""

    id: str
    reason: str


@dataclass(frozen=True)
class Listing:
    """All that a corpus folder holds: what is taken and what is left out, each sorted by id."""

    utterances: list[Utterance]
    left_out: list[LeftOut]


def read_corpus(name: str, root: Path) -> list[Utterance]:
    """The usable utterances of a listed corpus, sorted by id; see :func:`list_corpus`."""
    return list_corpus(name, root).utterances


def list_corpus(name: str, root: Path, most_broken: float = MOST_BROKEN) -> Listing:
    """All utterances of a listed corpus, those left out with their reasons.

    Args:
        name: Name on the list of consented corpora.
        root: The unpacked corpus, as its publisher lays it out: the folder that holds
            train-clean-100 (LibriTTS, LibriSpeech), wav48_silence_trimmed (VCTK), metadata.csv
            (LJSpeech), the manifests (Hi-Fi TTS), train (MLS), train.tsv (Common Voice), the
            recordings (Joe), metadata.tsv (the small ones); or, of those in `mirrors.IDS`, cuts of
            lhotse or Parquet files of Hugging Face.
        most_broken: Share of utterances left out above which the corpus is refused.

    Raises:
        CorpusError: The corpus is not listed, has no reader, `root` does not look like it, or too
            much of it is broken.
    """
    corpora.get(name)
    if not root.is_dir():
        raise CorpusError(f"{name}: the folder {root} does not exist")
    try:
        listing = _pair(*reader_in(name, root)(root))
    except (OSError, ValueError) as error:
        raise CorpusError(f"{name}: {root} is not laid out as published ({error})") from error
    taken, left_out = len(listing.utterances), len(listing.left_out)
    if not taken + left_out:
        raise CorpusError(f"{name}: no utterance found in {root}; is it the unpacked corpus?")
    if left_out > most_broken * (taken + left_out):
        reasons = Counter(each.reason for each in listing.left_out).most_common(3)
        raise CorpusError(
            f"{name}: {left_out} of {taken + left_out} utterances in {root} are broken "
            f"({', '.join(f'{count} {reason}' for reason, count in reasons)}; such as "
            f"{listing.left_out[0].id}): unpack it anew"
        )
    return listing


def _pair(transcripts: list[Transcript], recordings: list[tuple[str, Recording]]) -> Listing:
    """Lays transcripts and recordings side by side; every id of either is taken or left out."""
    taken: dict[str, Utterance] = {}
    left_out: dict[str, str] = {}
    found: dict[str, Recording] = {}
    for id, recording in recordings:
        if id in found:
            left_out[id] = "recorded twice"
        found[id] = recording
    said: set[str] = set()
    for each in transcripts:
        if each.id in said:
            left_out[each.id] = "transcribed twice"
        elif each.fault or not each.text:
            left_out[each.id] = each.fault or "empty transcript"
        elif each.id not in found:
            left_out[each.id] = "no recording"
        else:
            taken[each.id] = Utterance(each.id, each.speaker, each.text, found[each.id], each.part)
        said.add(each.id)
    left_out |= {id: "no transcript" for id in found if id not in said}
    return Listing(
        [taken[id] for id in sorted(taken) if id not in left_out],
        [LeftOut(id, left_out[id]) for id in sorted(left_out)],
    )
