"""Emphasised words beside themselves without emphasis: `python -m benchmarks.emphasis [N]`.

Each of N sentences (20 by default) is said twice by `nobody`, once with its longest word as
`*word*`. Both have one seed, so within a pair only the emphasis differs, and the watermark, which
is each file's own. How much longer, louder (than the rest of its sentence) and higher the word is,
and what Whisper tiny.en hears. About 10 s of one core each.
"""

import argparse
import re
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from whisper_normalizer.english import EnglishTextNormalizer

from benchmarks.speak import SENTENCES
from sayso.evaluation.words import compare
from sayso.inference.recognisers import RATE, load_ears
from sayso.inference.store.store import Store
from sayso.inference.synthesizer import Synthesizer
from sayso.model.audio import read_audio, resample
from sayso.model.codecs.world import STRESS_LENGTH, WorldConfig, analyse

BOOTSTRAPS = 2000


def measures(audio: Tensor, word: np.ndarray, config: WorldConfig) -> tuple[float, float]:
    """Power of a word in dB over the rest of its sentence (samples,), and its log F0; `word` (T,)
    says which frames are its."""
    samples = audio.numpy()[: len(word) * config.hop].astype(np.float64)
    power = np.square(samples).reshape(-1, config.hop).mean(1)
    heard = analyse(audio.numpy(), config).f0[: len(power)]
    word = word[: len(power)]
    ratio = power[word].mean() / power[~word].mean()
    return 10 * float(np.log10(ratio)), float(np.median(np.log(heard[word & (heard > 0)])))


def stretched(word: np.ndarray) -> np.ndarray:
    """Which frames are a word's, (T,), once it is longer."""
    length = np.where(word, STRESS_LENGTH, 1.0)
    begins = np.cumsum(length) - length
    return word[np.searchsorted(begins, np.arange(round(length.sum())), "right") - 1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", nargs="?", type=int, default=20)
    count = parser.parse_args().count
    torch.set_num_threads(1)
    longer, louder, higher, wrong, words = [], [], [], [], []
    with tempfile.TemporaryDirectory() as place, Store.open(Path(place) / "home") as store:
        speaker, ears, out = Synthesizer(store=store), load_ears(), Path(place) / "said.wav"
        codec, config, plain = speaker.bundle.codec, WorldConfig(), EnglishTextNormalizer()
        rate, say, frames = codec.sample_rate, codec.speak_all, list[np.ndarray]()

        def heard(said):  # as it is, but for a look
            frames[:] = [one.stressed.numpy() for one in said if one.stressed is not None]
            return say(said)

        codec.speak_all = heard
        for seed, text in enumerate(SENTENCES.read_text().splitlines()[:count]):
            word = max(re.findall(r"[A-Za-z]{3,}(?![\w'])", text), key=len)
            pair, errors = [], []
            for written in (text, re.sub(rf"\b{word}\b", f"*{word}*", text, count=1)):
                speaker.speak(written, "nobody", out, user="benchmark", seed=seed)
                pair.append(read_audio(out, rate)[0])
                hypothesis = ears.transcribe(resample(pair[-1].numpy(), rate, RATE))
                errors.append(compare(text, hypothesis, plain))
            before = measures(pair[0], frames[0], config)
            after = measures(pair[1], stretched(frames[0]), config)
            gained = (len(pair[1]) - len(pair[0])) / config.hop
            longer.append(1 + gained / frames[0].sum())
            louder.append(after[0] - before[0])
            higher.append(12 / np.log(2) * (after[1] - before[1]))
            wrong.append([each["errors"] for each in errors])
            words.append(errors[0]["words"])
            print(
                f"{word}: {longer[-1]:.2f} times as long, {louder[-1]:+.1f} dB, "
                f"{higher[-1]:+.1f} semitones; words wrong {wrong[-1]}",
                flush=True,
            )
    for name, found in (("times", longer), ("dB", louder), ("semitones", higher)):
        low, middle, high = np.quantile(found, [0.1, 0.5, 0.9])
        print(f"{name}: median {middle:.2f}, 80 % within {low:.2f} to {high:.2f}")
    errors, sizes = np.array(wrong), np.array(words)
    drawn = np.random.default_rng(0).integers(count, size=(BOOTSTRAPS, count))
    rates = errors[drawn].sum(1) / sizes[drawn].sum(1)[:, None]  # (bootstraps, 2)
    low, high = np.quantile(rates[:, 1] - rates[:, 0], [0.025, 0.975])
    rest, stressed = errors.sum(0) / sizes.sum()
    print(f"word error rate {rest:.3f}, emphasised {stressed:.3f} ({low:+.3f} to {high:+.3f})")


if __name__ == "__main__":
    main()
