"""Milliseconds per AR step at the paper's size, cached and naive, beside what memory allows.

`python -m benchmarks.decode` (random weights; `--layers 2` for a quick look). A cached step has to
read every weight and the cache once, so bytes read over the read bandwidth, measured in the same
run, is the least time a step can take on this machine. `--bundled` asks the engine to say 16
sentences with the bundled model instead, in batches of 1, 4 and 16 rows, interleaved.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from sayso.model.ar import AR, ARConfig
from sayso.model.bundle import load_bundle
from sayso.model.engine import Engine, Request
from sayso.model.text.normalization import pieces
from sayso.model.transformer import Cache, Size

FRAME_RATE = 75  # EnCodec's


def seconds(call: Callable[[], object], repeats: int) -> float:
    """Median wall time of a call after one warm-up."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def read_bandwidth() -> float:
    """Bytes per second of reading 1 GiB of fp32 in one pass (a sum)."""
    block = torch.ones(2**28)
    return block.numel() * 4 / seconds(lambda: block.sum(), 5)


@torch.inference_mode()
def measure(G: int, size: Size, text: int, prompt: float, repeats: int) -> dict[str, float]:
    """Cached and naive seconds per step after `text` tokens and `prompt` seconds of speech."""
    config = ARConfig(text_size=256, codebook_size=1024, group_size=G, size=size)
    model = AR(config).eval()
    frames = int(prompt * FRAME_RATE) // G * G
    ids = torch.zeros(1, text, dtype=torch.long)
    codes = torch.zeros(1, frames, dtype=torch.long)
    text_lengths, lengths = torch.tensor([text]), torch.tensor([frames])
    cache = Cache(size, 1, text + 2 + frames // G + repeats + 1, model.bos)
    prefill = seconds(
        lambda: model.prefill(
            ids, text_lengths, codes, lengths, Cache(size, 1, cache.keys.shape[3], model.bos)
        ),
        3,
    )
    model.prefill(ids, text_lengths, codes, lengths, cache)
    group, number = torch.zeros(1, G, dtype=torch.long), lengths // G + 1
    cached = seconds(lambda: model.predict(model.decode(group, number, cache)), repeats)
    naive = seconds(lambda: model(ids, text_lengths, codes, lengths), 3)
    weights = sum(p.numel() for p in model.transformer.parameters())
    weights += model.code_embedding.weight.numel()
    for layer in (model.group_embedding, model.group_prediction):
        weights += sum(p.numel() for p in layer.parameters()) if layer is not None else 0
    held = 2 * size.layers * size.width * (text + 2 + frames // G)
    read = 4.0 * (weights + held)
    return {"cached": cached, "naive": naive, "prefill": prefill, "bytes": read}


SENTENCES = """The cat sat on the mat and looked at the quiet garden. It was a bright cold day
in April. The clocks were striking thirteen, and nobody was surprised. Where were you this
morning? She had thought about it for a long time before she answered the question. We walked
along the river until the sun went down. Then it rained. Nobody had brought an umbrella, so we
waited under the bridge. In the end a farmer took us home in his old truck. It smelled of
apples. That night we slept very well. In the morning there was bread and butter on the table. A
letter lay beside it. Good morning. The bus was late again today. The train was not."""


def bundled(repeats: int) -> None:
    """CPU seconds of AR and NAR for a second of speech: of each batch size the median."""
    bundle = load_bundle(device="cpu")
    texts = [piece.text for piece in pieces(SENTENCES)]
    prompt = torch.randint(0, bundle.codec.codebook_size, (bundle.codec.codebooks, 150))
    known = bundle.tokenizer.encode("I was never born, and this voice is not the voice of anyone.")
    spent: dict[int, list[float]] = {1: [], 4: [], 16: []}
    for seed in range(1 + repeats):
        for rows, times in spent.items():
            asked = [
                Request(
                    known + bundle.tokenizer.encode(text),
                    prompt,
                    400,
                    bundle.model.generator(seed),
                    bundle.sampling,
                    len(known),
                )
                for text in texts
            ]
            start = time.process_time()
            said = Engine(bundle.model, rows).answer(asked)
            work = time.process_time() - start
            times.append(work * bundle.codec.frame_rate / sum(s.codes.shape[1] for s in said))
    medians = {rows: statistics.median(times[1:]) for rows, times in spent.items()}
    print(f"bundled model, {len(texts)} sentences, {torch.get_num_threads()} threads")
    print("| rows | CPU s for a second of speech | times as much speech as alone |\n|---|---|---|")
    for rows, each in medians.items():
        print(f"| {rows} | {each:.3f} | {medians[1] / each:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--text", type=int, default=100, help="text tokens")
    parser.add_argument("--prompt", type=float, default=6.0, help="seconds of speech so far")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--bundled", action="store_true", help="the bundled model, in batches")
    args = parser.parse_args()
    if args.bundled:
        return bundled(max(1, args.repeats // 6))
    size = Size(layers=args.layers)
    bandwidth = read_bandwidth()
    print(
        f"{size.layers} layers, width {size.width}, {torch.get_num_threads()} threads, fp32, "
        f"{args.text} text tokens, {args.prompt:g} s at {FRAME_RATE} Hz; "
        f"read bandwidth {bandwidth / 1e9:.1f} GB/s"
    )
    print(
        "| G | cached ms | floor ms (bytes/bandwidth) | cached/floor | naive ms | naive/cached |",
        end="",
    )
    print(" prefill ms | step/frame time |\n|---|---|---|---|---|---|---|---|")
    for G in (1, 2, 4, 8):
        m = measure(G, size, args.text, args.prompt, args.repeats)
        floor = m["bytes"] / bandwidth
        print(
            f"| {G} | {m['cached'] * 1e3:.1f} | {floor * 1e3:.1f} | {m['cached'] / floor:.2f} "
            f"| {m['naive'] * 1e3:.0f} | {m['naive'] / m['cached']:.1f} | {m['prefill'] * 1e3:.0f} "
            f"| {m['cached'] * FRAME_RATE / G:.2f} |"
        )


if __name__ == "__main__":
    main()
