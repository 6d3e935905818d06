"""The training loop on Lightning Fabric: guarded, stopped and resumed at will, exact on CPU."""

import json
import math
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from lightning.fabric import Fabric
from safetensors.torch import save_file
from torch import Tensor

from sayso.model.corpora import verify
from sayso.model.errors import InputError, SaysoError

from .checkpoints import (
    Progress,
    collect,
    full,
    header,
    newest,
    prune,
    read_state,
    restore,
    save_or_warn,
)
from .clock import Clock
from .data import Batch, Batches, ahead
from .distributed import start_fabric
from .exporting import Judge, ask, export
from .finetune import Part, begin
from .log import Log
from .recipe import Optimisation, Recipe
from .stopping import Stop
from .tokens import VALIDATION, open_tokens
from .validation import validate

Report = Callable[[str], None]
Hear = Callable[[int], dict[str, Path]]
"""Speaks with the weights exported last, at a step: marked samples by name."""


class DivergedError(SaysoError):
    """Too many non-finite steps in a row; the last batches were saved."""


@dataclass(frozen=True)
class Watch:
    """Who hears and judges a model while it trains."""

    hear: Hear | None = None
    """Called whenever better weights were exported; its samples go to TensorBoard."""
    judge: Judge | None = None
    """Called every `every` steps and at the end; its figures go to the log."""
    every: int = 1


UNWATCHED = Watch()


def train_ar(
    recipe: Recipe, resume: bool = True, report: Report = print, watch: Watch = UNWATCHED
) -> Path:
    """Trains the AR model of a recipe and exports its weights to ``RUN/ar``.

    Args:
        recipe: Settings; its token folders must be prepared.
        resume: Continue from the newest checkpoint of the run if there is one.
        report: Takes the lines of the log.

    Raises:
        InputError: Token files are missing, or the run has checkpoints of another recipe.
        CorpusError: Token files of a corpus that may not be used.
        CheckpointError: The last checkpoint cannot be written.
        DivergedError: The loss stayed non-finite.
    """
    return _train(recipe, "ar", recipe.ar.train, resume, report, watch)


def train_nar(
    recipe: Recipe, resume: bool = True, report: Report = print, watch: Watch = UNWATCHED
) -> Path:
    """Trains the NAR model of a recipe and exports its weights to ``RUN/nar``.

    Arguments and errors as :func:`train_ar`.
    """
    return _train(recipe, "nar", recipe.nar.train, resume, report, watch)


