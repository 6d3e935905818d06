"""Speed, pitch and formants: what they change, what they leave, and who is asked."""

import math
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.emphasis import measures, stretched
from sayso.inference.consent.other_voices import issue_corpus_voice
from sayso.inference.errors import RefusedError
from sayso.inference.saying import check_emphasis
from sayso.inference.store.store import Store
from sayso.inference.synthesizer import Synthesizer
from sayso.model.ar import AR, ARConfig
from sayso.model.audio import read_audio
from sayso.model.bundle import load_bundle
from sayso.model.codecs.voice_edit import Alteration
from sayso.model.codecs.world import (
    Features,
    WorldConfig,
    alter,
    analyse,
    pyworld,
    synthesise,
    warp,
)
from sayso.model.errors import InputError
from sayso.model.nar import NAR, NARConfig
from sayso.model.text.normalization import pieces
from sayso.model.transformer import Size
from sayso.model.valle2 import Valle2

CONFIG = WorldConfig()


def vowel(f0: float = 120.0, resonance: float = 700.0, frames: int = 40) -> Features:
    """A buzz with one resonance and an unvoiced middle."""
    size = pyworld.get_cheaptrick_fft_size(CONFIG.sample_rate)
    hertz = np.arange(size // 2 + 1) * CONFIG.sample_rate / size
    spectrum = 1e-4 * np.exp(-(((hertz - resonance) / 250) ** 2)) + 1e-8
    rows = np.tile(spectrum, (frames, 1))
    pitch = np.full(frames, f0)
    pitch[frames // 2 : frames // 2 + 5] = 0.0
    envelope = pyworld.code_spectral_envelope(rows, CONFIG.sample_rate, CONFIG.envelope)
    return Features(envelope, pitch, np.full((frames, CONFIG.bands), -20.0))


def peak(envelope: np.ndarray) -> float:
    """Hz of the strongest resonance."""
    size = pyworld.get_cheaptrick_fft_size(CONFIG.sample_rate)
    spectrum = pyworld.decode_spectral_envelope(envelope[:1].copy(), CONFIG.sample_rate, size)
    return float(spectrum[0].argmax()) * CONFIG.sample_rate / size


def test_nothing_asked_changes_nothing():
    before = vowel()
    after = alter(before, CONFIG, Alteration())
    assert all(np.array_equal(a, b) for a, b in zip(before[:3], after[:3], strict=True))
    assert Alteration().neutral and not Alteration(speed=1.5).neutral
    assert not Alteration(speed=1.5).changes_voice
    assert Alteration(pitch=1).changes_voice and Alteration(formant=1.1).changes_voice


@pytest.mark.parametrize("semitones", [-12, -3, 4, 12])
def test_pitch_moves_f0_and_nothing_else(semitones):
    before = vowel()
    after = alter(before, CONFIG, Alteration(pitch=semitones))
    voiced = before.f0 > 0
    ratio = 2 ** (semitones / 12)
    np.testing.assert_allclose(after.f0[voiced], before.f0[voiced] * ratio)
    assert not after.f0[~voiced].any()
    assert np.array_equal(after.envelope, before.envelope)


@pytest.mark.parametrize("factor", [0.8, 1.25])
def test_formants_move_the_resonance_and_leave_the_pitch(factor):
    before = vowel(resonance=1000)
    after = alter(before, CONFIG, Alteration(formant=factor))
    assert peak(after.envelope) / peak(before.envelope) == pytest.approx(factor, rel=0.06)
    assert np.array_equal(after.f0, before.f0)
    back = warp(after.envelope, CONFIG, 1 / factor)
    assert peak(back) == pytest.approx(peak(before.envelope), rel=0.06)


@settings(max_examples=40, deadline=None)
@given(st.floats(0.5, 2.0), st.integers(1, 60))
def test_speed_divides_the_length(speed, frames):
    after = alter(vowel(frames=frames), CONFIG, Alteration(speed=speed))
    assert len(after.f0) == max(1, round(frames / speed))
    assert len(after.envelope) == len(after.aperiodicity) == len(after.f0)
    assert all(np.isfinite(part).all() for part in after[:3])


@pytest.mark.parametrize(
    "values", [{"speed": 0.4}, {"pitch": 13.0}, {"formant": 2.0}, {"speed": math.nan}]
)
def test_what_is_out_of_range_is_named(values):
    name = next(iter(values))
    with pytest.raises(InputError, match=f"{name} is .* it must be from"):
        Alteration(**values)


def test_real_speech_is_heard_higher_and_shorter(kathleen):
    """Measured on the sound that comes out, not on the features that went in."""
    audio, rate = soundfile.read(sorted((kathleen / "audio").iterdir())[3], dtype="float32")
    assert rate == CONFIG.sample_rate
    before = analyse(audio, CONFIG)
    after = alter(before, CONFIG, Alteration(speed=1.25, pitch=5.0))
    heard = analyse(synthesise(after, CONFIG), CONFIG)
    ratio = np.median(heard.f0[heard.f0 > 0]) / np.median(before.f0[before.f0 > 0])
    assert ratio == pytest.approx(2 ** (5 / 12), rel=0.05)
    assert len(heard.f0) == pytest.approx(len(before.f0) / 1.25, rel=0.02)


def test_speak_takes_them(tmp_path):
    """nobody's receipt allows it."""
    speaker = Synthesizer(store=Store.open(tmp_path / "home"))
    plain = speaker.speak("Yes, it rains.", "nobody", tmp_path / "a.wav", seed=0)
    faster = speaker.speak(
        "Yes, it rains.", "nobody", tmp_path / "b.wav", seed=0, alteration=Alteration(1.6, 3.0)
    )
    assert faster.seconds == pytest.approx(plain.seconds / 1.6, abs=0.03)
    assert faster.watermark_score > 0.5


def test_an_emphasised_word_is_longer_louder_and_higher(tmp_path, monkeypatch):
    """Beside the same sentence without the marks, in the files that come out."""
    speaker, where = Synthesizer(store=Store.open(tmp_path / "home")), []
    say = speaker.bundle.codec.speak_all

    def seen(said):
        where.extend(one.stressed for one in said)
        return say(said)

    monkeypatch.setattr(speaker.bundle.codec, "speak_all", seen)
    said = []
    for name, text in (("a", "The water is cold today."), ("b", "The *water* is cold today.")):
        out = tmp_path / f"{name}.wav"
        speaker.speak(text, "nobody", out, seed=0)
        said.append(read_audio(out, speaker.bundle.codec.sample_rate)[0])
    word = where[-1].numpy()
    assert where[0] is None and 0 < word.sum() < len(word)
    plain = measures(said[0], word, CONFIG)
    stressed = measures(said[1], stretched(word), CONFIG)
    assert len(said[1]) > len(said[0])
    assert stressed[0] > plain[0] + 1
    assert stressed[1] > plain[1] + math.log(2) / 24


def test_emphasis_is_an_alteration_to_the_receipt(tmp_path):
    with Store.open(tmp_path / "home") as store:
        speaker, text = Synthesizer(store=store), "The *water* is cold."
        codec = speaker.bundle.codec
        codes = codec.as_prompt(torch.zeros(codec.codebooks, 100, dtype=torch.long))
        issue_corpus_voice(
            store, "reader", codes, "so", codec.identity, "Kathleen", "kathleen", [text]
        )
        out = tmp_path / "a.wav"
        with pytest.raises(RefusedError, match="scope-alter"):
            speaker.speak(text, "reader", out, "benchmark")
        assert not out.exists()


def test_models_that_cannot_emphasise_say_so():
    bundle, size = load_bundle(device="cpu"), Size(1, 2, 16, 32)
    text, codec = bundle.tokenizer.size, bundle.codec
    ar = AR(ARConfig(text, codec.codebook_size, size=size))
    nar = NAR(NARConfig(text, codec.codebook_size, codec.codebooks, size=size))
    without = replace(bundle, model=Valle2(ar, nar))
    assert check_emphasis(bundle, pieces("So *it* is."))
    assert not check_emphasis(without, pieces("So it is."))
    with pytest.raises(InputError, match=r"\*it\* asks for emphasis.*`alignment`"):
        check_emphasis(without, pieces("So *it* is."))
