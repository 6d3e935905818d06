"""How well the marks hold on real speech: the tables of docs/marks.md, measured here.

    python -m benchmarks.marks                everything, then the page; about two hours
    python -m benchmarks.marks robust --minutes 20
    python -m benchmarks.marks quality
    python -m benchmarks.marks speed
    python -m benchmarks.marks page           docs/marks.md from what was measured so far

`robust` can be stopped at any time and goes on where it was; a clip takes 5 s of work in the
promised rows and 6 s in the others. Every clip is marked as a released file is (`Marks.embed`), by
turns two of 251 LibriSpeech readers and one sentence of Kathleen's.
"""

import argparse
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soxr
import torch
from torch import Tensor

from benchmarks.attacks import ATTACKS, PROMISED, RATE, Attack, inverted, spliced
from benchmarks.clips import excerpt, mixed_clips, real_clips
from benchmarks.marks_page import FIELDS, KEY, ROBUST, ROW, SPLICED, UNDONE, write_page
from benchmarks.results import write
from sayso.inference.watermark import perth_filter
from sayso.inference.watermark.ensemble import PERTH_STRENGTHS, Marks
from sayso.inference.watermark.keyed import Keyed
from sayso.inference.watermark.perth import load_watermarker
from sayso.model.audio import read_audio

SECONDS = 6.0


def load() -> Marks:
    return Marks(load_watermarker(), Keyed(KEY))


def measure(marks: Marks, audio: np.ndarray) -> list[float | int | None]:
    """What each detector says of one clip, in the order of `FIELDS`."""
    found = marks.search(torch.from_numpy(np.ascontiguousarray(audio)), RATE)
    assert found.keyed is not None
    scores = [round(s, 3) for s in (found.perth.score, found.perth.network, found.keyed.score)]
    return [*scores, found.keyed.payload]


def robust(minutes: float) -> None:
    """Attacks marked clips until the time is over; what is done is not done again."""
    marks = load()
    rows = json.loads(ROBUST.read_text())["clips"] if ROBUST.exists() else {}
    undone = inverted(perth_pattern(marks))
    others = (*(name for name in ATTACKS if name not in PROMISED), UNDONE, SPLICED)
    clips = list(enumerate(mixed_clips()))
    steps = [(30, PROMISED), (24, others), (120, PROMISED), (60, others)]
    passes = [(clips[:n], names) for n, names in steps] + [(clips, PROMISED), (clips, others)]
    end = time.monotonic() + 60 * minutes
    for chosen, names in passes:
        for number, path in chosen:
            done = rows.setdefault(path.stem, {})
            missing = [name for name in names if name not in done]
            if not missing:
                continue
            if time.monotonic() > end:
                return
            audio = excerpt(path, SECONDS, np.random.default_rng(number))
            marked = marks.embed(audio, RATE, ROW)
            stranger = excerpt(clips[number - 1][1], SECONDS, np.random.default_rng(number)).numpy()
            attacks: dict[str, Attack] = {**ATTACKS, UNDONE: undone, SPLICED: spliced(stranger)}
            for name in missing:
                seed = [number, *name.encode()]  # the same noise for marked and unmarked
                done[name] = measure(
                    marks, attacks[name](marked.numpy(), np.random.default_rng(seed))
                )
                if number % 6 == 0:  # false positives: the same on the clip unmarked
                    hit = attacks[name](audio.numpy(), np.random.default_rng(seed))
                    done[f"unmarked: {name}"] = measure(marks, hit)
            write(ROBUST.name, {"fields": FIELDS, "clips": rows})


def perth_pattern(marks: Marks) -> np.ndarray:
    """PerTh's filter in dB per 15.625 Hz, as its network answers to noise."""
    noise = torch.randn(4 * 32_000, generator=torch.Generator().manual_seed(1)) * 0.1
    magnitude, _ = marks.perth.net.ap.signal_to_magphase(noise)
    marked, _ = marks.perth.net.encoder(magnitude[None])
    return ((marked[0] - magnitude)[: perth_filter.BINS].mean(1) * 195).numpy()  # in 195 dB


