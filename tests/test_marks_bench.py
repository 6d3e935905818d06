"""The robustness benchmark: attacks that do what they say, exact intervals, the table."""

import shutil

import numpy as np
import pytest
import torch

from benchmarks.attacks import ATTACKS, PROMISED, RATE, codec_name, spliced
from benchmarks.marks import pattern_between
from benchmarks.marks_page import forged_table, robust_table
from benchmarks.results import interval, share
from sayso.inference.watermark.keyed import Keyed
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
    assert codec_name().startswith(f"bundled codec {load_bundle().codec.identity[:8]}, ")


def test_a_splice_keeps_the_middle_and_the_level():
    rng = np.random.default_rng(1)
    audio, other = rng.standard_normal((2, 8 * RATE)).astype(np.float32)
    out = spliced(10 * other)(audio, np.random.default_rng(2))
    assert len(out) == 9 * RATE
    assert out[: 3 * RATE].std() == pytest.approx(audio.std(), rel=0.02)
    place = np.flatnonzero(audio == out[3 * RATE])[0]
    assert np.array_equal(out[3 * RATE : 6 * RATE], audio[place : place + 3 * RATE])


def test_the_tables_count_what_was_measured():
    keyed = {
        "a": {"none": [0.9, 0.8, 1]},
        "b": {"none": [0.2, 0.7, 1]},
        "c": {"none": [0, 0.6, -1]},
    }
    table = robust_table(keyed, {"a": {"none": [0.9, 0.1]}})
    assert len(table) == 3
    cells = [cell.strip() for cell in table[2].strip("|").split("|")]
    assert cells == ["**none**", "3", share(1, 3), share(2, 3), "1", "1", share(1, 1), "0"]
    row = {"cells": {"own": 1.0, "next": 0.5}, "forged": [10, 0, 9], "washed": [8, 7, 8]}
    line = forged_table({"4": row, "originals": {"washed": [8, 0, 8]}})[2]
    assert line == "| 4 | 100 | 50 | 0 of 10 | 9 of 10 | 7 of 8 | 8 of 8 |"


def test_what_is_learnt_of_one_output_is_its_pattern_and_no_other():
    random = torch.Generator().manual_seed(1)
    plain = 0.1 * torch.randn(4 * RATE, generator=random)
    mark = Keyed(bytes(32))
    learnt = pattern_between(plain, mark.embed(plain, RATE, "a"))
    at = learnt.abs().amax(1) > 0
    agree = [(learnt.sign() == mark.chips(row))[at].float().mean() for row in ("a", "b")]
    assert agree[0] > 0.9 and 0.4 < agree[1] < 0.6
