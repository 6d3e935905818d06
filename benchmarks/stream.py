"""Streams of the bundled model: both marks in any 10 s, clicks at the seams, the first sound.

`python -m benchmarks.stream` says a text of some 40 s as a stream, in a store of its own.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from sayso.inference.finishing import unpacked
from sayso.inference.store.released import released
from sayso.inference.store.store import Store
from sayso.inference.synthesizer import Synthesizer
from sayso.inference.watermark.ensemble import Marks
from sayso.inference.watermark.keyed import load_keyed
from sayso.model.audio import wav_header

TEXT = (
    "It was a bright cold day in April. The clocks were striking thirteen, and nobody was "
    "surprised. Good morning! The bus was late again today. Where were you? She had thought "
    "about it for a long time before she answered the question. Yes. The cat sat on the mat and "
    "looked at the quiet garden. We walked along the river until the sun went down behind the "
    "hills. Then it rained. Nobody had brought an umbrella, so we waited under the bridge for "
    "an hour. In the end a farmer took us home in his old truck. It smelled of apples. That "
    "night we slept very well. In the morning there was bread and butter on the table, and a "
    "letter beside it."
)
WINDOW, STEP = 10.0, 2.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=2)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        speaker = Synthesizer(store=Store.open(home))
        next(speaker.stream("Warm up.", "nobody"))
        windows, perth, keyed, named, steps, usual = 0, 0, 0, 0, [], []
        for seed in range(args.seeds):
            begin = last = time.perf_counter()
            waited, pcm, seams = [], b"", []
            for chunk in speaker.stream(TEXT, "nobody", seed=seed):
                waited.append(time.perf_counter() - last)
                pcm, ledger_id, rate = pcm + chunk.pcm, chunk.ledger_id, chunk.sample_rate
                seams.append(len(pcm) // 2)
                last = time.perf_counter()
            audio = unpacked(wav_header(rate) + pcm, rate)
            work = time.perf_counter() - begin
            print(
                f"seed {seed}: {len(audio) / rate:.1f} s in {len(seams) - 1} chunks, first sound "
                f"after {waited[0]:.2f} s, {work / len(audio) * rate:.3f} s of work a second"
            )
            marks = Marks(speaker.marks.perth, load_keyed(home, False, released(home)))
            for start in range(0, len(audio) - int(WINDOW * rate) + 1, int(STEP * rate)):
                found = marks.search(audio[start : start + int(WINDOW * rate)], rate)
                assert found.keyed is not None
                windows, perth = windows + 1, perth + found.perth.present
                keyed, named = keyed + found.keyed.present, named + (ledger_id in found.keyed.rows)
            jump = np.abs(np.diff(audio.numpy()))
            steps += [float(jump[seam - 2 : seam + 2].max()) for seam in seams[:-2]]
            usual.append(float(np.quantile(jump, 0.5)))
        print(
            f"windows of {WINDOW:g} s every {STEP:g} s: {windows}; PerTh found in {perth}, the "
            f"keyed mark in {keyed}, naming its row in {named}"
        )
        print(
            f"jumps at {len(steps)} seams: at most {max(steps):.5f} of full scale (median jump "
            f"between samples anywhere: {np.mean(usual):.5f})"
        )


if __name__ == "__main__":
    main()
