"""A run: through the gate, resumed and sharded to the same figures, and what its tables say."""

import json
import random
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from markdown_it import MarkdownIt

from pages import POISON, loads
from sayso.evaluation.metrics import Panel, Sound, WordErrors, judge_of, replaced
from sayso.evaluation.protocols import Trial
from sayso.evaluation.report import write_report
from sayso.evaluation.run import Plan, Run, shard_of
from sayso.evaluation.speaking import said_in
from sayso.evaluation.summary import eq23, mark_nearest, oracle, summarise
from sayso.evaluation.voices import split_at
from sayso.inference.detection.detector import detect
from sayso.inference.store.store import Store
from sayso.inference.synthesizer import Synthesizer
from sayso.model.audio import read_audio, seconds_of
from sayso.model.bundle import BUNDLED
from sayso.model.errors import CorpusError, InputError
from speech import KATHLEEN

TEXTS = {
    "3": "For the twentieth time that evening the two men shook hands.",
    "4": "Lord, but I'm glad to see you again, Phil.",
    "5": "Will we ever forget it.",
    "7": "And you always want to see it in the superlative degree.",
}


def clip(number: str) -> str:
    return f"audio/arctic_a000{number}.opus"


def trials() -> list[Trial]:
    """Each sentence is said with the one before as the prompt."""
    pairs = zip(TEXTS, ["7", *TEXTS], strict=False)
    return [
        Trial(i, "kathleen", TEXTS[i], clip(before), TEXTS[before], 0.0, clip(i))
        for i, before in pairs
    ]


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "home") as store:
        yield store


@pytest.fixture
def panel(tmp_path) -> Panel:
    """A recogniser that hears nothing costs nothing."""
    return Panel([WordErrors(lambda audio: "the two men", "none", ""), Sound()], tmp_path / "cache")


def plan(**more) -> Plan:
    return Plan("folder", trials(), KATHLEEN, **more)


def test_speech_goes_through_the_gate_and_each_voice_is_withdrawn(store, panel, tmp_path):
    goes_on = Trial("on", "kathleen", TEXTS["3"], clip("3"), TEXTS["3"], 1.5, clip("3"))
    both = plan(models={"mini": BUNDLED}, corpus="Kathleen")
    run = Run(replace(both, trials=[trials()[2], goes_on]), tmp_path / "out", panel, store)
    list(run.work())
    found = run.results()
    assert found and found["order"] == ["recordings", "through the codec", "mini"]
    assert found["rows"]["mini"]["unfinished"]["value"] == 0 and found["time"]["mini"] > 0
    said = tmp_path / "out/speech/mini/5.wav"
    assert detect(said, store.home).manifest.state == "trusted"
    behind = tmp_path / "out/speech/mini/on.wav"  # judged behind its prefix, which is not in it
    whole = found["trials"][1]["rows"]["mini"]["seconds"]
    assert whole == pytest.approx(1.5 + seconds_of(behind), abs=1e-3)
    assert {e.content["path"] for e in store.entries("released")} == {str(said), str(behind)}
    voices = [each for each in store.voices() if each.voice.startswith("evaluation-")]
    assert len(voices) == 2 and all(voice.revoked for voice in voices)
    sounds = {path for path in (tmp_path / "out").rglob("*") if path.suffix == ".wav"}
    assert sounds == {said, behind}


def test_inputs_are_left_out_by_a_flag_each_in_a_row_of_its_own(store, panel, tmp_path):
    asked = plan(models={"mini": BUNDLED}, corpus="Kathleen", ablations=True)
    run = Run(replace(asked, trials=trials()[2:3]), tmp_path / "out", panel, store)
    list(run.work())
    found = run.results()
    rows = ["mini", "mini, no AR prompt", "mini, no NAR prompt", "mini, no NAR text"]
    assert found and found["order"][2:] == rows
    said = {}
    for row in rows:
        assert found["rows"][row]["unfinished"]["value"] == 0
        said[row] = read_audio(said_in(tmp_path / "out", row, "5"), 16_000)
    lengths = {row: sound.shape[1] for row, sound in said.items()}
    assert lengths["mini"] == lengths[rows[2]] == lengths[rows[3]]  # the NAR adds no frames
    assert lengths["mini"] != lengths[rows[1]]
    for row in rows[2:]:  # far more than another mark makes
        assert (said[row] - said["mini"]).square().mean() > 0.1 * said["mini"].square().mean()


def test_prompts_that_are_recordings_need_a_corpus(store, panel, tmp_path):
    with pytest.raises(InputError, match="--corpus"):
        Run(plan(models={"mini": BUNDLED}), tmp_path / "out", panel, store)
    with pytest.raises(CorpusError, match="not a corpus"):
        Run(plan(models={"mini": BUNDLED}, corpus="Someone"), tmp_path / "out", panel, store)


