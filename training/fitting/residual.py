"""Residual codebooks by k-means (arXiv:2107.03312, 3.3), and the speech they are fitted to."""

import contextlib
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from sayso.model.codecs.residual import ResidualQuantizer
from sayso.model.errors import InputError

from ..held_out import HeldOut
from ..readers import Utterance
from ..speech import Filters, Unusable, read_speech

FITTED_ON = "corpora.json"
"""Beside a fitted codec: the corpora it was fitted on, as on the list, for the model card."""
HELD_OUT_EVERY = 47


def usual_rule(names: Iterable[str]) -> HeldOut:
    """One utterance in 47 of each corpus."""
    return HeldOut(utterances=dict.fromkeys(names, HELD_OUT_EVERY))


def usable_speech(
    utterances: list[Utterance],
    sample_rate: int,
    report: Callable[[str], None],
    most: int | None = None,
) -> Iterator[tuple[str, Tensor]]:
    """Speaker and audio (1, samples) of each utterance that can be used, or of `most`, spread."""
    filters = Filters(min_seconds=0.5, max_seconds=20.0)
    utterances = utterances[:: max(1, len(utterances) // most)] if most else utterances
    for number, utterance in enumerate(utterances):
        if number % 200 == 0:
            report(f"{number} of {len(utterances)} recordings analysed")
        with contextlib.suppress(Unusable):
            yield utterance.speaker, read_speech(utterance.recording, sample_rate, filters)


def thinned(rows: Tensor, codebook_size: int, most: int, generator: torch.Generator) -> Tensor:
    """At most `most` rows (N, D), chosen at random; InputError if no codebook can come of them."""
    if len(rows) < codebook_size:
        raise InputError(f"{len(rows)} frames cannot fit {codebook_size} codebook entries")
    if len(rows) > most:
        return rows[torch.randperm(len(rows), generator=generator)[:most]]
    return rows


def fit_books(
    codec: ResidualQuantizer,
    rows: Tensor,
    scale: Tensor,
    iterations: int,
    generator: torch.Generator,
) -> None:
    """Fit each codebook of a codec to what the ones before it leave of the rows (N, D).

    Args:
        scale: (D,) what each feature is multiplied with before distances are taken.
        iterations: Lloyd steps per codebook.
    """
    codec.mean.copy_(rows.mean(0))
    codec.scale.copy_(scale)
    residual = (rows - codec.mean) * codec.scale
    for level in range(codec.codebooks):
        entries = kmeans(residual, codec.codebook_size, iterations, generator)
        codec.codebook(level).copy_(entries)
        residual -= entries[nearest(residual, entries)]


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
