"""Token folders and recipes small enough to train in seconds; codes that do depend on the text."""

import json
import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from sayso.model import corpora
from sayso.model import rows as decoding
from sayso.model.codecs.load import load_codec
from sayso.model.files import file_hash, write_json
from sayso.model.text.tokenizers import Phonemes
from sayso.training.prepare import prepare
from sayso.training.recipe import Recipe, read_recipe
from sayso.training.shards import FORMAT, PARTS, SCHEMA
from sayso.training.speech import Filters
from sayso.training.train import train_ar

BOOKS, BOOK_SIZE, TEXT_SIZE, RATE = 4, 16, 12, 50.0
CONFIGS = Path(__file__).parents[1] / "configs"
SMALL = {
    **{f"{part}.size.layers": 1 for part in ("ar", "nar")},
    **{f"{part}.size.heads": 2 for part in ("ar", "nar")},
    **{f"{part}.size.width": 16 for part in ("ar", "nar")},
    **{f"{part}.size.feed_forward": 32 for part in ("ar", "nar")},
    **{f"{part}.max_text": 64 for part in ("ar", "nar")},
    **{f"{part}.max_frames": 256 for part in ("ar", "nar")},
    **{f"{part}.train.frames": 300 for part in ("ar", "nar")},
    **{f"{part}.train.warm_up": 2 for part in ("ar", "nar")},
    **{f"{part}.train.precision": "32-true" for part in ("ar", "nar")},
    **{f"{part}.train.accelerator": "cpu" for part in ("ar", "nar")},
    **{f"{part}.train.devices": 1 for part in ("ar", "nar")},
    **{f"{part}.train.nodes": 1 for part in ("ar", "nar")},
    **{f"{part}.train.strategy": "auto" for part in ("ar", "nar")},
    **{f"{part}.train.compile": False for part in ("ar", "nar")},
    **{f"{part}.train.max_minutes": None for part in ("ar", "nar")},
    **{f"{part}.code_init": "random" for part in ("ar", "nar")},
    **{f"{part}.start_from": None for part in ("ar", "nar")},
}


def rows(count: int, seed: int = 0, corpus: str = "kathleen") -> list[dict]:
    """Utterances whose every text token is spoken as a run of frames of one code per codebook."""
    random = np.random.default_rng(seed)
    made = []
    for i in range(count):
        text = random.integers(0, TEXT_SIZE, random.integers(3, 9))
        runs = random.integers(3, 6, len(text))
        codes = np.repeat(text, runs)
        codes = np.stack([(codes + k) % BOOK_SIZE for k in range(BOOKS)])
        made.append(
            {
                "id": f"u{i:04d}",
                "speaker": f"s{i % 2}" if i % 8 else "new",
                "corpus": corpus,
                "text": " ".join(map(str, text)),
                "text_ids": text.tolist(),
                "starts": [0, *np.cumsum(runs)[:-1].tolist()],
                "codes": codes.astype(np.int16).flatten().tolist(),
                "frames": codes.shape[1],
                "part": "dev" if i % 8 == 0 else "train",
                "sha256": "0" * 64,
            }
        )
    return made


def write_tokens(
    folder: Path,
    made: list[dict],
    names: tuple[str, ...] = ("kathleen",),
    aligned: bool = False,
) -> Path:
    """A token folder of one shard with these rows."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "shard-00000.parquet"
    pq.write_table(pa.Table.from_pylist(made, schema=SCHEMA), path)
    codec = {"identity": "c" * 64, "sample_rate": 16000, "frame_rate": RATE}
    write_json(
        folder / "manifest.json",
        {
            "format": FORMAT,
            "corpora": [corpora.get(name).to_json() for name in names],
            "codec": {**codec, "codebooks": BOOKS, "codebook_size": BOOK_SIZE},
            "tokenizer": {"identity": "t" * 64, "kind": "bpe", "size": TEXT_SIZE},
            "filters": {},
            "aligned": aligned,
            "counts": {part: {} for part in PARTS},
            "left_out": {"reasons": {}, "utterances": []},
            "shards": [{"file": path.name, "rows": len(made), "sha256": file_hash(path)}],
        },
    )
    return folder


def edit_manifest(folder: Path, **changes: object) -> None:
    """Replaces entries of a manifest."""
    content = json.loads((folder / "manifest.json").read_text())
    write_json(folder / "manifest.json", {**content, **changes})


def small_recipe(run: Path, tokens: Path, config: str = "tiny.yaml", **more: Any) -> Recipe:
    """A recipe at tiny width over one token folder; `more` with ``__`` for the dots of a key."""
    own = {"run": str(run), "data.tokens": [str(tokens)], "data.corpora": ["kathleen"]}
    own |= {"data.join_seconds": 2.0, "data.held_out_every": None}
    steps = {f"{part}.train.{key}": 20 for part in ("ar", "nar") for key in ("steps",)}
    given = {key.replace("__", "."): value for key, value in more.items()}
    return read_recipe(CONFIGS / config, {**SMALL, **own, **steps, **given})


def processes() -> Any:
    """A way to start processes that import the slow libraries once for all."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["sayso.training.train", "sayso.training.prepare"])
    return context


def prepare_kathleen(codec: Path, root: Path, out: Path) -> None:
    """Prepares 24 sentences, a shard each."""
    torch.set_num_threads(1)
    prepare("kathleen", root, out, load_codec(codec), Phonemes(), Filters(), 1, limit=24)


def train_quietly(recipe: Recipe) -> None:
    """Trains the AR model of a recipe."""
    torch.set_num_threads(1)
    train_ar(recipe, report=lambda line: None)


def end_every(groups: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model of few steps ends anywhere or never: here whenever so many groups were drawn."""
    draw, drawn = decoding.sample_group, [0]

    def ends(*given):
        codes, ended = draw(*given)
        drawn[0] += 1
        return codes, torch.full_like(ended, drawn[0] % groups == 0)

    monkeypatch.setattr(decoding, "sample_group", ends)
