"""What is said with which prompt: VALL-E 2, 4.1.2 and 4.1.3, as lists that are the same everywhere.

A list is a function of names, texts and lengths alone; it is hashed and written with the results.
What the paper leaves open: "ordered" is by id, as text; 4 and 10 s belong to 4-10 s; a speaker with
one utterance has no other one to be a prompt and is left out of the reference protocol; of several
VCTK prompts of one length the first is taken; a VCTK speaker says one other utterance, drawn by the
hash of its id, the same for 3, 5 and 10 s.
"""

import csv
import hashlib
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from sayso.model.audio import seconds_of
from sayso.model.errors import InputError
from sayso.model.files import file_hash, read_utf8
from sayso.training.layouts import inside
from sayso.training.readers import read_corpus

SHORTEST, LONGEST = 4.0, 10.0
"""Seconds of LibriSpeech utterances that are said."""
PREFIX = 3.0
VCTK_PROMPTS = (3.0, 5.0, 10.0)
HARD = Path(__file__).with_name("hard.txt")
PROTOCOLS = (
    "librispeech-prefix",
    "librispeech-reference",
    *(f"vctk-{seconds:g}" for seconds in VCTK_PROMPTS),
    "folder",
    "hard",
)


@dataclass(frozen=True)
class Trial:
    """One sentence to be said. Paths are relative to the corpus, with slashes."""

    id: str
    speaker: str
    text: str
    prompt: str = ""
    """A recording; without one `speaker` is the id of a voice of the store."""
    prompt_text: str = ""
    seconds: float = 0.0
    """Where above 0: only so much of the prompt is heard, and the text goes on where it ends."""
    recording: str = ""
    """Of the text by the same speaker, where there is one."""


@dataclass(frozen=True)
class Clip:
    """One utterance of a corpus."""

    id: str
    speaker: str
    text: str
    path: str
    seconds: float


COLUMNS = tuple(field.name for field in fields(Trial))


def prefix_trials(clips: Iterable[Clip]) -> list[Trial]:
    """(a) of 4.1.2: each utterance of 4-10 s goes on behind its own first 3 s."""
    return [
        Trial(c.id, c.speaker, c.text, c.path, c.text, PREFIX, c.path) for c in _filtered(clips)
    ]


def reference_trials(clips: Iterable[Clip]) -> list[Trial]:
    """(b) of 4.1.2: the prompt is the speaker's previous utterance; the first has the last."""
    trials = []
    for own in _by_speaker(_filtered(clips)).values():
        for before, clip in zip([own[-1], *own], own, strict=False):
            if len(own) > 1:
                said = before.path, before.text, 0.0, clip.path
                trials.append(Trial(clip.id, clip.speaker, clip.text, *said))
    return sorted(trials, key=lambda trial: trial.id)


def vctk_trials(clips: Iterable[Clip], seconds: float) -> list[Trial]:
    """4.1.3: the prompt of each speaker is the longest utterance below `seconds`."""
    trials = []
    for speaker, own in _by_speaker(clips).items():
        prompts = {most: _longest_below(own, most) for most in VCTK_PROMPTS}
        prompt, taken = prompts[seconds], {c.id for c in prompts.values() if c is not None}
        others = [clip for clip in own if clip.id not in taken]
        if prompt is not None and others:
            clip = min(others, key=lambda each: hashlib.sha256(each.id.encode()).digest())
            trials.append(
                Trial(clip.id, speaker, clip.text, prompt.path, prompt.text, 0.0, clip.path)
            )
    return trials


def hard_trials(voices: Sequence[str]) -> list[Trial]:
    """50 sentences that make language models loop, skip and repeat, said by each of the voices."""
    return [
        Trial(f"{voice}-hard-{number:02d}", voice, line)
        for voice in voices
        for number, line in enumerate(read_utf8(HARD).splitlines(), 1)
    ]


