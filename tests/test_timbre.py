"""Timbre: measured, taken off and put on; usual where nothing was heard; part of a model folder."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from sayso.model.bundle import BUNDLED, load_bundle
from sayso.model.codecs.encodec import EncodecCodec, EncodecConfig
from sayso.model.codecs.load import load_codec
from sayso.model.codecs.timbre import SpeechModel, TimbreConfig
from sayso.model.codecs.timbre_codec import TimbreCodec
from sayso.model.codecs.voice_edit import Alteration
from sayso.model.codecs.world import (
    Features,
    WorldCodec,
    WorldConfig,
    alter,
    analyse,
    concatenate,
)
from sayso.model.errors import CheckpointError, InputError
from sayso.model.text.tokenizers import Phonemes
from sayso.training.fitting.timbre import fit_timbre, fit_timbres
from sayso.training.fitting.world import fit_world
from sayso.training.prepare import prepare
from sayso.training.readers import Utterance, read_corpus
from sayso.training.speech import Filters, read_speech
from sayso.training.tokens import open_tokens


def voice(pitch: float, level: float, seed: int, frames: int = 400) -> Features:
    """Two sounds, by turns voiced and unvoiced, of somebody with that pitch and level."""
    random = np.random.default_rng(seed)
    voiced = np.arange(frames) // 10 % 2 == 0
    sound = np.where(np.arange(frames) // 20 % 2 == 0, 1.0, -1.0)
    envelope = level + sound[:, None] * np.arange(1, 5) + random.normal(0, 0.3, (frames, 4))
    f0 = np.where(voiced, pitch * np.exp(random.normal(0, 0.1, frames)), 0.0)
    return Features(envelope, f0, np.where(voiced[:, None], -20.0, 0.0))


@pytest.fixture(scope="module")
def model() -> SpeechModel:
    heard = [voice(100 + 20 * i, i / 2, i) for i in range(6)]
    return fit_timbre(heard, TimbreConfig(4, 2))


def test_what_is_put_on_is_what_is_measured(model):
    said, prompt = voice(220, 3, 10), voice(90, -2, 11)
    wanted = model.measure(prompt)
    changed = model.change(said, model.measure(said), wanted)
    found = model.measure(changed)
    for name in ("pitch", "level", "spread"):
        before, after, aim = (getattr(t, name) for t in (model.measure(said), found, wanted))
        assert np.abs(after - aim).max() < 0.1 * np.abs(before - aim).max() + 0.05, name
    assert np.array_equal(changed.f0 > 0, said.f0 > 0)
    assert np.array_equal(changed.aperiodicity, said.aperiodicity)
    words = [np.corrcoef(changed.envelope[:, i], said.envelope[:, i])[0, 1] for i in range(4)]
    assert min(words) > 0.95  # the same sounds at the same times


def test_taken_off_and_put_on_again_it_is_the_same(model):
    said = voice(150, 1, 12)
    own = model.measure(said)
    again = model.change(model.change(said, own, model.usual), model.usual, own)
    np.testing.assert_allclose(again.f0, said.f0, rtol=1e-9)
    assert np.abs(again.envelope - said.envelope).mean() < 0.05


def test_of_no_speech_the_timbre_is_the_usual(model):
    silence = Features(np.zeros((0, 4)), np.zeros(0), np.zeros((0, 3)))
    for measured, usual in zip(model.measure(silence), model.usual, strict=True):
        np.testing.assert_array_equal(measured, usual)


def test_a_whisper_has_the_usual_pitch_and_a_voice_of_its_own(model):
    said = voice(150, 3, 13)
    whisper = said._replace(f0=np.zeros_like(said.f0))
    timbre = model.measure(whisper)
    np.testing.assert_array_equal(timbre.pitch, model.usual.pitch)
    np.testing.assert_array_equal(timbre.level[1], model.usual.level[1])
    assert timbre.level[0].mean() > model.usual.level[0].mean() + 0.5
    changed = model.change(whisper, model.usual, timbre)
    assert not changed.f0.any() and np.isfinite(changed.envelope).all()


def test_equal_seeds_give_equal_models_that_survive_saving(model, tmp_path):
    heard = [voice(100 + 20 * i, i / 2, i) for i in range(6)]
    again = fit_timbre(heard, TimbreConfig(4, 2))
    model.save(tmp_path)
    loaded = SpeechModel.load(tmp_path)
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
        assert torch.equal(loaded.state_dict()[name], value), name
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        SpeechModel.load(tmp_path)


def test_too_little_speech_and_wrong_pivots_are_refused(tmp_path):
    with pytest.raises(InputError, match="cannot fit"):
        fit_timbre([voice(100, 0, 0, 60)], TimbreConfig(4, 16))
    with pytest.raises(InputError, match="none of the corpora"):
        fit_timbres({"librispeech-clips": tmp_path}, tmp_path / "out", "kathleen")
    with pytest.raises(InputError, match="share 2"):
        fit_timbres({"kathleen": tmp_path}, tmp_path / "out", "kathleen", 2)
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def few(kathleen, tmp_path_factory) -> Path:
    """A corpus of twelve of Kathleen's sentences."""
    root = tmp_path_factory.mktemp("kathleen")
    lines = (kathleen / "metadata.tsv").read_text().splitlines(keepends=True)
    (root / "audio").mkdir()
    for id in [line.split("\t")[0] for line in lines[1:12]]:
        (root / "audio" / f"{id}.opus").symlink_to((kathleen / "audio" / f"{id}.opus").resolve())
    (root / "metadata.tsv").write_text("".join(lines[:12]))
    return root


