"""Token files from a corpus folder: normalised text and codec codes in Parquet shards.

A shard is written to a temporary name and renamed, so a killed run continues where it was and the
shards come out byte for byte the same. Several processes (torchrun, SLURM) take every n-th shard.
"""

import contextlib
import functools
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soxr
import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from torch import Tensor

from sayso.model import corpora
from sayso.model.codecs.base import Codec
from sayso.model.errors import CorpusError, InputError
from sayso.model.files import MOST_LIST, file_hash, read_json, replacing, write_json
from sayso.model.text.forced_alignment import RATE, Aligner
from sayso.model.text.tokenizers import Tokenizer

from .encoding import Coded, Heard, encode, hear
from .extras.align import align_tokens
from .extras.augment import altered_row
from .readers import LeftOut, Utterance, list_corpus
from .shards import COPY, FORMAT, MANIFEST, PARTS, PLAN, SCHEMA, read_table
from .speech import Filters, Unusable, read_speech


def process_rank() -> tuple[int, int]:
    """Rank and number of the processes that prepare together (torchrun, SLURM, or one).

    Raises:
        InputError: SLURM was asked for tasks in a way that Lightning does not take.
    """
    for environment in (TorchElasticEnvironment, SLURMEnvironment):
        if environment.detect():
            try:
                running = environment()
            except RuntimeError as error:
                raise InputError(str(error)) from error
            return running.global_rank(), running.world_size()
    return 0, 1


def _usable(utterances: Iterable[Utterance], rate: int, filters: Filters) -> Iterator[Tensor]:
    """The recordings (1, samples) among them that can be used."""
    for utterance in utterances:
        with contextlib.suppress(Unusable):
            yield read_speech(utterance.recording, rate, filters)


def make_rows(
    heard: Heard, coded: Coded, corpus: str, codec: Codec, tokenizer: Tokenizer, by: Aligner | None
) -> list[dict[str, Any]]:
    """The row of an utterance and those of its altered copies.

    Raises:
        Unusable: It cannot be aligned with its text.
    """
    starts = np.zeros(0, np.int32)
    if by is not None:
        audio = soxr.resample(heard.audio[0].numpy(), codec.sample_rate, RATE)
        try:
            starts = align_tokens(audio, heard.text_ids, tokenizer, codec.frame_rate, by)
        except InputError as error:
            raise Unusable("alignment") from error
    row = {
        "id": heard.utterance.id,
        "speaker": heard.utterance.speaker,
        "corpus": corpus,
        "text": heard.text,
        "text_ids": heard.text_ids,
        "starts": starts,
        "codes": coded.codes.flatten().to(torch.int16).numpy(),
        "frames": coded.codes.shape[1],
        "part": heard.utterance.part,
        "sha256": heard.sha256,
    }
    copies = enumerate(coded.copies, start=1)
    return [row, *(altered_row(row, number, *copy) for number, copy in copies)]


def _write_shard(
    path: Path,
    utterances: list[Utterance],
    read: Callable[[Utterance], Heard],
    encode_all: Callable[[list[Heard]], list[Coded | Unusable]],
    make: Callable[[Heard, Coded], list[dict[str, Any]]],
) -> None:
    """One shard and, before it, the list of what it left out."""
    heard, rows, reasons = [], [], {}
    for utterance in utterances:
        try:
            heard.append(read(utterance))
        except Unusable as reason:
            reasons[utterance.id] = str(reason)
    for each, coded in zip(heard, encode_all(heard), strict=True):
        try:
            if isinstance(coded, Unusable):
                raise coded
            rows += make(each, coded)
        except Unusable as reason:
            reasons[each.utterance.id] = str(reason)
    left_out = [LeftOut(u.id, reasons[u.id]) for u in utterances if u.id in reasons]
    write_json(path.with_suffix(".json"), [vars(each) for each in left_out])
    with replacing(path) as part:
        pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), part, compression="zstd")