def finish(folder: Path, panel: Panel, store: Store, parts: list[tuple[int, int, int]]) -> str:
    """Results of a run done in parts (shard, of, trials until it is killed), without the times."""
    found = None
    for shard, of, most in parts:
        asked = plan(files={"another": KATHLEEN / "audio"}, together=2)
        run = Run(asked, folder, panel, store)
        for _ in zip(range(most), run.work(shard, of), strict=False):
            pass
        found = run.results()
    assert found is not None
    return json.dumps(found | {"time": 0}, sort_keys=True)


def test_killed_or_sharded_the_figures_are_the_same(store, panel, tmp_path):
    whole = finish(tmp_path / "a", panel, store, [(0, 1, 9)])
    assert finish(tmp_path / "b", panel, store, [(0, 1, 1), (0, 1, 2), (0, 1, 9)]) == whole
    assert finish(tmp_path / "c", panel, store, [(1, 2, 9), (0, 2, 1), (0, 2, 9)]) == whole
    assert json.loads(whole)["rows"]["another"]["unfinished"]["value"] == 1  # no such file names


def evaluating(home: Path, out: Path, shard: str) -> subprocess.Popen:
    """A process that does a part of a run of four trials, once it has begun to speak."""
    script = Path(__file__).with_name("evaluating.py")
    command = [sys.executable, script, home, out, shard]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "begun\n"
    return process


def test_killed_at_any_moment_and_split_the_figures_are_the_same_byte_for_byte(tmp_path):
    """Two processes in a copy of the store, of which one is killed: what is heard is the same."""
    first, second, whole, parts = (tmp_path / name for name in ("one", "two", "whole", "parts"))
    with Store.open(first) as store:
        Synthesizer(BUNDLED, store)  # makes keys, marks and nobody's voice
    shutil.copytree(first, second)
    start = time.monotonic()
    assert evaluating(first, whole, "0/1").wait() == 0
    moment = random.uniform(0, (time.monotonic() - start) / 2)
    killed, other = evaluating(second, parts, "1/2"), evaluating(second, parts, "0/2")
    with suppress(subprocess.TimeoutExpired):
        killed.wait(moment)
    killed.kill()
    assert other.wait() == 0 and evaluating(second, parts, "1/2").wait() == 0
    found = [json.loads((out / "results.json").read_bytes()) for out in (whole, parts)]
    one, two = (json.dumps(each | {"time": 0}) for each in found)
    assert one == two, f"killed after {moment:.2f} s"
    assert {"mini", "mini, random"} == set(found[0]["rows"]) and found[0]["trials"][0]["rows"]
    for path in sorted((whole / "speech").rglob("*.wav")):
        again = parts / path.relative_to(whole)
        assert torch.equal(read_audio(path, 24_000), read_audio(again, 24_000))
    with Store.open(second) as store:
        rows = [(entry.id, entry.content["path"]) for entry in store.entries("released")]
    assert (
        len(dict(rows)) == len(rows) >= 8
    )  # what was said twice has two ids, and is named by both
    said = parts / "speech/mini/t2.wav"
    named = {id for id, path in rows if path == str(said)}
    assert named and set(detect(said, second).ledger_ids) == named


JUDGE = """
from sayso.evaluation.metrics import WordErrors

def judge():
    return WordErrors(lambda audio: f"the two men {len(audio)}", "toy", "0" * 64, "toy 1")
"""


def test_a_judge_of_ones_own_is_a_file_and_takes_the_place_of_its_kind(store, panel, tmp_path):
    file = tmp_path / "toy.py"
    file.write_text(JUDGE)
    own = replaced(panel.metrics, [judge_of(file)])
    assert [metric.name for metric in own] == ["words", "sound"]
    run = Run(plan(), tmp_path / "out", Panel(own, tmp_path / "cache"), store)
    list(run.work())
    found = run.results()
    assert found is not None and found["run"]["metrics"]["words"] == {
        "model": "toy",
        "version": "toy 1",
        "hash": "0" * 64,
    }
    heard = found["trials"][0]["rows"]["recordings"]
    assert heard["heard"].startswith("the two men ") and heard["errors"] == 8


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (None, "FileNotFound"),
        ("", "judge"),
        ("def judge(): return 5", "a int, not a Metric"),
        (JUDGE.replace('"toy", "0"', 'None * 2, "0"'), "TypeError"),
    ],
)
def test_a_file_without_a_judge_is_refused(text, why, tmp_path):
    file = tmp_path / "toy.py"
    if text is not None:
        file.write_text(text)
    with pytest.raises(InputError, match=f"toy.py holds no judge.*{why}"):
        judge_of(file)


def test_results_wait_for_every_part_and_a_folder_is_of_one_run(store, panel, tmp_path):
    run = Run(plan(together=2), tmp_path, panel, store)
    list(run.work(0, 2))
    assert run.results() is None
    with pytest.raises(InputError, match="another run"):
        Run(plan(seed=1), tmp_path, panel, store)


