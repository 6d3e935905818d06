"""`sayso train doctor`: what would stop a recipe, and what it will cost, before anything runs."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from sayso.model.codecs.load import load_codec
from sayso.model.errors import SaysoError
from sayso.model.text.tokenizers import load_tokenizer
from sayso.model.transformer import Size

from .clock import matmul_rate
from .data import Batches
from .finetune import Part, new_task
from .recipe import Optimisation, Recipe, maker
from .tasks import ARTask, NARTask
from .tokens import VALIDATION, Tokens, open_tokens

SHARE = 0.4
"""Of the matmul rate, that training reaches: an assumption; a run's log has its own share."""
BYTES = 4
"""Of a weight: models are trained and stored in single precision."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    good: bool
    text: str


def examine(recipe: Recipe) -> Iterator[Finding]:
    """Looks at everything a recipe needs; costs are given for each model that can be built."""
    for kind, folder in (("codec", recipe.model_codec), ("text", Path(recipe.text.folder))):
        yield _made(recipe, kind, folder)
    yield from _devices(recipe)
    try:
        data = recipe.data
        tokens = open_tokens([Path(each) for each in data.tokens], data.corpora, data.held_out)
    except SaysoError as error:
        yield Finding(False, f"tokens: {error}")
        return
    yield from _tokens(recipe, tokens)
    needed = 0
    parts: tuple[tuple[Part, Optimisation], ...]
    parts = ("ar", recipe.ar.train), ("nar", recipe.nar.train)
    for part, settings in parts:
        with torch.device("meta"):
            task = new_task(recipe, part, tokens)
        parameters = sum(p.numel() for p in task.parameters())
        needed += disk_bytes(parameters, settings)
        yield from _model(recipe, part, task, parameters, settings, tokens)
    yield _disk(Path(recipe.run), needed)


def _made(recipe: Recipe, kind: str, folder: Path) -> Finding:
    try:
        found = load_codec(folder) if kind == "codec" else load_tokenizer(folder)
    except SaysoError as error:
        return Finding(False, f"{kind}: {error} (`{maker(recipe, kind, folder)}` makes it)")
    return Finding(True, f"{kind}: {folder}, identity {found.identity[:12]}")


def _devices(recipe: Recipe) -> Iterator[Finding]:
    for part, settings in (("ar", recipe.ar.train), ("nar", recipe.nar.train)):
        wanted = f"{settings.nodes} x {settings.devices} x {settings.accelerator}"
        there = torch.cuda.device_count()
        if settings.accelerator == "cuda" and there < settings.devices:
            yield Finding(False, f"{part}: {wanted} wanted, {there} GPUs here: set train.devices")
        elif settings.precision == "bf16-mixed" and there and not torch.cuda.is_bf16_supported():
            yield Finding(False, f"{part}: no bf16 on this GPU: set train.precision: 32-true")
        else:
            yield Finding(True, f"{part}: {wanted}")


def _tokens(recipe: Recipe, tokens: Tokens) -> Iterator[Finding]:
    hours = tokens.frames / tokens.codec["frame_rate"] / 3600
    held = tokens.split == VALIDATION
    yield Finding(
        True,
        f"tokens: {hours[~held].sum():.2f} h to train on, {hours[held].sum():.2f} h held out, "
        f"{sum(tokens.skipped.values())} rows unusable",
    )
    for part, settings in (("ar", recipe.ar.train), ("nar", recipe.nar.train)):
        if not held.any() and settings.export == "best":
            yield Finding(False, f"{part}: nothing is held out: set data.held_out_speakers")
    if not tokens.new_voices:
        yield Finding(True, "tokens: no speaker is held out: no figure will be of a new voice")


def _model(
    recipe: Recipe,
    part: str,
    task: ARTask | NARTask,
    parameters: int,
    settings: Optimisation,
    tokens: Tokens,
) -> Iterator[Finding]:
    """Whether the data fit the model, its memory and its hours."""
    own = recipe.ar if part == "ar" else recipe.nar
    try:
        batches = Batches(
            tokens,
            settings.frames,
            settings.seed,
            own.max_text - 1,
            own.max_frames,
            recipe.data.join_seconds,
            recipe.ar.group_size,
            recipe.nar.prompts,
        )
    except SaysoError as error:
        yield Finding(False, f"{part}: {error}")
        return
    share = batches.left_out / len(tokens.frames)
    yield Finding(share < 0.1, f"{part}: {share:.1%} of utterances are longer than it holds")
    batch = next(batches.steps(0, 1))[0]
    needed = memory_bytes(parameters, own.size, settings, int(batch.text_lengths.sum()))
    cuda = settings.accelerator == "cuda"
    if cuda and not torch.cuda.is_available():
        yield Finding(False, f"{part}: {parameters / 1e6:.1f} M parameters; no GPU to be timed")
        return
    device = torch.device("cuda" if cuda else "cpu")
    room = torch.cuda.get_device_properties(0).total_memory if cuda else _memory()
    yield Finding(
        needed < room,
        f"{part}: {parameters / 1e6:.1f} M parameters, about {needed / 1e9:.2f} GB of memory on "
        f"each of its devices, which have {room / 1e9:.1f}",
    )
    dtype = torch.bfloat16 if settings.precision == "bf16-mixed" else torch.float32
    rate = SHARE * matmul_rate(device, dtype)
    operations = task.flops(batch) * settings.accumulation
    hours = operations / rate * settings.steps / 3600
    limit = settings.max_minutes
    ends = "" if limit is None or limit / 60 > hours else f"; it ends after {limit:g} minutes"
    yield Finding(
        True,
        f"{part}: {settings.steps} steps take about {hours:.2f} h at {SHARE:.0%} of the matmul "
        f"rate measured here{ends}",
    )


def memory_bytes(parameters: int, size: Size, settings: Optimisation, text: int) -> float:
    """Weights, gradients, AdamW and averages, and activations, on one device.

    Activations by 34 bytes a token, layer and unit of width in half precision (Korthikanti et al.,
    arXiv:2205.05198, without attention's square), twice that in single.
    """
    shards = settings.devices * settings.nodes if settings.strategy == "fsdp" else 1
    kept = BYTES * parameters * (5 if settings.ema else 4) / shards
    each = 34 if settings.precision == "bf16-mixed" else 68
    return kept + each * size.layers * size.width * (settings.frames + text)


def disk_bytes(parameters: int, settings: Optimisation) -> int:
    """Checkpoints that are kept, the best, one that is being written, and exported weights."""
    state = BYTES * parameters * (4 if settings.ema else 3)
    return state * (settings.keep + 2) + BYTES * parameters


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _disk(run: Path, needed: int) -> Finding:
    there = next(path for path in (run.absolute(), *run.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    text = f"disk: checkpoints and weights take {needed / 1e9:.2f} GB, {free / 1e9:.1f} are free"
    return Finding(needed < free, f"{text} at {there}")
