"""Batches from token files: filled to a budget of frames, the same on any number of processes.

Everything random in a batch is drawn from (seed, number of the batch), so a run is resumed by
counting, in mid-epoch and on another number of processes. Codes are memory-mapped.
"""

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
import torch
from torch import Tensor

from sayso.model.errors import CorpusError, InputError

from . import corpora
from .shards import FORMAT, MANIFEST, SCHEMA, SPLITS, file_hash, write_json

SHORTEST_PROMPT, LONGEST_PROMPT = 3.0, 30.0  # seconds, VALL-E 2, section 3.3


class Batch(NamedTuple):
    """What one device reads at once."""

    text: Tensor  # (B, S) int64, right-padded with 0
    text_lengths: Tensor  # (B,)
    codes: Tensor  # (B, K, T) int64, right-padded with 0
    lengths: Tensor  # (B,) frames
    prompt_lengths: Tensor  # (B,) frames that the NAR is given whole
    level: int  # codebook the NAR predicts, 1..K-1, the same in all batches of a step
    step_frames: int  # frames in all batches of the step, on all devices
    step_targets: int  # of these, frames after the prompts

    def to(self, device: torch.device) -> "Batch":
        """The same batch on a device."""
        return self._replace(
            **{
                name: value.to(device, non_blocking=True)
                for name, value in self._asdict().items()
                if isinstance(value, Tensor)
            }
        )