def _analysed(utterance: Utterance) -> Features:
    audio = read_speech(utterance.recording, WorldConfig().sample_rate, Filters())
    return analyse(audio[0].numpy(), WorldConfig())


@pytest.fixture(scope="module", params=[0.0, 1.0])
def fitted(request, few, tmp_path_factory) -> tuple[float, Path]:
    """A timbre folder with nothing or all of her voice in its pivot."""
    out = tmp_path_factory.mktemp("timbre")
    fit_timbres({"kathleen": few}, out, "kathleen", request.param, most=4, codebooks=2)
    return request.param, out


def test_the_share_is_how_much_of_the_voice_is_in_the_pivot(fitted):
    share, folder = fitted
    model = SpeechModel.load(folder)
    away = np.abs(model.pivot.shift - model.usual.shift).max()
    assert (away > 0.01) == (share > 0)
    assert json.loads((folder / "corpora.json").read_text())["share"] == share
    assert WorldCodec.load(folder / "codec").codebooks == 2


@pytest.mark.parametrize("fitted", [1.0], indirect=True)
def test_token_files_hold_speech_in_the_pivot_and_say_so(fitted, few, tmp_path):
    model = SpeechModel.load(fitted[1])
    # Well above her: her own pivot would be hard to tell from her recordings.
    model.pivot = model.pivot._replace(pitch=model.pivot.pitch + np.array([0.3, 0]))
    config = WorldConfig(codebooks=6, codebook_size=256)
    heard = [_analysed(utterance) for utterance in read_corpus("kathleen", few)[:4]]
    higher = [model.change(each, model.measure(each), model.pivot) for each in heard]
    codec = fit_world([*heard, *higher], config, iterations=4)
    changed = TimbreCodec(codec, model, codec)
    assert prepare("kathleen", few, tmp_path / "a", changed, Phonemes(), limit=6)
    tokens = open_tokens([tmp_path / "a"], ["kathleen"])
    assert tokens.timbre == model.identity
    said = [codec.features(torch.tensor(tokens.example((i,))[1].T.copy()).long()) for i in range(6)]
    found = model.measure(concatenate(said))
    assert abs(found.pitch[0] - model.pivot.pitch[0]) < 0.08
    assert np.abs(found.level - model.pivot.level).mean() < 0.1
    assert prepare("kathleen", few, tmp_path / "b", codec, Phonemes(), limit=6)
    with pytest.raises(InputError, match="another timbre"):
        open_tokens([tmp_path / "a", tmp_path / "b"], ["kathleen"])
    with pytest.raises(InputError, match="other settings \\(timbre"):
        prepare("kathleen", few, tmp_path / "b", changed, Phonemes(), limit=6)


def test_only_a_world_codec_takes_a_timbre(tmp_path):
    EncodecCodec(EncodecConfig(filters=2, dimension=8, codebooks=2, codebook_size=8)).save(tmp_path)
    with pytest.raises(CheckpointError, match="WORLD codec"):
        load_codec(tmp_path, BUNDLED / "timbre")


