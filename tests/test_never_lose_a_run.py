"""Signals, full disks and disks that hang: what was trained stays, a message says more."""

import json
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sayso.model.errors import CheckpointError, InputError
from sayso.training.checkpoints import read_state
from sayso.training.data import ahead
from sayso.training.train import train_ar
from training_fixtures import CONFIGS, SMALL, processes, rows, small_recipe, write_tokens


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


QUIET: dict[str, Any] = {"report": lambda line: None}


def states(run: Path) -> list[Path]:
    return sorted((run / "checkpoints" / "ar").glob("step-*"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_saves_and_ends_well_and_the_run_continues_to_the_same_bits(number, tmp_path):
    tokens = write_tokens(tmp_path / "tokens", rows(40))
    own = {**SMALL, "data.tokens": [str(tokens)], "data.join_seconds": 2.0}
    own |= {"data.held_out_every": None, "ar.train.steps": 600, "ar.train.save_every": 600}
    own |= {"ar.train.validate_every": 600, "run": str(tmp_path / "stopped")}
    command = [sys.executable, "-m", "sayso", "train", "ar", "--recipe"]
    command += [str(CONFIGS / "tiny.yaml"), "--set", json.dumps(own)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        log = tmp_path / "stopped" / "logs" / "ar.csv"
        while process.poll() is None and not (log.is_file() and log.stat().st_size > 500):
            time.sleep(0.05)
        process.send_signal(number)
        said = process.communicate(timeout=120)[0]
    assert process.returncode == 0
    [saved] = states(tmp_path / "stopped")
    step = int(saved.stem.removeprefix("step-"))
    assert 0 < step < 600 and f"saved after step {step}: the same command goes on" in said
    ends: dict[str, Any] = {f"ar__train__{key}": 600 for key in ("steps", "save_every")}
    ends["ar__train__validate_every"] = 600
    for run in ("stopped", "whole"):
        train_ar(small_recipe(tmp_path / run, tokens, **ends), **QUIET)
    one, other = (load_file(states(tmp_path / run)[-1]) for run in ("stopped", "whole"))
    assert one.keys() == other.keys() and all((one[name] == other[name]).all() for name in one)


def test_handlers_that_stood_there_before_stand_there_again(tmp_path):
    tokens = write_tokens(tmp_path / "tokens", rows(20))
    before = signal.getsignal(signal.SIGTERM)
    train_ar(small_recipe(tmp_path / "run", tokens, ar__train__steps=3), **QUIET)
    assert signal.getsignal(signal.SIGTERM) is before


def on_a_full_disk(recipe, room: int, said: Path) -> None:
    """Trains where no file may become larger than `room` bytes."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
    lines: list[str] = []
    try:
        train_ar(recipe, report=lines.append)
    except CheckpointError as error:
        lines.append(f"error: {error}")
    said.write_text("\n".join(lines))


def test_a_full_disk_keeps_the_last_good_checkpoint_and_says_so(tmp_path):
    tokens = write_tokens(tmp_path / "tokens", rows(40))
    own: dict[str, Any] = {"ar__train__save_every": 2, "ar__train__validate_every": 100}
    recipe = small_recipe(tmp_path / "run", tokens, ar__train__steps=4, **own)
    train_ar(recipe, **QUIET)
    good = states(tmp_path / "run")[-1]
    more = small_recipe(tmp_path / "run", tokens, ar__train__steps=9, **own)
    room = good.stat().st_size // 2
    process = processes().Process(target=on_a_full_disk, args=(more, room, tmp_path / "said"))
    process.start()
    process.join(timeout=120)
    said = (tmp_path / "said").read_text().splitlines()
    warnings = [line for line in said if line.startswith("warning: ") and "could not be" in line]
    assert len(warnings) == 2 and all(f"{good} is the last good one" in each for each in warnings)
    assert said[-1].startswith("error: ") and "free some space, and give the same" in said[-1]
    assert states(tmp_path / "run")[-1] == good
    assert read_state(good)[1]["progress"]["step"] == 4
    assert not list(good.parent.glob(".*"))  # nothing half-written is left
    train_ar(more, **QUIET)
    assert states(tmp_path / "run")[-1].stem == "step-00000009"


def test_a_batch_that_does_not_come_is_an_error_with_the_name_of_its_shard():
    hang = threading.Event()

    def batches():
        yield 1
        hang.wait()

    made = ahead(batches(), patience=0.2, reading=lambda: "runs/tokens/shard-00007.parquet")
    assert next(made) == 1
    with pytest.raises(InputError, match=r"no batch in 0\.2 s; .*shard-00007\.parquet"):
        next(made)
    hang.set()
