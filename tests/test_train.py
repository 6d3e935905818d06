"""The loop learns to read, resumes exactly, skips non-finite steps, and writes its card."""

import csv
import json
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from typer.testing import CliRunner

from benchmarks.training import libritts_lengths, padding
from sayso.cli import app
from sayso.model import corpora
from sayso.model.ar import AR, ARConfig
from sayso.model.card import read_card
from sayso.model.checkpoint import load_module
from sayso.model.codecs.world import WorldCodec, WorldConfig
from sayso.model.errors import CheckpointError, CorpusError, InputError
from sayso.model.extras.untied import UntiedAR, UntiedNAR
from sayso.model.nar import NAR, NARConfig
from sayso.model.valle2 import load_ar, load_nar
from sayso.training import commands, train
from sayso.training.card import share
from sayso.training.checkpoints import read_state, save_state
from sayso.training.data import Batches, ahead
from sayso.training.recipe import CodecChoice, Recipe, Text, parse_overrides, read_recipe
from sayso.training.tasks import ARTask, rate_factor
from sayso.training.tokens import open_tokens
from sayso.training.train import DivergedError, Watch, train_ar, train_nar
from speech import READERS
from training_fixtures import (
    BOOK_SIZE,
    BOOKS,
    CONFIGS,
    SMALL,
    TEXT_SIZE,
    edit_manifest,
    processes,
    rows,
    small_recipe,
    train_quietly,
    write_tokens,
)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def equal_states(one, other):
    a, b = load_file(one), load_file(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def last_state(run, part):
    return sorted((run / "checkpoints" / part).glob("step-*"))[-1]


def test_the_ar_learns_to_read_and_the_text_gain_shows_it(tmp_path):
    tokens = write_tokens(tmp_path / "tokens", rows(80))
    lines = []
    more: dict[str, Any] = {"ar__size__width": 32, "ar__size__dropout": 0.0}
    more["ar__train__validate_every"] = 100
    recipe = small_recipe(tmp_path / "run", tokens, ar__train__steps=300, **more)
    train_ar(recipe, report=lines.append)
    card = read_card(tmp_path / "run")["models"]["ar"]
    assert card["text_gain"] > 0.3
    assert card["validation_loss"] < 2.0  # log(17) = 2.83 is guessing
    assert sum("text gain +" in line for line in lines) == 3
    model = load_module(tmp_path / "run" / "ar", AR, ARConfig)
    assert model.config.group_size == recipe.ar.group_size


def test_the_nar_trains_on_every_level_and_shares_the_card(tmp_path):
    tokens = write_tokens(tmp_path / "tokens", rows(40))
    more: dict[str, Any] = {"nar__train__steps": 60, "nar__size__width": 32, "ar__train__steps": 4}
    recipe = small_recipe(tmp_path / "run", tokens, **more)
    train_ar(recipe, report=lambda line: None)
    train_nar(recipe, report=lambda line: None)
    card = read_card(tmp_path / "run")
    assert set(card["models"]) == {"ar", "nar"}
    each = card["models"]["nar"]["validation_per_codebook"]
    assert len(each) == 3 and max(each) < 2.7  # log(16) = 2.77 is guessing
    assert [entry["name"] for entry in card["corpora"]] == ["kathleen"]
    load_module(tmp_path / "run" / "nar", NAR, NARConfig)


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(tmp_path, ema):
    tokens = write_tokens(tmp_path / "tokens", rows(40))
    more: dict[str, Any] = {"ar__train__accumulation": 2, "ar__train__save_every": 1}
    more["ar__train__ema"] = ema
    for run, stops in (("whole", [14]), ("parts", [3, 4, 11, 14])):
        for stop in stops:
            recipe = small_recipe(tmp_path / run, tokens, ar__train__steps=20, **more)
            stop_after(recipe, stop)
    assert equal_states(last_state(tmp_path / "whole", "ar"), last_state(tmp_path / "parts", "ar"))


def stop_after(recipe, step):
    """Interrupts a run, as a signal would, at the first report of a step."""
    original = train._step

    def interrupted(fabric, model, optimizer, batches, settings, at, asked):
        if at == step:
            raise KeyboardInterrupt
        return original(fabric, model, optimizer, batches, settings, at, asked)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train_ar(recipe, report=lambda line: None)


@pytest.mark.slow
def test_ten_kills_change_no_bit(tmp_path):
    tokens = write_tokens(tmp_path / "tokens", rows(40))
    settings: dict[str, Any] = {"ar__train__accumulation": 2, "ar__train__save_every": 3}
    settings.update(ar__train__validate_every=7, ar__train__steps=400)
    recipes = {name: small_recipe(tmp_path / name, tokens, **settings) for name in ("a", "b")}
    train_ar(recipes["a"], report=lambda line: None)
    random, kills = np.random.default_rng(3), 0
    folder = tmp_path / "b" / "checkpoints" / "ar"
    while kills < 10:
        reached = int(last_state(tmp_path / "b", "ar").stem[5:]) if folder.is_dir() else 0
        process = processes().Process(target=train_quietly, args=(recipes["b"],))
        process.start()
        aim = reached + random.integers(3, 40)
        while process.is_alive() and not list(folder.glob(f"step-*{aim // 3 * 3:08d}.*")):
            time.sleep(0.002)
        time.sleep(random.uniform(0, 0.02))
        assert process.is_alive(), "the run ended before its ten kills"
        process.kill()
        process.join()
        kills += 1
    train_ar(recipes["b"], report=lambda line: None)
    assert equal_states(last_state(tmp_path / "a", "ar"), last_state(tmp_path / "b", "ar"))
    assert equal_states(*(tmp_path / name / "ar" / "model.safetensors" for name in ("a", "b")))
    logs = [(tmp_path / name / "logs" / "ar.csv").read_text().splitlines() for name in ("a", "b")]
    losses = [[(row["step"], row["loss"]) for row in csv.DictReader(log)] for log in logs]
    assert losses[0] == losses[1] and len(losses[0]) == 400


def test_non_finite_steps_change_nothing_and_stop_the_run_when_they_persist(tmp_path, monkeypatch):
    tokens = write_tokens(tmp_path / "tokens", rows(40))
    more: dict[str, Any] = {"ar__train__save_every": 1, "ar__train__patience": 3}
    recipe = small_recipe(tmp_path / "run", tokens, **more)
    original = ARTask.measure
    calls = []

    def poisoned(self, batch, level):
        loss = original(self, batch, level)
        calls.append(None)
        bad = self.training and (len(calls) == 5 or len(calls) > 8)
        return loss._replace(summed=loss.summed * float("nan")) if bad else loss

    monkeypatch.setattr(ARTask, "measure", poisoned)
    with pytest.raises(DivergedError, match="3 non-finite steps"):
        train_ar(recipe, report=lambda line: None)
    saved = list((tmp_path / "run").glob("diverged-ar-*.safetensors"))
    assert len(saved) == 1 and "0.codes" in load_file(saved[0])
    log = (tmp_path / "run" / "logs" / "ar.csv").read_text().splitlines()
    columns = log[0].split(",")
    skipped = [int(line.split(",")[columns.index("skipped")]) for line in log[1:]]
    assert skipped == [0, 0, 0, 0, 1, 1, 1, 1, 2, 3]
    weights = load_file(last_state(tmp_path / "run", "ar"))
    assert all(torch.isfinite(value).all() for value in weights.values())


def test_the_rate_warms_up_and_falls_to_zero_with_the_steps_or_the_minutes():
    settings = read_recipe(CONFIGS / "libritts.yaml").ar.train
    assert rate_factor(settings, 0, 0) < 1e-3
    assert rate_factor(settings, settings.warm_up, 1e9) == 1.0
    assert rate_factor(settings, settings.steps, 0) == 0.0
    tiny = read_recipe(CONFIGS / "tiny.yaml").ar.train
    assert tiny.max_minutes is not None
    assert rate_factor(tiny, 1000, tiny.max_minutes) == 0.0
    assert rate_factor(tiny, 1000, tiny.max_minutes / 2) == pytest.approx(0.5)


def test_minutes_end_a_run(tmp_path):
    tokens = write_tokens(tmp_path / "tokens", rows(40))
    steps: dict[str, Any] = {"ar__train__steps": 10**6, "ar__train__max_minutes": 0.02}
    steps["ar__train__export"] = "last"
    train_ar(small_recipe(tmp_path / "run", tokens, **steps), report=lambda line: None)
    ended = read_card(tmp_path / "run")["models"]["ar"]
    assert ended["minutes"] >= 0.02 and ended["step"] < 10**6


def test_an_edited_card_is_refused_by_name(tmp_path):
    tokens = write_tokens(tmp_path / "tokens", rows(20))
    run = tmp_path / "run"
    train_ar(small_recipe(run, tokens, ar__train__steps=3), report=lambda line: None)
    whole = json.loads((run / "card.json").read_text())

    def edited(**changes):
        (run / "card.json").write_text(json.dumps({**whole, **changes}))
        return run

    with pytest.raises(CorpusError, match="no corpus"):
        read_card(edited(corpora=[]))
    with pytest.raises(CorpusError, match="emilia"):
        read_card(edited(corpora=[{**whole["corpora"][0], "name": "emilia"}]))
    with pytest.raises(CorpusError, match=r"kathleen.*licence"):
        read_card(edited(corpora=[{**whole["corpora"][0], "licence": "mine"}]))
    edited()
    assert read_card(run)["name"] == "tiny"
    weights = run / "ar" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x00")
    with pytest.raises(CheckpointError, match="not the file"):
        read_card(run)


def test_a_checkpoint_whose_corpora_were_edited_is_refused_by_name(tmp_path):
    tokens = write_tokens(tmp_path / "tokens", rows(20))
    run = tmp_path / "run"
    train_ar(small_recipe(run, tokens, ar__train__steps=3), report=lambda line: None)
    state = last_state(run, "ar")
    tensors, head = read_state(state)
    entry = head["corpora"][0]
    for edited, word in (
        ([], "names no corpus"),
        ([{**entry, "name": "emilia"}], "'emilia' is refused"),
        ([{**entry, "uses": ["training"]}], "kathleen.*differs from the list in uses"),
        ([entry, corpora.get("vctk").to_json()], "another corpora"),
    ):
        save_state(state, tensors, {**head, "corpora": edited})
        with pytest.raises((CorpusError, InputError), match=word):
            train_ar(small_recipe(run, tokens, ar__train__steps=6), report=lambda line: None)


def test_tensorboard_shows_everything(tmp_path):
    tokens = write_tokens(tmp_path / "tokens", rows(40))
    run = tmp_path / "run"
    more: dict[str, Any] = {"nar__train__steps": 20, "nar__train__validate_every": 10}
    train_nar(small_recipe(run, tokens, **more), report=lambda line: None)
    events = EventAccumulator(str(run / "tensorboard" / "nar"))
    events.Reload()
    shown = set(events.Tags()["scalars"])
    assert {f"loss/codebook {k}" for k in (1, 2, 3)} <= shown
    assert {f"validation/codebook {k}" for k in (1, 2, 3)} <= shown
    once = {"text_gain", "validation_loss", "frames_per_second", "matmul_share", "loader_share"}
    each = {"gradient_norm", "rate", "skipped", "minutes"}
    assert once | each <= shown
    assert [event.step for event in events.Scalars("text_gain")] == [10, 20]
    assert [event.step for event in events.Scalars("gradient_norm")] == list(range(1, 21))


def test_weights_and_biases_gets_the_log_in_the_runs_folder_and_nowhere_else(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb", reason="the extra `wandb` is not installed")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    tokens = write_tokens(tmp_path / "tokens", rows(40))
    more: dict[str, Any] = {"nar__train__steps": 4, "wandb": True}
    train_nar(small_recipe(tmp_path / "run", tokens, **more), report=lambda line: None)
    wandb.teardown()  # its own process writes the file
    [kept] = (tmp_path / "run" / "wandb").glob("offline-run-*/run-*.wandb")
    said = kept.read_bytes()
    names = ("gradient_norm", "text_gain", "validation/codebook 3", "loss/codebook 1")
    assert not [name for name in names if name.encode() not in said]


def test_one_nar_serves_every_group_size(tmp_path):
    tokens = write_tokens(tmp_path / "tokens", rows(20))
    more: dict[str, Any] = {"ar__train__steps": 3, "nar__train__steps": 3}
    for name, group_size in (("one", 1), ("two", 2)):
        recipe = small_recipe(tmp_path / name, tokens, ar__group_size=group_size, **more)
        train_ar(recipe, report=lambda line: None)
    one, two = tmp_path / "one", tmp_path / "two"
    with pytest.raises(CheckpointError, match="names no nar"):
        share(two, one)
    train_nar(small_recipe(one, tokens, **more), report=lambda line: None)
    share(two, one)
    card = read_card(two)
    assert set(card["models"]) == {"ar", "nar"}
    weights = [read_card(run)["models"]["nar"]["weights_sha256"] for run in (one, two)]
    assert weights[0] == weights[1]
    assert load_module(two / "ar", AR, ARConfig).config.group_size == 2
    with pytest.raises(CheckpointError, match="of its own"):
        share(two, one)
    other = write_tokens(tmp_path / "other", rows(20))
    edit_manifest(other, tokenizer={"identity": "u" * 64, "kind": "bpe", "size": TEXT_SIZE})
    train_ar(small_recipe(tmp_path / "x", other, **more), report=lambda line: None)
    with pytest.raises(CheckpointError, match="another tokenizer"):
        share(tmp_path / "x", one)


def test_the_command_takes_other_settings_and_names_what_is_wrong(tmp_path):
    tokens = write_tokens(tmp_path / "tokens", rows(20))
    own = {**SMALL, "run": str(tmp_path / "run"), "data.tokens": [str(tokens)]}
    own |= {"ar.train.steps": 5, "ar.train.peak_rate": 1e-4}

    def run(**changes):
        given = ["train", "ar", "--recipe", str(CONFIGS / "tiny.yaml")]
        return CliRunner().invoke(app, [*given, "--set", json.dumps({**own, **changes})])

    done = run()
    assert done.exit_code == 0 and "ar step 5" in done.output, done.exception
    assert "stepz" in str(run(**{"ar.train.stepz": 5}).exception)
    if not torch.cuda.is_available():
        lost = run(**{"ar.train.accelerator": "cuda", "run": str(tmp_path / "gpu")}).exception
        assert isinstance(lost, InputError) and "1 x cuda cannot be had here" in str(lost)
    assert parse_overrides("{ar.train.peak_rate: 1e-4}") == {"ar.train.peak_rate": 1e-4}
    with pytest.raises(InputError, match="--set 'nothing'"):
        parse_overrides("nothing")


def test_another_recipe_does_not_continue_a_run(tmp_path):
    tokens = write_tokens(tmp_path / "tokens", rows(20))
    run = tmp_path / "run"
    train_ar(small_recipe(run, tokens, ar__train__steps=3), report=lambda line: None)
    with pytest.raises(InputError, match="another model"):
        train_ar(small_recipe(run, tokens, ar__size__layers=2), report=lambda line: None)
    with pytest.raises(InputError, match="already holds"):
        train_ar(small_recipe(run, tokens), resume=False, report=lambda line: None)


def test_a_run_without_held_out_utterances_does_not_start(tmp_path):
    made = [{**row, "part": "train"} for row in rows(20)]
    tokens = write_tokens(tmp_path / "tokens", made)
    with pytest.raises(InputError, match="of 0 utterances held out"):
        train_ar(small_recipe(tmp_path / "run", tokens), report=lambda line: None)
    assert not (tmp_path / "run").exists()


def test_a_truncated_checkpoint_is_a_clear_error(tmp_path):
    tokens = write_tokens(tmp_path / "tokens", rows(20))
    run = tmp_path / "run"
    train_ar(small_recipe(run, tokens, ar__train__steps=3), report=lambda line: None)
    state = last_state(run, "ar")
    state.write_bytes(state.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"damaged.*continue from the one before"):
        train_ar(small_recipe(run, tokens), report=lambda line: None)


def test_group_sizes_go_into_each_other(tmp_path):
    tokens = write_tokens(tmp_path / "tokens", rows(80))
    more = {"ar__size__width": 32, "ar__size__dropout": 0.0}
    one = small_recipe(tmp_path / "one", tokens, ar__group_size=1, ar__train__steps=200, **more)
    train_ar(one, report=lambda line: None)
    losses = {}
    for start in (None, str(tmp_path / "one" / "ar")):
        name = f"two-{start is None}"
        recipe = small_recipe(
            tmp_path / name, tokens, ar__start_from=start, ar__train__steps=30, **more
        )
        train_ar(recipe, report=lambda line: None)
        card = read_card(tmp_path / name)["models"]["ar"]
        losses[start is None] = card["validation_loss"]
        if start is not None:  # what these weights have seen before stays on the card
            assert card["started_from"] == read_card(tmp_path / "one")["models"]["ar"]
    assert losses[False] < losses[True] - 0.1
    start = str(tmp_path / "two-False" / "ar")
    for G in (1, 4):  # and two goes into one and four
        recipe = small_recipe(
            tmp_path / f"from-two-{G}",
            tokens,
            ar__group_size=G,
            ar__start_from=start,
            ar__train__steps=30,
            **more,
        )
        train_ar(recipe, report=lambda line: None)
        loss = read_card(tmp_path / f"from-two-{G}")["models"]["ar"]["validation_loss"]
        assert loss < losses[True] - 0.1
    recipe = small_recipe(tmp_path / "x", tokens, ar__group_size=3, ar__start_from=start, **more)
    with pytest.raises(InputError, match="group size 2"):
        train_ar(recipe, report=lambda line: None)


def test_codes_of_another_codec_start_as_those_that_sound_like_them(tmp_path):
    codec = WorldCodec(WorldConfig(codebooks=BOOKS, codebook_size=BOOK_SIZE))
    order = torch.randperm(BOOK_SIZE, generator=torch.Generator().manual_seed(0))
    tokens = {}
    for name in ("old", "new"):
        if name == "new":  # the same entries under other numbers, of features twice as loud
            codec.scale *= 2
            for level in range(BOOKS):
                codec.codebook(level).copy_(2 * codec.codebook(level)[order])
        codec.save(tmp_path / name / "codec")
        tokens[name] = write_tokens(tmp_path / name / "tokens", rows(40))
        said = json.loads((tokens[name] / "manifest.json").read_text())["codec"]
        edit_manifest(tokens[name], codec={**said, "identity": codec.identity})
    settings = {"ar__train__peak_rate": 1e-12, "ar__train__ema": 0.0, "ar__train__steps": 3}
    old = small_recipe(tmp_path / "old", tokens["old"], **settings)
    train_ar(old, report=lambda line: None)
    start = str(tmp_path / "old" / "ar")
    folder = str(tmp_path / "new" / "codec")
    new = small_recipe(
        tmp_path / "new", tokens["new"], ar__start_from=start, codec__folder=folder, **settings
    )
    train_ar(new, report=lambda line: None)
    before, after = (
        load_module(tmp_path / name / "ar", AR, ARConfig).code_embedding.weight
        for name in ("old", "new")
    )
    torch.testing.assert_close(after[:BOOK_SIZE], before[order])
    torch.testing.assert_close(after[BOOK_SIZE], before[BOOK_SIZE])  # <eos>
    shutil.rmtree(tmp_path / "old" / "codec")
    with pytest.raises(InputError, match="copy it there"):
        train_ar(replace(new, run=str(tmp_path / "other")), report=lambda line: None)


@pytest.mark.parametrize("export", ["best", "last"])
def test_the_weights_of_the_best_or_of_the_last_validation_are_exported(export, tmp_path):
    """At a rate so high that the validation loss rises."""
    tokens = write_tokens(tmp_path / "tokens", rows(40))
    more: dict[str, Any] = {"ar__train__steps": 30, "ar__train__validate_every": 5}
    more |= {"ar__train__peak_rate": 3.0, "ar__train__warm_up": 29, "ar__train__export": export}
    train_ar(small_recipe(tmp_path / "run", tokens, **more), report=lambda line: None)
    with (tmp_path / "run" / "logs" / "ar.csv").open() as file:
        log = [row for row in csv.DictReader(file) if row["validation_loss"]]
    losses = {int(row["step"]): float(row["validation_loss"]) for row in log}
    best = min(losses, key=lambda step: losses[step])
    assert best < 30
    card = read_card(tmp_path / "run")["models"]["ar"]
    assert card["step"] == (best if export == "best" else 30)
    assert card["validation_loss"] == pytest.approx(losses[card["step"]], abs=1e-3)
    kept = tmp_path / "run" / "checkpoints" / "ar"
    _, head = read_state(kept / "best.safetensors")
    assert head["progress"]["step"] == best
    assert [path.name for path in sorted(kept.iterdir())] == [
        "best.safetensors",
        "step-00000030.safetensors",
    ]


def test_the_weights_judged_best_are_exported_and_a_resumed_run_knows_the_figures(tmp_path):
    """Until there are figures the validation decides."""
    tokens = write_tokens(tmp_path / "tokens", rows(40))
    more: dict[str, Any] = {"ar__train__validate_every": 10, "ar__train__export": "judged"}
    short, recipe = (
        small_recipe(tmp_path / "run", tokens, **more, ar__train__steps=steps) for steps in (16, 30)
    )
    with pytest.raises(InputError, match="--evaluate-every"):
        train_ar(recipe, report=lambda line: None)
    figures = {4: {}, 8: {"WER": 0.5, "SIM": 0.6}, 12: {"WER": 0.5, "SIM": 0.7}}
    figures |= {
        16: {"WER": 0.6, "SIM": 0.9},
        20: {"WER": 0.8},
        24: {},
        28: {"WER": 0.5, "SIM": 0.6},
    }
    kept: dict[int, dict] = {}

    def judge(step: int, weights: Path) -> dict[str, float]:
        kept[step] = load_ar(weights).state_dict()
        return figures.get(step, {})

    how: dict[str, Any] = {"watch": Watch(judge=judge, every=4), "report": lambda line: None}
    train_ar(short, **how)
    assert read_card(tmp_path / "run")["models"]["ar"]["step"] == 12
    train_ar(recipe, **how)
    assert read_card(tmp_path / "run")["models"]["ar"]["step"] == 12
    assert list(kept) == [4, 8, 12, 16, 20, 24, 28, 30]
    for name, value in load_ar(tmp_path / "run" / "ar").state_dict().items():
        assert torch.equal(value, kept[12][name])
        assert name not in kept[16] or value.ndim < 2 or not torch.equal(value, kept[16][name])
    with (tmp_path / "run" / "logs" / "ar.csv").open() as file:
        log = {int(row["step"]): (row["WER"], row["SIM"]) for row in csv.DictReader(file)}
    assert log[8] == ("0.5", "0.6") and log[20] == ("0.8", "") and log[9] == log[24] == ("", "")


# Trained in test_neural_codec.py, test_decoder.py and test_gpu_kit.py.
CODECS = {"codec-mini.yaml", "decoder.yaml", "gpu-decoder.yaml"}
RECIPES = sorted(
    str(path.relative_to(CONFIGS)) for path in CONFIGS.rglob("*.yaml") if path.name not in CODECS
)


@pytest.mark.parametrize("config", RECIPES)
def test_every_recipe_runs_one_step_at_tiny_width(config, tmp_path):
    data = read_recipe(CONFIGS / config).data
    names = tuple(data.corpora)
    made = rows(20, corpus=names[0])
    tokens = write_tokens(tmp_path / "tokens", made, names, aligned=data.align)
    own = {"data__corpora": list(names), "ar__train__warm_up": 0, "nar__train__warm_up": 0}
    recipe = small_recipe(
        tmp_path / "run", tokens, config, ar__train__steps=1, nar__train__steps=1, **own
    )
    train_ar(recipe, report=lambda line: None)
    train_nar(recipe, report=lambda line: None)
    assert set(read_card(tmp_path / "run")["models"]) == {"ar", "nar"}


def test_prediction_can_be_untied_for_comparison(tmp_path):
    tokens = write_tokens(tmp_path / "tokens", rows(40))
    more: dict[str, Any] = {f"{part}__tied": False for part in ("ar", "nar")}
    more |= {"ar__train__steps": 20, "nar__train__steps": 20, "nar__train__warm_up": 1}
    recipe = small_recipe(tmp_path / "run", tokens, ar__group_size=2, **more)
    train_ar(recipe, report=lambda line: None)
    train_nar(recipe, report=lambda line: None)
    ar, nar = load_ar(tmp_path / "run" / "ar"), load_nar(tmp_path / "run" / "nar")
    assert isinstance(ar, UntiedAR) and isinstance(nar, UntiedNAR)
    text, lengths = torch.tensor([[1, 2, 3]]), torch.tensor([3])
    codes = torch.randint(0, BOOK_SIZE, (1, BOOKS, 8), generator=torch.Generator().manual_seed(0))
    frames = torch.tensor([8])
    with torch.no_grad():  # with the embeddings for a table they are the paper's
        own = ar.loss(text, lengths, codes[:, 0], frames).total
        ar.prediction.copy_(ar.code_embedding.weight)
        pure = AR(ARConfig(**{k: v for k, v in vars(ar.config).items() if k != "untied"})).eval()
        pure.load_state_dict({k: v for k, v in ar.state_dict().items() if k != "prediction"})
        same = ar.loss(text, lengths, codes[:, 0], frames).total
        assert (
            torch.equal(same, pure.loss(text, lengths, codes[:, 0], frames).total) and own != same
        )
        given = text, lengths, codes, frames, torch.tensor([2]), 2
        own = nar.loss(*given).total
        nar.prediction[1].copy_(cast(torch.nn.Embedding, nar.code_embeddings[2]).weight)
        tied = NAR(NARConfig(**{k: v for k, v in vars(nar.config).items() if k != "untied"})).eval()
        tied.load_state_dict({k: v for k, v in nar.state_dict().items() if k != "prediction"})
        assert torch.equal(nar.loss(*given).total, tied.loss(*given).total)
        assert own != tied.loss(*given).total
    aligned = write_tokens(tmp_path / "aligned", rows(20), aligned=True)
    with pytest.raises(InputError, match="cannot be had together"):
        train_ar(small_recipe(tmp_path / "x", aligned, ar__tied=False, ar__alignment=True))


def test_tokens_that_changed_are_refused(tmp_path):
    tokens = write_tokens(tmp_path / "tokens", rows(20))
    shard = tokens / "shard-00000.parquet"
    (tokens / "shard-00001.parquet").write_bytes(shard.read_bytes())
    with pytest.raises(CorpusError, match=r"shard-00001\.parquet is not in the manifest"):
        open_tokens([tokens], ["kathleen"])
    (tokens / "shard-00001.parquet").unlink()
    shard.write_bytes(shard.read_bytes() + b" ")
    with pytest.raises(CorpusError, match="differs from its manifest"):
        open_tokens([tokens], ["kathleen"])


def test_shards_of_unlisted_corpora_are_refused_by_name(tmp_path):
    tokens = write_tokens(tmp_path / "a", rows(9, corpus="my-scrape"))
    with pytest.raises(CorpusError, match="my-scrape"):
        open_tokens([tokens], ["kathleen"])
    tokens = write_tokens(tmp_path / "b", rows(9, corpus="vctk"), ("vctk",))
    with pytest.raises(CorpusError, match="'vctk' is not in the recipe"):
        open_tokens([tokens], ["kathleen"])
    edit_manifest(tokens, corpora=[])
    with pytest.raises(CorpusError, match="no corpus"):
        open_tokens([tokens], ["vctk"])


def test_poisoned_rows_are_left_out_and_counted(tmp_path):
    made = rows(20)
    made[1]["text_ids"] = []
    made[2]["text_ids"] = [99]
    made[3].update(codes=[0, 0, 0, 0], frames=1)
    made[4]["codes"] = made[4]["codes"][:-3]
    made[5]["codes"][7] = 16
    made[6]["codes"] = made[6]["codes"] * 60  # 60 s and more, too long for the model
    made[6]["frames"] *= 60
    tokens = open_tokens([write_tokens(tmp_path / "t", made)], ["kathleen"])
    assert tokens.skipped == {
        "empty text": 1,
        "text id beyond the vocabulary": 1,
        "too short": 1,
        "wrong number of codebooks": 1,
        "code beyond the codebook": 1,
    }
    batches = Batches(tokens, 300, 1, 64, 256)
    assert batches.left_out == 1
    assert len(batches.train) + len(batches.validation) == 14


def make_batches(folder, count=200, budget=600, **more):
    tokens = open_tokens([write_tokens(folder, rows(count))], ["kathleen"])
    return tokens, Batches(tokens, budget, 1, 64, 256, **more)


def test_batches_hold_the_budget_and_every_utterance_once(tmp_path):
    tokens, batches = make_batches(tmp_path / "t")
    for number in range(3):
        epoch = batches.epoch(number)
        used = sorted(i for batch in epoch for members in batch for i in members)
        assert used == batches.train.tolist()
        padded = [len(b) * max(int(tokens.frames[list(m)].sum()) for m in b) for b in epoch]
        assert max(padded) <= 600
        assert 1 - sum(tokens.frames[batches.train]) / sum(padded) < 0.1
    assert batches.epoch(0) != batches.epoch(1)


def test_joined_utterances_are_of_one_speaker_and_fit(tmp_path):
    tokens, batches = make_batches(tmp_path / "t", join_seconds=4.0)
    epoch = batches.epoch(0)
    examples = [members for batch in epoch for members in batch]
    assert sorted(i for members in examples for i in members) == batches.train.tolist()
    assert max(map(len, examples)) > 3 and min(map(len, examples)) == 1
    for members in examples:
        assert len(set(tokens.speaker[list(members)])) == 1
        text, codes, _ = tokens.example(members)
        assert len(codes) == tokens.frames[list(members)].sum() <= 256
        assert np.array_equal(text, np.concatenate([tokens.example((i,))[0] for i in members]))


@pytest.mark.parametrize("accumulation, world", [(1, 4), (2, 2)])
def test_steps_are_the_same_on_any_number_of_processes(tmp_path, accumulation, world):
    _, batches = make_batches(tmp_path / "t", join_seconds=2.0)
    one, start = batches.steps(0, 4), 7
    ranks = [batches.steps(start, accumulation, rank, world) for rank in range(world)]
    for step in range(20):
        whole = next(one)
        if step < start:
            continue
        parts = [next(rank) for rank in ranks]
        interleaved = [parts[i % world][i // world] for i in range(4)]
        for a, b in zip(whole, interleaved, strict=True):
            assert a.level == b.level and a.step_frames == b.step_frames
            assert all(torch.equal(x, y) for x, y in zip(a[:5], b[:5], strict=True))
        assert sum(int(b.lengths.sum()) for b in whole) == whole[0].step_frames


def test_prompts_are_half_or_three_to_thirty_seconds(tmp_path):
    _, batches = make_batches(tmp_path / "t", join_seconds=5.0)
    steps = batches.steps(0)
    levels = set()
    for _ in range(50):
        batch = next(steps)[0]
        levels.add(batch.level)
        assert (batch.prompt_lengths <= batch.lengths // 2).all()
        short = batch.lengths < 6 * 50
        assert torch.equal(batch.prompt_lengths[short], batch.lengths[short] // 2)
    assert levels == {1, 2, 3}


@pytest.mark.parametrize("rule", ["paper", "icefall", "wide"])
def test_prompts_follow_the_rule_of_the_recipe(rule, tmp_path):
    """On LibriTTS's lengths: log-normal, median 4.3 s, 95 % below 14.8 s."""
    _, batches = make_batches(tmp_path / "t", prompts=rule)
    random = np.random.default_rng(0)
    frames = (random.lognormal(np.log(4.3), 0.751, 20_000).clip(0.5, 35) * 50).astype(int)
    prompts = batches._prompts(frames, random)
    halves = (prompts == frames // 2).mean()
    assert (prompts <= frames // 2).all() and (prompts >= 0).all()
    if rule == "paper":
        assert 0.95 < halves < 0.99  # which is why the others are offered
        return
    assert halves < 0.05
    if rule == "icefall":
        assert prompts.max() == 150
        short = frames < 6 * 50
        assert (prompts[short] >= frames[short] // 4).all()
    else:
        assert np.quantile(prompts / frames, [0.1, 0.9]) == pytest.approx([0.05, 0.45], abs=0.02)


def test_the_recipes_of_libritts_read_as_much_on_one_gpu_as_on_eight():
    one, eight = (read_recipe(CONFIGS / f"libritts{name}.yaml") for name in ("", "-8gpu"))
    assert one.data.join_seconds >= 14  # of prompt and target in evaluation
    assert one.nar.prompts != "paper" and one.data == eight.data
    assert Path(eight.codec.folder) == Path(one.codec.folder)
    read = {}
    for name, recipe in (("one", one), ("eight", eight)):
        for settings in (recipe.ar.train, recipe.nar.train):
            batch = settings.frames * settings.accumulation * settings.devices * settings.nodes
            read[name] = batch * settings.steps
            assert 4000 <= settings.warm_up <= 8000 and settings.warm_up < 0.05 * settings.steps
            # VALL-E's rate is for 96,000 frames a step; it goes with the root of the batch
            assert settings.peak_rate == pytest.approx(5e-4 * (batch / 96_000) ** 0.5, rel=0.02)
    assert read["one"] == read["eight"]


def test_batches_made_ahead_are_the_same_and_errors_come_through():
    def numbers():
        yield from range(5)
        raise InputError("no more")

    made = ahead(numbers())
    assert [next(made) for _ in range(5)] == list(range(5))
    with pytest.raises(InputError, match="no more"):
        next(made)


def run_on_two(tmp_path, tokens, part, strategy, accumulation):
    """Trains 20 steps with two processes of torchrun; the losses of the log."""
    own = settings_of_twenty(tmp_path / strategy, tokens, part)
    own |= {f"{part}.train.devices": 2, f"{part}.train.strategy": strategy}
    own[f"{part}.train.accumulation"] = accumulation
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node=2", "-m", "sayso", "train", part]
    command += ["--recipe", str(CONFIGS / "tiny.yaml"), "--set", json.dumps(own)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return losses(tmp_path / strategy, part)


def losses(run, part="ar"):
    with (run / "logs" / f"{part}.csv").open() as lines:
        return [float(row["loss"]) for row in csv.DictReader(lines)]


def settings_of_twenty(run, tokens, part):
    own = {"steps": 20, "save_every": 10, "validate_every": 10, "ema": 0.9}
    own = {**SMALL, **{f"{part}.train.{key}": value for key, value in own.items()}}
    own |= {f"{part}.size.dropout": 0.0, "data.join_seconds": 2.0}
    return {**own, "run": str(run), "data.tokens": [str(tokens)]}


@pytest.mark.slow
@pytest.mark.parametrize(
    "part, strategy, start, accumulation",
    [("ar", "ddp", 0, 2), ("nar", "ddp", 0, 1), ("ar", "fsdp", 0, 2), ("ar", "fsdp", 10, 1)],
)
def test_two_processes_follow_the_trajectory_of_one(tmp_path, part, strategy, start, accumulation):
    tokens = write_tokens(tmp_path / "tokens", rows(60))
    own = settings_of_twenty(tmp_path / "one", tokens, part)
    own[f"{part}.train.accumulation"] = 2 * accumulation
    recipe = read_recipe(CONFIGS / "tiny.yaml", own)
    {"ar": train_ar, "nar": train_nar}[part](recipe, report=lambda line: None)
    if start:  # the checkpoint of one process, continued on two
        state = Path("checkpoints") / part / f"step-{start:08d}.safetensors"
        (tmp_path / strategy / state).parent.mkdir(parents=True)
        shutil.copy(tmp_path / "one" / state, tmp_path / strategy / state)
    one = losses(tmp_path / "one", part)[start:]
    two = run_on_two(tmp_path, tokens, part, strategy, accumulation)
    assert len(one) == len(two) == 20 - start
    assert two == pytest.approx(one, rel=1e-5)
    states = [load_file(last_state(tmp_path / name, part)) for name in ("one", strategy)]
    for name, value in states[0].items():
        assert torch.allclose(value, states[1][name], rtol=1e-3, atol=1e-5), name


def test_padding_wastes_less_than_a_tenth_on_real_lengths(tmp_path, kathleen):
    frames = libritts_lengths(READERS, 20_000)
    tokens = open_tokens([write_tokens(tmp_path / "t", rows(8))], ["kathleen"])
    one = np.ones(len(frames), dtype=int)
    many = replace(
        tokens, frames=frames, text_size=one, speaker=one * 0, split=one * 0, folder=one * 0
    )
    for join in (0.0, 12.0):
        batches = Batches(many, 6000, 1, 600, 3000, join)
        epoch = batches.epoch(0)
        used = sum(int(frames[list(m)].sum()) for batch in epoch for m in batch)
        assert used == frames.sum()
        assert padding(batches) < 0.1
        sizes = [len(b) * max(int(frames[list(m)].sum()) for m in b) for b in epoch]
        assert max(sizes) <= 6000 and np.mean(sizes) > 0.85 * 6000  # batches are full


def test_check_finds_what_was_changed(tmp_path, capsys):
    tokens = write_tokens(tmp_path / "tokens", rows(20))
    run = tmp_path / "run"
    train_ar(small_recipe(run, tokens, ar__train__steps=3), report=lambda line: None)
    commands.check(tokens)
    commands.check(run)
    assert capsys.readouterr().out.count("kathleen: CC0 1.0") == 2
    (run / "ar" / "model.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match="not the file"):
        commands.check(run)
    with pytest.raises(InputError, match="neither"):
        commands.check(tmp_path)


@pytest.mark.parametrize(
    "old, new, word",
    [
        ("  max_seconds: 20.0", "  max_second: 20.0", "max_second"),
        ("  group_size: 2", "  group_size: two", "group_size"),
        ("[kathleen]", "[emilia]", "refused"),
        ("  held_out_every: 47", "  held_out_every: 1 ", "held_out_every"),
        ("    warm_up: 100", "    warm_up: 100000", "warm_up"),
        ("name: tiny", "", "name"),
    ],
)
def test_mistakes_in_a_recipe_are_named(tmp_path, old, new, word):
    text = (CONFIGS / "tiny.yaml").read_text()
    assert old in text
    (tmp_path / "r.yaml").write_text(text.replace(old, new, 1))
    with pytest.raises((InputError, CorpusError), match=word):
        read_recipe(tmp_path / "r.yaml")
    with pytest.raises(InputError, match="unknown key"):
        read_recipe(CONFIGS / "tiny.yaml", {"ar.train.stepz": 1})


def test_the_papers_recipe_is_complete_and_the_default_and_others_name_what_differs():
    def keys(tree: dict[str, Any], at: str = "") -> dict[str, Any]:
        leaves = {}
        for key, value in tree.items():
            inner = keys(value, f"{at}{key}.") if isinstance(value, dict) else {f"{at}{key}": value}
            leaves |= inner
        return leaves

    paper = read_recipe(CONFIGS / "paper.yaml")
    bare = {"name": paper.name, "run": paper.run, "data": paper.data}
    bare |= {"text": Text(paper.text.folder), "codec": CodecChoice(paper.codec.folder)}
    assert Recipe(**bare) == paper
    written = keys(yaml.safe_load((CONFIGS / "paper.yaml").read_text()))
    assert set(written) == set(keys(asdict(paper)))
    own = {"name", "run", "text.folder", "codec.folder", "data.corpora", "data.tokens"}
    for name in RECIPES:
        if name != "paper.yaml":
            theirs = yaml.safe_load((CONFIGS / name).read_text())
            named = {key for key in keys(theirs) if not key.startswith("data.held_out")}
            different = keys(asdict(read_recipe(CONFIGS / name)))
            assert not [k for k in named & set(written) - own if different[k] == written[k]]


def test_every_key_of_every_recipe_is_commented():
    for path in CONFIGS.rglob("*.yaml"):
        lines = [line for line in path.read_text().splitlines() if line and line[0] != "#"]
        sections = {"text:", "codec:", "data:", "ar:", "nar:", "size:", "train:"}
        bare = [line for line in lines if " # " not in line and line.strip() not in sections]
        assert not bare, f"{path.name}: {bare}"
        assert path.read_text().startswith(f"# {path.stem}: ")
        assert "Expect:" in path.read_text() and "Cost" in path.read_text()


def test_bf16_mixed_stays_close_to_fp32(tmp_path):
    tokens = write_tokens(tmp_path / "tokens", rows(40))
    own: dict[str, Any] = {"ar__train__steps": 12, "ar__size__dropout": 0.0}
    for precision in ("32-true", "bf16-mixed"):
        own["ar__train__precision"] = precision
        train_ar(small_recipe(tmp_path / precision, tokens, **own), report=lambda line: None)
    exact, mixed = losses(tmp_path / "32-true"), losses(tmp_path / "bf16-mixed")
    assert mixed != exact  # it is another arithmetic
    assert mixed == pytest.approx(exact, rel=0.02)
    weights = load_file(tmp_path / "bf16-mixed" / "ar" / "model.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.float32}
