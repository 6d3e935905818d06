"""The format of token files: Parquet shards, a manifest; and the one way to read Parquet."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

FORMAT = 4
ARRAYS = 3
"""Of the files that are made of shards to read from: the same for all formats."""
MANIFEST, PLAN = "manifest.json", "plan.json"
PARTS = ("train", "dev")
"""Of a corpus; what is held out of the first is decided when token files are opened."""
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
        ("part", pa.string()),  # one of PARTS
        ("sha256", pa.string()),  # of the utterance (readers.py), a copy's too
    ]
)
_UNSIGNED = SCHEMA.remove(9)
SCHEMAS = {2: _UNSIGNED.set(8, pa.field("split", pa.string())), 3: _UNSIGNED, FORMAT: SCHEMA}
"""By format: 2 stored which utterances were held out, which is no longer asked; 2 and 3 have no
hash, so that they can be trained on, and not spoken from."""
MOST_VALUES, MOST_BYTES = 2**28, 2**32
"""Of a Parquet file: a few packed bytes may stand for any number of equal rows."""


def batches(
    path: Path, columns: list[str] | None = None, group: int | None = None, rows: int = 64
) -> Iterator[pa.RecordBatch]:
    """The rows of a Parquet file (or of one row group), some at a time.

    Raises:
        ValueError: It is none, or unpacked it is larger than any of a corpus.
    """
    file = pq.ParquetFile(path)
    groups = range(file.num_row_groups) if group is None else [group]
    read = {each.split(".")[0] for each in columns or file.schema_arrow.names}
    for name in read:
        if "dictionary<" in str(file.schema_arrow.field(name).type):
            raise ValueError(f"{path}: {name} is of Arrow's dictionary type: write it plainly")
    parts = [file.metadata.row_group(each) for each in groups]
    values = sum(part.column(i).num_values for part in parts for i in range(part.num_columns))
    size = 0
    if values <= MOST_VALUES:
        for batch in file.iter_batches(rows, row_groups=list(groups), columns=columns):
            size += batch.nbytes
            if size > MOST_BYTES:
                break
            yield batch
    if values > MOST_VALUES or size > MOST_BYTES:
        raise ValueError(f"{path} is larger than {MOST_VALUES} values or {MOST_BYTES} bytes")


def read_table(path: Path, columns: list[str] | None = None) -> pa.Table:
    """As `batches`, all of it."""
    schema = pq.read_schema(path)
    if columns is not None:
        schema = pa.schema([schema.field(name) for name in columns])
    return pa.Table.from_batches(batches(path, columns), schema)