@dataclass(frozen=True)
class Tokens:
    """All utterances of some token folders, codes memory-mapped."""

    codes: list[np.ndarray]  # per folder (frames, K) int16
    texts: list[np.ndarray]  # per folder (text tokens,) int32
    folder: np.ndarray  # (N,) which of the folders
    start: np.ndarray  # (N,) first frame
    frames: np.ndarray  # (N,)
    text_start: np.ndarray  # (N,)
    text_size: np.ndarray  # (N,) text tokens
    speaker: np.ndarray  # (N,) number of the speaker
    split: np.ndarray  # (N,) index into SPLITS
    codec: dict[str, Any]  # as in the manifest
    tokenizer: dict[str, Any]  # as in the manifest
    corpora: list[dict[str, Any]]  # entries as in the manifests
    manifests: dict[str, str]  # name of a folder: SHA-256 of its manifest
    skipped: dict[str, int]  # rows left out, by reason

    def example(self, members: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        """Utterances one after the other: text ids (S,) and codes (T, K)."""
        texts, codes = [], []
        for i in members:
            folder, start, text_start = self.folder[i], self.start[i], self.text_start[i]
            codes.append(self.codes[folder][start : start + self.frames[i]])
            texts.append(self.texts[folder][text_start : text_start + self.text_size[i]])
        return np.concatenate(texts), np.concatenate(codes)


def read_manifest(folder: Path, allowed: list[str]) -> dict[str, Any]:
    """The manifest of a token folder, its corpora checked against the list and the recipe.

    Raises:
        InputError: There is none, or it is of another version.
        CorpusError: It names a corpus that is not listed, was edited, or is not in `allowed`.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise InputError(f"{path} is missing; run prepare to its end first")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is not JSON; run prepare again") from error
    if manifest.get("format") != FORMAT:
        raise InputError(f"{path} has format {manifest.get('format')}, not {FORMAT}; prepare anew")
    for corpus in corpora.verify(manifest.get("corpora", []), path):
        if corpus.name not in allowed:
            raise CorpusError(f"{path}: corpus {corpus.name!r} is not in the recipe ({allowed})")
    strangers = {p.name for p in folder.glob("*.parquet")} - {s["file"] for s in manifest["shards"]}
    if strangers:
        raise CorpusError(f"{folder}: {min(strangers)} is not in the manifest; remove it")
    return manifest


def _unusable(row: dict[str, Any], manifest: dict[str, Any], names: set[str], path: Path) -> str:
    """Why a row cannot be trained on; empty if it can."""
    if row["corpus"] not in names:
        corpora.get(row["corpus"])
        raise CorpusError(f"{path}: corpus {row['corpus']!r} is not in the manifest")
    codec, text_ids, codes = manifest["codec"], row["text_ids"], row["codes"]
    if not text_ids:
        return "empty text"
    if min(text_ids) < 0 or max(text_ids) >= manifest["tokenizer"]["size"]:
        return "text id beyond the vocabulary"
    if row["frames"] < 2:
        return "too short"
    if len(codes) != row["frames"] * codec["codebooks"]:
        return "wrong number of codebooks"
    if min(codes) < 0 or max(codes) >= codec["codebook_size"]:
        return "code beyond the codebook"
    if row["split"] not in SPLITS:
        return "unknown split"
    return ""


def _cache(folder: Path, manifest: dict[str, Any]) -> Path:
    """Arrays to map into memory, made once per manifest from its shards, whose hashes must fit."""
    key = file_hash(folder / MANIFEST)
    for shard in manifest["shards"]:
        if not (folder / shard["file"]).is_file():
            raise InputError(f"{folder / shard['file']} is missing; run prepare again")
        if file_hash(folder / shard["file"]) != shard["sha256"]:
            raise CorpusError(f"{folder / shard['file']} differs from its manifest; prepare anew")
    done = folder / f"arrays-{key[:16]}"
    if (done / "index.json").is_file():
        return done
    names = {entry["name"] for entry in manifest["corpora"]}
    part = folder / f".arrays-{key[:16]}.{os.getpid()}"
    part.mkdir()
    rows, skipped, position, text_position = [], Counter(), 0, 0
    with (part / "codes.i16").open("wb") as codes, (part / "texts.i32").open("wb") as texts:
        for shard in manifest["shards"]:
            table = pq.read_table(folder / shard["file"])
            if table.schema != SCHEMA:
                raise CorpusError(f"{folder / shard['file']} has other columns; prepare anew")
            for row in table.to_pylist():
                reason = _unusable(row, manifest, names, folder / shard["file"])
                if reason:
                    skipped[reason] += 1
                    continue
                array = np.asarray(row["codes"], dtype="<i2")
                array.reshape(-1, row["frames"]).T.tofile(codes)
                np.asarray(row["text_ids"], dtype="<i4").tofile(texts)
                size = len(row["text_ids"])
                who = f"{row['corpus']}/{row['speaker']}"
                which = SPLITS.index(row["split"])
                rows.append([position, row["frames"], text_position, size, who, which])
                position += row["frames"]
                text_position += size
    write_json(part / "index.json", {"rows": rows, "skipped": dict(skipped)})
    try:
        part.rename(done)
    except OSError:  # another process of this run was first
        if not (done / "index.json").is_file():
            raise
    return done


def open_tokens(folders: list[Path], allowed: list[str]) -> Tokens:
    """Opens token folders for training.

    Args:
        folders: Made by prepare, all with the same codec and tokenizer.
        allowed: Corpora the recipe names.

    Raises:
        InputError: A folder is incomplete or made with another codec or tokenizer.
        CorpusError: A corpus is not listed, or a manifest or shard was changed.
    """
    manifests = [read_manifest(folder, allowed) for folder in folders]
    first = manifests[0]
    codes, texts, rows, skipped = [], [], [], Counter()
    for number, (folder, manifest) in enumerate(zip(folders, manifests, strict=True)):
        for part in ("codec", "tokenizer"):
            if manifest[part] != first[part]:
                raise InputError(f"{folder} was made with another {part} than {folders[0]}")
        arrays = _cache(folder, manifest)
        index = json.loads((arrays / "index.json").read_text(encoding="utf-8"))
        skipped.update(index["skipped"])
        rows += [[number, *row] for row in index["rows"]]
        if index["rows"]:
            flat = np.memmap(arrays / "codes.i16", dtype="<i2", mode="r")
            codes.append(flat.reshape(-1, manifest["codec"]["codebooks"]))
            texts.append(np.memmap(arrays / "texts.i32", dtype="<i4", mode="r"))
        else:
            codes.append(np.zeros((0, manifest["codec"]["codebooks"]), "<i2"))
            texts.append(np.zeros(0, "<i4"))
    if not rows:
        raise InputError(f"no usable utterance in {', '.join(map(str, folders))}: {dict(skipped)}")
    folder, start, frames, text_start, text_size, speaker, split = zip(*rows, strict=True)
    entries = {entry["name"]: entry for manifest in manifests for entry in manifest["corpora"]}
    return Tokens(
        codes=codes,
        texts=texts,
        folder=np.array(folder),
        start=np.array(start),
        frames=np.array(frames),
        text_start=np.array(text_start),
        text_size=np.array(text_size),
        speaker=np.unique(np.array(speaker), return_inverse=True)[1],
        split=np.array(split),
        codec=first["codec"],
        tokenizer=first["tokenizer"],
        corpora=list(entries.values()),
        manifests={folder.name: file_hash(folder / MANIFEST) for folder in folders},
        skipped=dict(skipped),
    )


class Batches:
    """The endless row of training batches, and the fixed row of validation batches."""

    def __init__(
        self,
        tokens: Tokens,
        budget: int,
        seed: int,
        max_text: int,
        max_frames: int,
        join_seconds: float = 0.0,
    ):
        """Leaves out what the model cannot hold, and counts it in `left_out`.

        Args:
            tokens: The utterances.
            budget: Frames in a batch, padding included.
            seed: Of order, joins, prompts and levels.
            max_text: Longest text, in tokens.
            max_frames: Longest utterance.
            join_seconds: Utterances of a speaker are joined up to a length drawn below this.

        Raises:
            InputError: Nothing is left to train on.
        """
        self.tokens, self.budget, self.seed = tokens, budget, seed
        self.max_text, self.max_frames = max_text, min(max_frames, budget)
        self.join_frames = int(join_seconds * tokens.codec["frame_rate"])
        fits = (tokens.frames <= self.max_frames) & (tokens.text_size <= max_text)
        self.left_out = int((~fits).sum())
        self.train = np.flatnonzero(fits & (tokens.split == 0))
        self.validation = np.flatnonzero(fits & (tokens.split == 1))
        if not len(self.train):
            raise InputError(
                f"nothing to train on: {self.left_out} utterances are longer than {max_text} text "
                f"tokens or {self.max_frames} frames"
            )

    def _examples(self, random: np.random.Generator) -> list[tuple[int, ...]]:
        """Every training utterance once, some joined with others of their speaker."""
        order = random.permutation(self.train)
        if not self.join_frames:
            return [(int(i),) for i in order]
        tokens, examples = self.tokens, []
        order = order[np.argsort(tokens.speaker[order], kind="stable")]
        members: list[int] = []
        frames = text = aim = 0
        for i in order.tolist():
            fits = members and tokens.speaker[i] == tokens.speaker[members[0]]
            fits = fits and frames + tokens.frames[i] <= min(aim, self.max_frames)
            if fits and text + tokens.text_size[i] <= self.max_text:
                members.append(i)
            else:
                if members:
                    examples.append(tuple(members))
                members, frames, text = [i], 0, 0
                aim = random.integers(0, self.join_frames)
            frames += tokens.frames[i]
            text += tokens.text_size[i]
        return [*examples, tuple(members)]

    def _fill(self, examples: list[tuple[int, ...]], noise: np.ndarray) -> list[list]:
        """Examples of similar length together, as many as the budget holds once padded."""
        frames = np.array([self.tokens.frames[list(members)].sum() for members in examples])
        batches, batch, longest = [], [], 0
        for i in np.argsort(frames * noise, kind="stable"):
            longest = max(longest, int(frames[i]))
            if batch and longest * (len(batch) + 1) > self.budget:
                batches.append(batch)
                batch, longest = [], int(frames[i])
            batch.append(examples[i])
        return [*batches, batch]

    def epoch(self, number: int) -> list[list[tuple[int, ...]]]:
        """The batches of one epoch, as lists of lists of utterances."""
        random = np.random.default_rng([self.seed, number])
        examples = self._examples(random)
        batches = self._fill(examples, random.uniform(0.97, 1.03, len(examples)))
        return [batches[i] for i in random.permutation(len(batches))]

    def _stream(self, start: int) -> Iterator[list[tuple[int, ...]]]:
        """Batches from number `start` on, epoch after epoch."""
        number = 0
        while True:
            batches = self.epoch(number)
            yield from batches[start:]
            start = max(0, start - len(batches))
            number += 1

    def _prompts(self, frames: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """min(half, U(3 s, 30 s)) frames each; the paper's "maximum" cannot hold."""
        rate = self.tokens.codec["frame_rate"]
        seconds = random.uniform(SHORTEST_PROMPT, LONGEST_PROMPT, len(frames))
        return np.minimum(frames // 2, (seconds * rate).astype(int))

    def _batch(self, members: list, prompts: np.ndarray, level: int, totals: tuple) -> Batch:
        pairs = [self.tokens.example(each) for each in members]
        text_lengths = torch.tensor([len(text) for text, _ in pairs])
        lengths = torch.tensor([len(codes) for _, codes in pairs])
        books = self.tokens.codec["codebooks"]
        text = torch.zeros(len(pairs), int(text_lengths.max()), dtype=torch.int64)
        codes = torch.zeros(len(pairs), books, int(lengths.max()), dtype=torch.int64)
        for i, (ids, frames) in enumerate(pairs):
            text[i, : len(ids)] = torch.from_numpy(ids.astype(np.int64))
            codes[i, :, : len(frames)] = torch.from_numpy(frames.T.astype(np.int64))
        return Batch(text, text_lengths, codes, lengths, torch.from_numpy(prompts), level, *totals)

    def steps(
        self, start: int, accumulation: int = 1, rank: int = 0, world: int = 1
    ) -> Iterator[list[Batch]]:
        """For each step from `start` on, the batches of this process, one per accumulation.

        A step takes accumulation * world batches; what they are does not depend on how they
        are shared out.
        """
        size = accumulation * world
        stream = self._stream(start * size)
        step = start
        while True:
            random = np.random.default_rng([self.seed, step, 1])
            level = int(random.integers(1, max(2, self.tokens.codec["codebooks"])))
            drawn = []
            for _ in range(size):
                members = next(stream)
                frames = np.array([self.tokens.frames[list(each)].sum() for each in members])
                drawn.append((members, frames, self._prompts(frames, random)))
            frames = sum(int(frames.sum()) for _, frames, _ in drawn)
            targets = frames - sum(int(prompts.sum()) for _, _, prompts in drawn)
            yield [
                self._batch(members, prompts, level, (frames, targets))
                for members, _, prompts in drawn[rank::world]
            ]
            step += 1

    def validation_batches(self, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        """The held-out utterances, in a fixed order, shared out among processes; prompts halved."""
        if not len(self.validation):
            return
        examples = [(int(i),) for i in self.validation]
        for members in self._fill(examples, np.ones(len(examples)))[rank::world]:
            frames = np.array([self.tokens.frames[list(each)].sum() for each in members])
            yield self._batch(members, frames // 2, 1, (int(frames.sum()), int(frames.sum())))
