"""Training speed and memory at the paper's width, beside a Llama of the same size.

`python -m benchmarks.training` (random weights, 2 of the 12 layers, 2 threads; `--layers 12` if
there is time). AR, NAR and transformers' LlamaForCausalLM train on the same batches of the same
token counts, one after the other, round by round, in the same process; the best round of each
counts. A token is a position of the Transformer, text and codes alike, padding not counted.
Memory: peak of a fresh process beyond its model, one utterance, its length doubled twice.
`--loader`: padding on LibriTTS-like lengths, the time a batch of 6,000 frames takes to make, which
share of its time the real loop (`train_ar`, `--layers` of this width) waits for batches.
"""

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile
import torch
from torch import Tensor, nn

from sayso.model import corpora
from sayso.model.ar import AR, ARConfig
from sayso.model.files import file_hash, write_json
from sayso.model.nar import NAR, NARConfig
from sayso.model.transformer import Size
from sayso.training.clock import matmul_rate
from sayso.training.data import Batches
from sayso.training.readers import read_corpus
from sayso.training.recipe import read_recipe
from sayso.training.shards import FORMAT, PARTS, SCHEMA
from sayso.training.tasks import step_flops
from sayso.training.tokens import Tokens, open_tokens
from sayso.training.train import train_ar

BOOKS, ENTRIES, TEXT = 8, 1024, 512
LENGTHS = (690, 640, 560, 500)  # frames of a LibriTTS-like batch at 75 Hz: 6.7 to 9.2 s
TEXT_PER_FRAME = 0.06  # BPE tokens
LIBRITTS, MEAN_SECONDS, RATE = 354_780, 5.63, 75  # utterances of train-* (555 h), Hz
CLIPS = Path(__file__).parents[2] / "shared" / "corpora" / "librispeech-clips"
CONFIG = Path(__file__).parents[1] / "configs" / "libritts.yaml"


def make_batch(lengths: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Text, text lengths, codes and lengths of a random batch."""
    frames = torch.tensor(lengths)
    texts = (frames * TEXT_PER_FRAME).long()
    text = torch.randint(0, TEXT, (len(lengths), int(texts.max())))
    return text, texts, torch.randint(0, ENTRIES, (len(lengths), BOOKS, max(lengths))), frames


def models(size: Size) -> tuple[AR, NAR]:
    """Both models with random weights."""
    ar = AR(ARConfig(TEXT, ENTRIES, 1, size, max_frames=8192, max_text=2048))
    nar = NAR(NARConfig(TEXT, ENTRIES, BOOKS, size, max_frames=8192, max_text=2048))
    return ar, nar


def llama(size: Size) -> nn.Module:
    """A Llama with as many weights per layer (its feed-forward has three matrices, not two)."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=ENTRIES + 1,
        hidden_size=size.width,
        intermediate_size=size.feed_forward * 2 // 3,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        attention_dropout=0.0,  # ours has none either
        max_position_embeddings=8192,
        tie_word_embeddings=True,
        use_cache=False,
    )
    return LlamaForCausalLM(config)


def seconds(
    model: nn.Module, loss: Callable[[], Tensor], optimizer: torch.optim.Optimizer
) -> float:
    """Wall time of one training step."""
    started = time.perf_counter()
    loss().backward()
    optimizer.step()
    optimizer.zero_grad()
    return time.perf_counter() - started


