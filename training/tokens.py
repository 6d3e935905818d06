"""Token files opened for training: checked against the list and their hashes, then split."""

import os
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
from sayso.model.files import MOST_LIST, file_hash, open_regular, read_json, unique, write_json

from .held_out import HeldOut, split
from .shards import ARRAYS, COPY, MANIFEST, PARTS, SCHEMAS, read_table

TRAIN, VALIDATION, NEITHER = 0, 1, 2
INDEX = ("start", "frames", "text_start", "text_size", "shard")
"""Numbers of an utterance in the arrays."""
NAMES = ("corpus", "speaker", "id", "part")
TABLE = "index.parquet"
TABLE_SCHEMA = pa.schema([(n, pa.int64()) for n in INDEX] + [(n, pa.string()) for n in NAMES])


@dataclass(frozen=True)
class Tokens:
    """All utterances of some token folders; their codes stay on the disk."""

    codes: list["Flat"]  # per folder (frames, K) int16
    texts: list["Flat"]  # per folder (text tokens,) int32
    starts: list["Flat"]  # per folder (text tokens,) int32 first frames; empty if not aligned
    shards: list[list[Path]]  # per folder
    folder: np.ndarray  # (N,) which of the folders
    start: np.ndarray  # (N,) first frame
    frames: np.ndarray  # (N,)
    text_start: np.ndarray  # (N,)
    text_size: np.ndarray  # (N,) text tokens
    shard: np.ndarray  # (N,) number of the shard in its folder
    names: np.ndarray  # (N,) CORPUS/ID
    speaker: np.ndarray  # (N,) number of the speaker
    split: np.ndarray  # (N,) TRAIN, VALIDATION or NEITHER
    new_voices: int  # speakers held out, of whom nothing is trained on
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

        Raises:
            InputError: A file cannot be read any more; it names the shard.
        """
        texts, codes, starts, frames = [], [], [], 0
        for i in members:
            folder, start, first = self.folder[i], self.start[i], self.text_start[i]
            try:
                codes.append(self.codes[folder][start : start + self.frames[i]])
                texts.append(self.texts[folder][first : first + self.text_size[i]])
                starts.append(self.starts[folder][first : first + self.text_size[i]] + frames)
            except OSError as error:
                raise InputError(f"{self.names[i]} of {self.shard_of(i)}: {error}") from error
            frames += self.frames[i]
        return np.concatenate(texts), np.concatenate(codes), np.concatenate(starts)

    def shard_of(self, number: int) -> str:
        """The file that an utterance is from, for messages."""
        return str(self.shards[self.folder[number]][self.shard[number]])


class Flat:
    """Rows of a file, read when asked for.

    A mapped file that is cut while a run reads it ends the process (SIGBUS); this is an error.
    """

    def __init__(self, path: Path, dtype: str, rows: int, width: int = 0):
        """Opens a file of `rows` numbers, or of rows of `width` numbers; none is there for no row.

        Raises:
            InputError: The file is shorter, as on a disk that was full.
        """
        self.path, self.dtype, self.shape = path, np.dtype(dtype), (width,) if width else ()
        self.bytes = self.dtype.itemsize * max(1, width)
        self.file = open_regular(path) if rows else None
        if path.stat().st_size < rows * self.bytes:
            raise InputError(f"{path} is cut off: remove {path.parent}, it is made anew")

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Consecutive rows; OSError where the file has been cut."""
        if self.file is None:
            return np.zeros((0, *self.shape), self.dtype)
        size = (rows.stop - rows.start) * self.bytes
        raw = os.pread(self.file.fileno(), size, rows.start * self.bytes)
        if len(raw) < size:
            raise OSError(f"{self.path} was cut off")
        return np.frombuffer(raw, self.dtype).reshape(-1, *self.shape)


