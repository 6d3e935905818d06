"""The training loop on Lightning Fabric: guarded, stopped and resumed at will, exact on CPU."""

import csv
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from lightning.fabric import Fabric
from safetensors.torch import save_file
from torch import Tensor, nn

from sayso.model.ar import AR, ARConfig
from sayso.model.checkpoint import save_module
from sayso.model.errors import InputError, SaysoError
from sayso.model.nar import NAR, NARConfig

from .card import write_card
from .data import Batch, Batches, Tokens, open_tokens
from .finetune import start_from
from .recipe import Optimisation, Recipe
from .state import Progress, collect, full, header, newest, prune, read_state, restore, save_state
from .tasks import ARTask, NARTask, rate_factor

COLUMNS = (
    *("step", "minutes", "loss", "rate", "gradient_norm", "frames_per_second", "skipped"),
    *("validation_loss", "text_gain", "validation_per_codebook"),
)
Report = Callable[[str], None]


class DivergedError(SaysoError):
    """Too many non-finite steps in a row; the last batches were saved."""


def train_ar(recipe: Recipe, resume: bool = True, report: Report = print) -> Path:
    """Trains the AR model of a recipe and exports its best weights to ``RUN/ar``.

    Args:
        recipe: Settings; its token folders must be prepared.
        resume: Continue from the newest checkpoint of the run if there is one.
        report: Takes the lines of the log.

    Raises:
        InputError: Token files are missing, or the run has checkpoints of another recipe.
        CorpusError: Token files of a corpus that may not be used.
        DivergedError: The loss stayed non-finite.
    """
    tokens = open_tokens([Path(each) for each in recipe.data.tokens], recipe.data.corpora)
    ar = recipe.ar
    config = ARConfig(
        text_size=tokens.tokenizer["size"],
        codebook_size=tokens.codec["codebook_size"],
        group_size=ar.group_size,
        size=ar.size,
        max_text=ar.max_text,
        max_frames=ar.max_frames,
    )
    torch.manual_seed(ar.train.seed)  # of the initial weights
    task = ARTask(AR(config), ar.train)
    if ar.start_from is not None:
        start_from(task.model, Path(ar.start_from))
    return _train(recipe, "ar", tokens, task, ar.train, resume, report)


def train_nar(recipe: Recipe, resume: bool = True, report: Report = print) -> Path:
    """Trains the NAR model of a recipe and exports its best weights to ``RUN/nar``.

    Arguments and errors as :func:`train_ar`.
    """
    tokens = open_tokens([Path(each) for each in recipe.data.tokens], recipe.data.corpora)
    nar = recipe.nar
    config = NARConfig(
        text_size=tokens.tokenizer["size"],
        codebook_size=tokens.codec["codebook_size"],
        codebooks=tokens.codec["codebooks"],
        size=nar.size,
        max_text=nar.max_text,
        max_frames=nar.max_frames,
    )
    torch.manual_seed(nar.train.seed)  # of the initial weights
    task = NARTask(NAR(config), nar.train)
    if nar.start_from is not None:
        start_from(task.model, Path(nar.start_from))
    return _train(recipe, "nar", tokens, task, nar.train, resume, report)


