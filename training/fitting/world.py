"""A WORLD codec fitted to corpora: residual codebooks by k-means (arXiv:2107.03312, 3.3)."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sayso.model import corpora
from sayso.model.codecs.world import (
    Features,
    WorldCodec,
    WorldConfig,
    analyse,
    to_rows,
)
from sayso.model.errors import InputError
from sayso.model.files import write_json

from ..readers import held_out, read_corpus
from ..speech import Filters, Unusable, read_speech

FITTED_ON = "corpora.json"
"""Beside a fitted codec: the corpora it was fitted on, as on the list, for the model card."""
HELD_OUT_EVERY = 47


def fit_codec(
    roots: dict[str, Path],
    out: Path,
    held_out_every: dict[str, int] | None = None,
    codebooks: int = 8,
    report: Callable[[str], None] = lambda line: None,
) -> WorldCodec:
    """Fit a WORLD codec to corpora, without their held-out utterances, and save it in `out`.

    Args:
        roots: Name on the list of consented corpora -> the unpacked corpus.
        held_out_every: One utterance in this many of a corpus is held out, by the hash of its id;
            47 where a corpus is not named.
        codebooks: K.
        report: Takes a line now and then: it takes minutes.

    Raises:
        CorpusError: A corpus is not listed, or not where it should be.
        InputError: There is too little usable speech.
    """
    config = WorldConfig(codebooks=codebooks)
    every = {name: (held_out_every or {}).get(name, HELD_OUT_EVERY) for name in roots}
    entries = [corpora.get(name).to_json() for name in roots]
    heard = [features for _, features in usable_features(roots, config, every, report)]
    report(f"{len(heard)} recordings analysed; fitting {codebooks} codebooks")
    codec = fit_world(heard, config)
    codec.save(out)
    write_json(out / FITTED_ON, {"corpora": entries, "held_out_every": every})
    return codec


def usable_features(
    roots: dict[str, Path],
    config: WorldConfig,
    every: dict[str, int],
    report: Callable[[str], None],
    most: int | None = None,
) -> Iterator[tuple[str, Features]]:
    """Speaker and features of each utterance that is used, or of `most` per corpus."""
    filters = Filters(min_seconds=0.5, max_seconds=20.0)
    for name, root in roots.items():
        utterances = read_corpus(name, root)
        utterances = utterances[:: max(1, len(utterances) // most)] if most else utterances
        for number, utterance in enumerate(utterances):
            if number % 200 == 0:
                report(f"{name}: {number} of {len(utterances)} recordings analysed")
            if held_out(utterance.id, every[name]):
                continue
            try:
                audio = read_speech(utterance.path, config.sample_rate, filters)
            except Unusable:
                continue
            yield utterance.speaker, analyse(audio[0].numpy(), config)


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
    rows = np.concatenate([to_rows(features) for features in utterances])
    if len(rows) < config.codebook_size:
        raise InputError(f"{len(rows)} frames cannot fit {config.codebook_size} codebook entries")
    generator = torch.Generator().manual_seed(seed)
    frames = torch.from_numpy(rows).float()
    if len(frames) > most_frames:
        frames = frames[torch.randperm(len(frames), generator=generator)[:most_frames]]
    codec = WorldCodec(config)
    codec.mean.copy_(frames.mean(0))
    codec.scale.copy_(scale(frames, config))
    residual = (frames - codec.mean) * codec.scale
    for level in range(config.codebooks):
        entries = kmeans(residual, config.codebook_size, iterations, generator)
        codec.codebook(level).copy_(entries)
        residual -= entries[nearest(residual, entries)]
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


def nearest(points: Tensor, entries: Tensor) -> Tensor:
    """Index of the nearest entry (C, D) for each point (N, D): (N,)."""
    bias = entries.pow(2).sum(1) / 2
    return torch.cat(
        [torch.addmm(bias, p, entries.t(), alpha=-1).argmin(1) for p in points.split(8192)]
    )


def kmeans(points: Tensor, count: int, iterations: int, generator: torch.Generator) -> Tensor:
    """Lloyd's algorithm from random points: `count` entries (count, D) for points (N, D).

    An entry that loses all its points moves to a random one.
    """

    def pick(number: int) -> Tensor:
        return points[torch.randperm(len(points), generator=generator)[:number]]

    entries = pick(count)
    for _ in range(iterations):
        index = nearest(points, entries)
        sizes = torch.bincount(index, minlength=count)
        entries = torch.zeros_like(entries).index_add_(0, index, points)
        entries /= sizes.clamp_min(1)[:, None]
        empty = sizes == 0
        entries[empty] = pick(int(empty.sum()))
    return entries
