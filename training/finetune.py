"""What training begins with: random weights, those of another model, or the codec's codebooks."""

from dataclasses import replace
from pathlib import Path
from typing import Literal, cast

import torch
from torch import nn

from sayso.model.ar import AR, ARConfig
from sayso.model.card import read_card
from sayso.model.codecs.base import Codec
from sayso.model.codecs.load import load_codec
from sayso.model.errors import InputError
from sayso.model.extras.alignment import AlignedAR
from sayso.model.nar import NAR, NARConfig
from sayso.model.transformer import INIT_STD
from sayso.model.valle2 import (
    AnyAR,
    AnyNAR,
    load_ar,
    load_nar,
    make_ar,
    make_nar,
    pure_ar,
    pure_nar,
)

from .recipe import Recipe
from .tasks import ARTask, NARTask
from .tokens import Tokens

Part = Literal["ar", "nar"]


def new_task(recipe: Recipe, part: Part, tokens: Tokens) -> ARTask | NARTask:
    """A model of random weights that some token files can train, as a recipe wants it."""
    text_size, codebook_size = tokens.tokenizer["size"], tokens.codec["codebook_size"]
    if part == "ar":
        ar = recipe.ar
        config = ARConfig(
            text_size, codebook_size, ar.group_size, ar.size, ar.max_text, ar.max_frames
        )
        return ARTask(make_ar(config, ar.alignment, ar.tied), ar.train)
    nar, books = recipe.nar, tokens.codec["codebooks"]
    wanted = NARConfig(text_size, codebook_size, books, nar.size, nar.max_text, nar.max_frames)
    return NARTask(make_nar(wanted, nar.alignment, nar.tied), nar.train)


def begin(recipe: Recipe, part: Part, tokens: Tokens) -> ARTask | NARTask:
    """A model as training begins with it: random, of the codec's codebooks, or fine-tuned.

    Raises:
        CheckpointError: `start_from` is not a model, or its run has no card.
        CorpusError: Its card names a corpus that is not listed.
        InputError: Its weights or the codec's codebooks do not fit.
    """
    own, identity = recipe.ar if part == "ar" else recipe.nar, tokens.codec["identity"]
    torch.manual_seed(own.train.seed)  # of the initial weights
    task = new_task(recipe, part, tokens)
    if own.code_init == "codebooks":
        codec = codec_of(recipe.model_codec, identity)
        start_from_codebooks(task.model, codec, own.train.seed)
    if own.start_from is not None:
        start_from(task.model, Path(own.start_from), identity, recipe.model_codec)
    return task


def start_from(model: AnyAR | AnyNAR, folder: Path, identity: str, codec: Path) -> None:
    """Copies the weights of a model folder (``RUN/ar`` or ``RUN/nar``) into a new model.

    If the codes of the new model are of another WORLD codec (of that `identity`, in the folder
    `codec`), each starts as the old one that sounds most like it; the old codec has to be in
    ``RUN/codec``.

    An AR model may go into a multiple of its group size: a group starts as the mean of the groups
    it joins, its codes are first predicted as theirs were, and group n stands where its first frame
    stood. It may go into group size 1, too, without its group layers, so that the code table has to
    learn anew what it is in one.

    Raises:
        CheckpointError: The folder is not a model, or its run has no card.
        CorpusError: The card names a corpus that is not listed.
        InputError: The models differ in more than the group size and lengths, or in a codec that
            is not to be had or no WORLD codec.
    """
    trained_with = read_card(folder.parent)["codec"]["identity"]
    ours = _pure(model)
    if isinstance(ours, AR):
        source = load_ar(folder)
        theirs = pure_ar(source)
        old, new = theirs.config.group_size, ours.config.group_size
        if new % old and new != 1:
            raise InputError(
                f"{folder} has group size {old}, good for 1 and multiples of {old}, not for {new}"
            )
        config = replace(theirs.config, group_size=new)
    else:
        source = load_nar(folder)
        theirs, old, new = pure_nar(source), 1, 1
        config = theirs.config
    size = replace(config.size, dropout=ours.config.size.dropout)  # dropout has no weights
    lengths = {"max_text": ours.config.max_text, "max_frames": ours.config.max_frames}
    if replace(config, size=size, **lengths) != ours.config or type(source) is not type(model):
        raise InputError(f"{folder} is {source.config}; it cannot go into {model.config}")
    weights = source.state_dict()
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if name.endswith("text_position.weight"):
                _copy_positions(value, weights[name], 1, 1)
            elif name.endswith("code_position.weight"):
                _copy_positions(value, weights[name], old, new)
            elif name in weights and value.shape == weights[name].shape:
                value.copy_(weights[name])
        if new > old and isinstance(ours, AR) and isinstance(theirs, AR):
            _join_groups(ours, theirs)
    if trained_with != identity:
        old, new = folder.parent / "codec", codec
        _carry_codes(ours, codec_of(old, trained_with), codec_of(new, identity))


