"""Token files opened for training: checked against the list and their hashes, memory-mapped."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sayso.model import corpora
from sayso.model.errors import CorpusError, InputError
from sayso.model.files import file_hash, unique, write_json

from .shards import COPY, FORMAT, MANIFEST, SCHEMA, SPLITS


@dataclass(frozen=True)
class Tokens:
    """All utterances of some token folders, codes memory-mapped."""

    codes: list[np.ndarray]  # per folder (frames, K) int16
    texts: list[np.ndarray]  # per folder (text tokens,) int32
    starts: list[np.ndarray]  # per folder (text tokens,) int32 first frames; empty if not aligned
    folder: np.ndarray  # (N,) which of the folders
    start: np.ndarray  # (N,) first frame
    frames: np.ndarray  # (N,)
    text_start: np.ndarray  # (N,)
    text_size: np.ndarray  # (N,) text tokens
    speaker: np.ndarray  # (N,) number of the speaker
    split: np.ndarray  # (N,) index into SPLITS
    recorded: np.ndarray  # (N,) bool: no altered copy
    aligned: bool
    codec: dict[str, Any]  # as in the manifest
    tokenizer: dict[str, Any]  # as in the manifest
    timbre: str | None  # identity of what changed all speech into its pivot
    corpora: list[dict[str, Any]]  # entries as in the manifests
    manifests: dict[str, str]  # name of a folder: SHA-256 of its manifest
    skipped: dict[str, int]  # rows left out, by reason

    def example(self, members: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Utterances one after the other: text ids (S,), codes (T, K) and first frames (S,).

        The last is empty if the token folders are not aligned.
        """
        texts, codes, starts, frames = [], [], [], 0
        for i in members:
            folder, start, first = self.folder[i], self.start[i], self.text_start[i]
            codes.append(self.codes[folder][start : start + self.frames[i]])
            texts.append(self.texts[folder][first : first + self.text_size[i]])
            starts.append(self.starts[folder][first : first + self.text_size[i]] + frames)
            frames += self.frames[i]
        return np.concatenate(texts), np.concatenate(codes), np.concatenate(starts)


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
    if not len(text_ids):
        return "empty text"
    if text_ids.min() < 0 or text_ids.max() >= manifest["tokenizer"]["size"]:
        return "text id beyond the vocabulary"
    if row["frames"] < 2:
        return "too short"
    if len(codes) != row["frames"] * codec["codebooks"]:
        return "wrong number of codebooks"
    if codes.min() < 0 or codes.max() >= codec["codebook_size"]:
        return "code beyond the codebook"
    starts = row["starts"]
    if manifest["aligned"] and (len(starts) != len(text_ids) or (np.diff(starts) < 0).any()):
        return "wrong alignment"
    if row["split"] not in SPLITS:
        return "unknown split"
    return ""


def _rows(table: pa.Table, path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a shard, lists as arrays: ten times as fast as by way of Python's own."""
    columns: dict[str, Any] = {}
    for name in table.column_names:
        column = table[name].combine_chunks()
        if column.null_count or (pa.types.is_list(column.type) and column.flatten().null_count):
            raise CorpusError(f"{path}: {name} has gaps; prepare anew")
        if pa.types.is_list(column.type):
            values = column.flatten().to_numpy()
            ends = np.cumsum(column.value_lengths().to_numpy())
            columns[name] = np.split(values, ends[:-1])
        else:
            columns[name] = column.to_pylist()
    for i in range(table.num_rows):
        yield {name: column[i] for name, column in columns.items()}


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
    part = folder / f".arrays-{key[:16]}.{unique()}"
    part.mkdir()
    rows, skipped, position, text_position = [], Counter(), 0, 0
    with (
        (part / "codes.i16").open("wb") as codes,
        (part / "texts.i32").open("wb") as texts,
        (part / "starts.i32").open("wb") as starts,
    ):
        for shard in manifest["shards"]:
            table = pq.read_table(folder / shard["file"])
            if table.schema != SCHEMA:
                raise CorpusError(f"{folder / shard['file']} has other columns; prepare anew")
            for row in _rows(table, folder / shard["file"]):
                reason = _unusable(row, manifest, names, folder / shard["file"])
                if reason:
                    skipped[reason] += 1
                    continue
                row["codes"].astype("<i2").reshape(-1, row["frames"]).T.tofile(codes)
                row["text_ids"].astype("<i4").tofile(texts)
                row["starts"].astype("<i4").tofile(starts)
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
        folders: Made by prepare, all with the same codec, tokenizer and timbre.
        allowed: Corpora the recipe names.

    Raises:
        InputError: A folder is incomplete or made with another codec, tokenizer or timbre.
        CorpusError: A corpus is not listed, or a manifest or shard was changed.
    """
    manifests = [read_manifest(folder, allowed) for folder in folders]
    first = manifests[0]
    codes, texts, starts, rows, skipped = [], [], [], [], Counter()
    for number, (folder, manifest) in enumerate(zip(folders, manifests, strict=True)):
        for part in ("codec", "tokenizer", "aligned", "timbre"):
            if manifest.get(part) != first.get(part):
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
        aligned = manifest["aligned"] and index["rows"]
        path = arrays / "starts.i32"
        starts.append(np.memmap(path, "<i4", mode="r") if aligned else np.zeros(0, "<i4"))
    if not rows:
        raise InputError(f"no usable utterance in {', '.join(map(str, folders))}: {dict(skipped)}")
    folder, start, frames, text_start, text_size, speaker, split = zip(*rows, strict=True)
    entries = {entry["name"]: entry for manifest in manifests for entry in manifest["corpora"]}
    return Tokens(
        codes=codes,
        texts=texts,
        starts=starts,
        folder=np.array(folder),
        start=np.array(start),
        frames=np.array(frames),
        text_start=np.array(text_start),
        text_size=np.array(text_size),
        speaker=np.unique(np.array(speaker), return_inverse=True)[1],
        split=np.array(split),
        recorded=np.array([COPY not in who for who in speaker]),
        aligned=first["aligned"],
        codec=first["codec"],
        tokenizer=first["tokenizer"],
        timbre=first.get("timbre"),
        corpora=list(entries.values()),
        manifests={folder.name: file_hash(folder / MANIFEST) for folder in folders},
        skipped=dict(skipped),
    )
