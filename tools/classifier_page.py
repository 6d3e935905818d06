"""The page docs/detector.md: fixed words around what `tools.fit_classifier` measured."""

from pathlib import Path
from typing import Any

from benchmarks.results import fill, share, table
from sayso.inference.detection.classifier import KINDS

PAGE = Path(__file__).parents[1] / "docs/detector.md"
MARGIN = 1e-9


def rates(row: dict[str, Any]) -> list[str]:
    """Real called ours, coded called ours, ours missed; numbers of clips."""
    called, clips = row["called ours"], row["clips"]
    cells = [share(called[kind], clips[kind]) for kind in KINDS[:2]]
    cells.append(share(clips[KINDS[2]] - called[KINDS[2]], clips[KINDS[2]]))
    return [*cells, " / ".join(str(clips[kind]) for kind in KINDS)]


def error(row: dict[str, Any], name: str) -> str:
    low, high = row[f"{name}, 95 %"]
    return f"{100 * row[name]:.1f} ({100 * low:.1f}-{100 * high:.1f})"


def conditions(rows: dict[str, Any]) -> list[str]:
    columns = ("what was done to all three", "real called ours", "coded real called ours")
    columns += ("ours missed", "EER against both", "against real", "against coded real", "clips")
    out = []
    for name, row in rows.items():
        *three, clips = rates(row)
        errors = [error(row, "equal error")]
        errors += [error(row, f"equal error, {kind}") for kind in KINDS[:2]]
        out.append((name, *three, *errors, clips))
    return table(columns, out)


def voices(rows: dict[str, Any]) -> list[str]:
    """One line per voice that had an error, and how many had none."""
    out, clean = [], []
    for voice, by in rows.items():
        (real, reals), (coded, codeds), (ours, all_ours) = (by[kind] for kind in KINDS)
        cells = (f"{real} of {reals}", f"{coded} of {codeds}", f"{all_ours - ours} of {all_ours}")
        if real or coded or ours < all_ours:
            out.append((voice, *cells))
        else:
            clean.append(voice)
    columns = ("voice", "real called ours", "coded real called ours", "ours missed")
    rest = f"\nNo error in the other {len(clean)} voices: {', '.join(clean) or 'none'}."
    return [*table(columns, out), rest]


def never_heard(rows: dict[str, Any]) -> list[str]:
    columns = ("generator", "called ours, %", "so missed as synthetic speech, %")
    out = []
    for name, row in rows.items():
        called, clips = row["called ours"], row["clips"]
        eer = 100 * row["equal error against recordings"]
        out.append((name, share(called, clips), share(clips - called, clips), f"{eer:.0f}", clips))
    return table((*columns, "EER against recordings, %", "clips"), out)


def write_page(rows: dict[str, Any]) -> None:
    """Writes docs/detector.md."""
    words = {
        "model": rows["model"],
        "parameters": f"{rows['parameters']:,}",
        "threshold": f"{rows['threshold']:+.2f}",
        "faster": f"{1 / max(rows['cost'], MARGIN):.0f}",
        "conditions": "\n".join(conditions(rows["conditions"])),
        "voices": "\n".join(voices(rows["voices"])),
        "strangers": "\n".join(never_heard(rows["strangers"])),
    }
    fill(Path(__file__).with_suffix(".md"), PAGE, words)
