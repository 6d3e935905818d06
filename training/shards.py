"""The format of token files: Parquet shards, a manifest, and how they are written whole or not."""

import hashlib
import json
import os
import uuid
from pathlib import Path
from typing import Any

import pyarrow as pa

FORMAT = 2
MANIFEST, PLAN = "manifest.json", "plan.json"
SPLITS = ("train", "validation")
COPY = "~copy"
"""Between the id of an utterance, or its speaker, and the number of an altered copy."""
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("speaker", pa.string()),
        ("corpus", pa.string()),
        ("text", pa.string()),  # normalised
        ("text_ids", pa.list_(pa.int32())),
        ("starts", pa.list_(pa.int32())),  # first frame of each text id; empty if not aligned
        ("codes", pa.list_(pa.int16())),  # (K, T), row by row
        ("frames", pa.int32()),
        ("split", pa.string()),  # one of SPLITS
    ]
)


def unique() -> str:
    """A name no other process has: two machines that share a disk may share process ids."""
    return uuid.uuid4().hex[:16]


def write_json(path: Path, content: Any) -> None:
    """Writes JSON to a temporary name and renames it into place."""
    part = path.with_name(f".{path.name}.{unique()}")
    part.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    os.replace(part, path)


def file_hash(path: Path, kind: str = "sha256") -> str:
    """Hash of a file, hex."""
    digest = hashlib.new(kind)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
