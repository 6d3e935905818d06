"""What the held-out utterances say of a model: loss by codebook, and whether it reads the text."""

import math
from typing import Any, cast

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from .data import Batches
from .distributed import settle
from .tasks import ARTask, NARTask


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
        with fabric.autocast():
            sums += model.validation_step(batch.to(fabric.device))
    model.train()
    settle(task)
    _put(task, own)
    sums = cast(Tensor, fabric.all_reduce(sums, reduce_op="sum"))
    total = sums.sum(0).tolist()
    if not total[1]:
        return {}
    each = (sums[:, 0] / sums[:, 1]).tolist()
    return {
        "validation_loss": total[0] / total[1],
        "text_gain": total[2] / total[3] if total[3] else math.nan,
        "validation_per_codebook": dict(zip(task.levels, each, strict=True)),
    }


def _put(task: nn.Module, values: dict[str, Tensor]) -> None:
    """Sets the parameters to these values, if there are any."""
    for name, parameter in task.named_parameters() if values else ():
        parameter.copy_(values[name])