def _train(
    recipe: Recipe,
    part: Part,
    settings: Optimisation,
    resume: bool,
    report: Report,
    watch: Watch,
) -> Path:
    """The loop; see :func:`train_ar`."""
    data = recipe.data
    if settings.export == "judged" and watch.judge is None:
        raise InputError("export: judged needs figures: give --evaluate-every N, or export: best")
    tokens = open_tokens([Path(each) for each in data.tokens], data.corpora, data.held_out)
    task = begin(recipe, part, tokens)
    run, config = Path(recipe.run), task.pure.config
    folder = run / "checkpoints" / part
    made_from = {
        "model": json.loads(json.dumps(asdict(task.model.config))),
        "corpora": tokens.corpora,
        "tokens": sorted(tokens.manifests.values()),
        "data": [settings.seed, settings.frames, recipe.data.join_seconds],
        "held_out": vars(recipe.data.held_out),
        "prompts": recipe.nar.prompts,
        "batches_per_step": settings.accumulation * settings.devices * settings.nodes,
    }
    batches = Batches(
        tokens,
        settings.frames,
        settings.seed,
        config.max_text - 1,  # <eos> takes a place
        config.max_frames,
        recipe.data.join_seconds,
        recipe.ar.group_size,
        recipe.nar.prompts,
        recipe.data.validation_minutes,
    )
    if not len(batches.validation) and settings.export == "best":
        held = int((tokens.split == VALIDATION).sum())
        raise InputError(
            f"of {held} utterances held out of {', '.join(recipe.data.tokens)} none fits: "
            "no weights could be chosen. Set data.held_out_speakers, prepare the corpus's dev "
            "parts, or raise max_text, max_frames and frames"
        )
    if task.pure is not task.model and not tokens.aligned:
        raise InputError("alignment: true needs aligned tokens; prepare them with data.align: true")
    fabric = start_fabric(settings)
    first = fabric.is_global_zero
    report = report if first else _silent
    if settings.compile:
        task.model.loss = torch.compile(task.model.loss, dynamic=True)  # type: ignore
    parameters = sum(p.numel() for p in task.parameters())
    model = fabric.setup_module(task)
    optimizer: Any = fabric.setup_optimizers(task.configure_optimizers())
    average = {}
    if settings.ema:
        average = {name: p.detach().clone() for name, p in task.named_parameters()}
    progress = Progress()
    last = newest(folder)
    if last is not None and not resume:
        raise InputError(f"{run} already holds checkpoints of {part}; resume it or move it away")
    if last is not None:
        tensors, head = read_state(last)
        verify(head.get("corpora", []), last)
        differing = [key for key in made_from if head.get(key, made_from[key]) != made_from[key]]
        if differing:
            raise InputError(
                f"{last} was made with another {', '.join(differing)}; give the run another folder"
            )
        restore(tensors, task, optimizer, average)
        progress = Progress(**head["progress"])
        report(f"{part}: continuing after step {progress.step}")
    report(
        f"{part}: {parameters / 1e6:.2f} M parameters, {len(batches.train)} utterances, "
        f"{len(batches.validation)} held out, {batches.left_out} too long, "
        f"{sum(tokens.skipped.values())} unusable"
    )
    if not tokens.new_voices:
        report(
            f"warning: {part}: no speaker is held out (data.held_out_speakers), so that no figure "
            "of this run says how it does with a voice that it never heard"
        )
    log = Log(run, part, progress.step, recipe.wandb) if first else None
    clock = Clock(progress.minutes, settings, fabric)
    steps = batches.steps(
        progress.step, settings.accumulation, fabric.global_rank, fabric.world_size
    )
    stopping = False  # asked to, by a signal to any process
    with closing(ahead(steps, reading=lambda: batches.reading)) as steps, Stop() as stop:
        over = progress.step > 0 and clock.over(progress.step)  # a run has one step at least
        while not (over or stopping):
            for group in optimizer.param_groups:
                group["lr"] = settings.peak_rate * clock.rate_factor(progress.step)
            with clock.waiting():
                taken = next(steps)
            loss, norm, stopping = _step(
                fabric, model, optimizer, taken, settings, progress.step, stop.asked
            )
            if math.isfinite(loss) and math.isfinite(norm):
                optimizer.step()
                progress.skipped_in_a_row = 0
                for name, parameter in task.named_parameters() if average else ():
                    average[name].lerp_(parameter.detach(), 1 - settings.ema)
            else:
                progress.skipped += 1
                progress.skipped_in_a_row += 1
            optimizer.zero_grad()
            if progress.skipped_in_a_row >= settings.patience:
                where = (
                    run / f"diverged-{part}-{progress.step:08d}-{fabric.global_rank}.safetensors"
                )
                run.mkdir(parents=True, exist_ok=True)
                save_file(_named(taken), where)
                raise DivergedError(
                    f"{part}: {settings.patience} non-finite steps in a row up to step "
                    f"{progress.step}; the batches are in {where}; lower the rate, or look at them"
                )
            progress.step += 1
            progress.frames += taken[0].step_frames
            clock.count(taken[0].step_frames, sum(task.flops(batch) for batch in taken))
            over = clock.over(progress.step)
            progress.minutes = clock.minutes()
            row: dict[str, Any] = {"step": progress.step, "minutes": progress.minutes, "loss": loss}
            row["level"] = 0 if part == "ar" else taken[0].level
            row.update(rate=optimizer.param_groups[0]["lr"], gradient_norm=norm)
            row["skipped"] = progress.skipped
            better = fewer = looked = False
            due = over or stopping or progress.step % settings.save_every == 0
            if over or (progress.step % settings.validate_every == 0 and not stopping):
                row.update(clock.figures())
                row.update(validate(fabric, model, task, batches, average))
                report(_line(part, row))
                better = _better(row.get("validation_loss"), progress.best)
                looked = True
                if better:
                    progress.best = row["validation_loss"]
            asked = over or (progress.step % watch.every == 0 and not stopping)
            if watch.judge is not None and asked:
                found = ask(fabric, task, average, watch.judge, progress.step)
                row.update(found)
                if found:
                    said = ", ".join(f"{name} {value:.3f}" for name, value in found.items())
                    report(f"{part} step {progress.step}: {said}")
                    key = [found["WER"], -found.get("SIM", 0.0)]
                    fewer = progress.judged is None or key < progress.judged
                    progress.judged = key if fewer else progress.judged
            wanted = {
                "best": better,
                "last": better or (looked and math.isfinite(loss)),
                "judged": fewer or (better and progress.judged is None),
            }
            if wanted[settings.export]:
                export(fabric, run, part, recipe, tokens, task, average, row)
                if log is not None and watch.hear is not None:
                    for name, path in watch.hear(progress.step).items():
                        log.audio(name, path, progress.step)
            if looked or (watch.judge is not None and asked):
                clock.restart()
            if log is not None:
                log.write(row)
            if due or better:
                tensors = collect(task, optimizer, average)
                names = [f"step-{progress.step:08d}"] * due + ["best"] * better
                for name in names if first else ():
                    path = folder / f"{name}.safetensors"
                    head = header(progress, **made_from)
                    save_or_warn(path, tensors, head, report, final=over or stopping)
                if first:
                    prune(folder, settings.keep)
                fabric.barrier()
    if log is not None:
        log.close()
    if stopping and not over:
        report(f"{part}: asked to end; saved after step {progress.step}: the same command goes on")
    return run / part