def _train(
    recipe: Recipe,
    part: str,
    tokens: Tokens,
    task: ARTask | NARTask,
    settings: Optimisation,
    resume: bool,
    report: Report,
) -> Path:
    """The loop; see :func:`train_ar`."""
    run = Path(recipe.run)
    made_from = {
        "model": json.loads(json.dumps(asdict(task.model.config))),
        "corpora": tokens.corpora,
        "tokens": sorted(tokens.manifests.values()),
        "data": [settings.seed, settings.frames, recipe.data.join_seconds],
        "batches_per_step": settings.accumulation * settings.devices * settings.nodes,
    }
    fabric = Fabric(
        accelerator=settings.accelerator,
        devices=settings.devices,
        num_nodes=settings.nodes,
        strategy=settings.strategy,
        precision=settings.precision,
    )
    fabric.launch()
    report = report if fabric.is_global_zero else _silent
    batches = Batches(
        tokens,
        settings.frames,
        settings.seed,
        # <eos> takes a text position; a tail of G - 1 frames and <eos> need room as well
        task.model.config.max_text - 1,
        task.model.config.max_frames,
        recipe.data.join_seconds,
    )
    config = task.model.config
    model, optimizer = fabric.setup(task, task.configure_optimizers())
    average = {}
    if settings.ema:
        average = {name: p.detach().clone() for name, p in task.named_parameters()}
    progress = Progress()
    folder = run / "checkpoints" / part
    last = newest(folder)
    if last is not None and not resume:
        raise InputError(f"{run} already holds checkpoints of {part}; resume it or move it away")
    if last is not None:
        tensors, head = read_state(last)
        differing = [key for key in made_from if head.get(key) != made_from[key]]
        if differing:
            raise InputError(
                f"{last} was made with another {', '.join(differing)}; give the run another folder"
            )
        restore(tensors, task, optimizer, average)
        progress = Progress(**head["progress"])
        report(f"{part}: continuing after step {progress.step}")
    count = sum(p.numel() for p in task.parameters())
    report(
        f"{part}: {count / 1e6:.2f} M parameters, {len(batches.train)} utterances, "
        f"{len(batches.validation)} held out, {batches.left_out} too long, "
        f"{sum(tokens.skipped.values())} unusable"
    )
    log = _Log(run / "logs" / f"{part}.csv", progress.step) if fabric.is_global_zero else None
    started, before = time.monotonic(), progress.minutes
    steps = batches.steps(
        progress.step, settings.accumulation, fabric.global_rank, fabric.world_size
    )
    since = (time.monotonic(), progress.frames)

    def minutes() -> float:
        return before + (time.monotonic() - started) / 60

    def finished() -> bool:
        return fabric.broadcast(
            progress.step >= settings.steps
            or (settings.max_minutes is not None and minutes() >= settings.max_minutes)
        )

    over = finished()
    while not over:
        factor = fabric.broadcast(rate_factor(settings, progress.step, minutes()))
        for group in optimizer.param_groups:
            group["lr"] = settings.peak_rate * factor
        taken = next(steps)
        loss, norm = _step(fabric, model, optimizer, taken, settings, progress.step)
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
            where = run / f"diverged-{part}-{progress.step:08d}-{fabric.global_rank}.safetensors"
            save_file(_named(taken), where)
            raise DivergedError(
                f"{part}: {settings.patience} non-finite steps in a row up to step "
                f"{progress.step}; the batches are in {where}; lower the rate, or look at them"
            )
        progress.step += 1
        progress.frames += taken[0].step_frames
        over = finished()
        row: dict[str, Any] = {"step": progress.step, "loss": loss, "gradient_norm": norm}
        row.update(rate=optimizer.param_groups[0]["lr"], skipped=progress.skipped)
        row["minutes"] = progress.minutes = minutes()
        if over or progress.step % settings.validate_every == 0:
            now = (time.monotonic(), progress.frames)
            row["frames_per_second"] = (now[1] - since[1]) / (now[0] - since[0])
            result = validate(fabric, model, task, batches, average)
            row.update(result)
            report(_line(part, row))
            if _better(result.get("validation_loss"), progress.best):
                progress.best = result.get("validation_loss")
                _export(fabric, run, part, recipe.name, tokens, task, config, average, row)
            since = (time.monotonic(), progress.frames)
        if log is not None:
            log.write(row)
        if over or progress.step % settings.save_every == 0:
            progress.minutes = minutes()
            tensors = collect(task, optimizer, average)
            if fabric.is_global_zero:
                path = folder / f"step-{progress.step:08d}.safetensors"
                save_state(path, tensors, header(progress, **made_from))
                prune(folder, settings.keep)
            fabric.barrier()
    return run / part


