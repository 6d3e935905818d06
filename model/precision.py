"""Linear layers as a CPU reads them fastest: in oneDNN's blocks, in fp32, bf16 or int8.

PyTorch asks MKL for a linear layer in fp32. On an AMD CPU that takes twice as long as oneDNN, and
at one row its second thread has nothing to do. So the layers of a model that only speaks are
packed, which rounds its sums otherwise and changes nothing else. bf16 and int8 read fewer bytes a
step: the weights and what a layer takes in are rounded, all between two layers stays fp32, but for
attention's values in a cache, which are kept in bf16. In int8 each output has a scale, and each row
its own range: no row hangs on who shares its batch.
"""

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from .errors import InputError
from .transformer import Block, Transformer

Precision = Literal["fp32", "bf16", "int8"]
BLOCKED_FOR = 16
"""Rows that oneDNN is told to expect: its blocks for a single one are slower, also for that one."""
LEAST = 1e-12
"""A step, also of what is all the same."""


class Packed(nn.Module):
    """A linear layer in oneDNN's blocks, (..., in) to (..., out)."""

    def __init__(self, linear: nn.Linear, dtype: torch.dtype):
        """Of one on the CPU; what it takes in and its weights are rounded to `dtype`."""
        super().__init__()
        self.dtype, self.product = dtype, torch.ops.mkldnn._linear_pointwise.default
        self.weight = torch.ops.mkldnn._reorder_linear_weight(
            linear.weight.detach().to(dtype), BLOCKED_FOR
        )
        self.bias = None if linear.bias is None else linear.bias.detach().to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        y = self.product(x.to(self.dtype), self.weight, self.bias, "none", [], "")
        return y.to(x.dtype)


class Whole(nn.Module):
    """A linear layer of whole numbers in oneDNN's blocks, (..., in) to (..., out)."""

    def __init__(self, linear: nn.Linear):
        """Of one on the CPU."""
        super().__init__()
        weight = linear.weight.detach()
        self.scale = (weight.abs().amax(1) / 127).clamp(min=LEAST)  # (out,)
        whole = (weight / self.scale[:, None]).round().to(torch.int8)
        self.product = torch.ops.onednn.qlinear_pointwise.default
        self.weight = torch.ops.onednn.qlinear_prepack(whole, None)
        self.zero = torch.zeros(len(weight), dtype=torch.long)
        self.of_ones = whole.sum(1) * self.scale  # what it makes of a row of ones
        self.bias = torch.zeros(1) if linear.bias is None else linear.bias.detach()
        self.least, self.middle = torch.tensor([LEAST]), torch.tensor([0.5])

    def forward(self, x: Tensor) -> Tensor:
        low, high = x.amin(-1, True), x.amax(-1, True)  # faster than `aminmax`
        step = torch.add(self.least, high - low, alpha=1 / 255)
        whole = torch.addcdiv(self.middle, x - low, step).to(torch.uint8)
        weight = self.weight, self.scale, self.zero
        how = None, 1.0, 0, torch.float32, "none", [], ""
        y = self.product(whole, 1.0, 0, *weight, *how)
        return torch.addcmul(self.bias, y, step).addcmul_(low, self.of_ones)


class Rounded(nn.Module):
    """A linear layer in bf16 for a device without oneDNN, (..., in) to (..., out)."""

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.linear = linear.to(torch.bfloat16)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.to(torch.bfloat16)).to(x.dtype)


def check_precision(precision: str, device: torch.device) -> Precision:
    """A precision that a model can have on a device.

    Raises:
        InputError: There is none of that name, or not on this device.
    """
    for known in get_args(Precision):
        if known == precision:
            break
    else:
        raise InputError(f"precision {precision!r}: give {', '.join(get_args(Precision))}")
    # Without VNNI products of two bytes are summed in 16 bits, which overflow.
    if known == "int8" and not (device.type == "cpu" and torch.cpu._is_vnni_supported()):
        raise InputError("precision int8 needs a CPU with AVX-512 VNNI: give bf16 or fp32")
    return known


def convert(model: nn.Module, precision: str, pack: bool = True) -> None:
    """Let a model that is only to speak read its linear layers fast, in place; it cannot be saved.

    Args:
        precision: fp32 (nothing changes but roundings), bf16 or int8 (of the Transformer's blocks;
            other layers stay fp32), with a cache's values in bf16. All else stays fp32.
        pack: Whether fp32 and bf16 are packed on a CPU; a compiler does that itself.

    Raises:
        InputError: As of `check_precision`.
    """
    device = next(model.parameters()).device
    known = check_precision(precision, device)
    blocks = pack and device.type == "cpu" and torch.backends.mkldnn.is_available()
    for parent in list(model.modules()):
        inside = isinstance(parent, Block)
        if isinstance(parent, Transformer) and known != "fp32":
            parent.kept = torch.bfloat16
        for name, linear in list(parent.named_children()):
            if type(linear) is nn.Linear:
                own = known if inside or known != "int8" else "fp32"
                setattr(parent, name, _converted(linear, own, blocks))


def _converted(linear: nn.Linear, precision: Precision, blocks: bool) -> nn.Module:
    if precision == "int8":
        return Whole(linear)
    if blocks and precision == "fp32":
        return Packed(linear, torch.float32)
    if blocks and torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return Packed(linear, torch.bfloat16)
    return Rounded(linear) if precision == "bf16" else linear