def _step(
    fabric: Fabric,
    model: Any,
    optimizer: Any,
    batches: list[Batch],
    settings: Optimisation,
    step: int,
    asked: bool,
) -> tuple[float, float, bool]:
    """Gradients of one step, clipped; its loss in nats per code and the norm before clipping.

    All processes must end at the same step: the last is whether any of them was `asked` to.
    """
    sums = torch.tensor([0.0, 0.0, asked], dtype=torch.float64)
    for i, batch in enumerate(batches):
        # Dropout depends on the place of the batch alone, so that a resumed run repeats it.
        seeds = np.random.SeedSequence([settings.seed, step, i, fabric.global_rank])
        torch.manual_seed(int(seeds.generate_state(1)[0]))
        with fabric.no_backward_sync(model, enabled=i + 1 < len(batches)):
            with fabric.autocast():  # Fabric itself forgets it where it need not wrap the module
                share, loss = model.training_step(batch.to(fabric.device))
            fabric.backward(share * fabric.world_size)  # DDP and FSDP average over processes
        sums[:2] += torch.stack([loss.summed.detach().double(), loss.count.double()]).cpu()
    norm = fabric.clip_gradients(model, optimizer, max_norm=settings.clip, error_if_nonfinite=False)
    sums = cast(Tensor, fabric.all_reduce(sums, reduce_op="sum"))
    return float(sums[0] / sums[1]), float(full(torch.as_tensor(norm))), bool(sums[2])


def _better(loss: float | None, best: float | None) -> bool:
    return loss is not None and math.isfinite(loss) and (best is None or loss < best)


def _named(batches: list[Batch]) -> dict[str, Tensor]:
    """The tensors of some batches by name, to be looked at after a failure."""
    return {
        f"{i}.{name}": value.contiguous()
        for i, batch in enumerate(batches)
        for name, value in batch._asdict().items()
        if isinstance(value, Tensor)
    }


def _line(part: str, row: dict[str, Any]) -> str:
    parts = [f"{part} step {row['step']}", f"{row['minutes']:.1f} min", f"loss {row['loss']:.4f}"]
    if "validation_loss" in row:
        parts.append(f"validation {row['validation_loss']:.4f}")
        parts.append(f"text gain {row['text_gain']:+.4f}")
    parts += [f"rate {row['rate']:.2e}", f"{row['frames_per_second']:.0f} frames/s"]
    return ", ".join(parts) + (f", {row['skipped']} skipped" if row["skipped"] else "")


def _silent(line: str) -> None:
    """Reports nothing, on all processes but the first."""
