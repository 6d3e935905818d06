"""The format of token files: Parquet shards, a manifest."""

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
