"""The page docs/marks.md: fixed words around the figures that `benchmarks.marks` measured."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.attacks import ATTACKS, PROMISED, WIDE, bundled_codec, codec_name
from benchmarks.results import fill, read, share, table
from sayso.inference.detection.classifier import Likeness
from sayso.inference.detection.detector import Detection
from sayso.inference.provenance.c2pa import Manifest
from sayso.inference.watermark import perth_filter
from sayso.inference.watermark.base import THRESHOLD
from sayso.inference.watermark.ensemble import PERTH_STRENGTHS, Found
from sayso.inference.watermark.keyed import LIMIT_COPIED, SOUND, SOUND_CHANGED, SOUND_GROWTH
from sayso.inference.watermark.perth import PerthTrace

KEY = bytes(range(32))
ROW = "benchmark-row"
UNDONE = "PerTh's filter undone"
SPLICED = "3 s of it within 6 s of others"
ROBUST, PERTH_ROBUST = "marks_robust_keyed.json", "marks_robust_perth.json"
SAID = "marks_said.json"
FIELDS = ("score", "likeness", "named")
"""Kept of each clip and attack: the mark's score, likeness, 1 for its row's sound, -1 another's.
PerTh's run kept its score and its own network's."""
PAGE = Path(__file__).parents[1] / "docs/marks.md"


def robust_table(keyed: dict[str, dict], perth: dict[str, dict]) -> list[str]:
    """One line per attack: the row named by its sound, its mark; and PerTh, of another run.

    Args:
        keyed, perth: Per clip and attack, the run's fields.
    """
    columns, rows = ["what happened", "clips", "row named", "sounds as its row"], []
    for name in (*ATTACKS, *WIDE, UNDONE, SPLICED):
        found = [row[name] for row in keyed.values() if name in row]
        older = [row[name] for row in perth.values() if name in row]
        cells = ["0", "", "", "", "0", "", ""]
        if n := len(found):
            alike, wrong = (sum(f[2] == which for f in found) for which in (1, -1))
            named = sum(f[2] == 1 and f[0] >= THRESHOLD for f in found)
            cells[:4] = [str(n), share(named, n), share(alike, n), str(wrong)]
        if n := len(older):
            own = f"{100 * sum(f[1] >= 0.5 for f in older) / n:.0f}"
            cells[4:] = [str(n), share(sum(f[0] >= THRESHOLD for f in older), n), own]
        if found or older:
            label = f"**{name}**" if name in PROMISED else name
            rows.append([label, *cells])
    return table([*columns, "as another", "clips", "PerTh", "PerTh's own detector"], rows)


def said_table(kept: dict[str, dict[str, list[float]]]) -> list[str]:
    """One line per promised attack on the bundled model's own speech: PerTh, the row, either."""
    out = ["| what happened | files | row named | PerTh | either |", "|---|---|---|---|---|"]
    for name in PROMISED:
        found = [file[name] for file in kept.values() if name in file]
        perth = [score >= THRESHOLD for score, _ in found]
        named = [bool(row) for _, row in found]
        either = [a or b for a, b in zip(perth, named, strict=True)]
        cells = [share(sum(hits), len(hits)) for hits in (named, perth, either) if hits]
        out.append(f"| {name} | {len(found)} | {' | '.join(cells)} |")
    return out


def forged_table(kept: dict[str, Any]) -> list[str]:
    """What outputs with known originals teach, by their number."""
    columns = (
        *("outputs with known originals", "cells of one learnt, %", "cells of the next output, %"),
        *("put on others: ours", "told as copied", "taken off others: mark left", "sound known"),
    )
    rows = []
    for count, row in kept.items():
        cells = ["", "", "", ""]
        if "forged" in row:
            total, ours, copied = row["forged"]
            cells = [f"{100 * row['cells'][which]:.0f}" for which in ("own", "next")]
            cells += [f"{ours} of {total}", f"{copied} of {total}"]
        total, mark, named = row["washed"]
        cells += [f"{mark} of {total}", f"{named} of {total}"]
        label = "the original itself, no mark" if count == "originals" else count
        rows.append([label, *cells])
    return table(columns, rows)


