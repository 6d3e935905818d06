"""The arrays of FARGAN and its pitch network, as the package carries them, made plain matrices.

Upstream keeps 8-bit weights in blocks of 8 outputs by 4 inputs and scales each output for inputs
counted in 127ths (Debian's source package opus 1.6.1, dnn/nnet.c and dnn/vec.h).
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load
from torch import Tensor

from ..checkpoint import read_known
from ..files import ASSETS

WEIGHTS = ASSETS / "fargan" / "fargan.safetensors"
SHA256 = "472d6411a4f5e640c0cb1025313a2a169fb49a4972d84be5a88b224bbb06f90b"
MADE_BY = {
    "name": "FARGAN",
    "sha256": SHA256,
    "by": "Xiph.Org, Mozilla, Amazon and others: opus 1.6.1",
    "licence": "BSD 3-clause",
    "trained_on": "OpenSLR's crowd-recorded speech for text to speech, by upstream's list of data; "
    "that list and weights belong together is inferred, not stated",
}
"""As it stands on the cards of models that speak through it."""
STEPS = 127
"""Upstream rounds what goes into an 8-bit layer, always within [-1, 1], to 127ths."""


def load_arrays(path: Path = WEIGHTS) -> dict[str, Tensor]:
    """The arrays by upstream's names, behind ``fargan.`` or ``pitchdnn.``.

    Raises:
        CheckpointError: The file is missing or is not the one that Sayso was released with.
    """
    return load(read_known(path, SHA256, "reinstall sayso"))


def matrix(arrays: Mapping[str, Tensor], name: str, outputs: int) -> Tensor:
    """The weights (outputs, inputs) of a layer, float32."""
    if f"{name}_weights_int8" not in arrays:
        return arrays[f"{name}_weights_float"].view(-1, outputs).t().contiguous()
    blocks = arrays[f"{name}_weights_int8"].view(outputs // 8, -1, 8, 4)
    weights = blocks.permute(0, 2, 1, 3).reshape(outputs, -1).float()
    return weights * arrays[f"{name}_scale"][:, None] * STEPS


def bias(arrays: Mapping[str, Tensor], name: str, outputs: int) -> Tensor:
    """The bias (outputs,) of a layer; a layer of which none is stored has none."""
    return arrays.get(f"{name}_bias", torch.zeros(outputs))


def gru_rows(rows: Tensor) -> Tensor:
    """Rows of a GRU in upstream order (update, reset, new) -> in PyTorch's (reset, update, new)."""
    update, reset, new = rows.chunk(3)
    return torch.cat([reset, update, new])
