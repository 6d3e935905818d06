"""The page docs/marks.md: fixed words around the figures that `benchmarks.marks` measured."""

import json
from pathlib import Path

import numpy as np

from benchmarks.attacks import ATTACKS, PROMISED, bundled_codec, codec_name
from benchmarks.results import RESULTS, fill, read, share
from sayso.inference.watermark import keyed, perth_filter, spread_spectrum
from sayso.inference.watermark.base import THRESHOLD
from sayso.inference.watermark.ensemble import PERTH_STRENGTHS, together

KEY = bytes(range(32))
ROW = "benchmark-row"
UNDONE = "PerTh's filter undone"
SPLICED = "3 s of it within 6 s of others"
ROBUST = RESULTS / "marks_robust.json"
FIELDS = ("perth", "published", "keyed", "payload")
"""What is kept of each clip and attack: scores of the marks and of PerTh's network, the bits."""
PROMISE = 0.99
PAGE = Path(__file__).parents[1] / "docs/marks.md"


def read_robust() -> dict[str, dict[str, dict]]:
    """Per clip and attack, what was found, by the names in `FIELDS`."""
    kept = json.loads(ROBUST.read_text())
    return {
        clip: {name: dict(zip(kept["fields"], row, strict=True)) for name, row in rows.items()}
        for clip, rows in kept["clips"].items()
    }


def is_marked(found: dict) -> bool:
    """As `Found.present` decides."""
    scores = (found["perth"], found["keyed"], together(found["perth"], found["keyed"]))
    return max(scores) >= THRESHOLD


def robust_table(rows: dict) -> list[str]:
    out = [
        "| what happened | clips | PerTh | keyed | together | row named | PerTh's own detector | "
        "false positives |",
        "|---|---|---|---|---|---|---|---|",
    ]
    right = spread_spectrum.payload_of(KEY, ROW)
    for name in (*ATTACKS, UNDONE, SPLICED):
        found = [row[name] for row in rows.values() if name in row]
        plain = [row[f"unmarked: {name}"] for row in rows.values() if f"unmarked: {name}" in row]
        if not found:
            continue
        n = len(found)
        perth = [f["perth"] >= THRESHOLD for f in found]
        keyed = [f["keyed"] >= THRESHOLD for f in found]
        either = sum(is_marked(f) for f in found)
        named = sum(f["payload"] == right for f in found)
        wrong = sum(f["payload"] not in (None, right) for f in found)
        own = sum(f["published"] >= 0.5 for f in found)
        false = sum(is_marked(f) for f in plain)
        label = f"**{name}**" if name in PROMISED else name
        named_words = f"{100 * named / n:.0f}" + (f" (wrong {wrong})" if wrong else "")
        out.append(
            f"| {label} | {n} | {share(sum(perth), n)} | {share(sum(keyed), n)} | "
            f"{share(either, n)} | {named_words} | {100 * own / n:.0f} | {false} of {len(plain)} |"
        )
    return out


def false_alarms(rows: dict[str, dict[str, dict]]) -> str:
    """Such as "3 of 1000", over every attack that the page shows."""
    shown = {f"unmarked: {name}" for name in (*ATTACKS, UNDONE, SPLICED)}
    plain = [found for row in rows.values() for name, found in row.items() if name in shown]
    return f"{sum(is_marked(found) for found in plain)} of {len(plain)}"


def promise(rows: dict[str, dict[str, dict]]) -> str:
    """The promised rows that fall short of 99 %, by name, and all of them taken together."""
    short, hits, total = [], 0, 0
    for name in PROMISED:
        found = [is_marked(row[name]) for row in rows.values() if name in row]
        hits, total = hits + sum(found), total + len(found)
        if found and sum(found) < PROMISE * len(found):
            short.append(f"{name} ({share(sum(found), len(found))})")
    kept = f"below 99 %: {', '.join(short)}" if short else "none is below 99 %"
    missed = f"{total - hits} of all {total} clips were missed"
    return f"Of the {len(PROMISED)} promised rows {kept}; {missed}."


