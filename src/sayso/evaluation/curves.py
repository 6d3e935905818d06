"""What a training run wrote down, as one page in its folder: curves, figures, samples to hear."""

import html
import math
import re
from collections import defaultdict
from pathlib import Path
from urllib.parse import quote

import numpy as np

from sayso.model.errors import InputError
from sayso.model.files import replacing
from sayso.training.log import read_log

from .plots import COLOURS, axes, legend, page, scale_of, svg

PAGE = "report.html"
PARTS = ("ar", "nar")
MOST_POINTS = 250
"""Of a line: more steps are averaged."""
MOST_SAMPLES = 12
"""Of a sentence, the newest."""
Row = dict[str, str]
Points = list[tuple[float, float]]
"""Of a line: steps and values."""


def write_page(run: Path) -> Path:
    """Write RUN/report.html from the logs of a run, at any time of it; returns its path.

    Raises:
        InputError: The run has no log yet, or its folder cannot be written.
    """
    logs = {part: run / "logs" / f"{part}.csv" for part in PARTS}
    rows = {part: read_log(path) for part, path in logs.items() if path.is_file()}
    if not any(rows.values()):
        raise InputError(f"{run} has no log of a step (logs/ar.csv, logs/nar.csv): train it first")
    title = f"Training: {run.resolve().name}"
    parts = [f"<h1>{html.escape(title)}</h1>", summary(rows)]
    for part, own in rows.items():
        if own:
            parts += [f"<h2>{part.upper()}</h2>", f'<div class="plots">{plots(part, own)}</div>']
    parts.append(players(run))
    try:
        with replacing(run / PAGE) as half:
            half.write_text(page(title, "\n".join(parts)), encoding="utf-8")
    except OSError as error:
        raise InputError(f"{run / PAGE} cannot be written ({error.strerror})") from None
    return run / PAGE


def points(rows: list[Row], column: str) -> Points:
    """The finite values of a column by step."""
    pairs = ((float(row["step"]), _number(row.get(column))) for row in rows)
    return [(step, value) for step, value in pairs if math.isfinite(value)]


def thinned(line: Points) -> Points:
    """At most `MOST_POINTS` points, each the mean of as many neighbours."""
    if len(line) <= MOST_POINTS:
        return line
    return [tuple(np.mean(each, axis=0)) for each in np.array_split(np.array(line), MOST_POINTS)]


def summary(rows: dict[str, list[Row]]) -> str:
    """A table of where each model stands."""
    names = ("step", "minutes", "loss", "validation, best", "text gain", "frames/s")
    names += ("of matmul rate", "waiting", "skipped")
    lines = [f"<tr><th></th>{''.join(f'<th>{name}</th>' for name in names)}</tr>"]
    for part, own in rows.items():
        if not own:
            continue
        last = own[-1]
        validated = points(own, "validation_loss")
        step, best = min(validated, key=lambda each: each[1], default=(0, math.nan))
        cells = [last["step"], _cell(_number(last["minutes"]), ".1f"), _cell(_latest(own, "loss"))]
        cells.append(f"{best:.4f} (step {step:.0f})" if validated else "")
        cells.append(_cell(_latest(own, "text_gain"), "+.4f"))
        cells.append(_cell(_latest(own, "frames_per_second"), ".0f"))
        cells += [_cell(_latest(own, key), ".1%") for key in ("matmul_share", "loader_share")]
        cells.append(html.escape(last["skipped"] or ""))
        cells = [part.upper(), *cells]
        lines.append(f"<tr>{''.join(f'<td>{each}</td>' for each in cells)}</tr>")
    return f"<table>{''.join(lines)}</table>"


