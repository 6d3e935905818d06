"""Evaluation: what is broken on purpose scores as broken in the metric meant to catch it."""

import numpy as np
import pytest

from sayso.evaluation.sound import clicks, clipped, level
from sayso.model.audio import read_audio
from speech import KATHLEEN, reader_clips

CLIPS = [*sorted((KATHLEEN / "audio").glob("*.opus"))[:4], *reader_clips()[:4]]


@pytest.mark.parametrize("clip", CLIPS, ids=lambda path: path.stem)
def test_a_jump_is_a_click_and_speech_has_none(clip):
    audio = read_audio(clip, 24_000)[0].numpy()
    assert clicks(audio, 24_000) == 0
    quiet = int(np.convolve(np.abs(audio), np.ones(480), "valid").argmin()) + 240
    audio[quiet:] += 0.1
    assert clicks(audio, 24_000) == 1


def test_two_jumps_far_apart_are_two_clicks():
    audio = np.zeros(24_000, np.float32)
    audio[6_000:12_000] = 0.1
    assert clicks(audio, 24_000) == 2


def test_level_and_clipping_follow_the_gain():
    audio = read_audio(CLIPS[0], 16_000)[0].numpy()
    assert level(audio * 0.5) - level(audio) == pytest.approx(-6.02, abs=0.01)
    assert clipped(audio / np.abs(audio).max() * 0.9) == 0
    loud = audio / np.abs(audio).max() * 4
    assert clipped(np.clip(loud, -1, 1)) == (np.abs(loud) >= 0.999).sum() > 0
