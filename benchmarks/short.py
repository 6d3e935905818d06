"""Utterances of one or two words through the whole gate: `python -m benchmarks.short [N]`.

How many of N (100 by default) are released, each with both marks, in the voice of `nobody`, and
what Whisper tiny.en hears in them; the others by the error that says why. About 4 s of one core
each. Needs the `enrol` and `bench` extras.
"""

import argparse
import tempfile
from collections import Counter
from pathlib import Path

import torch
from whisper_normalizer.english import EnglishTextNormalizer

from sayso.evaluation.words import compare
from sayso.inference.detection.detector import Detector
from sayso.inference.recognisers import RATE, load_ears
from sayso.inference.store.store import Store
from sayso.inference.synthesizer import Synthesizer
from sayso.model.audio import read_audio
from sayso.model.errors import SaysoError

WORDS = (
    "Oh,Yes,No,Hi,Wow,Well,Right,Sure,Thanks,Hello,Good morning,Good night,Come in,Not now,Stop,Go,"
    "Wait,Look,Listen,Help,Please,Sorry,Of course,See you,Thank you,A,I,Me too,Never mind,Maybe,"
    "Really,Why,Who,What,When,Where,Indeed,Enough"
).split(",")
ENDS = (".", "!", "?")


def main() -> None:
    """Say each utterance with its own seed, and look for the marks in what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", nargs="?", type=int, default=100)
    count = parser.parse_args().count
    torch.set_num_threads(1)
    texts = [word + end for end in ENDS for word in WORDS][:count]
    outcomes: Counter[str] = Counter()
    seconds: list[float] = []
    ears, plain, wrong, words = load_ears(), EnglishTextNormalizer(), 0, 0
    with tempfile.TemporaryDirectory() as place, Store.open(Path(place) / "home") as store:
        speaker, out = Synthesizer(store=store), Path(place) / "said.wav"
        for seed, text in enumerate(texts):
            try:
                spoken = speaker.speak(text, "nobody", out, user="benchmark", seed=seed)
                found = Detector(store.home).detect(out)
                both = found.found.perth.present and found.manifest.state == "trusted"
                outcome = "released with both marks" if both else "RELEASED WITHOUT A MARK"
                seconds.append(spoken.seconds)
                counts = compare(text, ears.transcribe(read_audio(out, RATE)[0].numpy()), plain)
                wrong, words = wrong + counts["errors"], words + counts["words"]
            except SaysoError as error:
                outcome = f"{type(error).__name__}: {str(error)[:40]}"
            outcomes[outcome] += 1
            print(f"{text!r}: {outcome}", flush=True)
    for outcome, times in outcomes.most_common():
        print(f"{times} of {len(texts)}: {outcome}")
    if seconds:
        middle = sorted(seconds)[len(seconds) // 2]
        print(f"{min(seconds):.2f} to {max(seconds):.2f} s, {middle:.2f}")
        print(f"{wrong} of {words} words wrong")


if __name__ == "__main__":
    main()
