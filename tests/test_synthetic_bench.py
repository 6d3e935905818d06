"""The figures of docs/detector.md: equal error rates, their intervals, the page."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("jiwer", reason="the bench extra is absent")
pytest.importorskip("whisper_normalizer", reason="the bench extra is absent")
from sayso.inference.detection.classifier import KINDS
from tools import classifier_page as synthetic_page
from tools.classifier_clips import voice_of
from tools.fit_classifier import compared, equal_error, interval


def test_equal_error_rates():
    low, high = np.arange(10.0), np.arange(10.0) + 20
    assert equal_error(low, high) == 0.0
    assert equal_error(high, low) == pytest.approx(1.0, abs=0.05)
    assert equal_error(low, low) == pytest.approx(0.5, abs=0.05)
    one_wrong = np.concatenate([low[:9], [50.0]])  # one of ten of the others is over all of ours
    assert equal_error(one_wrong, np.concatenate([high[:9], [-5.0]])) == pytest.approx(0.1)


def test_the_interval_draws_voices_not_clips():
    """Twenty clips of one bad voice say no more than that one voice is bad."""
    ours = {f"v{i}": [1.0] * 20 for i in range(10)}
    few = {f"v{i}": [2.0 if i == 0 else 0.0] * 20 for i in range(10)}
    many = {f"w{i}": [2.0 if i % 10 == 0 else 0.0] for i in range(200)}
    narrow, wide = interval(many, ours), interval(few, ours)
    assert wide[1] - wide[0] > 1.5 * (narrow[1] - narrow[0])


def test_voices_by_file_name():
    names = ("reader-19-198-209-0000.wav", "reader-19-3.wav", "kathleen-arctic_a0001.wav")
    assert [voice_of(Path(n)) for n in names] == ["reader-19", "reader-19", "kathleen"]
    assert voice_of(Path("nobody-11.wav")) == "nobody"


def test_the_page_shows_both_rates_and_every_stranger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    scores = {
        KINDS[0]: {"a": [-2.0, -1.0], "b": [3.0]},
        KINDS[1]: {"a": [-1.0, -1.0], "b": [-1.0]},
        KINDS[2]: {"a": [2.0, 4.0], "b": [-4.0, 4.0], "nobody": [5.0]},
    }
    rows = {
        **{"model": "abc", "threshold": 0.0, "parameters": 73000, "cost": 0.01},
        "conditions": {"as recorded": compared(scores, 0.0)},
        "voices": {
            "a": {KINDS[0]: [0, 2], KINDS[1]: [0, 2], KINDS[2]: [2, 2]},
            "b": {KINDS[0]: [1, 1], KINDS[1]: [0, 1], KINDS[2]: [1, 2]},
        },
        "strangers": {
            "espeak-ng": {"called ours": 1, "clips": 4, "equal error against recordings": 0.6}
        },
    }
    monkeypatch.setattr(synthetic_page, "PAGE", tmp_path / "detector.md")
    synthetic_page.write_page(rows)
    page = (tmp_path / "detector.md").read_text()
    assert "{" not in page and "100 times faster" in page
    line = next(line for line in page.splitlines() if line.startswith("| as recorded"))
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert [cell.split(" ")[0] for cell in cells[1:4]] == ["33.3", "0.0", "20.0"]
    assert cells[-1] == "3 / 3 / 5"
    assert "| b | 1 of 1 | 0 of 1 | 1 of 2 |" in page and "other 1 voices: a." in page
    assert "| espeak-ng | 25.0 (" in page and "| 75.0 (" in page and "| 60 | 4 |" in page
