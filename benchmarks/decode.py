"""What a step of the AR and a pass of the NAR take, beside what the machine allows.

`python -m benchmarks.decode` (random weights of the paper's size, about four minutes on two cores;
`--layers 2` for a quick look) prints a table and keeps `results/decode.json`; `--plot FILE.png`
draws it. A step has to read every weight and the cache once: those bytes over the read bandwidth,
measured in between with as many threads, is the least it can take. All is timed in turn, over and
over, as other tenants of a machine come and go; medians.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.results import write
from sayso.model.ar import AR, ARConfig
from sayso.model.generate import generate_nar
from sayso.model.nar import NAR, NARConfig
from sayso.model.precision import Packed, convert
from sayso.model.sampling import Sampling, last_codes, sample_group
from sayso.model.transformer import Size

FRAME_RATE = 75  # EnCodec's
TEXT = 100  # tokens
FRAMES = 750  # ten seconds
V = 1024
NEW = 8  # tokens of `transformers` in one timing
LEVELS = 2  # passes of the NAR in one timing; a model of eight codebooks has seven
BLOCK = 2**27  # floats that are read to find the bandwidth: 512 MiB
SQUARE = 2048
STEPS = 4  # in one timing: one alone would find nothing of ours in the processor's caches
NO = " (no)"

Call = Callable[[], object]


Times = dict[str, list[float]]
"""Seconds of each call in each round."""


def in_turn(calls: dict[str, Call], threads: tuple[int, ...], repeats: int) -> dict[int, Times]:
    """Seconds by number of threads, all in turn in rounds, after a first that is not kept.

    A call that returns a float has timed itself.
    """
    times: dict[int, Times] = {count: {name: [] for name in calls} for count in threads}
    for number in range(1 + repeats):
        for count in threads:
            torch.set_num_threads(count)
            for name, call in calls.items():
                start = time.perf_counter()
                found = call()
                took = found if isinstance(found, float) else time.perf_counter() - start
                times[count][name] += [took] * (number > 0)
    return times


def read(block: Tensor) -> float:
    """Seconds of reading a block once."""
    start = time.perf_counter()
    for _ in range(STEPS):
        block.sum()
    return (time.perf_counter() - start) / STEPS


class Standing:
    """An AR model with a cache that holds a text and ten seconds of speech."""

    def __init__(self, size: Size, G: int, precision: str = "fp32", rows: int = 1):
        torch.manual_seed(0)
        self.model = AR(ARConfig(256, V, G, size)).eval()
        convert(self.model, precision)
        self.rows, self.G = rows, G
        self.cache = self.model.transformer.cache(rows, TEXT + 2 + FRAMES // G + 1)
        for held in (*self.cache.keys, *self.cache.values):
            held.normal_()

    def step(self, frames: int = FRAMES) -> float:
        """Read a group behind so many frames of speech, and predict the next: seconds it took."""
        held = TEXT + 2 + frames // self.G
        group = torch.zeros(self.rows, self.G, dtype=torch.long)
        number = torch.full((self.rows,), 1 + frames // self.G)
        start = time.perf_counter()
        for _ in range(STEPS):
            cache = self.cache.rows(0, self.rows, held, True)
            self.model.predict(self.model.decode(group, number, cache))
        return (time.perf_counter() - start) / STEPS

    def naive(self, frames: int) -> None:
        """The same without a cache: read all again."""
        codes, text = (torch.zeros(1, n, dtype=torch.long) for n in (frames, TEXT))
        self.model(text, torch.tensor([TEXT]), codes, torch.tensor([frames]))

    @property
    def bytes(self) -> float:
        """That a step in fp32 has to read."""
        layers = [m for m in self.model.modules() if isinstance(m, Packed)]
        weights = sum(layer.weight.numel() for layer in layers)
        size, held = self.model.config.size, (TEXT + 2 + FRAMES // self.G) * self.rows
        held *= 2 * size.layers * size.width
        return 4.0 * (weights + self.model.code_embedding.weight.numel() + held)


def draw(logits: Tensor, random: torch.Generator) -> None:
    """A group by repetition aware sampling, as a step does it."""
    codes, lengths = torch.zeros(1, FRAMES, dtype=torch.long), torch.tensor([FRAMES])
    history = last_codes(codes, lengths, Sampling().window)
    sample_group(logits, history, V, Sampling(), [random])


class Nar(NamedTuple):
    """A NAR model with a sentence to fill."""

    model: NAR

    def fill(self) -> None:
        """All passes over a text, three seconds of prompt and seven of speech."""
        prompt = torch.zeros(1, 1 + LEVELS, 3 * FRAME_RATE, dtype=torch.long)
        text, codes = (torch.zeros(1, n, dtype=torch.long) for n in (TEXT, 7 * FRAME_RATE))
        lengths = (torch.tensor([x.shape[-1]]) for x in (text, prompt, codes))
        text_lengths, prompt_lengths, code_lengths = lengths
        generate_nar(self.model, text, text_lengths, prompt, prompt_lengths, codes, code_lengths)

    @property
    def operations(self) -> float:
        """Of its matrix products."""
        size, tokens = self.model.config.size, TEXT + 1 + FRAMES + 2
        weights = size.width * (4 * size.width + 2 * size.feed_forward)
        attention = 2 * tokens * size.width  # queries by keys, and what is found by values
        predicted = 7 * FRAME_RATE * size.width * V
        return 2.0 * LEVELS * (tokens * size.layers * (weights + attention) + predicted)


def llama(size: Size) -> Call:
    """`transformers`' generate with a static cache and as many weights: seconds of a token."""
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.generation.streamers import BaseStreamer

    class Clock(BaseStreamer):
        """When each token came."""

        def put(self, value: Tensor) -> None:
            times.append(time.perf_counter())

        def end(self) -> None:
            """Nothing is kept open."""

    times: list[float] = []
    config = LlamaConfig(
        vocab_size=V + 1,
        hidden_size=size.width,
        intermediate_size=size.feed_forward * 2 // 3,  # its feed-forward has three matrices
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        max_position_embeddings=1024,
    )
    model: Any = LlamaForCausalLM(config).eval()
    ids = torch.zeros(1, TEXT + 2 + FRAMES, dtype=torch.long)

    def token() -> float:
        times.clear()
        model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=1 + NEW,
            min_new_tokens=1 + NEW,
            do_sample=True,
            pad_token_id=V,
            cache_implementation="static",
            disable_compile=True,
            streamer=Clock(),
        )
        return statistics.median(b - a for a, b in pairwise(times[1:]))

    return token