def read_manifest(folder: Path, allowed: list[str]) -> dict[str, Any]:
    """The manifest of a token folder, its corpora checked against the list and the recipe.

    Raises:
        InputError: There is none, or it is of another version.
        CorpusError: It names a corpus that is not listed, was edited, or is not in `allowed`.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise InputError(f"{path} is missing; run prepare to its end first")
    manifest = read_json(path, MOST_LIST)
    if not isinstance(manifest, dict):
        raise InputError(f"{path} holds no JSON object; run prepare again")
    if manifest.get("format") not in SCHEMAS:
        raise InputError(
            f"{path} has format {manifest.get('format')}, not one of {list(SCHEMAS)}; prepare anew"
        )
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
    if row.get("part", PARTS[0]) not in PARTS:
        return "unknown part"
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
    """Arrays to read from, made once per manifest from its shards, whose hashes must fit."""
    key = file_hash(folder / MANIFEST)
    for shard in manifest["shards"]:
        if not (folder / shard["file"]).is_file():
            raise InputError(f"{folder / shard['file']} is missing; run prepare again")
        if file_hash(folder / shard["file"]) != shard["sha256"]:
            raise CorpusError(f"{folder / shard['file']} differs from its manifest; prepare anew")
    done = folder / f"arrays-{ARRAYS}-{key[:16]}"
    if (done / "skipped.json").is_file():
        return done
    names = {entry["name"] for entry in manifest["corpora"]}
    part = folder / f".{done.name}.{unique()}"
    part.mkdir()
    rows, skipped, position, text_position = [], Counter(), 0, 0
    schema = SCHEMAS[manifest["format"]]
    with (
        (part / "codes.i16").open("wb") as codes,
        (part / "texts.i32").open("wb") as texts,
        (part / "starts.i32").open("wb") as starts,
    ):
        for number, shard in enumerate(manifest["shards"]):
            table = read_table(folder / shard["file"])
            if table.schema != schema:
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
                numbers = (position, row["frames"], text_position, size, number)
                of = (row["corpus"], row["speaker"], row["id"], row.get("part", PARTS[0]))
                rows.append((*numbers, *of))
                position += row["frames"]
                text_position += size
    columns = dict(
        zip((*INDEX, *NAMES), zip(*rows, strict=True) if rows else [[]] * 9, strict=True)
    )
    pq.write_table(pa.table({name: list(values) for name, values in columns.items()}), part / TABLE)
    write_json(part / "skipped.json", dict(skipped))
    try:
        part.rename(done)
    except OSError:  # another process of this run was first
        if not (done / "skipped.json").is_file():
            raise
    return done


def open_tokens(folders: list[Path], allowed: list[str], rule: HeldOut | None = None) -> Tokens:
    """Opens token folders for training.

    Args:
        folders: Made by prepare, all with the same codec, tokenizer and timbre.
        allowed: Corpora the recipe names.
        rule: What is held out; only what the corpora keep for development if None.

    Raises:
        InputError: A folder is incomplete or made with another codec, tokenizer or timbre.
        CorpusError: A corpus is not listed, or a manifest or shard was changed.
    """
    manifests = [read_manifest(folder, allowed) for folder in folders]
    first = manifests[0]
    codes, texts, starts, shards, tables, skipped = [], [], [], [], [], Counter()
    for folder, manifest in zip(folders, manifests, strict=True):
        for part in ("codec", "tokenizer", "aligned", "timbre"):
            if manifest.get(part) != first.get(part):
                raise InputError(f"{folder} was made with another {part} than {folders[0]}")
        arrays = _cache(folder, manifest)
        shards.append([folder / shard["file"] for shard in manifest["shards"]])
        skipped.update(read_json(arrays / "skipped.json"))
        table = read_table(arrays / TABLE)
        tables.append(table.append_column("folder", [[len(tables)] * table.num_rows]))
        frames, size = (int(np.sum(table[name])) for name in ("frames", "text_size"))
        books = manifest["codec"]["codebooks"]
        codes.append(Flat(arrays / "codes.i16", "<i2", frames, books))
        texts.append(Flat(arrays / "texts.i32", "<i4", size))
        starts.append(Flat(arrays / "starts.i32", "<i4", size * manifest["aligned"]))
    table = pa.concat_tables([each for each in tables if each.num_rows] or tables[:1])
    if not table.num_rows:
        raise InputError(f"no usable utterance in {', '.join(map(str, folders))}: {dict(skipped)}")
    corpus, speaker, id, part = (table[name].to_pylist() for name in NAMES)
    held, new = split(corpus, speaker, id, part, rule or HeldOut())
    recorded = np.array([COPY not in each for each in id])
    voices = [f"{c}/{s}" for c, s in zip(corpus, speaker, strict=True)]
    entries = {entry["name"]: entry for manifest in manifests for entry in manifest["corpora"]}
    return Tokens(
        codes=codes,
        texts=texts,
        starts=starts,
        shards=[
            [f / one["file"] for one in m["shards"]]
            for f, m in zip(folders, manifests, strict=True)
        ],
        folder=table["folder"].to_numpy(),
        **{name: table[name].to_numpy() for name in INDEX},
        names=np.array([f"{c}/{u}" for c, u in zip(corpus, id, strict=True)]),
        speaker=np.unique(np.array(voices), return_inverse=True)[1],
        split=np.where(held, np.where(recorded, VALIDATION, NEITHER), TRAIN),
        new_voices=len(new),
        recorded=recorded,
        aligned=first["aligned"],
        codec=first["codec"],
        tokenizer=first["tokenizer"],
        timbre=first.get("timbre"),
        corpora=list(entries.values()),
        manifests={folder.name: file_hash(folder / MANIFEST) for folder in folders},
        skipped=dict(skipped),
    )