def quality() -> None:
    """PESQ, noise, words and voice of the marked against the unmarked."""
    import jiwer
    import pesq
    from whisper_normalizer.english import EnglishTextNormalizer

    from sayso.inference.recognisers import embedding, load_ears

    marks = load()
    ears = load_ears()
    rows = []
    clips = mixed_clips()[:36]
    for number, path in enumerate(clips):
        audio = excerpt(path, SECONDS, np.random.default_rng(number))
        parts = {
            "perth": marks.perth.embed(audio, RATE, PERTH_STRENGTHS[0]),
            "keyed": Keyed(KEY).embed(audio, RATE, ROW),
            "both": marks.embed(audio, RATE, ROW),
        }
        plain = narrow(audio)
        row: dict = {"clip": path.stem}
        for name, marked in parts.items():
            row[f"pesq {name}"] = round(float(pesq.pesq(16_000, plain, narrow(marked), "wb")), 3)
        noise = parts["both"] - audio
        row["snr"] = round(
            float(10 * torch.log10(audio.square().mean() / noise.square().mean())), 1
        )
        own = embedding(ears.voices(plain))
        row["similarity"] = round(float(own @ embedding(ears.voices(narrow(parts["both"])))), 4)
        rows.append(row)
    texts = dict(
        line.split("\t", 1)
        for line in (real_clips()[-1].parents[1] / "metadata.tsv").read_text().splitlines()[1:]
    )
    simple = EnglishTextNormalizer()
    sentences = real_clips()[251:][::19][:40]
    said: dict[str, list[str]] = {"reference": [], "unmarked": [], "marked": []}
    own_voice: list[list[float]] = []
    voice = embedding(np.concatenate([ears.voices(narrow(load_clip(p))) for p in sentences[::4]]))
    for path in sentences:
        audio = load_clip(path)
        marked = marks.embed(audio, RATE, ROW)
        said["reference"].append(simple(texts[path.stem]))
        said["unmarked"].append(simple(ears.transcribe(narrow(audio))))
        said["marked"].append(simple(ears.transcribe(narrow(marked))))
        own_voice.append(
            [float(voice @ embedding(ears.voices(narrow(a)))) for a in (audio, marked)]
        )
    words = {
        name: {
            "wer": round(float(jiwer.wer(said["reference"], said[name])), 4),
            "per_sentence": [
                round(float(jiwer.wer(a, b)), 4)
                for a, b in zip(said["reference"], said[name], strict=True)
            ],
        }
        for name in ("unmarked", "marked")
    }
    write(
        "marks_quality.json",
        {"clips": rows, "words": words, "voice": np.round(own_voice, 4).tolist()},
    )


def load_clip(path: Path) -> Tensor:
    return read_audio(path, RATE)[0]


def narrow(audio: Tensor) -> np.ndarray:
    return soxr.resample(audio.numpy(), RATE, 16_000).astype(np.float32)


def speed() -> None:
    """CPU seconds per second of audio, one thread, for clips of 10 s."""
    marks = load()
    clips = [p for p in mixed_clips() if "librispeech" in str(p)][:10]
    times: dict[str, list[float]] = {}

    def timed(name: str, seconds: float, call: Callable) -> Tensor:
        start = time.process_time()
        out = call()
        times.setdefault(name, []).append((time.process_time() - start) / seconds)
        return out

    for path in clips:
        audio = excerpt(path, 10, np.random.default_rng(1))
        long = len(audio) / RATE
        timed("read", long, lambda path=path: read_audio(path, 32_000))
        timed("embed PerTh", long, lambda a=audio: marks.perth.embed(a, RATE))
        timed("embed keyed", long, lambda a=audio: Keyed(KEY).embed(a, RATE, ROW))
        marked = timed("embed both, looked at", long, lambda a=audio: marks.embed(a, RATE, ROW))
        for name, clip in (("marked", marked), ("unmarked", audio)):
            timed(f"detect, {name}", long, lambda a=clip: marks.search(a, RATE))
    medians = {name: [float(np.median(v)), float(np.max(v))] for name, v in times.items()}
    write("marks_speed.json", {k: [round(x, 4) for x in v] for k, v in medians.items()})


def main() -> None:
    parser = argparse.ArgumentParser(description="Measures the marks on real speech.")
    parser.add_argument(
        "what", nargs="?", default="all", choices=["all", "robust", "quality", "speed", "page"]
    )
    parser.add_argument("--minutes", type=float, default=150.0, help="Time for `robust`.")
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    with torch.inference_mode():
        if given.what in ("all", "speed"):
            speed()
        if given.what in ("all", "quality"):
            quality()
        if given.what in ("all", "robust"):
            robust(given.minutes)
    if given.what in ("all", "page"):
        write_page()


if __name__ == "__main__":
    main()