@pytest.fixture(scope="module")
def bundled() -> TimbreCodec:
    codec = load_bundle().codec
    assert isinstance(codec, TimbreCodec)
    return codec


@pytest.fixture(scope="module")
def nobody() -> torch.Tensor:
    return load_file(BUNDLED / "voices" / "nobody" / "prompt.safetensors")["codes"]


def test_the_bundled_model_speaks_in_the_prompts_timbre(bundled: TimbreCodec, nobody: torch.Tensor):
    prompts, timbre = bundled.prompts, bundled.timbre
    lower = Alteration(pitch=-6, formant=0.85)
    prompt = prompts.quantize(alter(prompts.features(nobody), prompts.config, lower))
    wanted = timbre.measure(prompts.features(prompt))
    assert bundled.read(prompt).shape == (bundled.codebooks, prompt.shape[1])
    found = timbre.measure(bundled.voiced(bundled.read(prompt), prompt))
    assert abs(found.pitch[0] - wanted.pitch[0]) < 0.1
    away = np.abs(timbre.pivot.level - wanted.level).mean()
    assert np.abs(found.level - wanted.level).mean() < 0.3 * away
    assert bundled.read(prompt[:, :0]).shape == (bundled.codebooks, 0)


def test_a_prompt_is_measured_once_for_all_takes(bundled, nobody, monkeypatch):
    measured = []
    measure = SpeechModel.measure
    monkeypatch.setattr(
        SpeechModel, "measure", lambda self, said: measured.append(1) or measure(self, said)
    )
    bundled._known.clear()
    codes = bundled.read(nobody)
    takes = [bundled.speak(codes, nobody) for _ in range(3)]
    assert len(measured) == 1
    assert torch.equal(takes[0], takes[2])
    assert not torch.equal(bundled.speak(codes, nobody[:, :0])[: len(takes[0])], takes[0])
    other = nobody.flip(1)
    bundled.read(other)
    assert len(measured) == 2


def test_prompts_made_of_the_models_codes_are_in_the_usual_timbre(bundled, nobody):
    prompt = bundled.as_prompt(bundled.read(nobody))
    assert prompt.shape == nobody.shape
    found = bundled.timbre.measure(bundled.prompts.features(prompt))
    assert abs(found.pitch[0] - bundled.timbre.usual.pitch[0]) < 0.1


def test_a_prompt_in_a_voice_is_nearer_to_what_is_said_in_it(bundled, nobody):
    """Than the voice's own prompt is: the learnt decoder changes the timbre."""
    codes = bundled.read(nobody)
    deep = bundled.encode(bundled.hear(nobody, Alteration(pitch=-2.0, formant=0.94))[None])[0]
    said = bundled.encode(bundled.speak(codes, deep)[None])[0]
    own = bundled.as_prompt(codes, deep)
    assert own.shape == nobody.shape
    of_said, of_own, of_deep = (
        bundled.timbre.measure(bundled.prompts.features(each)) for each in (said, own, deep)
    )
    assert abs(of_own.pitch[0] - of_said.pitch[0]) < 0.05

    def far(timbre) -> float:
        return float(np.square(timbre.level - of_said.level).mean())

    assert far(of_own) < 0.7 * far(of_deep)


@pytest.mark.parametrize("damage", ["missing", "not in the card", "another", "another codec"])
def test_a_timbre_that_is_not_as_the_card_says_is_refused(damage: str, tmp_path: Path):
    folder = tmp_path / "model"
    shutil.copytree(BUNDLED, folder)
    if damage == "missing":
        shutil.rmtree(folder / "timbre")
    elif damage == "another":
        other = SpeechModel.load(folder / "timbre")
        other.pivot = other.usual
        other.save(folder / "timbre")
    elif damage == "another codec":
        codec = WorldCodec.load(folder / "timbre" / "codec")
        codec.codebook(0).mul_(1.01)
        codec.save(folder / "timbre" / "codec")
    else:
        card = json.loads((folder / "card.json").read_text())
        del card["timbre"]
        (folder / "card.json").write_text(json.dumps(card))
    with pytest.raises(CheckpointError, match=r"timbre|codec on the card"):
        load_bundle(folder)