def null_table() -> list[str]:
    """How many real clips each detector calls marked, or an output that they are not."""
    perth = read("marks_null_perth.json")["rows"]
    limits = np.array(perth_filter.load_filter().limits)
    over = [bool((np.array(row[3:], float) >= limits).any()) for row in perth]
    held = [each for each, row in zip(over, perth, strict=True) if not row[2]]
    null = read("marks_null_keyed.json")["rows"]
    named = [
        row[3] >= SOUND + SOUND_GROWTH * math.log(row[2])
        or row[4] >= SOUND_CHANGED + SOUND_GROWTH * math.log(row[2])
        for row in null
    ]
    found = {
        "PerTh, all real clips": over,
        "PerTh, clips that fitted nothing": held,
        "sounds like a row that it is not": named,
        "the pattern of one of 64 rows found on it": [row[6] >= LIMIT_COPIED for row in null],
    }
    columns = ("what was said of real clips", "clips", "so often", "share in % (95 %)")
    rows = [(n, len(hits), sum(hits), share(sum(hits), len(hits))) for n, hits in found.items()]
    return table(columns, rows)


def others_table(kept: dict[str, list[float]]) -> list[str]:
    """In how many files of other synthesisers PerTh's mark is found, and which are called marked
    where nothing stands beside it."""
    hint, rows = Likeness(math.nan, 0.0, True), []
    for voice, scores in kept.items():
        found = [
            Detection(Path(), 0.0, Found(PerthTrace(score), None), Manifest("none"), hint)
            for score in scores
        ]
        present, marked = sum(one.present for one in found), sum(one.marked for one in found)
        rows.append((voice, len(scores), present, marked, f"{max(scores):.2f}"))
    return table(("voice", "files", "PerTh found", "called marked", "highest score"), rows)


def codes_of_the_codec() -> str:
    return f"{bundled_codec().codebooks} x {bundled_codec().codebook_size} codes"


def write_page() -> None:
    """Writes docs/marks.md: fixed words around what was measured."""
    robust = read(ROBUST)
    words = {
        "robust": "\n".join(robust_table(robust["clips"], read(PERTH_ROBUST)["clips"])),
        "rows": str(robust["rows"]),
        "said": "\n".join(said_table(read(SAID))),
        "forged": "\n".join(forged_table(read("marks_forged.json"))),
        "codec": codec_name().split(", ")[1],
        "codes": codes_of_the_codec(),
        "null": "\n".join(null_table()),
        "others": "\n".join(others_table(read("marks_synthesisers.json"))),
        "quality": quality_words(),
        "speed": speed_words(),
    }
    fill(Path(__file__).with_suffix(".md"), PAGE, words)


def quality_words() -> str:
    kept = read("marks_quality.json")
    clips, words = kept["clips"], kept["words"]

    def mean(name: str) -> str:
        values = np.array([row[name] for row in clips])
        error = 1.96 * values.std() / len(values) ** 0.5
        return f"{values.mean():.3f} +- {error:.3f} (lowest {values.min():.2f})"

    difference = np.subtract(words["marked"]["per_sentence"], words["unmarked"]["per_sentence"])
    voice = np.array(kept["voice"])
    wer = [f"{100 * words[name]['wer']:.2f} %" for name in ("unmarked", "marked")]
    change, spread = 100 * difference.mean(), 196 * difference.std() / len(difference) ** 0.5
    kathleen = f"{voice[:, 0].mean():.4f} -> {voice[:, 1].mean():.4f} ({paired(voice)})"
    rows = [
        (f"PESQ-WB, PerTh at {PERTH_STRENGTHS[0]} of its strength", mean("pesq perth")),
        ("PESQ-WB, keyed mark", mean("pesq keyed")),
        ("PESQ-WB, both as released", mean("pesq both")),
        ("speech to mark, dB", mean("snr")),
        ("similarity to the same clip unmarked (Resemblyzer)", mean("similarity")),
        ("similarity to Kathleen's mean voice, unmarked -> marked", kathleen),
        ("word error rate (Whisper tiny.en), unmarked -> marked", " -> ".join(wer)),
        (
            f"its change per sentence ({len(difference)} sentences), points",
            f"{change:+.2f} +- {spread:.2f}",
        ),
    ]
    return "\n".join(table(("what", "measured"), rows))


def paired(values: np.ndarray) -> str:
    """The mean change from the first to the second column, and the spread of the first."""
    change = values[:, 1] - values[:, 0]
    error = 1.96 * change.std() / len(change) ** 0.5
    return f"{change.mean():+.4f} +- {error:.4f}; sentences differ by {values[:, 0].std():.4f}"


def speed_words() -> str:
    kept = read("marks_speed.json")
    rows = [
        (name, f"{median:.4f} ({highest:.4f})", f"{1 / median:.0f}")
        for name, (median, highest) in kept.items()
    ]
    columns = ("step", "CPU s per s of audio, median (highest)", "times real time")
    return "\n".join(table(columns, rows))
