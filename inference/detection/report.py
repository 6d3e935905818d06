"""`sayso detect` over many files and folders: progress, a table or JSON, pictures, exit codes."""

import json
import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from sayso.model.audio import read_audio
from sayso.model.errors import InputError, SaysoError
from sayso.model.printable import printable

from .classifier import Likeness
from .detector import Detection, Detector

_NAMES = (
    "wav flac mp3 ogg oga opus m4a mp4 aac webm mkv mov aiff aif au caf wma amr 3gp w64 wv ape tta "
    "ac3 avi flv ts"
)
SUFFIXES = frozenset("." + name for name in _NAMES.split(" "))
"""What is taken for audio in a folder; a file that is named is tried whatever it is called."""
ALL_MARKED, SOME_UNMARKED, SOME_UNREADABLE = 0, 4, 5
"""Exit codes; an unreadable file outweighs an unmarked one."""
STATES = {
    "trusted": "[green]trusted[/]",
    "valid": "[yellow]valid, signer unknown[/]",
    "invalid": "[red]invalid[/]",
    "none": "none",
}


@dataclass(frozen=True)
class Unread:
    """A file that could not be looked at, and why."""

    path: Path
    reason: str

    def to_json(self) -> dict[str, Any]:
        """`file` and `error`, both text."""
        return {"file": str(self.path), "error": self.reason}


Result = Detection | Unread


def audio_files(paths: Sequence[str | Path]) -> list[Path]:
    """The given files, and the audio files in the given folders and theirs, each once, in order.

    Raises:
        InputError: A path does not exist, or a folder has no audio file in it.
    """
    found: dict[Path, None] = {}
    for path in map(Path, paths):
        if not path.exists():
            raise InputError(f"There is no file or folder {path}.")
        if not path.is_dir():
            found[path] = None
            continue
        inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        if not inside:
            raise InputError(f"There is no audio file in the folder {path}.")
        found.update(dict.fromkeys(inside))
    return list(found)


def look(path: Path, detector: Detector) -> Result:
    """One file; what cannot be read is a result too, so that it does not stop the others."""
    try:
        return detector.detect(path)
    except InputError as error:
        return Unread(path, str(error))


def exit_code(results: Iterable[Result]) -> int:
    """0: all files are marked. 4: one is not, or not for sure. 5: one could not be read."""
    code = ALL_MARKED
    for result in results:
        if isinstance(result, Unread):
            return SOME_UNREADABLE
        if not result.marked:
            code = SOME_UNMARKED
    return code


def table(results: Sequence[Result]) -> Table:
    """One row per file: the marks, where they are, the manifest, the ledger row, the hint."""
    out = Table(
        title=f"{len(results)} files" if len(results) > 1 else None, caption=caption(results)
    )
    for column in ("file", "PerTh", "keyed", "where", "C2PA", "ledger row", "sounds like us"):
        out.add_column(column, overflow="fold")
    for result in results:
        if isinstance(result, Unread):
            out.add_row(
                shown(result.path), "", "", "", "[red]not read[/]", escape(printable(result.reason))
            )
            continue
        found = result.found
        best = max(found.traces, key=lambda trace: trace.score)
        out.add_row(
            shown(result.path),
            _cell(found.perth.present, found.perth.score, result.verdict == "unsure"),
            "no key" if found.keyed is None else _cell(found.keyed.present, found.keyed.score),
            where_in_words(result) if best.present else "",
            STATES[result.manifest.state],
            escape(printable(ledger_row(result))),
            likeness_in_words(result.likeness),
        )
    return out


def caption(results: Sequence[Result]) -> str | None:
    """What the last column is worth; nothing where no file could be read."""
    heard = [result.likeness for result in results if isinstance(result, Detection)]
    if not heard:
        return None
    words = "sounds like us: a network's hint, no mark and no proof (docs/detector.md)"
    return words if heard[0].current else f"{words}; it learnt an older model than the bundled one"


def likeness_in_words(likeness: Likeness) -> str:
    """Such as "maybe (log-odds +3.1)"."""
    if math.isnan(likeness.log_odds):
        return "silent"
    return f"{'maybe' if likeness.like_ours else 'no'} (log-odds {likeness.log_odds:+.1f})"


def shown(path: Path) -> str:
    """A file's name for a terminal, whatever characters, or none, it is made of."""
    return escape(printable(path))


def where_in_words(result: Detection) -> str:
    """Such as "all of it", or "0.0-4.5 s, 9.0-12.0 s"; with the speed if it was changed."""
    best = max(result.found.traces, key=lambda trace: trace.score)
    stretches = best.where()
    covered = sum(b - a for a, b in stretches)
    if not best.windows or covered > 0.95 * best.windows[-1].stop:
        words = "all of it"
    elif stretches:
        words = ", ".join(f"{a:.1f}-{b:.1f} s" for a, b in stretches)
    else:
        words = "spread thinly"
    if best.speed != 1.0:
        words += f"; speed {(best.speed - 1) * 100:+.1f} %"
    return words


