"""Streams beside files of one seed: first sound, seams, both marks, and how far they differ.

    python -m benchmarks.stream --corpora ../shared/corpora [--plot stream.png] [--words]

Each of 20 streams begins with a sentence of 8 to 9 s (LJSpeech's transcripts, public domain), which
leaves in pieces, and goes on with short ones. In a store of its own; with --words Whisper tiny.en
hears the first sentence of both. Figures are printed and kept in benchmarks/results/stream.json.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from whisper_normalizer.english import EnglishTextNormalizer

from benchmarks.book import book, rate
from benchmarks.results import write
from sayso.evaluation.sound import clicks
from sayso.evaluation.sound import pitch as pitch_of
from sayso.inference.finishing import unpacked
from sayso.inference.recognisers import RATE, load_ears
from sayso.inference.store.released import released
from sayso.inference.store.store import Store
from sayso.inference.synthesizer import Synthesizer
from sayso.inference.watermark.ensemble import Marks
from sayso.inference.watermark.keyed import load_keyed
from sayso.inference.watermark.spread_spectrum import loudness, spectrum_of
from sayso.model.audio import read_audio, resample, wav_header
from sayso.model.loudness import loudness as level_of
from sayso.model.text.book import parts_of, sentences_of

MORE = (
    "Good morning! The bus was late again today. Where were you? She had thought about it for a "
    "long time before she answered the question. Yes. The cat sat on the mat and looked at the "
    "quiet garden."
)
WINDOW, STEP = 10.0, 2.5
KEPT = ("first", "work", "apart", "files", "windows", "clicks")
LONG = range(125, 144)  # characters: 8 to 9 s, the longest that is said at once


def long_sentences(corpora: Path, count: int) -> list[str]:
    """So many long sentences, of one text."""
    parts = parts_of(book(corpora, 20_000))
    said = [piece.text for part in parts for piece in sentences_of(part.text)]
    return [text for text in said if len(text) in LONG and text[-1] == "."][:count]


def apart(stream: torch.Tensor, file: torch.Tensor, hertz: int) -> dict[str, float]:
    """How far two takes of one sentence differ; frames of 10.7 ms, 24 bands to 6 kHz."""
    size = min(len(stream), len(file))
    bands = [loudness(spectrum_of(x[:size]), 1.0) for x in (stream, file)]
    loud = bands[1] > bands[1].max() - 50
    pitch = [pitch_of(x.numpy(), hertz) for x in (stream, file)]
    return {
        "level, dB": 20 * np.log10(level_of(stream) / level_of(file)),
        "pitch, semitones": 12 * np.log2(pitch[0] / pitch[1]) if min(pitch) else 0.0,
        "bands, dB": float((bands[0] - bands[1])[loud].square().mean().sqrt()),
    }


def plot(audio: NDArray[np.float32], seams: list[float], hertz: int, path: Path) -> None:
    """A spectrogram, with the seams as marks above it."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(14, 4))
    axes.specgram(audio, NFFT=512, Fs=hertz, noverlap=384, scale="dB", vmin=-140)
    for seam in seams:
        axes.plot([seam], [hertz / 2 * 0.98], "rv")
    axes.set(xlabel="s", ylabel="Hz", title="seams at the marks")
    figure.savefig(path, dpi=110, bbox_inches="tight")


