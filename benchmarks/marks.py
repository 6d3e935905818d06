"""How well the marks hold on real speech: the tables of docs/marks.md, measured here.

    python -m benchmarks.marks                everything, then the page; about two hours
    python -m benchmarks.marks robust --minutes 20
    python -m benchmarks.marks said           what the bundled model says, released by the gate
    python -m benchmarks.marks forge
    python -m benchmarks.marks synthesisers   (apt-get install flite espeak-ng festival)
    python -m benchmarks.marks quality
    python -m benchmarks.marks speed
    python -m benchmarks.marks page           docs/marks.md from what was measured so far

`robust` can be stopped at any time and goes on where it was. Every clip is marked as a released
file is (`Marks.embed`), by turns two of 251 LibriSpeech readers and one sentence of Kathleen's, and
looked for among other rows. PerTh's own rows are of an earlier run: PerTh is as it was.
"""

import argparse
import shutil
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soxr
import torch
from torch import Tensor

from benchmarks.attacks import ATTACKS, PROMISED, RATE, WIDE, inverted, spliced
from benchmarks.clips import excerpt, mixed_clips, real_clips
from benchmarks.marks_page import FIELDS, KEY, ROBUST, ROW, SAID, SPLICED, UNDONE, write_page
from benchmarks.results import RESULTS, read, write
from benchmarks.synthesisers import FESTIVAL, espeak, flite, say
from sayso.inference.nobody import NOBODY
from sayso.inference.store.released import released
from sayso.inference.store.store import Store
from sayso.inference.synthesizer import Synthesizer
from sayso.inference.watermark import perth_filter, spread_spectrum
from sayso.inference.watermark.ensemble import PERTH_STRENGTHS, Marks, load_marks
from sayso.inference.watermark.keyed import CELLS, Keyed, KeyedTrace, Row
from sayso.inference.watermark.perth import load_watermarker
from sayso.inference.watermark.perth_net import SCALE
from sayso.model.audio import read_audio, resample

SECONDS = 6.0
SENTENCES = Path(__file__).with_name("sentences.txt")
EVERY = "espeak-ng, every voice of any language"
NO_ENGLISH = "chr-US-Qaaa-x-west"  # ends with an error


def load() -> Marks:
    return Marks(load_watermarker(), Keyed(KEY))


def background() -> list[Row]:
    """Rows of other outputs, as a store has them: every sixth sentence of Kathleen's."""
    mark, used = Keyed(KEY), set(mixed_clips())
    paths = [path for path in real_clips()[251::6] if path not in used]
    return [(path.stem, mark.fingerprint([load_clip(path)], RATE), path.stem) for path in paths]


def robust(minutes: float) -> None:
    """Attacks marked clips until the time is over; what is done is not done again."""
    marks, others = load(), background()
    rows = read(ROBUST)["clips"] if (RESULTS / ROBUST).exists() else {}
    attacks = {**ATTACKS, **WIDE, UNDONE: inverted(perth_pattern(marks))}
    end = time.monotonic() + 60 * minutes
    clips = mixed_clips()
    for number, path in enumerate(clips):
        done = rows.setdefault(path.stem, {})
        if not (missing := [name for name in (*attacks, SPLICED) if name not in done]):
            continue
        audio = excerpt(path, SECONDS, np.random.default_rng(number))
        marked = marks.embed(audio, RATE, ROW)
        keyed = Keyed(KEY, [*others, (ROW, marks.fingerprint([marked], RATE), ROW)])
        stranger = excerpt(clips[number - 1], SECONDS, np.random.default_rng(number)).numpy()
        attacks[SPLICED] = spliced(stranger)
        for name in missing:
            if time.monotonic() > end:
                return
            seed = [number, *name.encode()]
            hit = attacks[name](marked.numpy(), np.random.default_rng(seed))
            found = keyed.search(torch.from_numpy(np.ascontiguousarray(hit)), RATE)
            row = found.rows or found.alike
            named = 0 if not row else 1 if row == (ROW,) else -1
            done[name] = [round(found.score, 3), round(found.likeness, 3), named]
            write(ROBUST, {"fields": FIELDS, "rows": len(others) + 1, "clips": rows})


def said() -> None:
    """What the promised attacks leave of the bundled model's own speech, as the gate releases it.

    Kept of each: PerTh's score, and 1 where the store names its row by sound and mark.
    """
    files: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as folder, Store.open(Path(folder) / "home") as store:
        speaker, spoken = Synthesizer(store=store), {}
        for number, text in enumerate(SENTENCES.read_text().splitlines()[:20]):
            out = Path(folder) / f"{number}.wav"
            made = speaker.speak(text, NOBODY, out, purpose="benchmark", seed=number)
            spoken[made.ledger_id] = read_audio(made.path, RATE)[0].numpy()
        marks = load_marks(store.home, rows=released(store.home))
        for number, (row, audio) in enumerate(spoken.items()):
            for name in PROMISED:
                hit = ATTACKS[name](audio, np.random.default_rng([number, *name.encode()]))
                found = marks.search(torch.from_numpy(np.ascontiguousarray(hit)), RATE)
                named = found.keyed is not None and found.keyed.rows == (row,)
                kept = files.setdefault(f"{number}", {"seconds": [len(audio) / RATE]})
                kept[name] = [round(found.perth.score, 3), float(named)]
                write(SAID, files)


