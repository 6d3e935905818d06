"""Trains one slice on a lent machine, and leaves what came out as parcels.

python -m tools.gpu.run --parts ar,nar --minutes 9 --out $OUT

The house's own training does it all. A slice ends itself before its minutes are over; the next goes
on where it was, on the same machine from its checkpoints, on another from the parcels (--resume).
"""

import argparse
import dataclasses
import json
import os
import shutil
import signal
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sayso.model import corpora
from sayso.model.card import CARD
from sayso.model.checkpoint import WEIGHTS
from sayso.model.errors import InputError
from sayso.training.checkpoints import newest, read_state, save_state
from sayso.training.fitting.decoder import check_device, fit_examples
from sayso.training.fitting.decoder_recipe import read_decoder_recipe
from sayso.training.fitting.decoder_run import StoppedError
from sayso.training.held_out import HeldOut
from sayso.training.recipe import parse_overrides, read_recipe
from sayso.training.train import train_ar, train_nar

from .examples import read_examples
from .pack import HELD_OUT
from .parcels import pack, unpack

PARTS = "decoder", "ar", "nar"
LEFT = 0.1
"""Share of the minutes left to save, halve and write what came out."""


def slim(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """A checkpoint's weights, averaged where they are, in half precision: an eighth of it."""
    kept = {}
    for name, value in tensors.items():
        twin = name.replace("model.", "average.", 1)
        if "optimizer." not in name and (twin == name or twin not in tensors):
            kept[name] = value.half()
    return kept


def widened(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """A checkpoint to go on from; AdamW's moments begin anew."""
    averages = [name for name in tensors if name.startswith("average.")]
    more = {name.replace("average.", "model.", 1): tensors[name] for name in averages}
    return {name: value.float() for name, value in (tensors | more).items()}


def finished(run: Path, part: str) -> bool:
    """Whether a part has come to its end, here or in the parcels."""
    return (run / "finished" / part).is_file()


def resume(folder: Path, run: Path) -> None:
    """Go on from the parcels of an earlier slice, where this machine is not further.

    Raises:
        CorpusError: A parcel is of a corpus that is not listed.
        InputError: A parcel is damaged.
    """
    for manifest in sorted(folder.glob("*.json")):
        with TemporaryDirectory(dir=run) as place:
            unpack(folder, manifest.stem, Path(place))
            for path in Path(place).rglob("step-*.safetensors"):
                there = run / path.relative_to(place)
                last = newest(there.parent)
                if last is None or last.name < path.name:
                    tensors, head = read_state(path)
                    save_state(there, widened(tensors), head)
                path.unlink()
            if not finished(run, manifest.stem):
                shutil.copytree(place, run, dirs_exist_ok=True)


def hand_over(run: Path, part: str, names: list[str], out: Path) -> int:
    """Write a part's weights or, if it is not at its end, its checkpoints; returns bytes.

    Args:
        names: The corpora it was trained on.
    """
    with TemporaryDirectory(dir=run) as place:
        for file in (run / "logs" / f"{part}.csv", run / "logs" / f"{part}.txt"):
            if file.is_file():
                (Path(place) / "logs").mkdir(exist_ok=True)
                shutil.copyfile(file, Path(place) / "logs" / file.name)
        if finished(run, part):
            checkpoints = shutil.ignore_patterns("checkpoints")
            shutil.copytree(run / part, Path(place) / part, ignore=checkpoints)
            weights = Path(place) / part / WEIGHTS
            save_file({k: v.half() for k, v in load_file(run / part / WEIGHTS).items()}, weights)
            (Path(place) / "finished").mkdir()
            (Path(place) / "finished" / part).touch()
            if part != "decoder":
                shutil.copyfile(run / CARD, Path(place) / CARD)
        else:
            for folder in checkpoints_of(run, part):
                if (last := newest(folder)) is not None:
                    tensors, head = read_state(last)
                    save_state(Path(place) / last.relative_to(run), slim(tensors), head)
        return pack(Path(place), out, part, names)


def checkpoints_of(run: Path, part: str) -> list[Path]:
    """Where a part's checkpoints are."""
    if part != "decoder":
        return [run / "checkpoints" / part]
    return [run / "decoder" / "checkpoints", run / "decoder" / "checkpoints" / "clear"]


def train(part: str, given: argparse.Namespace, report: Any) -> list[str]:
    """One part to its end; returns the corpora it was trained on. StoppedError if time is over."""
    run, kit = given.work / "run", given.work / part
    if part == "decoder":
        names = unpack(given.kit, "examples", kit)
        examples, symbols = read_examples(kit)
        recipe = dataclasses.replace(
            read_decoder_recipe(given.decoder_config), accelerator=given.device
        )
        rule = HeldOut(utterances=HELD_OUT)
        fit_examples(recipe, examples, symbols, names, run / part, rule, report)
        (run / "finished" / part).touch()
        return names
    kit = given.work / "tokens"
    names = unpack(given.kit, "tokens", kit)
    settings: dict[str, object] = {
        "run": str(run),
        "data.tokens": [str(path) for path in sorted(kit.glob("tokens-*"))],
        "data.timbre": str(kit / "timbre"),
        f"{part}.train.accelerator": given.device,
    }
    if given.device == "cpu":
        settings[f"{part}.train.precision"] = "32-true"
    recipe = read_recipe(given.config, settings | parse_overrides(given.set))
    before = _progress(run, part)
    (train_ar if part == "ar" else train_nar)(recipe, report=report)
    after, limit = _progress(run, part), (recipe.ar if part == "ar" else recipe.nar).train
    seconds = 60 * max(after["minutes"] - before["minutes"], 1e-9)
    report(
        f"{part}: {after['step'] - before['step']} steps in {seconds:.0f} s, "
        f"{(after['frames'] - before['frames']) / seconds:.0f} frames a second"
    )
    if after["step"] < limit.steps and after["minutes"] < (limit.max_minutes or float("inf")):
        raise StoppedError(f"{part} is not at its end")
    (run / "finished" / part).touch()
    return names


def _progress(run: Path, part: str) -> dict[str, Any]:
    last = newest(run / "checkpoints" / part)
    nothing = {"step": 0, "minutes": 0.0, "frames": 0}
    return nothing if last is None else read_state(last)[1]["progress"]


def slice_of(given: argparse.Namespace) -> None:
    """Train parts until all are at their end or the minutes are nearly over, and hand them over.

    Raises:
        CorpusError: A parcel is of a corpus that is not listed.
        InputError: There is no GPU, a parcel is damaged, or an argument is impossible.
    """
    check_device(given.device)
    parts = given.parts.split(",")
    if not set(parts) <= set(PARTS) or given.minutes <= 0:
        raise InputError(f"--parts {given.parts} --minutes {given.minutes}: of {PARTS}, above 0")
    run, started = given.work / "run", time.monotonic()
    (run / "logs").mkdir(parents=True, exist_ok=True)
    (run / "finished").mkdir(exist_ok=True)
    if given.resume is not None:
        resume(given.resume, run)
    before = signal.signal(signal.SIGTERM, _over)
    seconds = 60 * given.minutes * (1 - LEFT)
    alarm = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGTERM))
    alarm.daemon = True
    alarm.start()
    try:
        for part in parts:
            with (run / "logs" / f"{part}.txt").open("a") as log:

                def report(line: str, log: Any = log) -> None:
                    line = f"{time.monotonic() - started:6.1f} s  {line}"
                    print(line, flush=True)
                    print(line, file=log, flush=True)

                if not finished(run, part):
                    train(part, given, report)
    except StoppedError as stopped:
        print(f"time is over: {stopped}", flush=True)
    finally:
        alarm.cancel()
        signal.signal(signal.SIGTERM, before)
    for part in parts:
        folders = checkpoints_of(run, part)
        if finished(run, part) or any(newest(folder) for folder in folders):
            parcel = "examples" if part == "decoder" else "tokens"
            listed = json.loads((given.kit / f"{parcel}.json").read_text())["corpora"]
            names = [each.name for each in corpora.verify(listed, given.kit)]
            size = hand_over(run, part, names, given.out)
            state = "at its end" if finished(run, part) else "to be gone on with"
            print(f"{part}: {state}, {size / 1e6:.1f} MB in {given.out}", flush=True)


def _over(*_: object) -> None:
    raise StoppedError("between two steps")


def parser() -> argparse.ArgumentParser:
    """What may be asked for."""
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--minutes", type=float, default=9.0)
    made.add_argument("--parts", default="decoder,ar,nar", help="in this order")
    made.add_argument("--out", type=Path, required=True, help="takes the parcels")
    made.add_argument("--kit", type=Path, default=Path("runs/gpu-kit"))
    made.add_argument("--work", type=Path, default=Path("runs/gpu"))
    made.add_argument("--resume", type=Path, help="parcels of an earlier slice")
    made.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    made.add_argument("--config", type=Path, default=Path("configs/mini/gpu.yaml"))
    made.add_argument("--decoder-config", type=Path, default=Path("configs/mini/gpu-decoder.yaml"))
    made.add_argument("--set", default="{}", help="'{ar.train.max_minutes: 5}'")
    return made


if __name__ == "__main__":
    torch.set_float32_matmul_precision("high")
    slice_of(parser().parse_args())
