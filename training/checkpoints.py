"""The state of a run on disk: weights, optimizer, progress in one safetensors file, no pickle."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from sayso.model.errors import CheckpointError
from sayso.model.files import replacing


@dataclass
class Progress:
    """How far a run is."""

    step: int = 0
    minutes: float = 0.0  # of training, over all resumptions
    frames: int = 0  # read so far, padding not included
    best: float | None = None  # lowest validation loss, nats per code
    judged: list[float] | None = None  # lowest word error rate, and that step's likeness, negated
    skipped: int = 0  # non-finite steps in all
    skipped_in_a_row: int = 0


def full(tensor: Tensor) -> Tensor:
    """The whole tensor on the CPU, gathered if it is sharded."""
    gather = getattr(tensor, "full_tensor", None)
    return (gather() if gather is not None else tensor).detach().cpu().contiguous()


def collect(
    module: nn.Module, optimizer: Optimizer, average: dict[str, Tensor]
) -> dict[str, Tensor]:
    """All tensors of a run by name: ``model.*``, ``average.*``, ``optimizer.KEY.*``."""
    tensors = {f"model.{name}": full(value).clone() for name, value in module.named_parameters()}
    tensors.update({f"average.{name}": full(value) for name, value in average.items()})
    for name, parameter in module.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer.{key}.{name}"] = full(torch.as_tensor(value)).clone()
    return tensors


def save_state(path: Path, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
    """Writes a checkpoint, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        save_file(tensors, part, metadata={"sayso": json.dumps(header, sort_keys=True)})


def save_or_warn(
    path: Path,
    tensors: dict[str, Tensor],
    head: dict[str, Any],
    report: Callable[[str], None],
    final: bool,
) -> None:
    """Writes a checkpoint; on a full disk those before it stay, and only a run's end is an error.

    Raises:
        CheckpointError: The last checkpoint of a run cannot be written.
    """
    try:
        save_state(path, tensors, head)
    except (OSError, SafetensorError) as error:
        last = newest(path.parent)
        said = (
            f"{path} could not be written ({error}); "
            f"{'no checkpoint' if last is None else last} is the last good one: free some space"
        )
        if final:
            raise CheckpointError(f"{said}, and give the same command again") from error
        report(f"warning: {said}; the run goes on")


def read_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and header of a checkpoint.

    Raises:
        CheckpointError: It is damaged or not one of ours.
    """
    try:
        with safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {})["sayso"])
            return {name: file.get_tensor(name) for name in file.keys()}, header  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise CheckpointError(
            f"checkpoint {path} is damaged ({error}); remove it to continue from the one before"
        ) from error


def newest(folder: Path) -> Path | None:
    """The checkpoint with the highest step, if there is one."""
    found = sorted(folder.glob("step-*.safetensors"))
    return found[-1] if found else None


def prune(folder: Path, keep: int) -> None:
    """Removes all but the newest `keep` checkpoints, and what killed runs left half written."""
    for path in sorted(folder.glob("step-*.safetensors"))[:-keep]:
        path.unlink()
    for path in folder.glob(".*.safetensors.*"):
        path.unlink()


@torch.no_grad()
def restore(
    tensors: dict[str, Tensor],
    module: nn.Module,
    optimizer: Optimizer,
    average: dict[str, Tensor],
) -> None:
    """Puts a checkpoint's tensors back, exactly.

    Raises:
        CheckpointError: A tensor is missing or of another shape.
    """
    for name, parameter in module.named_parameters():
        _copy(tensors, f"model.{name}", parameter)
        state = {}
        for key in ("step", "exp_avg", "exp_avg_sq"):
            stored = tensors.get(f"optimizer.{key}.{name}")
            if stored is None:
                continue
            if key == "step":
                state[key] = stored.clone()
            else:
                state[key] = torch.zeros_like(parameter)
                _copy(tensors, f"optimizer.{key}.{name}", state[key])
        if state:
            optimizer.state[parameter] = state
    for name, value in average.items():
        _copy(tensors, f"average.{name}", value)


def _copy(tensors: dict[str, Tensor], name: str, target: Tensor) -> None:
    stored = tensors.get(name)
    if stored is None or stored.shape != target.shape:
        shape = None if stored is None else tuple(stored.shape)
        raise CheckpointError(f"checkpoint: {name} is {shape}, not {tuple(target.shape)}")
    if hasattr(target, "full_tensor"):  # sharded: give every rank its part
        from torch.distributed.tensor import distribute_tensor

        stored = distribute_tensor(
            stored.to(target.device),
            target.device_mesh,  # type: ignore[attr-defined]
            target.placements,  # type: ignore[attr-defined]
        )
    target.copy_(stored)


def header(progress: Progress, **more: Any) -> dict[str, Any]:
    """A checkpoint's header: progress and what the run is made from."""
    return {"progress": asdict(progress), **more}
