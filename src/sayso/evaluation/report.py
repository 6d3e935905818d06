"""What a run found, to be read: report.md, and index.html with plots, pictures and players.

The page opens from the disk and loads nothing from elsewhere. A figure has three digits at most;
beside it stand 95 % of bootstraps over utterances. A difference to the first row is marked only
where 0 lies outside both of its intervals, over utterances and over speakers.
"""

import html
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markdown_it import MarkdownIt
from scipy.signal import stft

from sayso.inference.recognisers import RATE
from sayso.model.audio import read_audio
from sayso.model.errors import InputError

from .plots import axes, legend, page, scale_of, svg
from .run import RECORDINGS
from .speaking import said_in
from .summary import COLUMNS, Column

FIRST = ("WER", "CER", "SIM-o", "SIM-r", "nearest", "P.808", "OVRL", "DistillMOS")
MEANING = {
    "WER": "word errors, %",
    "CER": "character errors, %",
    "SIM-o": "cosine to the prompt as recorded",
    "SIM-r": "cosine to the prompt through the codec",
    "nearest": "nearer to its own prompt than to any other speaker's, %",
    "P.808": "DNSMOS P.808",
    "OVRL": "DNSMOS P.835, overall",
    "repeats": "words or phrases said again at once, per 100 words",
    "skipped": "words lost two or more in a row, per 100 words",
    "over-long": "longer than twice a normal reading of the text, %",
    "same pitch": "median F0 within 15 % of the prompt's, %",
    "rate": "letters per second over the prompt's",
    "level": "dB over the prompt's",
    "clicks": "sample jumps per utterance",
    "clipped": "samples at full scale per utterance",
}
WORST = 10
LOADING = ["image", "link", "autolink", "reference"]
"""Of Markdown: the page has none of these."""
PAPER = """
VALL-E 2, Table 1, one sample: other data (50,000 h), size (12 layers, width 1024), recogniser
(Conformer-Transducer XL), speaker encoder (WavLM-TDNN); P.808 alone is the same judge.

| VALL-E 2, as published | SIM | WER | P.808 |
|---|---|---|---|
| ground truth | .779 | 1.6 | 3.891 |
| through the codec | .715 | 1.7 | 3.886 |
| VALL-E | .633 | 3.1 | 3.985 |
| VALL-E 2, G = 1 | .643 | 1.5 | 3.987 |
| VALL-E 2, G = 2 | .635 | 1.5 | 4.000 |
| VALL-E 2, G = 4 | .615 | 2.2 | 3.967 |
| VALL-E 2, G = 8 | .566 | 4.2 | 3.875 |

Table 3, G = 1, SIM and WER: whole .639, 1.9; no AR prompt .169, 2.8; no NAR prompt .385, 1.8; no
NAR text .619, 10.0. Whether the paper trained without them is not said; here nothing was trained
anew, and a prompt's text goes with its codes.
"""


def write_report(found: dict[str, Any], out: Path, root: Path) -> None:
    """Write OUT/report.md and OUT/index.html from what `Run.results` found.

    Args:
        root: Where the trials' recordings are: those of the worst ten are copied.

    Raises:
        InputError: matplotlib is missing.
    """
    words = tables(found)
    row = next((each for each in found["run"]["rows"]), found["order"][-1])
    bad = worst(found["trials"], row)
    lines = ["| id | should be | heard |", "|---|---|---|"]
    for trial in bad:
        cells = trial["id"], trial["text"], trial["rows"][row]["heard"] or "nothing"
        lines.append(f"| {' | '.join(map(_plain, cells))} |")
    heading = f"\n## Worst {len(bad)} of {_plain(row)}\n\n"
    (out / "report.md").write_text(words + heading + "\n".join(lines) + "\n", encoding="utf-8")
    parts = [
        MarkdownIt("commonmark", {"html": False}).enable("table").disable(LOADING).render(words),
        f"<h2>Word errors against similarity</h2>{scatter(found)}",
        f"<h2>Utterances</h2>{histograms(found)}",
        f"<h2>Worst {len(bad)} of {html.escape(row)}</h2>",
        *(_player(trial, row, found, out, root) for trial in bad),
    ]
    text = page(f"Evaluation: {found['run']['protocol']}", "\n".join(parts))
    (out / "index.html").write_text(text, encoding="utf-8")


