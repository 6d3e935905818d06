"""A FARGAN codec fitted to utterances: what each feature weighs, and residual codebooks."""

from collections.abc import Iterable

import torch
from torch import Tensor

from sayso.model.codecs.fargan_codec import FarganCodec, FarganConfig, to_rows

from .residual import fit_books, thinned

CEPSTRUM = (1.0,) * 3 + (0.7,) * 4 + (0.8,) * 5 + (1.5,) * 6
"""What a decade of each of the 18 cepstra weighs: by how much noise on it lowers DistillMOS
(docs/log.md)."""
PITCH, CORRELATION = 3.0, 1.5
"""What an octave, and a correlation of 1, weigh beside them. Pitch would weigh five times as much
if it were not smoothed after decoding."""


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
    # As `to_rows` has them: means of both frames, then half the differences, of pitch none.
    scale = torch.tensor([*CEPSTRUM, PITCH, CORRELATION, *CEPSTRUM, CORRELATION])
    codec = FarganCodec(config)
    fit_books(codec, rows, scale, iterations, generator)
    return codec