def speed(size: Size, rounds: int) -> dict[str, dict[str, float]]:
    """Tokens per second and share of the matmul rate of AR, NAR and Llama."""
    text, texts, codes, frames = make_batch(LENGTHS)
    ar, nar = models(size)
    reference = llama(size)
    tokens = {"AR": texts + 2 + frames, "NAR": texts + 3 + frames, "Llama": texts + 2 + frames}
    ids = torch.randint(0, ENTRIES, (len(frames), int(tokens["Llama"].max())))
    mask = torch.arange(ids.shape[1]) < tokens["Llama"][:, None]
    labels = ids.masked_fill(~mask, -100)
    losses: dict[str, tuple[nn.Module, Callable[[], Tensor]]] = {
        "AR": (ar, lambda: ar.loss(text, texts, codes[:, 0], frames).total),
        "NAR": (nar, lambda: nar.loss(text, texts, codes, frames, frames // 3, 4).total),
        "Llama": (
            reference,
            lambda: reference(input_ids=ids, attention_mask=mask, labels=labels).loss,
        ),
    }
    peak = matmul_rate(torch.device("cpu"), torch.float32)
    optimizers = {
        name: torch.optim.AdamW(model.parameters(), 1e-4) for name, (model, _) in losses.items()
    }
    times: dict[str, list[float]] = {name: [] for name in losses}
    for _ in range(rounds + 1):  # the first round warms up
        for name, (model, loss) in losses.items():
            model.train()
            times[name].append(seconds(model, loss, optimizers[name]))
    figures = {}
    for name, (model, _) in losses.items():
        best = min(times[name][1:])
        head = 6 * int(frames.sum()) * size.width * ENTRIES
        operations = step_flops(size, tokens[name], name != "NAR") + head
        figures[name] = {
            "parameters": sum(p.numel() for p in model.parameters()),
            "tokens_per_second": int(tokens[name].sum()) / best,
            "matmul_share": operations / best / peak,
        }
    figures["machine"] = {"matmul_gflops": peak / 1e9}
    return figures


def peak_memory(kind: str, size: Size, frames: int, threads: int) -> float:
    """Megabytes of one forward and backward pass beyond model and gradients, in a new process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak_memory, (kind, size, frames, threads))


def _peak_memory(kind: str, size: Size, frames: int, threads: int) -> float:
    torch.set_num_threads(threads)
    ar, nar = models(size)

    def run(length: int) -> None:
        text, texts, codes, lengths = make_batch((length,))
        if kind == "AR":
            ar.loss(text, texts, codes[:, 0], lengths).total.backward()
        else:
            nar.loss(text, texts, codes, lengths, lengths // 3, 4).total.backward()

    run(32)  # gradients exist from here on
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run(frames)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def libritts_lengths(clips: Path, count: int) -> np.ndarray:
    """Lengths in frames like LibriTTS's: the shared clips, cut at random, scaled to its mean.

    LibriTTS is cut from the same readings as the clips, at sentences.
    """
    seconds = [soundfile.info(u.path).duration for u in read_corpus("librispeech-clips", clips)]
    random = np.random.default_rng(0)
    drawn = random.choice(seconds, count) * random.uniform(0.05, 1.0, count)
    return (drawn * MEAN_SECONDS / drawn.mean() * RATE).astype(int).clip(20, 2990)


def write_tokens(folder: Path, lengths: np.ndarray) -> Tokens:
    """A token folder of random codes and texts of these lengths, opened."""
    random = np.random.default_rng(1)
    folder.mkdir()
    rows = [
        {
            "id": f"{i}",
            "speaker": f"{i % 100}",
            "corpus": "libritts",
            "text": "",
            "text_ids": random.integers(0, TEXT, max(1, int(n * TEXT_PER_FRAME))).tolist(),
            "starts": [],
            "codes": random.integers(0, ENTRIES, BOOKS * n).astype(np.int16),
            "frames": n,
            "part": "dev" if i % 500 == 0 else "train",
            "sha256": "",
        }
        for i, n in enumerate(lengths.tolist())
    ]
    shard = folder / "shard-00000.parquet"
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), shard)
    codec = {"identity": "random", "sample_rate": 24000, "frame_rate": float(RATE)}
    manifest = {
        "format": FORMAT,
        "corpora": [corpora.get("libritts").to_json()],
        "codec": {**codec, "codebooks": BOOKS, "codebook_size": ENTRIES},
        "tokenizer": {"identity": "random", "kind": "bpe", "size": TEXT},
        "filters": {},
        "aligned": False,
        "counts": {part: {} for part in PARTS},
        "left_out": {"reasons": {}, "utterances": []},
        "shards": [{"file": shard.name, "rows": len(rows), "sha256": file_hash(shard)}],
    }
    write_json(folder / "manifest.json", manifest)
    return open_tokens([folder], ["libritts"])


def padding(batches: Batches) -> float:
    """Share of an epoch's frames that is padding."""
    frames = batches.tokens.frames
    sizes = [[int(frames[list(m)].sum()) for m in batch] for batch in batches.epoch(0)]
    return 1 - sum(map(sum, sizes)) / sum(max(size) * len(size) for size in sizes)


def loader(layers: int, width: int, budget: int, steps: int) -> dict[str, float]:
    """Padding, times of batches and epochs, and the loop's own measure of its waiting."""
    lengths = libritts_lengths(CLIPS, LIBRITTS)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "tokens"
        few = write_tokens(folder, lengths[:3000])
        one = np.ones(LIBRITTS, dtype=int)
        none = one * 0
        many = replace(few, frames=lengths, text_size=one, speaker=none, split=none, folder=none)
        whole = Batches(many, budget, 1, 600, 3000)
        started = time.perf_counter()
        whole.epoch(0)
        epoch = time.perf_counter() - started
        times = []
        made = Batches(few, budget, 1, 600, 3000).steps(0)
        for _ in range(100):
            started = time.perf_counter()
            next(made)
            times.append(time.perf_counter() - started)
        own = {"run": f"{place}/run", "data.tokens": [str(folder)], "ar.train.frames": budget}
        own |= {"ar.size.layers": layers, "ar.size.width": width, "ar.size.feed_forward": 4 * width}
        own |= {"ar.train.steps": steps, "ar.train.warm_up": 0, "ar.train.accumulation": 1}
        own |= {"ar.train.accelerator": "cpu", "ar.train.precision": "32-true"}
        own |= {"ar.train.compile": False, "ar.train.validate_every": steps}
        train_ar(read_recipe(CONFIG, own), report=lambda line: print(line, flush=True))
        log = (Path(place) / "run" / "logs" / "ar.csv").read_text().splitlines()
        row = dict(zip(log[0].split(","), log[-1].split(","), strict=True))
    return {
        "padding": padding(whole),
        "epoch_seconds": epoch,
        "batch_ms": 1000 * float(np.mean(times[1:])),
        "batch_ms_99": 1000 * float(np.quantile(times[1:], 0.99)),
        "step_seconds": 60 * float(row["minutes"]) / steps,
        "loader_share": float(row["loader_share"]),
    }


def main() -> None:
    """Prints speed and memory as JSON lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--memory", action="store_true", help="only memory")
    parser.add_argument("--loader", action="store_true", help="only padding and waiting")
    parser.add_argument("--budget", type=int, default=6000, help="frames of a batch of --loader")
    parser.add_argument("--steps", type=int, default=6, help="of --loader")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.loader:
        figures = loader(given.layers, given.width, given.budget, given.steps)
        print(json.dumps({"what": "loader", **{k: round(v, 5) for k, v in figures.items()}}))
        return
    for dropout in (0.0, 0.1):
        size = Size(given.layers, 16, given.width, 4 * given.width, dropout)
        if not given.memory:
            figures = speed(size, given.rounds)
            reference = figures["Llama"]["tokens_per_second"]
            for name, row in figures.items():
                if "tokens_per_second" in row:
                    row["times_llama"] = row["tokens_per_second"] / reference
                row = {key: round(value, 3) for key, value in row.items()}
                print(json.dumps({"what": name, "dropout": dropout, **row}), flush=True)
        for kind in ("AR", "NAR"):
            peaks = {n: peak_memory(kind, size, n, given.threads) for n in (750, 1500, 3000)}
            rounded = {n: round(peak) for n, peak in peaks.items()}
            print(json.dumps({"what": f"{kind} MB by frames", "dropout": dropout, **rounded}))


if __name__ == "__main__":
    main()
