"""A FARGAN codec fitted to utterances: what each feature weighs, and residual codebooks."""

from collections.abc import Iterable

import torch
from torch import Tensor

from sayso.model.codecs.fargan import CEPSTRA
from sayso.model.codecs.fargan_codec import FarganCodec, FarganConfig, to_rows

from .residual import fit_books, thinned

PITCH, CORRELATION = 5.0, 2.0
"""What an octave, and a correlation of 1, weigh beside a decade of one cepstrum. By how much noise
on each lowers DistillMOS (docs/log.md), when pitch is smoothed after decoding."""


def fit_fargan(
    utterances: Iterable[Tensor],
    config: FarganConfig,
    iterations: int = 20,
    seed: int = 0,
    most_rows: int = 400_000,
) -> FarganCodec:
    """Fit mean, scale and residual codebooks to utterances.

    Args:
        utterances: Features (2 T, 20), as of `FarganCodec.analyse`, of one utterance each.
        iterations: Lloyd steps per codebook.
        seed: Equal seeds and utterances give equal codecs.
        most_rows: More are thinned at random.

    Raises:
        InputError: Fewer rows than a codebook has entries.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = torch.cat([to_rows(features) for features in utterances])
    rows = thinned(rows, config.codebook_size, most_rows, generator)
    scale = torch.ones(rows.shape[1])
    scale[CEPSTRA : CEPSTRA + 2] = torch.tensor([PITCH, CORRELATION])
    scale[-1] = CORRELATION  # of half the difference
    codec = FarganCodec(config)
    fit_books(codec, rows, scale, iterations, generator)
    return codec