def codec_of(folder: Path, identity: str) -> Codec:
    """The codec in a folder; InputError unless it is the one of that identity."""
    found = load_codec(folder) if folder.is_dir() else None
    if found is None or found.identity != identity:
        raise InputError(
            f"{folder} holds another codec than {identity[:12]} or none: copy it there"
        )
    return found


@torch.no_grad()
def _carry_codes(model: AR | NAR, old: Codec, new: Codec) -> None:
    """Rows of code tables to those of codes that sound alike."""
    for table, chosen in zip(_code_tables(model), new.nearest(old), strict=False):
        table.weight[: len(chosen)] = table.weight[chosen]


def _pure(model: AnyAR | AnyNAR) -> AR | NAR:
    return pure_ar(model) if isinstance(model, AR | AlignedAR) else pure_nar(model)


def _code_tables(model: AR | NAR) -> list[nn.Embedding]:
    tables = [model.code_embedding] if isinstance(model, AR) else list(model.code_embeddings)
    return cast(list[nn.Embedding], tables)


@torch.no_grad()
def start_from_codebooks(model: AnyAR | AnyNAR, codec: Codec, seed: int) -> None:
    """Draws the code tables so that codes which sound alike start alike.

    The paper does not state the initialisation. Every codebook goes through one random matrix from
    the codec's feature space to the model's width, so that the NAR's sum of embeddings is, at the
    start, a projection of what the codes so far decode to; the mean deviation is as at random.

    Raises:
        InputError: The codec has other codebooks than the model.
    """
    ours = _pure(model)
    tables = _code_tables(ours)
    entries = codec.entries()[: len(tables)]  # (levels, codebook_size, features)
    if entries.shape[:2] != (len(tables), ours.config.codebook_size):
        raise InputError(f"codebooks {tuple(entries.shape)} do not fit {ours.config}")
    entries = entries - entries.mean(1, keepdim=True)
    deviation = entries.pow(2).mean((1, 2)).sqrt().mean()
    features, width = entries.shape[2], ours.config.size.width
    random = torch.Generator().manual_seed(seed)
    projection = torch.randn(features, width, generator=random) / features**0.5
    for table, book in zip(tables, entries, strict=True):
        table.weight[: len(book)] = book @ projection * (INIT_STD / deviation)


def _copy_positions(target: torch.Tensor, source: torch.Tensor, old: int, new: int) -> None:
    """Row 0 (<bos>) stays; group n of `new` frames stands where its first frame did among groups
    of `old`; rows beyond the source keep theirs."""
    rows = 1 + torch.arange(len(target) - 1) * new // old
    rows = torch.cat([torch.zeros(1, dtype=torch.long), rows])
    rows = rows[rows < len(source)]
    target[: len(rows)] = source[rows]


def _join_groups(model: AR, source: AR) -> None:
    """Group layers that treat the codes of several old groups as these were treated."""
    old, new, D = source.config.group_size, model.config.group_size, model.config.size.width
    embed, predict, bias = torch.eye(D), torch.eye(D), torch.zeros(D)
    if source.group_embedding is not None and source.group_prediction is not None:
        embed, predict = source.group_embedding.weight, source.group_prediction.weight
        bias = source.group_prediction.bias
    times = new // old
    assert model.group_embedding is not None and model.group_prediction is not None
    model.group_embedding.weight.copy_(embed.repeat(1, times) / times)
    model.group_prediction.weight.copy_(predict.repeat(times, 1))
    model.group_prediction.bias.copy_(bias.repeat(times))