def ledger_row(result: Detection) -> str:
    """The row that a trusted manifest or sound and mark name; or what else is known of rows."""
    if result.manifest.state == "trusted" and result.manifest.ledger_id:
        return result.manifest.ledger_id
    if result.ledger_ids:
        kept = ", manifest recalled" if result.recalled is not None else ""
        return f"{' and '.join(result.ledger_ids)} (by sound and mark{kept})"
    if result.copied_from:
        return f"not ours: mark copied from {' and '.join(result.copied_from)}"
    if result.alike:
        return f"sounds like {' and '.join(result.alike)}, whose mark is not there"
    if result.older_ids:
        return f"{' or '.join(result.older_ids)}? (older mark; may be copied)"
    return ""


def draw(result: Detection, picture: Path) -> None:
    """A PNG with the spectrogram, the marked stretches in colour, and each window's score.

    Raises:
        InputError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError("Pictures need matplotlib: pip install 'sayso[plot]'.") from error
    rate = 16_000
    audio = read_audio(result.path, rate, allow_silence=True)[0].numpy()
    figure = Figure(figsize=(10, 5), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.specgram(audio + 1e-8 * np.ones_like(audio), NFFT=512, Fs=rate, noverlap=384, vmin=-140)
    upper.set(ylabel="Hz")
    title = f"{printable(result.path.name)}: C2PA {result.manifest.state}"
    upper.set_title(title, parse_math=False)  # a name may hold $
    colours = {
        "perth": "tab:orange",
        "keyed": "tab:cyan",
        "fixed": "tab:olive",
        "audioseal": "tab:pink",
    }
    for row, (name, trace) in enumerate(result.found.named().items()):
        if trace is None:
            continue
        whole = [(0.0, result.seconds)] if trace.present and not trace.windows else []
        for start, stop in trace.where() or whole:
            top = 0.98 - 0.05 * row
            upper.axvspan(start, stop, ymin=top - 0.04, ymax=top, color=colours[name])
        times = [(w.start + w.stop) / 2 for w in trace.windows] or [0.0, result.seconds]
        scores = [w.score for w in trace.windows] or [trace.score] * 2
        lower.plot(times, scores, color=colours[name], label=f"{name} {trace.score:.2f}")
    lower.axhline(0.5, color="grey", linestyle=":", label="threshold")
    lower.set(xlabel="seconds", ylabel="score", ylim=(0, 1.02), xlim=(0, result.seconds))
    lower.legend(loc="upper right", fontsize="small", ncols=4)
    figure.savefig(picture, dpi=100)


def run(
    paths: Sequence[str | Path],
    store: Path | None = None,
    as_json: bool = False,
    pictures: Path | None = None,
) -> int:
    """What `sayso detect` does; prints, and returns the exit code.

    Args:
        store: The store's folder, or a root certificate, or None; see `Detector`.
        as_json: One JSON object per line and file instead of the table.
        pictures: A folder for one PNG per file that could be read.
    Raises:
        InputError, MarkError: Nothing can be looked at at all.
    """
    files = audio_files(paths)
    detector = Detector(store)
    if pictures is not None:
        try:
            pictures.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"--pictures {pictures} is no folder that can be made ({error.strerror})."
            ) from None
    results: list[Result] = []
    drawn: set[str] = set()
    with Progress(console=Console(stderr=True), transient=True) as progress:
        for path in progress.track(files, description="listening"):
            result = look(path, detector)
            results.append(result)
            if as_json:
                print(json.dumps(result.to_json()), flush=True)
            if pictures is not None and isinstance(result, Detection):
                try:
                    draw(result, _free(pictures, path.name, drawn))
                except (SaysoError, OSError) as error:
                    reason = getattr(error, "strerror", None) or error
                    print(printable(f"no picture of {path}: {reason}"), file=sys.stderr)
    if not as_json:
        Console(file=sys.stdout).print(table(results))
    return exit_code(results)


def _free(folder: Path, name: str, taken: set[str]) -> Path:
    """A picture's place; recordings of one name in several folders have one each."""
    number, free = 1, f"{name}.png"
    while free in taken:
        number += 1
        free = f"{name}.{number}.png"
    taken.add(free)
    return folder / free


def _cell(present: bool, score: float, alone: bool = False) -> str:
    word = ("[yellow]unsure[/]" if alone else "[green]yes[/]") if present else "no"
    return f"{word} {score:.2f}"
