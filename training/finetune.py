"""Start a model from the weights of another, or its code tables from the codec's codebooks."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from sayso.model.ar import AR, ARConfig
from sayso.model.checkpoint import load_module
from sayso.model.codec import Codec
from sayso.model.errors import InputError
from sayso.model.nar import NAR, NARConfig
from sayso.model.transformer import INIT_STD

from .card import read_card


def start_from(model: AR | NAR, folder: Path) -> None:
    """Copies the weights of a model folder (``RUN/ar`` or ``RUN/nar``) into a new model.

    An AR model of group size 1 may go into any G: a group starts as the mean of its codes, every
    code of a group is first predicted as the one code was, and group n stands where its first
    frame stood.

    Raises:
        CheckpointError: The folder is not a model, or its run has no card.
        CorpusError: The card names a corpus that is not listed.
        InputError: The models differ in more than the group size and lengths.
    """
    read_card(folder.parent)
    if isinstance(model, AR):
        source = load_module(folder, AR, ARConfig)
        G = model.config.group_size
        if source.config.group_size not in (1, G):
            raise InputError(
                f"{folder} has group size {source.config.group_size}; only 1 or {G} can go into {G}"
            )
        stride = G // source.config.group_size
        theirs = replace(source.config, group_size=G)
    else:
        source, stride = load_module(folder, NAR, NARConfig), 1
        theirs = replace(source.config, expected=model.config.expected)  # no weights
    ours = model.config
    size = replace(theirs.size, dropout=ours.size.dropout)  # dropout has no weights
    theirs = replace(theirs, size=size, max_text=ours.max_text, max_frames=ours.max_frames)
    if theirs != ours:
        raise InputError(f"{folder} is {theirs}; it cannot go into {ours}")
    weights = source.state_dict()
    own = model.state_dict()
    with torch.no_grad():
        for name, value in own.items():
            if name in ("text_position.weight", "code_position.weight"):
                _copy_positions(value, weights[name], stride if name[0] == "c" else 1)
            elif name in weights:
                value.copy_(weights[name])
        if stride > 1 and isinstance(model, AR):
            _as_one_code(model)


@torch.no_grad()
def start_from_codebooks(model: AR | NAR, codec: Codec, seed: int) -> None:
    """Draws the code tables so that codes which sound alike start alike.

    The paper does not state the initialisation. Every codebook goes through one random matrix from
    the codec's feature space to the model's width, so that the NAR's sum of embeddings is, at the
    start, a projection of what the codes so far decode to; the mean deviation is as at random.

    Raises:
        InputError: The codec has other codebooks than the model.
    """
    tables = [model.code_embedding] if isinstance(model, AR) else list(model.code_embeddings)
    entries = codec.entries()[: len(tables)]  # (levels, codebook_size, features)
    if entries.shape[:2] != (len(tables), model.config.codebook_size):
        raise InputError(f"codebooks {tuple(entries.shape)} do not fit {model.config}")
    entries = entries - entries.mean(1, keepdim=True)
    deviation = entries.pow(2).mean((1, 2)).sqrt().mean()
    features, width = entries.shape[2], model.config.size.width
    random = torch.Generator().manual_seed(seed)
    projection = torch.randn(features, width, generator=random) / features**0.5
    for table, book in zip(tables, entries, strict=True):
        assert isinstance(table, nn.Embedding)
        table.weight[: len(book)] = book @ projection * (INIT_STD / deviation)


def _copy_positions(target: torch.Tensor, source: torch.Tensor, stride: int) -> None:
    """Row 0 (<bos>) stays; row n is where frame 1 + (n - 1) * stride was; others keep theirs."""
    rows = 1 + torch.arange(len(target) - 1) * stride if stride > 1 else torch.arange(len(target))
    if stride > 1:
        rows = torch.cat([torch.zeros(1, dtype=torch.long), rows])
    rows = rows[rows < len(source)]
    target[: len(rows)] = source[rows]


def _as_one_code(model: AR) -> None:
    """Group layers that treat each code of a group as group size 1 did."""
    G, D = model.config.group_size, model.config.size.width
    eye = torch.eye(D)
    assert isinstance(model.group_embedding, nn.Linear)
    assert isinstance(model.group_prediction, nn.Linear)
    model.group_embedding.weight.copy_(eye.repeat(1, G) / G)
    model.group_prediction.weight.copy_(eye.repeat(G, 1))
    model.group_prediction.bias.zero_()
