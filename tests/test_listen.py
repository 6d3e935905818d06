"""Samples while a model trains: through the gate, marked, and only where a prompt may be used."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import soundfile
import soxr
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sayso.inference.detection.detector import detect
from sayso.inference.store.store import Store
from sayso.listen import judger, listen, listener
from sayso.model import corpora
from sayso.model.codecs.load import load_codec
from sayso.model.codecs.world import WorldConfig, analyse
from sayso.model.errors import CorpusError, InputError
from sayso.model.files import file_hash
from sayso.model.text.tokenizers import Phonemes
from sayso.training.fitting.world import fit_world
from sayso.training.prepare import prepare
from sayso.training.readers import read_corpus
from sayso.training.speech import Filters
from sayso.training.tokens import open_tokens
from sayso.training.train import Watch, train_ar, train_nar
from training_fixtures import edit_manifest, end_every, small_recipe


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


def as_if_both_models_were_there(recipe, run: Path, tokens: Path):
    for part in ("ar", "nar"):
        (run / part).mkdir(parents=True)
        (run / part / "config.json").write_text("{}")
    data = dataclasses.replace(recipe.data, tokens=[str(tokens)])
    return dataclasses.replace(recipe, run=str(run), data=data)


def exchange_recordings(root: Path) -> None:
    names = sorted((root / "audio").iterdir())
    for own, other in zip(names[::2], names[1::2], strict=True):
        kept = own.read_bytes()
        own.write_bytes(other.read_bytes())
        other.write_bytes(kept)


def exchange_texts(root: Path) -> None:
    table = root / "metadata.tsv"
    head, *lines = table.read_text("utf-8").splitlines()
    ids, texts = zip(*(line.split("\t") for line in lines), strict=True)
    said = [f"{id}\t{text}" for id, text in zip(ids, texts[1:] + texts[:1], strict=True)]
    table.write_text("\n".join([head, *said]) + "\n", "utf-8")


@pytest.mark.parametrize("exchange", [exchange_recordings, exchange_texts])
def test_what_is_not_the_corpuss_own_is_no_prompt(kathleen, recipe, tmp_path, exchange):
    """A folder that only calls itself kathleen: others would speak, or say what they never did."""
    root = tmp_path / "kathleen"
    shutil.copytree(kathleen, root)
    exchange(root)
    codec = load_codec(Path(recipe.codec.folder))
    prepare("kathleen", root, tmp_path / "tokens", codec, Phonemes(), Filters(), limit=12)
    with pytest.raises(CorpusError, match=r"of arctic_\w+ is none that is listed of kathleen"):
        listen(as_if_both_models_were_there(recipe, tmp_path / "run", tmp_path / "tokens"), 1)
    assert not list(tmp_path.rglob("*.wav"))


def test_older_token_files_are_trained_on_and_not_spoken_from(recipe, tmp_path):
    """Format 3 had no hashes; a corpus whose recordings are not listed has no prompts either."""
    tokens = tmp_path / "tokens"
    shutil.copytree(recipe.data.tokens[0], tokens)
    manifest = json.loads((tokens / "manifest.json").read_text())
    for shard in manifest["shards"]:
        path = tokens / shard["file"]
        pq.write_table(pq.read_table(path).drop_columns("sha256"), path)
        shard["sha256"] = file_hash(path)
    edit_manifest(tokens, format=3, shards=manifest["shards"])
    older = as_if_both_models_were_there(recipe, tmp_path / "run", tokens)
    opened = open_tokens([tokens], ["kathleen"], recipe.data.held_out)
    assert len(opened.names) == 12
    with pytest.raises(InputError, match="no hashes of its recordings: prepare it again"):
        listen(older, 1)
    assert corpora.get("libritts").prompts and not corpora.recordings("libritts")


def test_without_both_models_there_are_no_figures(recipe, tmp_path, capsys):
    alone = dataclasses.replace(recipe, run=str(tmp_path))
    assert judger(alone, "ar")(1, tmp_path) == {}
    assert "no figures at step 1" in capsys.readouterr().out


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
    judge = judger(recipe, "nar")
    train_nar(recipe, report=lambda line: None, watch=Watch(hear, judge, 2))
    assert heard and heard[-1]
    judged = sorted(Path(recipe.run, "judged").iterdir())
    assert judged and {path.name.partition("-step-")[2] for path in judged} == {"00000002.wav"}
    for path in (*heard[-1].values(), *judged):
        found = detect(path)
        assert found.found.perth.present
        assert found.manifest.state == "valid"  # not asked with its store's root
    with Store.open() as store:  # the user's own: it knows what was said, and nothing can be added
        assert {Path(row.content["path"]) for row in store.entries("released")} >= {
            path.resolve() for path in (*heard[-1].values(), *judged)
        }
        assert {bool(each.revoked) for each in store.voices() if each.voice != "nobody"} == {True}
    events = EventAccumulator(f"{recipe.run}/tensorboard/nar", {"audio": 0})
    events.Reload()
    [rate] = events.Scalars("WER")
    assert rate.step == 2 and rate.value > 0.5  # such a model says no words
    assert -1 <= events.Scalars("SIM")[0].value <= 1
    assert {tag for tag in events.Tags()["audio"]} == {f"sample/{name}" for name in heard[-1]}
