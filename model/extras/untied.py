"""Prediction with tables of its own, for comparison: VALL-E 2 predicts through the code embeddings.

The paper ties them (3.3, 3.4). Open reimplementations of VALL-E (lifeiteng/vall-e, k2-fsa/icefall)
found that it hurts.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..ar import AR, ARConfig, logits
from ..nar import NAR, NARConfig
from ..transformer import INIT_STD


@dataclass(frozen=True)
class UntiedARConfig(ARConfig):
    """As `ARConfig`."""

    untied: bool = True


@dataclass(frozen=True)
class UntiedNARConfig(NARConfig):
    """As `NARConfig`."""

    untied: bool = True


class UntiedAR(AR):
    """An AR model that predicts through a table of its own."""

    def __init__(self, config: UntiedARConfig):
        super().__init__(config)
        shape = config.codebook_size + 1, config.size.width
        self.prediction = nn.Parameter(torch.randn(shape) * INIT_STD)  # (V + 1, D)

    def predict(self, hidden: Tensor) -> Tensor:
        """(..., D) to logits (..., G, V + 1), in fp32."""
        if self.group_prediction is not None:
            hidden = self.group_prediction(hidden)
        G, D = self.config.group_size, self.config.size.width
        return logits(hidden.unflatten(-1, (G, D)), self.prediction)


class UntiedNAR(NAR):
    """A NAR model that predicts each codebook through a table of its own."""

    def __init__(self, config: UntiedNARConfig):
        super().__init__(config)
        shape = config.codebooks - 1, config.codebook_size, config.size.width
        # One tensor: DDP waits for gradients of all parameters, and a step has one level.
        self.prediction = nn.Parameter(torch.randn(shape) * INIT_STD)  # (K - 1, V, D)

    def predict(self, hidden: Tensor, level: int) -> Tensor:
        """(B, T, D) to logits (B, T, V) of codebook `level`, in fp32."""
        return logits(hidden, self.prediction[level - 1])
