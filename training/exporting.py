"""A run's weights as they are now, into its folder with a card, or to be judged."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lightning.fabric import Fabric
from torch import Tensor

from sayso.model.checkpoint import save_module

from .card import write_card
from .checkpoints import full
from .recipe import Recipe
from .tasks import ARTask, NARTask
from .tokens import Tokens

Judge = Callable[[int, Path], dict[str, float]]
"""Figures (WER, SIM) of what a folder of weights says, at a step; none where it cannot speak."""


def save(fabric: Fabric, folder: Path, task: ARTask | NARTask, average: dict[str, Tensor]) -> None:
    """Writes the weights, averaged, if they are."""
    weights = {n: full(average.get(n, p)) for n, p in task.named_parameters()}
    if fabric.is_global_zero:
        config = task.model.config
        plain = type(task.model)(config)  # type: ignore[arg-type]
        plain.load_state_dict({n.removeprefix("model."): p for n, p in weights.items()})
        save_module(folder, plain, config)


def ask(
    fabric: Fabric, task: ARTask | NARTask, average: dict[str, Tensor], judge: Judge, step: int
) -> dict[str, float]:
    """The first process's figures of the weights as they are, on all of them."""
    with TemporaryDirectory() as place:
        save(fabric, Path(place), task, average)
        return fabric.broadcast(judge(step, Path(place)) if fabric.is_global_zero else {})


def export(
    fabric: Fabric,
    run: Path,
    part: str,
    recipe: Recipe,
    tokens: Tokens,
    task: ARTask | NARTask,
    average: dict[str, Tensor],
    row: dict[str, Any],
) -> None:
    """Writes the weights and the card."""
    save(fabric, run / part, task, average)
    if not fabric.is_global_zero:
        return
    figures = {key: row[key] for key in ("step", "minutes")}
    figures |= {key: row.get(key) for key in ("validation_loss", "text_gain")}
    figures["new_voices"] = tokens.new_voices  # held out: speakers of whom nothing was trained on
    figures["alignment"] = task.pure is not task.model  # not in VALL-E 2
    if part == "nar":
        figures["expected"] = recipe.nar.expected  # how it is asked; not in VALL-E 2
    figures["validation_per_codebook"] = list(row.get("validation_per_codebook", {}).values())
    start = recipe.ar.start_from if part == "ar" else recipe.nar.start_from
    write_card(run, recipe.name, part, tokens, figures, None if start is None else Path(start))
