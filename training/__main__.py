"""``python -m sayso.training prepare|ar|nar``: the steps of a recipe from the shell."""

import sys
from pathlib import Path

import torch
from jsonargparse import CLI

from sayso.model.codec import load_codec
from sayso.model.errors import InputError, SaysoError
from sayso.model.text import load_tokenizer

from . import train
from .prepare import Filters, process_rank
from .prepare import prepare as prepare_corpus
from .recipe import Recipe, read_recipe


def prepare(
    config: Path,
    corpus: str,
    root: Path,
    out: Path | None = None,
    limit: int | None = None,
    processes: int = 1,
) -> None:
    """Makes the token files of one corpus.

    Args:
        config: The recipe.
        corpus: Name of the corpus, as on the list.
        root: The unpacked corpus.
        out: Token folder; the recipe's, if it has only one.
        limit: Only the first so many utterances.
        processes: Processes on this machine, where torchrun or SLURM does not start them.
    """
    recipe = read_recipe(config)
    if corpus not in recipe.data.corpora:
        raise InputError(f"corpus {corpus!r} is not in {config} ({recipe.data.corpora})")
    if out is None and len(recipe.data.tokens) > 1:
        raise InputError(f"{config} has several token folders; say which with --out")
    out = out or Path(recipe.data.tokens[0])
    rank, world = process_rank()
    if processes == 1:
        _prepare(0, recipe, corpus, root, out, limit, rank, world)
        return
    if world > 1:
        raise InputError("either --processes or torchrun, not both")
    torch.multiprocessing.start_processes(  # type: ignore[attr-defined]
        _prepare_part, (recipe, corpus, root, out, limit, processes), nprocs=processes
    )
    _prepare(0, recipe, corpus, root, out, limit, 0, 1)  # all shards are there: the manifest


def _prepare_part(
    rank: int, recipe: Recipe, corpus: str, root: Path, out: Path, limit: int | None, world: int
) -> None:
    _prepare(0, recipe, corpus, root, out, limit, rank, world)


def _prepare(
    _: int,
    recipe: Recipe,
    corpus: str,
    root: Path,
    out: Path,
    limit: int | None,
    rank: int,
    world: int,
) -> None:
    data = recipe.data

    def report(done: int, shards: int, hours: float) -> None:
        print(f"prepare {rank}/{world}: shard {done} of {shards}, {hours:.3f} h", flush=True)

    complete = prepare_corpus(
        corpus,
        root,
        out,
        load_codec(Path(recipe.codec.folder)),
        load_tokenizer(Path(recipe.text.folder)),
        Filters(data.min_seconds, data.max_seconds, data.held_out_every),
        limit=limit,
        rank=rank,
        world=world,
        report=report,
    )
    if complete:
        print(f"prepare: {out / 'manifest.json'}", flush=True)


def ar(config: Path, resume: bool = True, set: dict[str, str] | None = None) -> None:
    """Trains the AR model of a recipe.

    Args:
        config: The recipe.
        resume: Continue from the newest checkpoint, if there is one.
        set: Settings other than the recipe's, by dotted key.
    """
    train.train_ar(read_recipe(config, dict(set or {})), resume, _say)


def nar(config: Path, resume: bool = True, set: dict[str, str] | None = None) -> None:
    """Trains the NAR model of a recipe.

    Args:
        config: The recipe.
        resume: Continue from the newest checkpoint, if there is one.
        set: Settings other than the recipe's, by dotted key.
    """
    train.train_nar(read_recipe(config, dict(set or {})), resume, _say)


def _say(line: str) -> None:
    print(line, flush=True)


def main() -> None:
    """Runs a command; a user's mistake is one line and exit status 2."""
    try:
        CLI({"prepare": prepare, "ar": ar, "nar": nar}, as_positional=False)
    except SaysoError as error:
        print(f"sayso: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