def make_list(
    protocol: str,
    root: Path | None,
    published: Path | None = None,
    voices: Sequence[str] = (),
    most: int | None = None,
) -> list[Trial]:
    """The trials of a protocol.

    Args:
        root: LibriSpeech's test-clean (or the folder it lies in), VCTK, or the folder that the
            paths of a published list start from.
        published: For `folder`: a TSV with the columns of `Trial` (id, speaker and text at
            least; prompt with prompt_text), or F5-TTS's LibriSpeech-PC list (.lst).
        voices: For `hard`: ids of voices of the store.
        most: Only so many, evenly chosen.

    Raises:
        InputError: The protocol is unknown, or lacks what it is made from.
        CorpusError: The folder is not the corpus.
    """
    if protocol not in PROTOCOLS:
        raise InputError(f"protocol {protocol!r}: choose one of {', '.join(PROTOCOLS)}")
    if protocol == "hard":
        trials = hard_trials(voices)
    elif protocol == "folder":
        if published is None:
            raise InputError("the protocol folder needs --list: a TSV, or an F5-TTS .lst")
        trials = (_read_f5 if published.suffix == ".lst" else _read_tsv)(published)
    elif root is None:
        raise InputError(f"the protocol {protocol} needs --root: the unpacked corpus")
    elif protocol.startswith("vctk"):
        trials = vctk_trials(_vctk(root), float(protocol.removeprefix("vctk-")))
    else:
        make: Callable = prefix_trials if protocol.endswith("prefix") else reference_trials
        trials = make(_librispeech(root))
    if not trials:
        raise InputError(f"{protocol}: no trial in {published or root or 'no voices'}")
    twice = len(trials) - len({trial.id for trial in trials})
    if twice or any("/" in trial.id or not trial.id.strip(".") for trial in trials):
        raise InputError(f"{published or root}: {twice} ids occur twice, or one is no file's name")
    if most is not None and most < 1:
        raise InputError(f"{most} trials: give at least 1")
    most = min(most or len(trials), len(trials))
    return [trials[i * len(trials) // most] for i in range(most)]


def to_tsv(trials: Iterable[Trial]) -> str:
    """A list as it is written and hashed; `folder` reads it again."""
    out = io.StringIO()
    table = csv.DictWriter(out, COLUMNS, delimiter="\t", lineterminator="\n")
    table.writeheader()
    table.writerows(asdict(trial) for trial in trials)
    return out.getvalue()


def list_hash(trials: Iterable[Trial]) -> str:
    """sha256 (hex) of a list."""
    return hashlib.sha256(to_tsv(trials).encode()).hexdigest()


def _filtered(clips: Iterable[Clip]) -> list[Clip]:
    return sorted((c for c in clips if SHORTEST <= c.seconds <= LONGEST), key=lambda c: c.id)


def _by_speaker(clips: Iterable[Clip]) -> dict[str, list[Clip]]:
    found: dict[str, list[Clip]] = {}
    for clip in sorted(clips, key=lambda each: (each.speaker, each.id)):
        found.setdefault(clip.speaker, []).append(clip)
    return found


def _longest_below(own: list[Clip], seconds: float) -> Clip | None:
    """The first of the longest, of those that are shorter."""
    return max((c for c in own if c.seconds < seconds), key=lambda c: c.seconds, default=None)


def _librispeech(root: Path) -> list[Clip]:
    """test-clean as published: SPEAKER/CHAPTER/ID.flac and SPEAKER-CHAPTER.trans.txt."""
    root = root / "test-clean" if (root / "test-clean").is_dir() else root
    clips = []
    for path in sorted(root.glob("*/*/*.trans.txt")):
        for line in read_utf8(path).splitlines():
            id, _, text = line.partition(" ")
            audio = path.with_name(f"{id}.flac")
            if text.strip() and audio.is_file():
                name, speaker = audio.relative_to(root).as_posix(), path.parts[-3]
                clips.append(Clip(id, speaker, text.strip().lower(), name, seconds_of(audio)))
    return clips


def _vctk(root: Path) -> list[Clip]:
    found = read_corpus("vctk", root)
    return [
        Clip(u.id, u.speaker, u.text, u.path.relative_to(root).as_posix(), seconds_of(u.path))
        for u in found
    ]


def _read_tsv(path: Path) -> list[Trial]:
    try:
        rows = list(csv.DictReader(io.StringIO(read_utf8(path), newline=""), delimiter="\t"))
    except csv.Error as error:
        raise InputError(f"{path} is no table ({error})") from None
    trials = []
    for number, row in enumerate(rows, 2):
        given = {name: (row.get(name) or "").strip() for name in COLUMNS}
        seconds = given.pop("seconds") or "0"
        lost = [name for name in ("id", "speaker", "text") if not given[name]]
        lost += ["prompt_text"] if given["prompt"] and not given["prompt_text"] else []
        lost += ["seconds"] if not seconds.replace(".", "", 1).isdecimal() else []
        if lost:
            raise InputError(f"{path}, line {number}: no usable {' and no '.join(lost)}")
        trials.append(Trial(**given, seconds=float(seconds)))
    return trials


def _read_f5(path: Path) -> list[Trial]:
    """Prompt's id, seconds and text, then those of what is said; tabs between."""
    trials = []
    for number, line in enumerate(read_utf8(path).splitlines(), 1):
        cells = [cell.strip() for cell in line.split("\t")]
        if len(cells) != 6 or cells[0].count("-") != 2 or cells[3].count("-") != 2:
            raise InputError(f"{path}, line {number}: six cells are expected, two of them ids")
        prompt, _, prompt_text, id, _, text = cells
        where = ["/".join((*each.split("-")[:2], f"{each}.flac")) for each in (prompt, id)]
        speaker = prompt.split("-")[0]
        trials.append(Trial(id, speaker, text, where[0], prompt_text, 0.0, where[1]))
    return trials


def check_files(trials: Iterable[Trial], root: Path) -> dict[str, str]:
    """sha256 of every recording of a list, by its path; InputError for one not in `root`."""
    paths = sorted({path for t in trials for path in (t.prompt, t.recording) if path})
    away = [path for path in paths if inside(root, path) is None]
    if away:  # a list may be anybody's: it names no other recording of this machine
        raise InputError(f"{away[0][:200]!r} leads out of {root}: give paths within it")
    lost = [path for path in paths if not (root / path).is_file()]
    if lost:
        raise InputError(f"{len(lost)} recordings are not in {root}, such as {lost[0]}")
    return {path: file_hash(root / path) for path in paths}
