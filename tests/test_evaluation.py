"""Evaluation: what is broken on purpose scores as broken in the metric meant to catch it."""

import csv
import itertools
import re

import numpy as np
import pytest
import torch

from sayso.evaluation.metrics import (
    Distilled,
    DnsMos,
    Panel,
    Prompt,
    Sample,
    Sound,
    resemblyzer,
    whisper,
)
from sayso.evaluation.sound import clicks, clipped, level
from sayso.evaluation.speakers import wavlm
from sayso.evaluation.words import loops
from sayso.inference.recognisers import RATE, load_ears
from sayso.model.audio import read_audio
from sayso.model.errors import CheckpointError
from sayso.model.text.forced_alignment import Aligner
from sayso.model.text.phonemes import Dictionary
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
    half = audio * np.float32(0.5)
    assert level(half) - level(audio) == pytest.approx(-6.02, abs=0.01)
    assert clipped(audio / np.abs(audio).max() * 0.9) == 0
    loud = audio / np.abs(audio).max() * 4
    assert clipped(np.clip(loud, -1, 1)) == (np.abs(loud) >= 0.999).sum() > 0


def said(number: int) -> tuple[np.ndarray, str]:
    """One of Kathleen's sentences: (samples,) at 16 kHz, and its text."""
    with (KATHLEEN / "metadata.tsv").open(newline="") as file:
        row = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))[number]
    return read_audio(KATHLEEN / "audio" / f"{row['id']}.opus", RATE)[0].numpy(), row["text"]


def word_by_word(audio: np.ndarray, text: str) -> list[np.ndarray]:
    """The pieces of a recording, each a word."""
    words, dictionary = re.findall(r"[a-z']+", text.lower()), Dictionary()
    starts = Aligner().word_starts(audio, [dictionary.phones(word) for word in words])
    edges = [0, *(int(start * RATE) for start in starts[1:]), len(audio)]
    return [audio[a:b] for a, b in itertools.pairwise(edges)]


@pytest.fixture(scope="module")
def ears():
    return load_ears()


@pytest.fixture(scope="module")
def listen(ears, tmp_path_factory):
    """Judges what a model said of Kathleen's prompt with the metrics that are cheap."""
    panel = Panel(
        [whisper("tiny.en", ears), resemblyzer(ears), Sound()], tmp_path_factory.mktemp("cache")
    )
    prompt = Prompt(*said(3))

    def judge(audio: np.ndarray, text: str) -> dict:
        return panel(Sample(audio.astype(np.float32), RATE, text, prompt))

    return judge


@pytest.fixture(scope="module")
def good(listen):
    audio, text = said(2)
    return listen(audio, text)


def test_a_recording_scores_as_sound(good):
    assert good["errors"] <= 0.1 * good["words"] and good["character errors"] < 5
    assert good["repeats"] == good["skipped"] == good["over-long"] == good["clicks"] == 0
    assert good["SIM-o"] > 0.7 and good["same pitch"] and abs(good["level"]) < 3
    assert 0.7 < good["rate"] < 1.4


def test_shuffled_text_is_caught_by_word_errors(listen, good):
    audio, text = said(2)
    broken = listen(audio, " ".join(reversed(text.rstrip(".").split())))
    assert broken["errors"] > 0.5 * broken["words"]
    assert broken["SIM-o"] == good["SIM-o"]


def test_another_speaker_is_caught_by_similarity(listen, good):
    audio = read_audio(reader_clips()[3], RATE)[0].numpy()
    assert listen(audio, "Whatever.")["SIM-o"] < 0.65 < good["SIM-o"]


def test_silence_is_caught_by_deletions_and_similarity(listen):
    audio, text = said(2)
    broken = listen(np.zeros_like(audio), text)
    assert broken["deletions"] >= 0.9 * broken["words"] and broken["skipped"] > 0
    assert broken["SIM-o"] == 0 and not broken["same pitch"] and broken["level"] < -20


def test_speech_without_end_is_caught_by_length_and_insertions(listen):
    audio, text = said(2)
    broken = listen(np.tile(audio, 4), text)
    assert broken["over-long"] and broken["insertions"] >= 2 * broken["words"]
    assert broken["rate"] < 0.5


def test_every_word_twice_is_caught_by_repeats(listen):
    audio, text = said(1)  # short words said twice may be heard once
    twice = [piece for word in word_by_word(audio, text) for piece in (word, word)]
    broken = listen(np.concatenate(twice), text)
    assert broken["repeats"] >= 3 and broken["insertions"] >= 0.5 * broken["words"]


def test_noise_is_caught_by_every_judge_of_quality(ears):
    audio, text = said(2)
    noise = 0.05 * np.random.default_rng(0).standard_normal(len(audio), np.float32)
    for judge in (DnsMos(ears), Distilled()):
        clean, noisy = (judge(Sample(each, RATE, text)) for each in (audio, audio + noise))
        assert all(noisy[column] < clean[column] - 0.3 for column in clean)


def test_what_was_judged_is_not_judged_again_and_what_differs_is(tmp_path):
    class Counts(Sound):
        calls = 0

        def __call__(self, sample):
            Counts.calls += 1
            return {"calls": Counts.calls}

    panel, audio = Panel([Counts()], tmp_path), said(2)[0]
    prompt = Prompt(audio, "One.")
    assert [panel(Sample(audio, RATE, "One.", prompt))["calls"] for _ in range(2)] == [1, 1]
    assert panel(Sample(audio, RATE, "Two.", prompt))["calls"] == 2
    assert panel(Sample(audio, RATE, "One.", Prompt(audio, "Two.")))["calls"] == 3
    assert panel(Sample(audio, 8000, "One.", prompt))["calls"] == 4
    assert len(list(tmp_path.iterdir())) == 4


def test_loops_are_phrases_said_again_at_once():
    assert loops("a b a b c".split()) == 1
    assert loops("a a b b".split()) == 2
    assert loops("a b c d a".split()) == 0


def test_a_wavlm_is_loaded_whole_or_not_at_all(tmp_path):
    from safetensors.torch import load_file, save_file
    from transformers import Wav2Vec2FeatureExtractor, WavLMConfig, WavLMForXVector

    torch.manual_seed(0)
    config = WavLMConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        conv_dim=(8,) * 7,
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2,
        tdnn_dim=(16,) * 5,
        xvector_output_dim=12,
    )
    WavLMForXVector(config).save_pretrained(tmp_path)
    Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(tmp_path)
    metric, audio = wavlm(tmp_path), said(2)[0]
    values = metric(Sample(audio, RATE, "", Prompt(audio), Prompt(said(4)[0])))
    assert values["SIM-o"] == pytest.approx(1, abs=1e-3) and len(values["own"]) == 12
    assert values["SIM-r"] < 1
    weights = load_file(tmp_path / "model.safetensors")
    kept = {name: value for name, value in weights.items() if "tdnn.4" not in name}
    save_file(kept, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"tdnn\.4"):
        wavlm(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="holds no WavLM"):
        wavlm(tmp_path)
