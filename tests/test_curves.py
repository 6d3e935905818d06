"""The page of a training run: what the logs say, and nothing from elsewhere."""

import csv
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from sayso.cli import app
from sayso.evaluation.curves import MOST_POINTS, thinned, write_page
from sayso.model.audio import write_audio
from sayso.model.errors import InputError
from sayso.training.log import COLUMNS
from sayso.training.train import train_ar, train_nar
from training_fixtures import rows, small_recipe, write_tokens


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """Both models of six steps, in a folder with an odd name, and a sample."""
    base = tmp_path_factory.mktemp("curves")
    tokens = write_tokens(base / "tokens", rows(40))
    more: dict[str, Any] = {}
    for part in ("ar", "nar"):
        more |= {f"{part}__train__steps": 6, f"{part}__train__validate_every": 3}
    recipe = small_recipe(base / "a<b>&c", tokens, **more)
    train_ar(recipe, report=lambda line: None)
    train_nar(recipe, report=lambda line: None)
    samples = Path(recipe.run) / "samples"
    samples.mkdir()
    for step in (3, 6):
        write_audio(samples / f"VCTK & #1-step-{step:08d}.wav", torch.zeros(2400), 24_000)
    return Path(recipe.run)


def test_the_page_has_the_curves_and_figures_of_both_models(run):
    done = CliRunner().invoke(app, ["train", "report", str(run)])
    assert done.exit_code == 0 and "report.html: open it" in done.output
    page = (run / "report.html").read_text()
    assert "<h1>Training: a&lt;b&gt;&amp;c</h1>" in page and "a<b>" not in page
    with (run / "logs" / "nar.csv").open() as lines:
        log = list(csv.DictReader(lines))
    best = min((float(r["validation_loss"]), r["step"]) for r in log if r["validation_loss"])
    assert f"<td>{best[0]:.4f} (step {best[1]})</td>" in page
    ar, nar = page.split("<h2>NAR</h2>")
    titles = ["Loss", "Text gain", "Learning rate", r"Gradient norm \(highest", "Throughput"]
    assert all(len(re.findall(f"<h3>{title}", page)) == 2 for title in titles)
    assert "by codebook" not in ar and "Skipped" not in page
    validated = nar.partition("Validation loss by codebook")[2]
    assert all(f'<li class="c{k - 1}">codebook {k}</li>' in validated for k in (1, 2, 3))
    assert not re.search(r"https?:|<script|<link|url\(", page)


def test_samples_can_be_heard_newest_first(run):
    page = write_page(run).read_text()
    found = re.findall(r'src="([^"]+)"', page)
    assert found == [f"samples/VCTK%20%26%20%231-step-{step:08d}.wav" for step in (6, 3)]
    assert "<h3>VCTK &amp; #1</h3>" in page


def log_of(run: Path, lines: list[dict[str, Any]], rest: str = "") -> None:
    path = run / "logs" / "ar.csv"
    path.parent.mkdir(parents=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(lines)
        file.write(rest)


def test_a_log_of_a_bad_run_that_was_killed_is_shown_as_far_as_it_goes(tmp_path):
    common = {"minutes": "0.1", "level": 0, "rate": "1e-4"}
    lines = [
        {**common, "step": 1, "loss": "3.5", "gradient_norm": "2", "skipped": 0},
        {**common, "step": 2, "loss": "nan", "gradient_norm": "inf", "skipped": 1},
        {**common, "step": 3, "loss": "3.25", "gradient_norm": "152", "skipped": 1},
    ]
    log_of(tmp_path, lines, rest="4,0.1,3.")
    page = write_page(tmp_path).read_text()
    assert "Skipped steps" in page and "highest: 152, at step 3" in page
    assert "Text gain" not in page and "nan" not in page and "inf" not in page
    assert "Word error rate" not in page
    lines[1] |= {"WER": "0.5", "SIM": "0.6"}
    log_of(tmp_path / "judged", lines)
    page = write_page(tmp_path / "judged").read_text()
    assert "<h3>Word error rate</h3>" in page and "<h3>Similarity</h3>" in page


def test_a_long_run_is_a_line_of_means(tmp_path):
    line = [(float(step), float(step % 2)) for step in range(10 * MOST_POINTS)]
    short = thinned(line)
    assert len(short) == MOST_POINTS and all(value == 0.5 for _, value in short)
    assert thinned(line[:9]) == line[:9]


def test_what_is_no_run_is_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(InputError, match="has no log of a step"):
        write_page(tmp_path)
    log_of(tmp_path, [])
    with pytest.raises(InputError, match="has no log of a step"):
        write_page(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["logs"]
    (tmp_path / "other").mkdir()
    log_of(tmp_path / "other", [{"step": 1, "loss": 2.0, "level": 0, "minutes": 1}])
    (tmp_path / "other" / "report.html").mkdir()
    with pytest.raises(InputError, match="cannot be written"):
        write_page(tmp_path / "other")