def test_the_page_is_whole_and_names_nothing_outside(store, panel, tmp_path):
    row = f"a <b>| {POISON}"
    hostile = replace(plan(files={row: tmp_path}), trials=trials())
    for trial in hostile.trials[:2]:
        shutil.copy(KATHLEEN / trial.prompt, tmp_path / f"{trial.id}.opus")
    run = Run(hostile, tmp_path / "out", panel, store)
    list(run.work())
    found = run.results()
    assert found is not None
    write_report(found, tmp_path / "out", KATHLEEN)
    page = (tmp_path / "out/index.html").read_text()
    assert "<b>" not in page
    assert page.count("<section>") == 4 and page.count("<tr>") == 2 * 3 and "$" not in page
    text = (tmp_path / "out/report.md").read_text()
    assert "| recordings |" in text and "the two men" in text and found["run"]["list"][:12] in text
    found["left out"] = {POISON: POISON}
    found["run"]["metrics"][POISON] = {"model": POISON, "version": POISON, "hash": POISON}
    for trial in found["trials"]:
        trial["text"] = POISON
        for values in trial["rows"].values():
            values |= {"heard": POISON, "why": POISON}
    write_report(found, tmp_path / "out", KATHLEEN)
    again = (tmp_path / "out/index.html").read_text()
    assert loads(again) == loads(page) and len(loads(page)) == 2 * 4
    for name in loads(page):
        assert (tmp_path / "out" / name).stat().st_size > 1000
    markdown = (tmp_path / "out/report.md").read_text()
    assert loads(MarkdownIt("gfm-like", {"linkify": False}).render(markdown)) == []


@pytest.mark.parametrize(
    ("text", "environment", "part"),
    [
        ("1/3", {"RANK": "0", "WORLD_SIZE": "2"}, (1, 3)),
        ("", {"RANK": "1", "WORLD_SIZE": "2"}, (1, 2)),
        ("", {"SLURM_PROCID": "3", "SLURM_NTASKS": "8"}, (3, 8)),
        ("", {}, (0, 1)),
    ],
)
def test_a_process_knows_its_part(text, environment, part):
    assert shard_of(text, environment) == part


@pytest.mark.parametrize("text", ["2/2", "1", "-1/2", "a/b"])
def test_a_part_that_there_is_not_is_refused(text):
    with pytest.raises(InputError, match="--shard"):
        shard_of(text, {})


def test_a_sentence_is_split_where_its_prompt_ends():
    audio = read_audio(KATHLEEN / clip("3"), 16_000)[0].numpy()
    before, after = split_at(audio, TEXTS["3"], 1.5)
    assert f"{before} {after}".lower().startswith("for the twentieth time that evening")
    assert 3 <= len(before.split()) <= 6
    with pytest.raises(InputError, match="one side"):
        split_at(audio, TEXTS["3"], 20.0)


def take(errors: int, sim: float, mos: float) -> dict:
    return {"errors": errors, "words": 10, "SIM-o": sim, "DistillMOS": mos}


def test_eq_23_wants_the_voice_first_and_then_the_words():
    poor, unlike, sure = take(3, 0.9, 1.0), take(0, 0.5, 3.0), take(2, 0.66, 2.0)
    assert eq23([poor, unlike, sure], 0.65) is sure
    assert eq23([poor, unlike], 0.65) is poor
    assert oracle([poor, unlike, sure]) == take(0, 0.9, 3.0)


def test_differences_are_paired_and_intervals_cover():
    draw = np.random.default_rng(1)
    level = draw.normal(3, 1, 200)
    speakers = [f"s{i % 20}" for i in range(200)]
    first = [{"DistillMOS": x} for x in level]
    better = [
        {"DistillMOS": x + 0.1 + e} for x, e in zip(level, draw.normal(0, 0.1, 200), strict=True)
    ]
    rows = summarise({"first": first, "better": better}, speakers)
    wide, apart = rows["better"]["DistillMOS"], rows["better"]["DistillMOS"]["difference"]
    assert wide["utterances"][0] < rows["first"]["DistillMOS"]["value"] < wide["utterances"][1]
    for kind in ("utterances", "speakers"):
        low, high = apart[kind]
        assert 0.05 < low < apart["value"] < high < 0.15
    assert "difference" not in rows["first"]["DistillMOS"]
    assert np.diff(wide["utterances"])[0] == pytest.approx(2 * 1.96 / 200**0.5, rel=0.2)


def test_word_errors_are_of_all_words_and_what_is_missing_does_not_count():
    values = [{"errors": 1, "words": 10}, {"errors": 9, "words": 90, "SIM-o": 0.5}]
    found = summarise({"a": values}, ["x", "x"])["a"]
    assert found["WER"]["value"] == 0.1 and found["SIM-o"]["value"] == 0.5
    assert "speakers" not in found["WER"] and "OVRL" not in found


def test_the_nearest_prompt_is_the_speakers_own_or_not():
    axes = np.eye(3).tolist()
    own = [axes[0], axes[1], axes[1]]
    values = [{"prompt's": p, "own": o} for p, o in zip(axes, own, strict=True)]
    mark_nearest({"a": values}, ["x", "y", "z"])
    assert [each["nearest"] for each in values] == [1, 1, 0]
