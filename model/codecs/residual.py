"""A residual quantizer of feature rows: each is centred, weighted, then said in K steps.

Zeghidour et al., arXiv:2107.03312, Algorithm 1, by `encodec`. Nothing is trained by gradient:
`training.fitting.residual` finds the codebooks by k-means. D is the width of a row.
"""

from typing import cast

import torch
from encodec.quantization.core_vq import (
    EuclideanCodebook,
    ResidualVectorQuantization,
    VectorQuantization,
)
from torch import Tensor

from .base import Codec, Stored, check_codes


class ResidualQuantizer(Stored, Codec):
    """A codec of rows (T, D), to and from codes (K, T); freshly built it has random codebooks."""

    mean: Tensor
    scale: Tensor

    def __init__(self, width: int, codebooks: int, codebook_size: int):
        super().__init__()
        self.codebooks, self.codebook_size = codebooks, codebook_size
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))
        self.quantizer = ResidualVectorQuantization(
            num_quantizers=codebooks, dim=width, codebook_size=codebook_size, kmeans_init=False
        )
        for level in range(codebooks):
            for name in ("inited", "cluster_size", "embed_avg"):  # what only EMA training needs
                delattr(self._entries(level), name)
        self.eval()

    def codebook(self, level: int) -> Tensor:
        """The entries (codebook_size, D) of one level, writable in place."""
        return cast(Tensor, self._entries(level).embed)

    def entries(self) -> Tensor:
        """All entries, (K, codebook_size, D)."""
        return torch.stack([self.codebook(level) for level in range(self.codebooks)]).cpu()

    def _entries(self, level: int) -> EuclideanCodebook:
        return cast(VectorQuantization, self.quantizer.layers[level])._codebook

    @torch.no_grad()
    def quantize_rows(self, rows: Tensor) -> Tensor:
        """Rows (T, D) -> codes (K, T)."""
        vectors = (rows.to(self.mean) - self.mean) * self.scale
        return self.quantizer.encode(vectors.t()[None])[:, 0].cpu()

    @torch.no_grad()
    def rows(self, codes: Tensor) -> Tensor:
        """Codes (k, T) of one utterance -> rows (T, D); raises InputError."""
        check_codes(codes[None], self.codebooks, self.codebook_size)
        vectors = self.quantizer.decode(codes[:, None].to(self.mean.device))[0].t()  # (T, D)
        return vectors / self.scale + self.mean

    @torch.no_grad()
    def nearest(self, other: Codec) -> Tensor:
        """As of `Codec`: in this codec's scale, the entries of each about its own mean."""
        if not isinstance(other, type(self)) or other.mean.shape != self.mean.shape:
            return super().nearest(other)
        levels = zip(self.entries(), other.entries(), strict=False)
        old, new = other.scale.cpu(), self.scale.cpu()
        return torch.stack([torch.cdist(a, b / old * new).argmin(1) for a, b in levels])
