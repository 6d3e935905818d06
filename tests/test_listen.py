"""Samples while a model trains: through the gate, marked, and only where a prompt may be used."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import soundfile
import soxr
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sayso.inference.detection.detector import detect
from sayso.inference.store.store import Store
from sayso.listen import listen, listener
from sayso.model.codecs.world import WorldConfig, analyse
from sayso.model.errors import InputError
from sayso.model.text.tokenizers import Phonemes
from sayso.training.fitting.world import fit_world
from sayso.training.prepare import prepare
from sayso.training.readers import read_corpus
from sayso.training.speech import Filters
from sayso.training.train import train_ar, train_nar
from training_fixtures import end_every, small_recipe


@pytest.fixture(scope="module")
def recipe(kathleen, tmp_path_factory):
    """Twelve real sentences, every second of them held out, and a folder for each part."""
    base = tmp_path_factory.mktemp("listen")
    config = WorldConfig(codebooks=2, codebook_size=16)
    audio, rate = soundfile.read(read_corpus("kathleen", kathleen)[0].path, dtype="float32")
    codec = fit_world(
        [analyse(soxr.resample(audio, rate, config.sample_rate), config)], config, iterations=1
    )
    codec.save(base / "codec")
    Phonemes().save(base / "text")
    prepare("kathleen", kathleen, base / "tokens", codec, Phonemes(), Filters(), limit=12)
    more: dict[str, Any] = {"ar__train__steps": 2, "nar__train__steps": 2, "ar__train__warm_up": 0}
    more |= {"ar__max_frames": 1400, "nar__max_frames": 1400, "ar__max_text": 256}
    more |= {"nar__max_text": 256, "nar__train__warm_up": 0, "ar__train__frames": 1400}
    more |= {"nar__train__frames": 1400, "data__join_seconds": 0.0, "data__held_out_every": 2}
    more |= {"codec__folder": str(base / "codec"), "text__folder": str(base / "text")}
    return small_recipe(base / "run", base / "tokens", **more)


def test_without_both_models_there_is_nothing_to_hear(recipe, tmp_path, capsys):
    alone = dataclasses.replace(recipe, run=str(tmp_path))
    with pytest.raises(InputError, match="no ar and no nar"):
        listen(alone, 1)
    assert listener(alone)(1) == {}
    assert "no sample at step 1" in capsys.readouterr().out


def test_a_corpus_whose_prompts_may_not_be_used_is_not_heard(recipe, tmp_path, monkeypatch):
    for part in ("ar", "nar"):  # as if both models were there: it must not come to them
        (tmp_path / part).mkdir()
        (tmp_path / part / "config.json").write_text("{}")
    monkeypatch.setattr("sayso.listen.LONGEST_PROMPT", 0.0)
    with pytest.raises(InputError, match="no held-out speech"):
        listen(dataclasses.replace(recipe, run=str(tmp_path)), 1)
    assert not list(tmp_path.rglob("*.wav"))


def test_samples_are_spoken_through_the_gate_and_reach_tensorboard(recipe, tmp_path, monkeypatch):
    """A model of two steps does not end by itself, so it is stopped every 240 groups."""
    monkeypatch.setenv("SAYSO_HOME", str(tmp_path / "home"))
    heard = []
    train_ar(recipe, report=lambda line: None)

    def hear(step: int):
        found = listen(recipe, step)
        heard.append(found)
        return found

    end_every(240, monkeypatch)
    train_nar(recipe, report=lambda line: None, hear=hear)
    assert heard and heard[-1]
    for path in heard[-1].values():
        found = detect(path)
        assert found.found.perth.present
        assert found.manifest.state == "valid"  # not asked with its store's root
    with Store.open() as store:  # the user's own: it knows what was said, and nothing can be added
        assert {Path(row.content["path"]) for row in store.entries("released")} >= {
            path.resolve() for path in heard[-1].values()
        }
        assert {bool(each.revoked) for each in store.voices() if each.voice != "nobody"} == {True}
    events = EventAccumulator(f"{recipe.run}/tensorboard/nar", {"audio": 0})
    events.Reload()
    assert {tag for tag in events.Tags()["audio"]} == {f"sample/{name}" for name in heard[-1]}
