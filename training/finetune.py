"""Start a model from the weights of another, of the same or of a smaller group size."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from sayso.model.ar import AR, ARConfig
from sayso.model.checkpoint import load_module
from sayso.model.errors import InputError
from sayso.model.nar import NAR, NARConfig

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
        theirs = source.config
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