def tables(found: dict[str, Any]) -> str:
    """The figures as Markdown."""
    run, rows = found["run"], found["rows"].values()
    there = [column for column in COLUMNS if any(column.name in row for row in rows)]
    first = [column for column in there if column.name in FIRST]
    speakers = len({trial["speaker"] for trial in found["trials"]})
    sure = " and that over speakers" if speakers > 1 else ", of this one speaker"
    judges = "; ".join(
        _plain(f"{name}: {j['model']} ({j['version']}, {j['hash'][:12] or 'no weights'})")
        for name, j in run["metrics"].items()
    )
    lines = [
        f"# Evaluation: {run['protocol']}",
        "",
        f"{len(found['trials'])} utterances, speakers: {speakers}, left out: "
        f"{len(found['left out'])}; list {run['list'][:12]}, seed {run['seed']}. In brackets 95 % "
        f"of bootstraps over utterances. ↓ ↑: less or more than *{_plain(found['order'][0])}* on "
        f"the same utterances, 0 outside the interval over utterances{sure}.",
        "",
        *_table(found, first, "work"),
        "",
        *_table(found, [column for column in there if column not in first]),
        "",
        "; ".join(f"{c.name}: {MEANING[c.name]}" for c in there if c.name in MEANING)
        + "; work: seconds of work per second of speech, marks and all. (oracle): no one sample "
        "has these figures. What is unfinished counts as lost in WER and CER, in no other figure.",
        "",
        f"Judges: {judges}.",
        "",
        *(
            f"{_plain(name)}: card {row['card'][:12]}, {row['takes']} samples, "
            f"{_how(row['sampling'])}.\n"
            for name, row in run["rows"].items()
        ),
        *(
            f"Left out: {_plain(id)}: {_plain(why)}\n"
            for id, why in list(found["left out"].items())[:WORST]
        ),
    ]
    return "\n".join(lines) + (PAPER if run["protocol"] == "librispeech-reference" else "")


def _plain(text: str) -> str:
    """Somebody's text in Markdown: no picture of another machine, no link, no heading, one line."""
    return re.sub(r"([^\w\s,;:'\"?()])", r"\\\1", " ".join(text.split()), flags=re.ASCII)


def worst(trials: Sequence[dict[str, Any]], row: str) -> list[dict[str, Any]]:
    """The trials of a row with the highest word error rates."""
    rates = [t["rows"][row]["errors"] / t["rows"][row]["words"] for t in trials]
    return [trials[i] for i in np.argsort(-np.array(rates), kind="stable")[:WORST]]


def scatter(found: dict[str, Any]) -> str:
    """WER against SIM-o of each row, with the intervals over utterances, as SVG."""
    rows = [(n, found["rows"][n]) for n in found["order"] if "SIM-o" in found["rows"][n]]
    if not rows:
        return "<p>No row has a prompt that was recorded.</p>"
    across = scale_of([v for _, r in rows for v in _bounds(r["SIM-o"])], 60, 580)
    up = scale_of([0.0, *(v for _, r in rows for v in _bounds(r["WER"]))], 260, 20)
    marks = []
    for index, (name, row) in enumerate(rows):
        x, y = across(row["SIM-o"]["value"]), up(row["WER"]["value"])
        left, right = map(across, _bounds(row["SIM-o"]))
        low, high = map(up, _bounds(row["WER"]))
        marks.append(
            f'<g class="c{index % 8}"><title>{html.escape(name)}</title>'
            f'<path d="M{left:.1f} {y:.1f}H{right:.1f}M{x:.1f} {low:.1f}V{high:.1f}"/>'
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5"/></g>'
        )
    ticks = axes(across, up, "SIM-o", "WER, %", 100)
    return svg(300, [*ticks, *marks], "Word error rate against similarity") + legend(
        [name for name, _ in rows]
    )


def histograms(found: dict[str, Any]) -> str:
    """How the values of single utterances spread, each row a line, as SVG."""
    parts, rows = [], [(name, found["rows"][name]) for name in found["order"]]
    for name in ("errors", "SIM-o", "DistillMOS"):
        values = {
            row: np.array(
                [
                    t["rows"][row][name] / (t["rows"][row]["words"] if name == "errors" else 1)
                    for t in found["trials"]
                    if name in t["rows"][row]
                ]
            )
            for row, _ in rows
        }
        every = np.concatenate(list(values.values()))
        if not len(every):
            continue
        edges = np.histogram_bin_edges(every, 12)
        counts = {row: np.histogram(each, edges)[0] for row, each in values.items()}
        across = scale_of([edges[0], edges[-1]], 60, 580)
        up = scale_of([0, max(int(each.max()) for each in counts.values())], 160, 15)
        lines = []
        for index, (row, each) in enumerate(counts.items()):
            steps = "".join(
                f"H{across(a):.1f}V{up(n):.1f}H{across(b):.1f}"
                for a, b, n in zip(edges[:-1], edges[1:], each, strict=True)
            )
            place = f"M{across(edges[0]):.1f} {up(0):.1f}{steps}V{up(0):.1f}"
            title = f"<title>{html.escape(row)}</title>"
            lines.append(f'<path class="c{index % 8} line" d="{place}">{title}</path>')
        label = "WER of an utterance" if name == "errors" else name
        ticks = axes(across, up, label, "utterances")
        parts.append(svg(205, [*ticks, *lines], label))
    return "".join(parts) + legend([name for name, _ in rows])


