"""The steps of a recipe from the shell: ``python -m sayso.training prepare|check|ar|nar``."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from jsonargparse import auto_cli

from sayso.model.codec import load_codec
from sayso.model.errors import InputError, SaysoError
from sayso.model.text import load_tokenizer

from . import corpora, train
from .card import CARD, read_card
from .prepare import Filters, process_rank
from .prepare import prepare as prepare_corpus
from .recipe import Recipe, read_recipe
from .shards import MANIFEST
from .tokens import open_tokens


def prepare(
    recipe: Path,
    corpus: str,
    root: Path,
    out: Path | None = None,
    limit: int | None = None,
    processes: int = 1,
) -> None:
    """Makes the token files of one corpus.

    Args:
        recipe: The recipe file, such as configs/tiny.yaml.
        corpus: Name of the corpus, as on the list.
        root: The unpacked corpus.
        out: Token folder; the recipe's, if it has only one.
        limit: Only the first so many utterances.
        processes: Processes on this machine, where torchrun or SLURM does not start them.
    """
    settings = read_recipe(recipe)
    if corpus not in settings.data.corpora:
        raise InputError(f"corpus {corpus!r} is not in {recipe} ({settings.data.corpora})")
    if out is None and len(settings.data.tokens) > 1:
        raise InputError(f"{recipe} has several token folders; say which with --out")
    out = out or Path(settings.data.tokens[0])
    rank, world = process_rank()
    if processes == 1:
        _prepare(settings, corpus, root, out, limit, rank, world)
        return
    if world > 1:
        raise InputError("either --processes or torchrun, not both")
    torch.multiprocessing.start_processes(  # type: ignore[attr-defined]
        _prepare_part, (settings, corpus, root, out, limit, processes), nprocs=processes
    )


def _prepare_part(
    rank: int, recipe: Recipe, corpus: str, root: Path, out: Path, limit: int | None, world: int
) -> None:
    _prepare(recipe, corpus, root, out, limit, rank, world)


def _prepare(
    recipe: Recipe,
    corpus: str,
    root: Path,
    out: Path,
    limit: int | None,
    rank: int,
    world: int,
) -> None:
    data = recipe.data
    codec = load_codec(Path(recipe.codec.folder))
    tokenizer = load_tokenizer(Path(recipe.text.folder))
    if tokenizer.kind != recipe.text.kind:
        raise InputError(
            f"{recipe.text.folder} holds {tokenizer.kind}, the recipe asks for {recipe.text.kind}"
        )

    started = time.monotonic()

    def report(done: int, shards: int, hours: float) -> None:
        left = (time.monotonic() - started) / done * (shards - done) / 60
        _say(
            f"prepare {rank}/{world}: shard {done} of {shards}, {hours:.3f} h, {left:.0f} min left"
        )

    complete = prepare_corpus(
        corpus,
        root,
        out,
        codec,
        tokenizer,
        Filters(data.min_seconds, data.max_seconds, data.held_out(corpus)),
        align=data.align,
        copies=data.copies,
        limit=limit,
        rank=rank,
        world=world,
        report=report,
    )
    if complete:
        manifest = json.loads((out / MANIFEST).read_text(encoding="utf-8"))
        left_out = ", ".join(f"{n} {why}" for why, n in manifest["left_out"]["reasons"].items())
        _say(f"prepare: {out / MANIFEST} is complete; left out: {left_out or 'nothing'}")


def check(folder: Path) -> None:
    """Checks a token folder or a run: corpora against the list, files against their hashes.

    Args:
        folder: Made by prepare (``manifest.json``) or by training (``card.json``).
    """
    if (folder / MANIFEST).is_file():
        tokens = open_tokens([folder], corpora.names())
        listed, hours = tokens.corpora, tokens.frames.sum() / tokens.codec["frame_rate"] / 3600
        _say(f"{folder}: {len(tokens.frames)} utterances, {hours:.2f} h, shards as in the manifest")
    elif (folder / CARD).is_file():
        card = read_card(folder)
        listed = card["corpora"]
        _say(f"{folder}: {', '.join(card['models'])}, weights as on the card")
    else:
        raise InputError(
            f"{folder} has neither {MANIFEST} nor {CARD}; give a token folder or a run"
        )
    for entry in listed:
        _say(f"{entry['name']}: {entry['licence']}; {entry['basis']}; {', '.join(entry['uses'])}")


def ar(recipe: Path, resume: bool = True, set: dict[str, Any] | None = None) -> None:
    """Trains the AR model of a recipe.

    Args:
        recipe: The recipe file, such as configs/tiny.yaml.
        resume: Continue from the newest checkpoint, if there is one.
        set: Settings other than the recipe's, by dotted key.
    """
    train.train_ar(read_recipe(recipe, dict(set or {})), resume, _say)


def nar(recipe: Path, resume: bool = True, set: dict[str, Any] | None = None) -> None:
    """Trains the NAR model of a recipe.

    Args:
        recipe: The recipe file, such as configs/tiny.yaml.
        resume: Continue from the newest checkpoint, if there is one.
        set: Settings other than the recipe's, by dotted key.
    """
    train.train_nar(read_recipe(recipe, dict(set or {})), resume, _say)


def _say(line: str) -> None:
    print(line, flush=True)


def main() -> None:
    """Runs a command; a user's mistake is one line and exit status 2."""
    try:
        auto_cli({"prepare": prepare, "check": check, "ar": ar, "nar": nar}, as_positional=False)
    except SaysoError as error:
        print(f"sayso: {error}", file=sys.stderr)
        sys.exit(2)