def quantiles(values: list[float], *at: float) -> list[float]:
    return [round(float(value), 3) for value in np.quantile(values, at)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpora", type=Path, default=Path("../shared/corpora"))
    parser.add_argument("--streams", type=int, default=20)
    parser.add_argument("--first", action="store_true", help="only the time to the first sound")
    parser.add_argument("--words", action="store_true", help="what is heard, too")
    parser.add_argument("--plot", type=Path, help="spectrogram of the first stream")
    given = parser.parse_args()
    found: dict[str, list] = {key: [] for key in KEPT}
    said: dict[str, list[dict]] = {"stream": [], "file": []}
    with tempfile.TemporaryDirectory() as folder:
        home, out = Path(folder) / "home", Path(folder) / "file.wav"
        speaker = Synthesizer(store=Store.open(home))
        ears = load_ears() if given.words else None
        for _ in speaker.stream("Warm up.", "nobody"):
            pass
        for seed, sentence in enumerate(long_sentences(given.corpora, given.streams)):
            begin, pcm, seams, texts = time.perf_counter(), b"", list[int](), list[str]()
            for chunk in speaker.stream(f"{sentence} {MORE}", "nobody", seed=seed):
                found["first"] += [time.perf_counter() - begin] * (not pcm)
                pcm, ledger_id, hertz = pcm + chunk.pcm, chunk.ledger_id, chunk.sample_rate
                seams.append(len(pcm) // 2)
                texts.append(chunk.text)
                if given.first:
                    break
            if given.first:
                continue
            audio = unpacked(wav_header(hertz) + pcm, hertz)
            found["work"].append((time.perf_counter() - begin) / len(audio) * hertz)
            last = next(n for n in range(1, len(texts)) if texts[n]) - 1  # piece of the sentence
            speaker.speak(sentence, "nobody", out, seed=seed)
            file, own = read_audio(out, hertz)[0], audio[: seams[last]]
            found["apart"].append(apart(own, file, hertz) | {"pieces": last + 1})
            speaker.speak(sentence, "nobody", out, seed=seed)  # a file beside a file: the marks
            found["files"].append(apart(read_audio(out, hertz)[0], file, hertz))
            marks = Marks(speaker.marks.perth, load_keyed(home, False, released(home)))
            for start in range(0, len(audio) - int(WINDOW * hertz) + 1, int(STEP * hertz)):
                seen = marks.search(audio[start : start + int(WINDOW * hertz)], hertz)
                assert seen.keyed is not None
                both = seen.perth.present, seen.keyed.present, ledger_id in seen.keyed.rows
                found["windows"].append(both)
            near = [audio[max(0, seam - 480) : seam + 480].numpy() for seam in seams[:-2]]
            at_seams = sum(clicks(each, hertz) for each in near)
            all_clicks = clicks(audio.numpy(), hertz), clicks(file.numpy(), hertz)
            found["clicks"].append((len(near), at_seams, *all_clicks))
            for name, sound in (("stream", own), ("file", file)):
                if ears is not None:
                    heard = ears.transcribe(resample(sound.numpy(), hertz, RATE))
                    said[name].append({"text": sentence, "heard": heard})
            if given.plot and not seed:
                plot(audio.numpy(), [seam / hertz for seam in seams[:-2]], hertz, given.plot)
    result: dict[str, object] = {"first sound, s: p50, p95": quantiles(found["first"], 0.5, 0.95)}
    if not given.first:
        names = "seams", "clicks at seams", "clicks in streams", "clicks in files"
        result |= {
            "s of work a second": quantiles(found["work"], 0.5)[0],
            "pieces of the first sentence": quantiles([x["pieces"] for x in found["apart"]], 0, 1),
            **{
                f"{title}: p5, p50, p95, most": {
                    key: quantiles([x[key] for x in found[which]], 0.05, 0.5, 0.95, 1)
                    for key in found[which][0]
                }
                for title, which in (("stream less file", "apart"), ("file less file", "files"))
            },
            "windows; PerTh, keyed, its row in": [
                len(found["windows"]),
                *(sum(column) for column in zip(*found["windows"], strict=True)),
            ],
            **{n: sum(x) for n, x in zip(names, zip(*found["clicks"], strict=True), strict=True)},
        }
    if given.words:
        plain = EnglishTextNormalizer()
        result |= {f"{name}, first sentence": rate(said[name], plain) for name in said}
    print(json.dumps(result, indent=1))
    write("stream.json", result)


if __name__ == "__main__":
    main()