def perth_pattern(marks: Marks) -> np.ndarray:
    """PerTh's filter in dB per 15.625 Hz, as its network answers to noise."""
    noise = torch.randn(4 * 32_000, generator=torch.Generator().manual_seed(1)) * 0.1
    magnitude, _ = marks.perth.net.split(noise)
    marked = marks.perth.net.encoder(magnitude[None])
    return ((marked[0] - magnitude)[: perth_filter.BINS].mean(1) * SCALE).numpy()


def forge() -> None:
    """What outputs whose unmarked originals are known teach, and what that is worth.

    The originals are real speech; a pattern is read off the difference in loudness, cell by cell.
    """
    clips, mark = mixed_clips()[:75], Keyed(KEY)
    plain = [excerpt(p, SECONDS, np.random.default_rng(n)) for n, p in enumerate(clips)]
    marked = [mark.embed(audio, RATE, f"row-{n}") for n, audio in enumerate(plain[:65])]
    names = [f"row-{n}" for n in range(len(marked))]
    sounds = [mark.fingerprint([each], RATE) for each in marked]
    store = Keyed(KEY, list(zip(names, sounds, names, strict=True)))
    learnt = [pattern_between(a, b) for a, b in zip(plain, marked, strict=False)]
    out: dict[str, Any] = {}
    for count in (1, 4, 16, 64):
        guess = torch.stack(learnt[:count]).mean(0)
        at = guess.abs().amax(1) > 0  # cells that the outputs reach
        own, other = ((guess.sign() == store.chips(row))[at] for row in ("row-0", "row-64"))
        forged = [put(audio, guess.sign(), 3.0) for audio in plain[65:]]
        found = [store.search(audio, spread_spectrum.RATE) for audio in forged]
        named, copied = [f.rows for f in found], [f.copied for f in found]
        washed = [put(audio, -guess.sign(), 2.0) for audio in marked[55:]]
        left = [store.search(audio, spread_spectrum.RATE) for audio in washed]
        out[str(count)] = {
            "cells": {"own": float(own.float().mean()), "next": float(other.float().mean())},
            "forged": [len(found), sum(map(bool, named)), sum(map(bool, copied))],
            "washed": still_there(left, 55),
        }
    bare = [store.search(audio, RATE) for audio in plain[:10]]
    out["originals"] = {"washed": still_there(bare, 0)}
    write("marks_forged.json", out)


def still_there(found: list[KeyedTrace], first: int) -> list[int]:
    """How many files, how many with their mark, how many that sound as their row (from `first`)."""
    named = sum(f"row-{first + n}" in each.rows + each.alike for n, each in enumerate(found))
    return [len(found), sum(each.present for each in found), named]


def put(audio: Tensor, chips: Tensor, decibels: float) -> Tensor:
    """A pattern on (samples,) at `RATE`; at the mark's own rate."""
    host = torch.from_numpy(resample(audio.numpy(), RATE, spread_spectrum.RATE))
    return spread_spectrum.embed(host, chips, 0, decibels)


def pattern_between(plain: Tensor, marked: Tensor) -> Tensor:
    """How much louder each cell is in the second of two (samples,) at `RATE`: (CELLS, BANDS)."""
    before, after = (
        spread_spectrum.loudness(spread_spectrum.spectrum_of(audio), 1.0)
        for audio in (plain, marked)
    )
    # a cell's first frame is its own
    difference = (after - before)[:: spread_spectrum.CELL][:CELLS]
    return torch.nn.functional.pad(difference, (0, 0, 0, CELLS - len(difference)))


def synthesisers() -> None:
    """PerTh's scores of what other synthesisers say; those that are not installed are left out."""
    marks, texts = load(), SENTENCES.read_text().splitlines()
    out: dict[str, list[float]] = {}
    for voice, command in voices().items():
        said = {"flite slt": texts, EVERY: texts[:3]}.get(voice.partition(":")[0], texts[:20])
        sounds = [torch.from_numpy(say(command, text, RATE)) for text in said]
        scores = [marks.perth.score(sound, RATE) for sound in sounds]
        out.setdefault(voice.partition(":")[0], []).extend(round(score, 3) for score in scores)
        write("marks_synthesisers.json", out)


def voices() -> dict[str, tuple[str, ...]]:
    """The command of each voice of flite, espeak-ng and festival that is installed."""
    found = {f"flite {voice}": flite(voice) for voice in ("slt", "rms", "awb", "kal", "kal16")}
    found |= {f"espeak-ng {voice}": espeak(voice) for voice in ("en-us", "en-gb", "en-us+f3")}
    found["festival"] = FESTIVAL
    if shutil.which("espeak-ng"):
        listed = subprocess.run(["espeak-ng", "--voices"], capture_output=True, text=True).stdout
        for voice in (line.split()[1] for line in listed.splitlines()[1:]):
            if voice != NO_ENGLISH:
                found[f"{EVERY}: {voice}"] = espeak(voice)
    return {name: command for name, command in found.items() if shutil.which(command[0])}


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


PARTS = {part.__name__: part for part in (speed, quality, said, forge, synthesisers)}


def main() -> None:
    parser = argparse.ArgumentParser(description="Measures the marks on real speech.")
    parser.add_argument("what", nargs="?", default="all", choices=["all", *PARTS, "robust", "page"])
    parser.add_argument("--minutes", type=float, default=150.0, help="Time for `robust`.")
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    with torch.inference_mode():
        for name, part in PARTS.items():
            if given.what in ("all", name):
                part()
        if given.what in ("all", "robust"):
            robust(given.minutes)
    if given.what in ("all", "page"):
        write_page()


if __name__ == "__main__":
    main()
