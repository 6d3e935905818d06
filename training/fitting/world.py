"""A WORLD codec fitted to utterances: what each feature weighs, and residual codebooks."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from sayso.model.codecs.world import (
    Features,
    WorldCodec,
    WorldConfig,
    analyse,
    to_rows,
)

from ..readers import Utterance
from .residual import fit_books, thinned, usable_speech


def usable_features(
    utterances: list[Utterance],
    config: WorldConfig,
    report: Callable[[str], None],
    most: int | None = None,
) -> Iterator[tuple[str, Features]]:
    """Speaker and features of each utterance that can be used, or of `most`, spread."""
    for speaker, audio in usable_speech(utterances, config.sample_rate, report, most):
        yield speaker, analyse(audio[0].numpy(), config)


def fit_world(
    utterances: Iterable[Features],
    config: WorldConfig,
    iterations: int = 20,
    seed: int = 0,
    most_frames: int = 400_000,
) -> WorldCodec:
    """Fit mean, scale and residual codebooks to utterances: about 100 s for 300k frames.

    Every feature is centred. Log F0, voicing and aperiodicity are brought to the standard
    deviation the config names; of the envelope coefficients the root of their own is kept (see
    `scale`). Each codebook is then fitted to what the ones before it left over.

    Args:
        utterances: Output of `model.world.analyse`, one per utterance.
        iterations: Lloyd steps per codebook.
        seed: Equal seeds and utterances give equal codecs.
        most_frames: More are thinned at random.

    Raises:
        InputError: Fewer frames than a codebook has entries.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = torch.from_numpy(np.concatenate([to_rows(each) for each in utterances])).float()
    frames = thinned(rows, config.codebook_size, most_frames, generator)
    codec = WorldCodec(config)
    fit_books(codec, frames, scale(frames, config), iterations, generator)
    return codec


def scale(frames: Tensor, config: WorldConfig) -> Tensor:
    """The factor (D,) of each feature of frames (N, D).

    With none on the envelope, distance would be log spectral distance, of which loudness and tilt
    are most. Divided by the root of its spread, every coefficient keeps half of its say (in
    decades) and the whole its variance: Whisper hears 17 % of words wrongly, not 24 %, when
    codebook 0 stands alone (docs/log.md).
    """
    voicing = config.envelope + 1
    voiced = frames[:, voicing] > 0.5
    # Pitch counts where it is heard; a corpus without voice or with one pitch must not divide by 0.
    spread = frames.std(0)
    spread[voicing - 1] = frames[voiced, voicing - 1].std() if voiced.sum() > 1 else 1.0
    weight = torch.ones_like(spread)
    envelope = spread[: config.envelope].clamp_min(1e-6)
    even = envelope.rsqrt()
    weight[: config.envelope] = even * (envelope.norm() / (envelope * even).norm())
    weight[voicing - 1] = config.f0_weight
    weight[voicing] = config.voicing_weight
    weight[voicing + 1 :] = config.aperiodicity_weight
    weight[voicing - 1 :] /= spread[voicing - 1 :].clamp_min(1e-3)
    return weight
