"""Where measured figures are kept, how they are written, and how a page is filled with them."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from scipy.stats import binomtest

RESULTS = Path(__file__).parent / "results"


def write(name: str, content: dict[str, Any]) -> None:
    """Keeps figures as `RESULTS / name`, whole or not at all: a long run may be stopped."""
    RESULTS.mkdir(exist_ok=True)
    draft = RESULTS / f".{name}.new"
    draft.write_text(json.dumps(content, separators=(",", ":")) + "\n")
    draft.replace(RESULTS / name)


def read(name: str) -> Any:
    """What `write` kept under a name; FileNotFoundError if nothing was measured."""
    return json.loads((RESULTS / name).read_text())


def interval(hits: int, total: int) -> tuple[float, float]:
    """Clopper and Pearson's exact 95 % interval of a share."""
    found = binomtest(hits, total).proportion_ci()
    return float(found.low), float(found.high)


def share(hits: int, total: int) -> str:
    """Such as "4.0 (0.1-20.4)": in %, with its interval."""
    low, high = interval(hits, total)
    return f"{100 * hits / total:.1f} ({100 * low:.1f}-{100 * high:.1f})"


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """The lines of a Markdown table."""
    head, *lines = [f"| {' | '.join(map(str, cells))} |" for cells in (columns, *rows)]
    return [head, "|---" * len(columns) + "|", *lines]


def fill(template: Path, page: Path, words: dict[str, str]) -> None:
    """Writes a page: a template with each {name} in it replaced."""
    text = template.read_text()
    for name, value in words.items():
        text = text.replace("{" + name + "}", value)
    page.write_text(text)