def codes_of_the_codec() -> str:
    return f"{bundled_codec().codebooks} x {bundled_codec().codebook_size} codes"


def write_page() -> None:
    """Writes docs/marks.md: fixed words around what was measured."""
    rows = read_robust()
    perth_null = read("marks_null_perth.json")["rows"]
    keyed_null = read("marks_null_keyed.json")["rows"]
    fitted = np.array(perth_filter.load_filter().limits)
    perth_over = int((np.array([r[3:] for r in perth_null], float) >= fitted).any(1).sum())
    limits = np.array(
        [keyed.LIMIT_WHOLE, keyed.LIMIT_WINDOW, keyed.LIMIT_PITCHED, keyed.LIMIT_TEMPO]
    )
    keyed_over = int((np.array([r[3:] for r in keyed_null], float) >= limits).any(1).sum())
    held = [r for r in perth_null if not r[2]]
    scores = {r[0]: THRESHOLD * float((np.array(r[3:], float) / fitted).max()) for r in perth_null}
    pairs = [
        {"perth": scores[r[0]], "keyed": THRESHOLD * float((np.array(r[3:]) / limits).max())}
        for r in keyed_null
    ]
    both_over = sum(is_marked(pair) for pair in pairs)
    held_over = int((np.array([r[3:] for r in held], float) >= fitted).any(1).sum())
    words = {
        "robust": "\n".join(robust_table(rows)),
        "false": false_alarms(rows),
        "promise": promise(rows),
        "codec": codec_name().split(", ")[1],
        "codes": codes_of_the_codec(),
        "null": "\n".join(
            [
                "| detector | trials | called marked | share in % (95 %) |",
                "|---|---|---|---|",
                f"| PerTh, all real clips | {len(perth_null)} | {perth_over} | "
                f"{share(perth_over, len(perth_null))} |",
                f"| PerTh, clips that fitted nothing | {len(held)} | {held_over} | "
                f"{share(held_over, len(held))} |",
                f"| keyed, clips x keys | {len(keyed_null)} | {keyed_over} | "
                f"{share(keyed_over, len(keyed_null))} |",
                f"| together, clips x keys | {len(pairs)} | {both_over} | "
                f"{share(both_over, len(pairs))} |",
            ]
        ),
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
    return "\n".join(
        [
            "| what | measured |",
            "|---|---|",
            f"| PESQ-WB, PerTh at {PERTH_STRENGTHS[0]} of its strength | {mean('pesq perth')} |",
            f"| PESQ-WB, keyed mark | {mean('pesq keyed')} |",
            f"| PESQ-WB, both as released | {mean('pesq both')} |",
            f"| speech to mark, dB | {mean('snr')} |",
            f"| similarity to the same clip unmarked (Resemblyzer) | {mean('similarity')} |",
            "| similarity to Kathleen's mean voice, unmarked -> marked | "
            f"{voice[:, 0].mean():.4f} -> {voice[:, 1].mean():.4f} ({paired(voice)}) |",
            "| word error rate (Whisper tiny.en), unmarked -> marked | "
            f"{100 * words['unmarked']['wer']:.2f} % -> {100 * words['marked']['wer']:.2f} % |",
            f"| its change per sentence ({len(difference)} sentences), points | "
            f"{100 * difference.mean():+.2f} +- "
            f"{196 * difference.std() / len(difference) ** 0.5:.2f} |",
        ]
    )


def paired(values: np.ndarray) -> str:
    """The mean change from the first to the second column, and the spread of the first."""
    change = values[:, 1] - values[:, 0]
    error = 1.96 * change.std() / len(change) ** 0.5
    return f"{change.mean():+.4f} +- {error:.4f}; sentences differ by {values[:, 0].std():.4f}"


def speed_words() -> str:
    kept = read("marks_speed.json")
    lines = ["| step | CPU s per s of audio, median (highest) | times real time |", "|---|---|---|"]
    for name, (median, highest) in kept.items():
        lines.append(f"| {name} | {median:.4f} ({highest:.4f}) | {1 / median:.0f} |")
    return "\n".join(lines)
