"""The AR's step as one compiled graph, of few shapes: rows in powers of two, all of the cache.

For GPUs, where a step in Python waits for the launch of each kernel; there it becomes a CUDA graph.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .ar import AR
from .transformer import Cache

BUCKET = 256
"""Tokens by which a cache grows: each of its sizes is compiled anew."""
MOST_SHAPES = 64
BACKEND = "inductor"
"""PyTorch's own."""


def rounded(rows: int, capacity: int) -> tuple[int, int]:
    """Rows and tokens of a cache that a compiled step reads whole: at least so many."""
    return 1 << (rows - 1).bit_length(), -(-capacity // BUCKET) * BUCKET


class CompiledStep:
    """`AR.decode`, compiled for each shape when it first comes (tens of seconds on a CPU)."""

    def __init__(self, model: AR):
        """Of a model on its device; a C++ compiler is needed on CPUs, Triton on GPUs."""
        self.model = model
        mode = "reduce-overhead" if model.bos.is_cuda else None
        # On a CPU weights are packed, which the compiler does to constants alone.
        options: dict[str, Any] | None = None if model.bos.is_cuda else {"freezing": True}
        self.step = torch.compile(
            self._step,
            dynamic=False,
            fullgraph=True,
            mode=mode,
            options=options,
            backend=BACKEND,
        )

    def _step(
        self, group: Tensor, number: Tensor, cache: Cache, extra: Tensor | None
    ) -> Tensor:  # (B, D)
        rows = cache.rows(0, len(group), cache.capacity - 1)
        return self.model.decode(group, number, rows, extra)

    def __call__(self, group: Tensor, number: Tensor, cache: Cache, extra: Tensor | None) -> Tensor:
        """As `AR.decode`, of the first rows of a cache of `rounded` size."""
        count = len(group)
        more = rounded(count, 1)[0] - count
        cache.lengths[count : count + more] = 0  # rows that nobody has write and read there
        group, number = F.pad(group, (0, 0, 0, more)), F.pad(number, (0, more))
        extra = None if extra is None else F.pad(extra, (0, 0, 0, 0, 0, more))
        with torch._dynamo.config.patch(recompile_limit=MOST_SHAPES):
            return self.step(group, number, cache, extra)[:count].clone()