def _step(
    fabric: Fabric,
    model: Any,
    optimizer: Any,
    batches: list[Batch],
    settings: Optimisation,
    step: int,
) -> tuple[float, float]:
    """Gradients of one step, clipped; its loss in nats per code and the norm before clipping."""
    sums = torch.zeros(2, dtype=torch.float64)
    for i, batch in enumerate(batches):
        # Dropout depends on the place of the batch alone, so that a resumed run repeats it.
        seeds = np.random.SeedSequence([settings.seed, step, i, fabric.global_rank])
        torch.manual_seed(int(seeds.generate_state(1)[0]))
        with fabric.no_backward_sync(model, enabled=i + 1 < len(batches)):
            share, loss = model.training_step(batch.to(fabric.device))
            fabric.backward(share * fabric.world_size)  # DDP and FSDP average over processes
        sums += torch.stack([loss.summed.detach().double(), loss.count.double()]).cpu()
    norm = fabric.clip_gradients(model, optimizer, max_norm=settings.clip, error_if_nonfinite=False)
    sums = cast(Tensor, fabric.all_reduce(sums, reduce_op="sum"))
    return float(sums[0] / sums[1]), float(full(torch.as_tensor(norm)))


@torch.no_grad()
def validate(
    fabric: Fabric,
    model: Any,
    task: ARTask | NARTask,
    batches: Batches,
    average: dict[str, Tensor],
) -> dict[str, Any]:
    """Loss on the held-out utterances, and by how much it grows with shuffled texts (text gain).

    Returns:
        ``validation_loss`` and ``text_gain`` in nats per code, and the loss of each codebook;
        empty if nothing is held out.
    """
    sums = torch.zeros(len(task.levels), 4, dtype=torch.float64)
    own = {name: p.detach().clone() for name, p in task.named_parameters()} if average else {}
    _put(task, average)
    model.eval()
    for batch in batches.validation_batches(fabric.global_rank, fabric.world_size):
        sums += model.validation_step(batch.to(fabric.device))
    model.train()
    _put(task, own)
    sums = cast(Tensor, fabric.all_reduce(sums, reduce_op="sum"))
    total = sums.sum(0).tolist()
    if not total[1]:
        return {}
    each = (sums[:, 0] / sums[:, 1]).tolist()
    return {
        "validation_loss": total[0] / total[1],
        "text_gain": total[2] / total[3] if total[3] else math.nan,
        "validation_per_codebook": " ".join(f"{value:.4f}" for value in each),
    }


def _put(task: nn.Module, values: dict[str, Tensor]) -> None:
    """Sets the parameters to these values, if there are any."""
    for name, parameter in task.named_parameters() if values else ():
        parameter.copy_(values[name])


def _export(
    fabric: Fabric,
    run: Path,
    part: str,
    name: str,
    tokens: Tokens,
    task: ARTask | NARTask,
    config: ARConfig | NARConfig,
    average: dict[str, Tensor],
    row: dict[str, Any],
) -> None:
    """Writes the weights (averaged, if they are) and the card."""
    weights = {n: full(average.get(n, p)) for n, p in task.named_parameters()}
    if not fabric.is_global_zero:
        return
    with torch.device("cpu"):
        plain = type(task.model)(config)  # type: ignore[arg-type]
    plain.load_state_dict({n.removeprefix("model."): p for n, p in weights.items()})
    save_module(run / part, plain, config)
    figures = {key: row[key] for key in ("step", "minutes", "validation_loss", "text_gain")}
    figures["validation_per_codebook"] = row["validation_per_codebook"]
    write_card(run, name, part, tokens, figures)


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


class _Log:
    """A CSV file with one line per step; lines after the step resumed from are dropped."""

    def __init__(self, path: Path, step: int):
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = []
        if path.is_file():
            with path.open(newline="") as lines:
                kept = [row for row in csv.DictReader(lines) if int(row["step"] or 0) <= step]
        self.file = path.open("w", newline="")
        self.writer = csv.DictWriter(self.file, COLUMNS)
        self.writer.writeheader()
        self.writer.writerows(kept)

    def write(self, row: dict[str, Any]) -> None:
        """Adds a line."""
        self.writer.writerow(
            {key: f"{v:.6g}" if isinstance(v, float) else v for key, v in row.items()}
        )
        self.file.flush()
