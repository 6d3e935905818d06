"""`sayso prepare` and `sayso corpora check`: a recipe's token files made, and all files checked."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.multiprocessing.spawn import ProcessExitedException

from sayso.model import corpora
from sayso.model.card import CARD, read_card
from sayso.model.codecs.load import load_codec
from sayso.model.corpora import Corpus
from sayso.model.errors import InputError, SaysoError
from sayso.model.files import MOST_LIST, read_json
from sayso.model.printable import printable
from sayso.model.text.tokenizers import load_tokenizer

from .bar import Bar
from .prepare import prepare as prepare_corpus
from .prepare import process_rank
from .readers import list_corpus
from .recipe import Recipe, maker, read_recipe
from .shards import MANIFEST
from .speech import Filters
from .tokens import open_tokens


def prepare(
    corpus: str,
    root: Path,
    recipe: Path | None = None,
    out: Path | None = None,
    limit: int | None = None,
    processes: int = 1,
    device: str = "auto",
) -> None:
    """Makes the token files of one corpus.

    Args:
        corpus: Name of the corpus, as on the list.
        root: The unpacked corpus.
        recipe: The recipe file; configs/CORPUS.yaml if not given.
        out: Token folder; the recipe's, if it has only one.
        limit: Only so many utterances, of whole speakers.
        processes: Processes on this machine, where torchrun or SLURM does not start them.
        device: Where the codec runs: cpu, cuda, or auto for a GPU if there is one.

    Raises:
        InputError: There is no recipe, or the corpus or its token folder is not in it.
    """
    if recipe is None:
        corpora.get(corpus)
        recipe = Path("configs") / f"{corpus}.yaml"
        if not recipe.is_file():
            raise InputError(f"there is no {recipe} here: name a recipe with --recipe")
    settings = read_recipe(recipe)
    if corpus not in settings.data.corpora:
        raise InputError(f"corpus {corpus!r} is not in {recipe} ({settings.data.corpora})")
    if out is None and len(settings.data.tokens) > 1:
        raise InputError(f"{recipe} has several token folders; say which with --out")
    out = out or Path(settings.data.tokens[0])
    rank, world = process_rank()
    if processes == 1:
        _prepare(rank, _Job(settings, corpus, root, out, limit, device, world))
        return
    if world > 1:
        raise InputError("either --processes or torchrun, not both")
    try:
        torch.multiprocessing.start_processes(  # type: ignore[attr-defined]
            _prepare_part,
            (_Job(settings, corpus, root, out, limit, device, processes),),
            nprocs=processes,
        )
    except ProcessExitedException as error:
        raise InputError(f"prepare stopped: {error}; give the command again to go on") from None


@dataclass(frozen=True)
class _Job:
    """What every process of one prepare is told."""

    recipe: Recipe
    corpus: str
    root: Path
    out: Path
    limit: int | None
    device: str
    world: int


def _prepare_part(rank: int, job: _Job) -> None:
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // job.world))
    try:
        _prepare(rank, job)
    except SaysoError as error:
        _say(f"prepare {rank + 1}/{job.world}: {error}")
        sys.exit(1)


def _prepare(rank: int, job: _Job) -> None:
    recipe, out, corpus, world = job.recipe, job.out, job.corpus, job.world
    data = recipe.data
    parts = {"codec": recipe.codec.folder, "timbre": data.timbre, "text": recipe.text.folder}
    for kind, folder in parts.items():
        if folder is not None and not Path(folder).is_dir():
            raise InputError(
                f"{folder} is missing: make it with `{maker(recipe, kind, Path(folder))}`"
            )
    timbre = None if data.timbre is None else Path(data.timbre)
    codec = load_codec(Path(recipe.codec.folder), timbre, codec_device(job.device, rank))
    tokenizer = load_tokenizer(Path(recipe.text.folder))
    if tokenizer.kind != recipe.text.kind:
        raise InputError(
            f"{recipe.text.folder} holds {tokenizer.kind}, the recipe asks for {recipe.text.kind}"
        )

    with Bar(rank, world) as bar:
        complete = prepare_corpus(
            corpus,
            job.root,
            out,
            codec,
            tokenizer,
            Filters(data.min_seconds, data.max_seconds),
            align=data.align,
            copies=data.copies,
            limit=job.limit,
            rank=rank,
            world=world,
            report=bar.report,
        )
    if not complete:
        _say(
            f"prepare {rank + 1}/{world}: done; other processes have shards left. If none is "
            "running any more, give the command again"
        )
        return
    open_tokens([out], [corpus])  # checks all, and makes the arrays that training maps
    manifest = read_json(out / MANIFEST, MOST_LIST)
    hours = {part: count["seconds"] / 3600 for part, count in manifest["counts"].items()}
    left_out = ", ".join(f"{n} {why}" for why, n in manifest["left_out"]["reasons"].items())
    _say(
        f"prepare: {out / MANIFEST} is complete: {hours['train']:.2f} h, and "
        f"{hours['dev']:.2f} h of dev parts; left out: {left_out or 'nothing'}"
    )


def codec_device(name: str, rank: int = 0) -> str:
    """Where process number `rank` encodes: processes on one machine share its GPUs out.

    Raises:
        InputError: There is no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cpu":
        return name
    if name != "cuda" or not torch.cuda.is_available():
        raise InputError(f"--device {name}: it is not there; cpu is, or give auto")
    return f"cuda:{rank % torch.cuda.device_count()}"


def check(folder: Path, corpus: str | None = None) -> None:
    """Checks a token folder or a run: corpora against the list, files against their hashes.

    Args:
        folder: Made by prepare (``manifest.json``) or by training (``card.json``).
        corpus: The folder is this corpus as published: its archives, against the checksums of
            the list, or unpacked, read as prepare reads it.

    Raises:
        InputError: The folder is neither, and no corpus is named.
    """
    if corpus is not None:
        _check_corpus(corpora.get(corpus), folder)
        return
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
            f"{folder} has neither {MANIFEST} nor {CARD}; give a token folder or a run, or say "
            "with --corpus which corpus it is"
        )
    for entry in listed:
        _say(f"{entry['name']}: {entry['licence']}; {entry['basis']}; {', '.join(entry['uses'])}")


def _check_corpus(corpus: Corpus, folder: Path) -> None:
    archives = {line.split()[0] for line in (corpus.checksum or "").splitlines()}
    if any((folder / name).is_file() for name in archives):
        for name in corpora.check_archives(corpus, folder):
            _say(f"{folder / name}: as on the list")
        return
    listing = list_corpus(corpus.name, folder, most_broken=1.0)
    taken = listing.utterances
    for each in listing.left_out:
        _say(f"{each.id}: {each.reason}")
    _say(
        f"{folder}: {len(taken)} utterances of {len({u.speaker for u in taken})} speakers of "
        f"{corpus.name}, {len(listing.left_out)} left out"
    )
    list_corpus(corpus.name, folder)  # refuses one of which too much is broken


def _say(line: str) -> None:
    print(printable(line), flush=True)
