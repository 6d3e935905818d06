"""The robustness benchmark: attacks that do what they say, exact intervals, the table."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `pytest` without `python -m`
from benchmarks.attacks import ATTACKS, PROMISED, RATE, codec_name, spliced
from benchmarks.marks_page import robust_table
from benchmarks.results import interval, share
from sayso.model.bundle import load_bundle


def test_exact_intervals():
    """Against the closed forms where all or none succeed, and a published value for 8 of 10."""
    assert interval(0, 10) == pytest.approx((0.0, 1 - 0.025 ** (1 / 10)))
    assert interval(10, 10) == pytest.approx((0.025 ** (1 / 10), 1.0))
    assert interval(8, 10) == pytest.approx((0.4439, 0.9748), abs=1e-4)
    assert share(8, 10) == "80.0 (44.4-97.5)"


def test_there_are_more_than_25_attacks_and_the_promised_are_among_them():
    assert len(ATTACKS) >= 25 and set(PROMISED) < set(ATTACKS)
    assert "crop to 2 s" in PROMISED and "crop to 1 s" not in PROMISED


@pytest.mark.parametrize("name", [n for n in ATTACKS if n != codec_name()])
def test_every_attack_changes_speech_length_sound(name: str):
    if any(c in name for c in ("bit/s", "Vorbis", "tempo")) and not shutil.which("ffmpeg"):
        pytest.skip("the ffmpeg program is absent")
    rng = np.random.default_rng(1)
    times = np.arange(3 * RATE) / RATE
    voiced = np.sign(np.sin(2 * np.pi * 120 * times)) * (1 + np.sin(2 * np.pi * 3 * times))
    audio = (0.1 * voiced + 1e-3 * rng.standard_normal(len(times))).astype(np.float32)
    out = ATTACKS[name](audio, np.random.default_rng(2))
    assert out.dtype == np.float32 and out.ndim == 1 and np.isfinite(out).all()
    assert 0.9 * RATE <= len(out) <= 3.4 * RATE and float(np.abs(out).max()) > 0.001
    again = ATTACKS[name](audio, np.random.default_rng(2))
    assert np.array_equal(out, again)  # marked and unmarked clips meet the same noise
    if name != "none":
        assert len(out) != len(audio) or not np.array_equal(out, audio)


def test_the_codecs_row_is_the_bundled_models():
    """Figures of another codec must not stand under this one's name."""
    codec = load_bundle().codec
    rate = codec.codebooks * np.log2(codec.codebook_size) * codec.frame_rate / 1000
    assert codec_name() == f"bundled codec {codec.identity[:8]}, {rate:g} kbit/s"


def test_a_splice_keeps_the_middle_and_the_level():
    rng = np.random.default_rng(1)
    audio, other = rng.standard_normal((2, 8 * RATE)).astype(np.float32)
    out = spliced(10 * other)(audio, np.random.default_rng(2))
    assert len(out) == 9 * RATE
    assert out[: 3 * RATE].std() == pytest.approx(audio.std(), rel=0.02)
    place = np.flatnonzero(audio == out[3 * RATE])[0]
    assert np.array_equal(out[3 * RATE : 6 * RATE], audio[place : place + 3 * RATE])


def test_the_table_counts_what_was_measured():
    hit = {"perth": 0.9, "published": 0.9, "keyed": 0.2, "payload": None, "speed": 1.0}
    miss = {**hit, "perth": 0.1, "keyed": 0.1}
    table = robust_table({"a": {"none": hit, "unmarked: none": miss}, "b": {"none": miss}})
    assert len(table) == 3
    cells = [cell.strip() for cell in table[2].strip("|").split("|")]
    assert cells[:3] == ["**none**", "2", share(1, 2)]
    assert cells[3] == share(0, 2) and cells[4] == share(1, 2) and cells[-1] == "0 of 1"
