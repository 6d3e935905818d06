"""The format of token files: Parquet shards, a manifest."""

import pyarrow as pa

FORMAT = 4
ARRAYS = 3
"""Of the files that are made of shards to read from: the same for all formats."""
MANIFEST, PLAN = "manifest.json", "plan.json"
MOST_MANIFEST = 2**28
"""Bytes; every utterance that was left out is named in it."""
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