def measure(size: Size, threads: tuple[int, ...], repeats: int) -> list[dict[str, Any]]:
    """All rows of the table."""
    block, square = torch.ones(BLOCK), torch.randn(SQUARE, SQUARE)
    packed = Packed(torch.nn.Linear(SQUARE, SQUARE), torch.float32)
    by_group = {G: Standing(size, G) for G in (1, 2, 4, 8)}
    one, eight = by_group[1], Standing(size, 1, rows=8)
    fewer = {precision: Standing(size, 1, precision) for precision in ("bf16", "int8")}
    nar = Nar(NAR(NARConfig(256, V, 1 + LEVELS, size)).eval())
    convert(nar.model, "fp32")
    logits, random = torch.randn(1, 1, V + 1), torch.Generator().manual_seed(0)
    # What is divided by one another stands side by side.
    calls: dict[str, Call] = {f"step {precision}": each.step for precision, each in fewer.items()}
    calls |= {"step G=1": one.step, "read": lambda: read(block)}
    calls |= {f"step G={G}": by_group[G].step for G in (2, 4, 8)}
    calls |= {
        "step of 8": eight.step,
        "draw": lambda: [draw(logits, random) for _ in range(20)],
        "nar": nar.fill,
        "product": lambda: square @ square,
        "packed product": lambda: packed(square),
        "transformers": llama(size),
    }
    found = in_turn(calls, threads, repeats)
    # without a cache the time grows with the square of what was said: Simpson's rule
    for frames in (0, FRAMES // 2, FRAMES):
        ways: dict[str, Call] = {
            f"{frames} cached": lambda n=frames: one.step(n),
            f"{frames} naive": lambda n=frames: one.naive(n),
        }
        for count, times in in_turn(ways, threads, max(1, repeats // 3)).items():
            found[count] |= times
    return [row for n in threads for row in rows_of(found[n], n, by_group, eight, nar)]


def rows_of(
    took: Times, threads: int, by_group: dict[int, Standing], eight: Standing, nar: Nar
) -> list[dict[str, Any]]:
    """What the seconds of one number of threads come to."""
    took["product"] = [
        min(both) for both in zip(took["product"], took["packed product"], strict=True)
    ]
    rows: list[dict[str, Any]] = []

    def row(what: str, value: float, unit: str, wanted: str = "", good: bool | None = None) -> None:
        rows.append({"what": what, "threads": threads, "value": value, "unit": unit})
        rows[-1] |= {"wanted": wanted, "good": good}

    def median(name: str) -> float:
        return statistics.median(took[name])

    def over(name: str, other: str) -> float:
        return statistics.median(a / b for a, b in zip(took[name], took[other], strict=True))

    def share(name: str, standing: Standing) -> float:
        return standing.bytes / (4 * BLOCK) * over("read", name)

    def over_ten_seconds(way: str) -> float:
        first, middle, last = (median(f"{n} {way}") for n in (0, FRAMES // 2, FRAMES))
        return FRAMES * (first + 4 * middle + last) / 6

    step = "step G=1"
    row("read bandwidth", 4 * BLOCK / median("read") / 1e9, "GB/s")
    row("products of two matrices", 2 * SQUARE**3 / median("product") / 1e9, "GFLOP/s")
    row("step, fp32", 1e3 * median(step), "ms")
    row("its bytes at that bandwidth", 1e3 * by_group[1].bytes / (4 * BLOCK) * median("read"), "ms")
    found = share(step, by_group[1])
    row("share of the limit", found, "", ">= .80", found >= 0.8)
    row("transformers, a token", 1e3 * median("transformers"), "ms")
    found = over("transformers", step)
    row("that over a step", found, "", ">= 1", found >= 1)
    for precision, most in (("bf16", 0.0), ("int8", 2.5)):
        found = over(step, f"step {precision}")
        row(f"fp32 over {precision}", found, "", f">= {most}" if most else "", found >= most)
    found = over_ten_seconds("naive") / over_ten_seconds("cached")
    row("ten seconds, naive over cached", found, "", ">= 20", found >= 20)
    for G, most in ((2, 0.52), (4, 0.28), (8, 0.16)):
        found = over(f"step G={G}", step) / G
        row(f"G = {G} over G = 1, same seconds", found, "", f"<= {most}", found <= most)
        row(f"G = {G}, share of its limit", share(f"step G={G}", by_group[G]), "")
    drawn = median("draw") / 20
    found = drawn / (drawn + median(step))
    row("drawing, of a step", found, "", "<= .02", found <= 0.02)
    found = nar.operations / (2 * SQUARE**3) * over("product", "nar")
    row("NAR, share of that rate", found, "", ">= .65", found >= 0.65)
    found = 8 * over(step, "step of 8")
    row("speech, 8 rows over 1", found, "", ">= 3", found >= 3)
    row("8 rows, share of their limit", share("step of 8", eight), "")
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown, a column for each number of threads."""
    counts = sorted({row["threads"] for row in rows})
    lines = ["| |" + "".join(f" {n} thread{'s' * (n > 1)} |" for n in counts) + " wanted |"]
    lines.append("|---" * (len(counts) + 2) + "|")
    for what in dict.fromkeys(row["what"] for row in rows):
        own = sorted((r for r in rows if r["what"] == what), key=lambda row: row["threads"])
        cells = (
            f"{r['value']:.3g} {r['unit']}".strip() + " (no)" * (r["good"] is False) for r in own
        )
        lines.append(f"| {what} | " + " | ".join(cells) + f" | {own[0]['wanted']} |")
    return "\n".join(lines)


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """A bar for each step in ms, beside its limit."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    kept = [row for row in rows if row["unit"] == "ms"]
    names = [f"{row['what']}, {row['threads']}" for row in kept]
    figure, axes = pyplot.subplots(layout="constrained")
    axes.barh(names[::-1], [row["value"] for row in kept][::-1])
    axes.set_xlabel("ms")
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--plot", type=Path, help="a PNG")
    args = parser.parse_args()
    size = Size(layers=args.layers)
    with torch.inference_mode():
        rows = measure(size, tuple(args.threads), args.repeats)
    print(f"{size.layers} layers of {size.width}, fp32, {TEXT} text tokens, {FRAMES} frames\n")
    print(table(rows))
    if args.layers == 12:
        write("decode.json", {"torch": torch.__version__, "repeats": args.repeats, "rows": rows})
    if args.plot:
        plot(rows, args.plot)


if __name__ == "__main__":
    main()
