"""The format of token files: Parquet shards, a manifest."""

import pyarrow as pa

FORMAT = 3
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
    ]
)
SCHEMAS = {2: SCHEMA.set(8, pa.field("split", pa.string())), FORMAT: SCHEMA}
"""By format: 2 stored which utterances were held out, which is no longer asked."""
