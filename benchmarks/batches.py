"""What the bundled model's speech takes in batches of 1, 4 and 16 rows, AR and NAR alone.

`python -m benchmarks.batches` (some minutes on one core) lets the engine say 16 sentences in each,
in turn, over and over, and prints the medians.
"""

import argparse
import statistics
import time

import torch

from sayso.model.bundle import load_bundle
from sayso.model.engine import Engine, Request
from sayso.model.text.normalization import pieces

SENTENCES = """The cat sat on the mat and looked at the quiet garden. It was a bright cold day
in April. The clocks were striking thirteen, and nobody was surprised. Where were you this
morning? She had thought about it for a long time before she answered the question. We walked
along the river until the sun went down. Then it rained. Nobody had brought an umbrella, so we
waited under the bridge. In the end a farmer took us home in his old truck. It smelled of
apples. That night we slept very well. In the morning there was bread and butter on the table. A
letter lay beside it. Good morning. The bus was late again today. The train was not."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=6)
    repeats = parser.parse_args().repeats
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


if __name__ == "__main__":
    main()
