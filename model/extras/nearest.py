"""The codebook entry nearest to the expected one, a `Choose` of `generate_nar`; not in VALL-E 2.

A model that is unsure gives many entries a little chance, and the likeliest of them is as far from
the truth as any: on the bundled model it doubled the error that it should have mended.
"""

import torch
from torch import Tensor


def nearest_expected(logits: Tensor, entries: Tensor) -> Tensor:
    """Of (B, T, V) logits over `entries` (V, features) the code (B, T) with the least mean error.

    The mean squared error of an entry is its distance to the expected entry and a constant.
    """
    expected = logits.softmax(-1) @ entries  # (B, T, features)
    return torch.cdist(expected, entries.expand(len(logits), -1, -1)).argmin(-1)
