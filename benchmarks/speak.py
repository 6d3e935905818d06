"""How well the bundled model speaks: word error rate, unfinished share, speed, likeness.

`python -m benchmarks.speak --root ../shared/corpora/kathleen` says held-out sentences through
`Synthesizer.speak` in the voice of nobody, in a store of its own, and has Whisper tiny.en write
down what it hears; beside it the same sentences as recorded. Needs the `enrol` extra and jiwer.
"""

import argparse
import tempfile
import time
from pathlib import Path

import jiwer
from whisper_normalizer.english import EnglishTextNormalizer

from sayso.inference.audio import read_audio
from sayso.inference.hearing import RATE, load_ears, same_speaker
from sayso.inference.store import Store
from sayso.inference.synthesizer import Synthesizer
from sayso.model.errors import UnfinishedError
from sayso.training.readers import read_corpus
from sayso.training.split import held_out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, required=True, help="the Kathleen corpus")
    parser.add_argument("--most", type=int, default=24, help="sentences")
    args = parser.parse_args()
    held = [u for u in read_corpus("kathleen", args.root) if held_out(u.id)][: args.most]
    ears, words = load_ears(), EnglishTextNormalizer()
    unfinished, seconds, cost, lengths, likeness = 0, 0.0, 0.0, [], []
    wanted: list[str] = []
    heard: dict[str, list[str]] = {"spoken": [], "recorded": []}
    with tempfile.TemporaryDirectory() as folder, Store.open(Path(folder) / "home") as store:
        speaker = Synthesizer(store=store)
        for utterance in held:
            out = Path(folder) / f"{utterance.id}.wav"
            start = time.perf_counter()
            try:
                spoken = speaker.speak(utterance.text, "nobody", out, purpose="benchmark")
            except UnfinishedError:
                unfinished += 1
                continue
            cost += time.perf_counter() - start
            seconds += spoken.seconds
            said = read_audio(out, RATE)[0].numpy()
            recorded = read_audio(utterance.path, RATE)[0].numpy()
            lengths.append(len(said) / len(recorded))
            likeness.append(same_speaker(ears.voices(said), ears.voices(recorded)))
            wanted.append(words(utterance.text))
            heard["spoken"].append(words(ears.transcribe(said)))
            heard["recorded"].append(words(ears.transcribe(recorded)))
    print(f"{len(held)} held-out sentences, {unfinished} unfinished, seed 0, one sample each")
    for name, texts in heard.items():
        print(f"word error rate, {name}: {jiwer.wer(wanted, texts):.3f}")
    print(f"length over the recording's: median {sorted(lengths)[len(lengths) // 2]:.2f}")
    print(f"Resemblyzer cosine to Kathleen's recording: mean {sum(likeness) / len(likeness):.3f}")
    print(f"cost: {cost / seconds:.2f} s of wall time per second of speech, all of speak included")


if __name__ == "__main__":
    main()