def plots(part: str, rows: list[Row]) -> str:
    """The curves of one model."""
    losses = {"validation": points(rows, "validation_loss"), "training": points(rows, "loss")}
    trained: dict[int, Points] = defaultdict(list)
    validated: dict[int, Points] = defaultdict(list)
    for row in rows:
        trained[int(_number(row["level"]))] += points([row], "loss")
        each = (row.get("validation_per_codebook") or "").split()
        for book, value in enumerate(each, start=int(part == "nar")):  # the AR says codebook 0
            validated[book] += points([{**row, "loss": value}], "loss")
    parts = [curve("Loss", losses, "nats per code")]
    if len(trained) > 1:
        parts.append(curve("Training loss by codebook", _named(trained), "nats per code"))
        parts.append(curve("Validation loss by codebook", _named(validated), "nats per code"))
    errors, likeness = points(rows, "WER"), points(rows, "SIM")
    parts.append(curve("Word error rate", {"WER": errors}, "of held-out sentences", zero=True))
    parts.append(curve("Similarity", {"SIM": likeness}, "to the prompt through the codec"))
    gain, rate = points(rows, "text_gain"), points(rows, "rate")
    parts.append(curve("Text gain", {"text gain": gain}, "nats per code", zero=True))
    parts.append(curve("Learning rate", {"rate": rate}, "", zero=True))
    norms, speed = points(rows, "gradient_norm"), points(rows, "frames_per_second")
    step, most = max(norms, key=lambda each: each[1], default=(0, 0))
    title = f"Gradient norm (highest: {most:.3g}, at step {step:.0f})"
    parts.append(curve(title, {"norm": norms}, "", zero=True))
    parts.append(curve("Throughput", {"frames": speed}, "codec frames per second", zero=True))
    skipped = points(rows, "skipped")
    if any(count for _, count in skipped):
        parts.append(curve("Skipped steps", {"skipped": skipped}, "in all", zero=True))
    return "".join(parts)


def curve(title: str, lines: dict[str, Points], beside: str, zero: bool = False) -> str:
    """A plot over steps, a line of each name, the first on top; nothing where there is no value.

    Args:
        beside: What goes up.
        zero: Whether 0 is shown, too.
    """
    lines = {name: thinned(line) for name, line in lines.items() if line}
    if not lines:
        return ""
    every = [point for line in lines.values() for point in line]
    across = scale_of([step for step, _ in every], 60, 580)
    up = scale_of([value for _, value in every] + [0.0] * zero, 230, 20)
    marks = []
    for index, (name, line) in enumerate(lines.items()):
        places = [f"{across(step):.1f} {up(value):.1f}" for step, value in line]
        said, colour = f"<title>{html.escape(name)}</title>", f"c{index % COLOURS}"
        drawn = f'<path class="line" d="M{"L".join(places)}"/>'
        if len(line) == 1:
            [x, y] = places[0].split()
            drawn = f'<circle cx="{x}" cy="{y}" r="3"/>'
        marks.append(f'<g class="{colour}">{said}{drawn}</g>')
    picture = svg(270, [*axes(across, up, "step", beside), *reversed(marks)], title)
    names = legend(list(lines)) if len(lines) > 1 else ""
    return f"<div><h3>{title}</h3>{picture}{names}</div>"


def players(run: Path) -> str:
    """The samples that `--listen` left, newest first, by sentence."""
    found: dict[str, list[tuple[int, Path]]] = defaultdict(list)
    for path in (run / "samples").glob("*-step-*.wav"):
        if name := re.fullmatch(r"(.+)-step-(\d+)", path.stem):
            found[name[1]].append((int(name[2]), path))
    parts = []
    for name, own in sorted(found.items()):
        parts.append(f"<section><h3>{html.escape(name)}</h3>")
        for step, path in sorted(own, reverse=True)[:MOST_SAMPLES]:
            parts.append(
                f"<figure><figcaption>step {step}</figcaption><audio controls "
                f'preload="none" src="samples/{quote(path.name)}"></audio></figure>'
            )
        parts.append("</section>")
    how = "Held-out sentences in held-out voices, through the gate, marked."
    return f"<h2>Samples</h2><p>{how}</p>{''.join(parts)}" if parts else ""


def _named(lines: dict[int, Points]) -> dict[str, Points]:
    return {f"codebook {book}": line for book, line in sorted(lines.items())}


def _number(value: str | None) -> float:
    """Not a number where there is none."""
    try:
        return float(value or "nan")
    except ValueError:
        return math.nan


def _latest(rows: list[Row], column: str) -> float:
    return next((value for _, value in reversed(points(rows, column))), math.nan)


def _cell(value: float, how: str = ".4f") -> str:
    return f"{value:{how}}" if math.isfinite(value) else ""
