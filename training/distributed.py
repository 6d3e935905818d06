"""How a run is spread over devices: one, DDP or FSDP2, through Lightning Fabric."""

from lightning.fabric import Fabric
from lightning.fabric.strategies.model_parallel import ModelParallelStrategy
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

from sayso.model.errors import InputError
from sayso.model.transformer import Block

from .recipe import Optimisation


def start_fabric(settings: Optimisation) -> Fabric:
    """Fabric, launched: it joins the processes of torchrun or SLURM, else starts its own.

    Raises:
        InputError: This machine has not the devices that the recipe asks for.
    """
    strategy = settings.strategy
    if strategy == "fsdp":
        devices = settings.devices * settings.nodes
        strategy = ModelParallelStrategy(_shard, data_parallel_size=devices, tensor_parallel_size=1)
    try:
        fabric = Fabric(
            accelerator=settings.accelerator,
            devices=settings.devices,
            num_nodes=settings.nodes,
            strategy=strategy,
            precision=settings.precision,
        )
    except (MisconfigurationException, RuntimeError, ValueError) as error:
        raise InputError(
            f"{settings.devices} x {settings.accelerator} cannot be had here: {error} Choose "
            "train.accelerator and train.devices in the recipe, or with --set"
        ) from error
    fabric.launch()
    return fabric


def _shard(module: nn.Module, mesh: DeviceMesh) -> nn.Module:
    """FSDP2: every Transformer block on its own, and the rest with the root."""
    over = mesh["data_parallel"]
    for block in module.modules():
        if isinstance(block, Block):
            fully_shard(block, mesh=over)
    fully_shard(module, mesh=over)
    for method in ("training_step", "validation_step"):  # called instead of forward
        register_fsdp_forward_method(module, method)
    return module


def settle(module: nn.Module) -> None:
    """Shards the parameters again where a forward pass without a backward pass left them whole."""
    for each in module.modules():
        if isinstance(each, FSDPModule):
            each.reshard()