def _table(found: dict[str, Any], columns: Sequence[Column], more: str = "") -> list[str]:
    names = [column.name for column in columns] + ([more] if more else [])
    lines = [f"| | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for row in found["order"]:
        own = found["rows"][row]
        cells = [_cell(own.get(c.name), c.percent, bool(more)) for c in columns]
        if more:
            cells.append(f"{found['time'][row]:.2f}" if row in found["time"] else "")
        lines.append(f"| {_plain(row)} | {' | '.join(cells)} |")
    return lines


def _cell(entry: dict[str, Any] | None, percent: bool, interval: bool) -> str:
    if entry is None:
        return ""
    scale = 100 if percent else 1
    value, *bounds = (_digits(scale * each) for each in (entry["value"], *entry["utterances"]))
    between = f" ({' to '.join(bounds)})" if interval else ""
    apart = entry.get("difference", {})
    bounds = [apart[kind] for kind in ("utterances", "speakers") if kind in apart]
    sure = "↓" if bounds and all(b < 0 for _, b in bounds) else ""
    sure = "↑" if bounds and all(a > 0 for a, _ in bounds) else sure
    return f"{value}{sure}{between}"


def _digits(value: float) -> str:
    """Three at most."""
    return f"{value:.{0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2}f}"


def _how(sampling: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in sampling.items() if value)


def _player(trial: dict[str, Any], row: str, found: dict[str, Any], out: Path, root: Path) -> str:
    """One trial to listen to and to look at, beside its recording."""
    sounds = []
    if RECORDINGS in trial["rows"]:
        copy = out / "recordings" / f"{trial['id']}{Path(trial['recording']).suffix}"
        copy.parent.mkdir(exist_ok=True)
        shutil.copyfile(root / trial["recording"], copy)
        sounds.append((RECORDINGS, copy))
    said = {name: said_in(out, name, trial["id"]) for name in found["run"]["rows"]}
    sounds += [(name, path) for name, path in said.items() if path.is_file()]
    parts = []
    for name, path in sounds:
        picture = _picture(path, out / "pictures" / f"{path.parent.name}-{trial['id']}.png")
        heard = html.escape(trial["rows"][name]["heard"])
        sound, drawn = path.relative_to(out).as_posix(), f"pictures/{html.escape(picture.name)}"
        parts.append(
            f"<figure><figcaption>{html.escape(name)}: “{heard}”</figcaption>"
            f'<audio controls preload="none" src="{html.escape(sound)}"></audio>'
            f'<img alt="Spectrogram, 0 to 8 kHz" src="{drawn}"></figure>'
        )
    values = trial["rows"][row]
    rate = _digits(100 * values["errors"] / values["words"])
    why = f" Unfinished: {html.escape(values['why'])}" if values.get("why") else ""
    return (
        f"<section><h3>{html.escape(trial['id'])}: {rate} % of the words</h3>"
        f"<p>Should be: “{html.escape(trial['text'])}”{why}</p>{''.join(parts)}</section>"
    )


def _picture(sound: Path, picture: Path) -> Path:
    """A spectrogram of 0 to 8 kHz over the whole length."""
    try:
        from matplotlib.image import imsave
    except ImportError:
        raise InputError("the page needs matplotlib: pip install 'sayso[bench]'") from None
    picture.parent.mkdir(exist_ok=True)
    audio = read_audio(sound, RATE, allow_silence=True)[0].numpy()
    _, _, found = stft(audio, RATE, nperseg=512, noverlap=384)
    loud = 20 * np.log10(np.abs(found) + 1e-6)
    imsave(picture, loud[::-1], cmap="magma", vmin=loud.max() - 80, vmax=loud.max())
    return picture


def _bounds(entry: dict[str, Any]) -> tuple[float, float]:
    low, high = entry["utterances"]
    return low, high
