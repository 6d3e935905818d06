"""Training speed and memory at the paper's width, beside a Llama of the same size.

`python -m benchmarks.training` (random weights, 2 of the 12 layers, 2 threads; `--layers 12` if
there is time). AR, NAR and transformers' LlamaForCausalLM train on the same batches of the same
token counts, one after the other, round by round, in the same process; the best round of each
counts. A token is a position of the Transformer, text and codes alike, padding not counted.
Memory: peak of a fresh process beyond its model, one utterance, its length doubled twice.
"""

import argparse
import json
import multiprocessing
import resource
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from sayso.model.ar import AR, ARConfig
from sayso.model.nar import NAR, NARConfig
from sayso.model.transformer import Size
from sayso.training.clock import matmul_rate
from sayso.training.tasks import step_flops

BOOKS, ENTRIES, TEXT = 8, 1024, 512
LENGTHS = (690, 640, 560, 500)  # frames of a LibriTTS-like batch at 75 Hz: 6.7 to 9.2 s
TEXT_PER_FRAME = 0.06  # BPE tokens


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


def main() -> None:
    """Prints speed and memory as JSON lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--memory", action="store_true", help="only memory")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
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
