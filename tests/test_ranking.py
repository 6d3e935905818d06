"""Several samples, one kept (Eq. 23): real recordings as samples, real ears, and the whole path."""

import numpy as np
import pytest
import soundfile
import soxr

from sayso.inference.detection.detector import detect
from sayso.inference.ranking import ENOUGH, best
from sayso.inference.recognisers import embedding, load_ears
from sayso.inference.store.store import Store
from sayso.inference.synthesizer import MOST_SAMPLES, Synthesizer
from sayso.model.errors import InputError
from sayso.training.readers import Utterance, read_corpus

pytest.importorskip("faster_whisper", reason="the extra `enrol` is not installed")
TEXT = "The cat sat on the mat."


@pytest.fixture(scope="module")
def ears():
    return load_ears()


@pytest.fixture(scope="module")
def readings(kathleen) -> list[Utterance]:
    return read_corpus("kathleen", kathleen)[:3]


def heard(utterance: Utterance) -> np.ndarray:
    audio, rate = soundfile.read(utterance.path, dtype="float32")
    return soxr.resample(audio, rate, 16_000).astype(np.float32)


def test_the_sample_with_the_right_words_is_kept(ears, readings):
    takes = [heard(each) for each in readings]
    for number, reading in enumerate(readings):
        assert best(takes, takes[0], reading.text, ears) == number


def test_another_voice_loses_even_with_the_right_words(ears, readings):
    """Voice comes first, up to ENOUGH: lexicographic, as in the paper."""
    takes = [heard(each) for each in readings]
    faster = soxr.resample(takes[1], 16_000, 11_000).astype(np.float32)  # 6 semitones up
    likeness = embedding(ears.voices(faster)) @ embedding(ears.voices(takes[0]))
    assert likeness < ENOUGH
    assert best([faster, takes[2]], takes[0], readings[1].text, ears) == 1


def test_equals_and_silence(ears, readings):
    take = heard(readings[0])
    silence = np.zeros(16_000, np.float32)
    assert best([take, take], take, readings[0].text, ears) == 0
    assert best([silence, take], take, readings[0].text, ears) == 1
    assert best([silence], silence, readings[0].text, ears) == 0


def test_speak_keeps_the_best_of_several(ears, tmp_path):
    """Marked as ever, and the same seed makes the same choice."""
    speaker = Synthesizer(store=Store.open(tmp_path / "home"))
    spoken = speaker.speak(TEXT, "nobody", tmp_path / "best.wav", samples=3, seed=0)
    assert detect(tmp_path / "best.wav", tmp_path / "home").present
    again = speaker.speak(TEXT, "nobody", tmp_path / "again.wav", samples=3, seed=0)
    assert again.seconds == spoken.seconds
    assert again.ledger_id != spoken.ledger_id  # but another row


@pytest.mark.parametrize("samples", [0, -1, MOST_SAMPLES + 1])
def test_a_number_of_samples_that_makes_no_sense_is_refused(samples, tmp_path):
    speaker = Synthesizer(store=Store.open(tmp_path / "home"))
    with pytest.raises(InputError, match=f"{samples} samples"):
        speaker.speak(TEXT, "nobody", tmp_path / "no.wav", samples=samples)
    assert not (tmp_path / "no.wav").exists()