def prepare(
    corpus: str,
    root: Path,
    out: Path,
    codec: Codec,
    tokenizer: Tokenizer,
    filters: Filters | None = None,
    shard_size: int = 64,
    limit: int | None = None,
    rank: int = 0,
    world: int = 1,
    report: Callable[[int, int, int, float], None] | None = None,
    align: bool = False,
    copies: int = 0,
) -> bool:
    """Makes the token files of one corpus; call it again to continue a killed run.

    Args:
        corpus: Name on the list of consented corpora.
        root: The unpacked corpus.
        out: Folder of the shards and ``manifest.json``.
        codec: Makes the codes, on the device it lies on; the identities of its parts go into the
            manifest.
        tokenizer: Makes the text ids; its identity goes into the manifest.
        filters: Lengths; the defaults of :class:`Filters` if None.
        shard_size: Utterances per shard.
        limit: Take only so many utterances, of whole speakers drawn by the hash of their names: a
            higher limit takes the same and more.
        rank: This process, of `world` that prepare together into the same folder.
        report: Called after each shard with shards made by this call, shards done, shards in all
            (each of this process) and hours done.
        align: Find where each text token is said; needs phonemes.
        copies: Altered copies of each training utterance; needs a codec that edits voices.

    Returns:
        True if the manifest is written; False if other processes have shards left to write.

    Raises:
        CorpusError: The corpus is not listed, or `root` is not it.
        InputError: `out` holds token files made with other settings, or the codec is none for
            copies.
    """
    if copies and not codec.edits:
        raise InputError(f"data.copies needs a WORLD codec, this is {type(codec).__name__}")
    entry = corpora.get(corpus)
    filters = filters or Filters()
    listing = list_corpus(corpus, root)
    utterances = sample(listing.utterances, limit)
    plan = {
        "format": FORMAT,
        "corpora": [entry.to_json()],
        "codec": {
            "identity": codec.parts["codec"],
            "sample_rate": codec.sample_rate,
            "frame_rate": codec.frame_rate,
            "codebooks": codec.codebooks,
            "codebook_size": codec.codebook_size,
        },
        "tokenizer": {
            "identity": tokenizer.identity,
            "kind": tokenizer.kind,
            "size": tokenizer.size,
        },
        "filters": vars(filters),
        "aligned": align,
        "copies": copies,
        **{part: identity for part, identity in codec.parts.items() if part != "codec"},
        "shard_size": shard_size,
        "ids": hashlib.sha256("\n".join(u.id for u in utterances).encode()).hexdigest(),
    }
    out.mkdir(parents=True, exist_ok=True)
    if (out / PLAN).is_file():
        old = read_json(out / PLAN)
        new = json.loads(json.dumps(plan))
        differing = sorted(key for key in {*old, *new} if old.get(key) != new.get(key))
        if differing:
            raise InputError(
                f"{out} holds token files made with other settings ({', '.join(differing)}; ids "
                "are the utterances, fewer with --limit): remove it, or give another --out"
            )
    else:
        write_json(out / PLAN, plan)

    aligner = Aligner() if align else None

    by_speaker: dict[str, list[Utterance]] = {}
    for utterance in utterances:
        by_speaker.setdefault(utterance.speaker, []).append(utterance)

    @functools.cache
    def own(speaker: str) -> Any:
        return codec.speaker(_usable(by_speaker[speaker], codec.sample_rate, filters))

    def read(utterance: Utterance) -> Heard:
        return hear(utterance, codec, tokenizer, filters)

    def encode_all(heard: list[Heard]) -> list[Coded | Unusable]:
        return encode(heard, codec, copies, own)

    def make(heard: Heard, coded: Coded) -> list[dict[str, Any]]:
        return make_rows(heard, coded, corpus, codec, tokenizer, aligner)

    chunks = [utterances[i : i + shard_size] for i in range(0, len(utterances), shard_size)]
    paths = [out / f"shard-{index:05d}.parquet" for index in range(len(chunks))]
    made = frames = 0
    mine = [index for index in range(len(chunks)) if index % world == rank]
    for done, index in enumerate(mine, start=1):
        if not paths[index].is_file():
            _write_shard(paths[index], chunks[index], read, encode_all, make)
            made += 1
        frames += int(np.sum(read_table(paths[index], columns=["frames"])["frames"]))
        if report is not None:
            report(made, done, len(mine), frames / codec.frame_rate / 3600)
    if not all(path.is_file() for path in paths):
        return False
    _write_manifest(out, plan, paths, len(utterances), listing.left_out)
    return True


def sample(utterances: list[Utterance], limit: int | None) -> list[Utterance]:
    """At most `limit` utterances, of whole speakers but for the last, in the order given."""

    if limit is None:
        return utterances

    def drawn(name: str) -> str:
        return hashlib.sha256(name.encode()).hexdigest()

    order = sorted(utterances, key=lambda u: (drawn(u.speaker), drawn(u.id)))
    taken = {each.id for each in order[:limit]}
    return [each for each in utterances if each.id in taken]


def _write_manifest(
    out: Path, plan: dict[str, Any], paths: list[Path], expected: int, unread: list[LeftOut]
) -> None:
    """Counts and hashes of all shards; every utterance is in a shard or left out with a reason."""
    shards, ids = [], set()
    counts = {part: {"utterances": 0, "frames": 0} for part in PARTS}
    left_out: list[dict[str, str]] = []
    for path in paths:
        table = read_table(path, columns=["id", "frames", "part"])
        left_out += read_json(path.with_suffix(".json"), MOST_LIST)
        for id, frames, part in zip(*(c.to_pylist() for c in table.columns), strict=True):
            if id in ids:
                raise CorpusError(f"{path}: utterance {id} is in the shards twice; prepare anew")
            ids.add(id)
            counts[part]["utterances"] += 1
            counts[part]["frames"] += frames
        shards.append({"file": path.name, "rows": table.num_rows, "sha256": file_hash(path)})
    read = sum(COPY not in id for id in ids)
    if read + len(left_out) != expected:
        raise CorpusError(f"{out}: {expected} utterances, but {read} in shards; prepare anew")
    left_out += [vars(each) for each in unread]
    rate = plan["codec"]["frame_rate"]
    for count in counts.values():
        count["seconds"] = round(count["frames"] / rate, 3)
    reasons = Counter(item["reason"] for item in left_out)
    manifest = {
        **{key: value for key, value in plan.items() if key not in ("shard_size", "ids")},
        "counts": counts,
        "left_out": {"reasons": dict(reasons), "utterances": left_out},
        "shards": shards,
    }
    write_json(out / MANIFEST, manifest)
    for half in out.glob(".shard-*"):  # what killed runs left
        half.unlink(missing_ok=True)
