"""Make, train and measure the detector of our model's speech (inference/synthetic.py).

    python -m benchmarks.synthetic speak     what our model says, through the gate: runs/synthetic
    python -m benchmarks.synthetic train     the network; weights to src/sayso/assets/synthetic
    python -m benchmarks.synthetic measure   error rates to benchmarks/results/synthetic.json
    python -m benchmarks.synthetic page      docs/detector.md from these
    python -m benchmarks.synthetic           all of it; about an hour of one core

Do it again when the bundled model or codec changes. Real speech: the shared corpora; what is kept
out (25 readers, 24 sentences of Kathleen) is kept out here, too. Real speech goes through the codec
for the hard negative. Ours is spoken in corpus voices of training readers and, to be measured on,
of kept-out ones, each saying other readers' sentences. All three are resampled to 16 kHz, and all
three carry our watermarks in training, so that it is the voice that is learnt and not the marks.
"""

import argparse
import json
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import attacks
from benchmarks.marks_fit import CORPORA, RESULTS, write
from benchmarks.speak import HELD_OUT_EVERY, SENTENCES, enrol, short_sentences
from sayso.inference.audio import read_audio
from sayso.inference.keyed import Keyed
from sayso.inference.marks import Marks
from sayso.inference.store import Store
from sayso.inference.synthesizer import Synthesizer
from sayso.inference.synthetic import (
    FOLDER,
    KINDS,
    RATE,
    WINDOW,
    Synthetic,
    SyntheticConfig,
    load_synthetic,
    log_odds,
)
from sayso.inference.watermark import load_watermarker
from sayso.model.bundle import BUNDLED
from sayso.model.checkpoint import save_module
from sayso.model.codec import load_codec
from sayso.model.errors import InputError, UnfinishedError
from sayso.training.readers import Utterance, read_corpus
from sayso.training.split import held_out

RUN = Path(__file__).resolve().parents[1] / "runs" / "synthetic"
VOICES = {"train": 90, "test": 25}
EACH = {"train": 2, "test": 5}
OWN = {"train": 40, "test": 24}  # sentences of Kathleen and of nobody each
STEPS, BATCH, PEAK = 600, 36, 2e-3
EXCERPT = 6.0  # seconds of each recording that are trained on
FALSE_ALARMS = 0.02  # share of others that the shipped threshold lets through, on training voices


def split_of(corpus: str, utterance: Utterance) -> str:
    return "test" if held_out(utterance.id, HELD_OUT_EVERY[corpus]) else "train"


def corpus(name: str, split: str) -> list[Utterance]:
    return [u for u in read_corpus(name, CORPORA / name) if split_of(name, u) == split]


def speak(splits: tuple[str, ...] = ("test", "train")) -> None:
    """Marked speech of our model in corpus voices; what is there is not said again."""
    with tempfile.TemporaryDirectory() as home, Store.open(Path(home) / "home") as store:
        speaker = Synthesizer(BUNDLED, store)
        for split in splits:
            folder = RUN / split
            folder.mkdir(parents=True, exist_ok=True)
            for voice, texts in casting(speaker, split):
                for number, text in enumerate(texts):
                    out = folder / f"{voice}-{number}.wav"
                    if out.exists():
                        continue
                    try:
                        speaker.speak(text, voice, out, purpose="benchmark", seed=number)
                    except UnfinishedError as error:
                        print(error)
            print(split, len(list(folder.glob("*.wav"))), flush=True)


def casting(speaker: Synthesizer, split: str) -> Iterator[tuple[str, list[str]]]:
    """Who says what: readers the sentences of others, Kathleen and nobody everyday ones."""
    readers = corpus("librispeech-clips", split)
    said = short_sentences(readers)
    random = np.random.default_rng(len(split))
    for reader in readers[: VOICES[split]]:
        others = [text for who, text in said if who != reader.speaker]
        texts = [others[i] for i in random.permutation(len(others))[: EACH[split]]]
        try:
            enrol(speaker, f"reader-{reader.speaker}", "LibriSpeech", reader, texts)
        except InputError as error:
            print(f"{reader.speaker} left out: {error}")
            continue
        yield f"reader-{reader.speaker}", texts
    own = SENTENCES.read_text().splitlines()
    texts = own[: OWN[split]] if split == "train" else own[-OWN[split] :]
    prompt = corpus("kathleen", split)[0]
    enrol(speaker, f"kathleen-{split}", "Kathleen", prompt, texts)
    yield f"kathleen-{split}", texts
    yield "nobody", texts


def narrow(path: Path) -> np.ndarray:
    """(samples,) at 16 kHz."""
    audio, rate = soundfile.read(path, dtype="float32")
    return soxr.resample(audio, rate, RATE).astype(np.float32)


def clips(split: str, marked: bool) -> dict[str, list[tuple[str, np.ndarray]]]:
    """(voice, audio) of each kind; `marked` puts our watermarks on what is not ours."""
    codec = load_codec(BUNDLED / "codec")
    marks = Marks(load_watermarker(), Keyed(b"k" * 32)) if marked else None
    found: dict[str, list[tuple[str, np.ndarray]]] = {kind: [] for kind in KINDS}
    for name, every in (("librispeech-clips", 1), ("kathleen", 4 if split == "train" else 1)):
        for utterance in corpus(name, split)[::every]:
            real = read_audio(utterance.path, codec.sample_rate)
            if split == "train":
                real = real[:, : int(EXCERPT * codec.sample_rate)]
            coded = codec.decode(codec.encode(real))
            for kind, audio in ((KINDS[0], real[0]), (KINDS[1], coded[0])):
                if marks is not None:
                    audio = marks.embed(audio, codec.sample_rate, "g-" + "0" * 32)
                low = soxr.resample(audio.numpy(), codec.sample_rate, RATE).astype(np.float32)
                voice = "kathleen" if name == "kathleen" else f"reader-{utterance.speaker}"
                found[kind].append((voice, low))
    for path in sorted((RUN / split).glob("*.wav")):
        found[KINDS[2]].append((path.stem.rsplit("-", 1)[0], narrow(path)))
    return found


def crop(audio: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """3 s from anywhere; shorter audio is repeated."""
    while len(audio) < WINDOW:
        audio = np.concatenate([audio, audio])
    start = random.integers(0, len(audio) - WINDOW + 1)
    return audio[start : start + WINDOW]


def disturbed(audio: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """The same for all kinds: noise, a low-pass, a quieter or louder take, MP3 now and then."""
    level = np.sqrt(np.square(audio).mean()) + 1e-6
    if random.random() < 0.5:
        noise = random.standard_normal(len(audio)) * level * 10 ** (-random.uniform(10, 40) / 20)
        audio = audio + noise.astype(np.float32)
    if random.random() < 0.3:
        spectrum = np.fft.rfft(audio)
        edge = int(random.uniform(0.4, 1.0) * len(spectrum))
        spectrum[edge:] *= 0.01
        audio = np.fft.irfft(spectrum, len(audio)).astype(np.float32)
    if random.random() < 0.03:  # ffmpeg is slow
        audio = mp3(audio)[: len(audio)]
        audio = np.pad(audio, (0, WINDOW - len(audio)))
    return audio * np.float32(10 ** random.uniform(-1, 0.5))


def mp3(audio: np.ndarray, bits: str = "32k") -> np.ndarray:
    run = attacks.codec("mp3", "-b:a", bits)
    wide = soxr.resample(audio, RATE, attacks.RATE).astype(np.float32)
    back = run(np.clip(wide, -1, 1), np.random.default_rng(0))
    return soxr.resample(back, attacks.RATE, RATE).astype(np.float32)


def train() -> None:
    """The network on balanced batches; AdamW, one cycle."""
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    heard = clips("train", marked=True)
    print({kind: len(group) for kind, group in heard.items()}, flush=True)
    # Every tenth voice's clips choose the threshold and are not trained on.
    names = sorted({voice for group in heard.values() for voice, _ in group})
    kept = set(names[::10]) - {"kathleen", "kathleen-train", "nobody"}
    learnt = {k: [a for v, a in group if v not in kept] for k, group in heard.items()}
    model = Synthetic(SyntheticConfig())
    print(sum(p.numel() for p in model.parameters()), "parameters", flush=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK, total_steps=STEPS)
    labels = torch.arange(BATCH) % len(KINDS)
    model.train()
    for step in range(STEPS):
        groups = [learnt[KINDS[label]] for label in labels.tolist()]
        drawn = [group[random.integers(len(group))] for group in groups]
        batch = np.stack([disturbed(crop(each, random), random) for each in drawn])
        loss = F.cross_entropy(model(torch.from_numpy(batch).float()), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 99:
            print(step + 1, round(float(loss), 4), flush=True)
    model.eval()
    others = [
        log_odds(model, torch.from_numpy(audio))
        for kind in KINDS[:2]
        for voice, audio in heard[kind]
        if voice in kept
    ]
    threshold = round(float(np.quantile(others, 1 - FALSE_ALARMS)), 3)
    save_module(FOLDER, model, SyntheticConfig(threshold=max(threshold, 0.0)))
    print("threshold", threshold, "from", len(others), "clips of", len(kept), "voices")


def equal_error(others: np.ndarray, ours: np.ndarray) -> float:
    """Where as many of the others are called ours as of ours are missed."""
    limits = np.sort(np.concatenate([others, ours]))
    alarms = np.array([(others >= limit).mean() for limit in limits])
    misses = np.array([(ours < limit).mean() for limit in limits])
    best = np.argmin(np.abs(alarms - misses))
    return float((alarms[best] + misses[best]) / 2)


def interval(others: np.ndarray, ours: np.ndarray) -> list[float]:
    """95 % of 500 bootstraps of the equal error rate."""
    random = np.random.default_rng(0)
    drawn = [
        equal_error(random.choice(others, len(others)), random.choice(ours, len(ours)))
        for _ in range(500)
    ]
    return np.round(np.quantile(drawn, [0.025, 0.975]), 4).tolist()


def espeak(text: str, voice: str) -> np.ndarray:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "a.wav"
        subprocess.run(["espeak-ng", "-v", voice, "-w", str(out), text], check=True)
        return narrow(out)


def flite(text: str, voice: str) -> np.ndarray:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "a.wav"
        subprocess.run(["flite", "-voice", voice, "-t", text, "-o", str(out)], check=True)
        return narrow(out)


def measure() -> None:
    """Error rates on kept-out speakers and sentences, disturbed ones, and strangers."""
    model = load_synthetic()
    limit = model.config.threshold
    heard = {"as recorded": clips("test", False), "marked": clips("test", True)}
    random = np.random.default_rng(1)

    def noisy(audio: np.ndarray) -> np.ndarray:
        return attacks.noise(20)(audio, random).astype(np.float32)

    changes: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "MP3 32k": mp3,
        "noise 20 dB": noisy,
        "3 s only": lambda audio: crop(audio, random),
    }
    for name, change in changes.items():
        heard[name] = {
            kind: [(voice, change(audio)) for voice, audio in group]
            for kind, group in heard["as recorded"].items()
        }
    rows: dict[str, Any] = {}
    for name, groups in heard.items():
        scores = {
            kind: np.array([log_odds(model, torch.from_numpy(a)) for _, a in group])
            for kind, group in groups.items()
        }
        voices = {kind: np.array([v for v, _ in group]) for kind, group in groups.items()}
        rows[name] = compared(scores, limit)
        if name == "as recorded":
            for label, of in (("readers", "reader"), ("Kathleen", "kathleen")):
                part = {k: s[[v.startswith(of) for v in voices[k]]] for k, s in scores.items()}
                rows[f"{label} only"] = compared(part, limit)
            mine = scores[KINDS[2]][voices[KINDS[2]] == "nobody"]
            rows["nobody"] = {"ours missed": float((mine < limit).mean()), "clips": len(mine)}
    texts = SENTENCES.read_text().splitlines()[:25]
    strangers = {
        "espeak-ng": [espeak(t, v) for t, v in zip(texts, ["en-us", "en-gb+f3"] * 13, strict=False)]
    }
    try:
        voices_of = ["slt", "awb", "rms"] * 9
        strangers["flite"] = [flite(t, v) for t, v in zip(texts, voices_of, strict=False)]
    except FileNotFoundError:
        print("flite is not installed (apt-get install flite): left out")
    for name, group in strangers.items():
        scores = np.array([log_odds(model, torch.from_numpy(audio)) for audio in group])
        rows[f"never heard: {name}"] = {
            "called ours": float((scores >= limit).mean()),
            "clips": len(scores),
        }
    sound = torch.from_numpy(np.concatenate([a for _, a in heard["marked"][KINDS[0]]]))[: 60 * RATE]
    rows["seconds of work per second"] = cost(model, sound)
    rows["parameters"] = sum(p.numel() for p in model.parameters())
    rows["threshold"] = limit
    write("synthetic.json", rows)
    print(json.dumps(rows, indent=1))


def cost(model: Synthetic, audio: Tensor) -> float:
    import time

    start = time.process_time()
    log_odds(model, audio)
    return round((time.process_time() - start) / (len(audio) / RATE), 4)


def compared(scores: dict[str, np.ndarray], limit: float) -> dict[str, Any]:
    """Ours against each of the others, and against both."""
    ours = scores[KINDS[2]]
    row: dict[str, Any] = {
        "clips": {kind: len(values) for kind, values in scores.items()},
        "ours missed": float((ours < limit).mean()),
    }
    for kind in KINDS[:2]:
        row[f"{kind}, called ours"] = float((scores[kind] >= limit).mean())
        row[f"{kind}, equal error"] = equal_error(scores[kind], ours)
    both = np.concatenate([scores[kind] for kind in KINDS[:2]])
    row["equal error"] = equal_error(both, ours)
    row["equal error, 95 %"] = interval(both, ours)
    return row


def page() -> None:
    """docs/detector.md from what was measured."""
    rows = json.loads((RESULTS / "synthetic.json").read_text())
    lines = [
        HEAD.format(rows["parameters"], rows["seconds of work per second"], rows["threshold"]),
        "| on | real called ours | through the codec called ours | ours missed "
        "| equal error (95 %) | clips |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        if isinstance(row, dict) and "equal error" in row:
            low, high = row["equal error, 95 %"]
            real, coded = (row[f"{kind}, called ours"] for kind in KINDS[:2])
            lines.append(
                f"| {name} | {real:.1%} | {coded:.1%} | {row['ours missed']:.1%} | "
                f"{row['equal error']:.1%} ({low:.1%}-{high:.1%}) | "
                f"{' / '.join(str(n) for n in row['clips'].values())} |"
            )
    lines.append(f"\nIn the voice of nobody {rows['nobody']['ours missed']:.0%} are missed.\n")
    lines += [
        "## Generators it never heard\n",
        "| generator | called ours | clips |\n|---|---|---|",
    ]
    for name, row in rows.items():
        if name.startswith("never heard: "):
            lines.append(f"| {name[13:]} | {row['called ours']:.0%} | {row['clips']} |")
    (RESULTS.parents[1] / "docs" / "detector.md").write_text("\n".join(lines) + TAIL)


HEAD = """# Does it sound like our model?
Written by `python -m benchmarks.synthetic page` from `benchmarks/results/synthetic.json`.

A network of {:,} parameters (`inference/synthetic.py`) beside the marks, for speech of ours that
lost them. It tells real recordings, real recordings through our codec and what the bundled model
says apart, in {} s of work per second of sound on one core. `sayso detect` shows its log-odds;
from {} on it says "like ours". It is a hint and no proof, and it decides nothing.

Kept out of training: 25 readers of LibriSpeech, 24 sentences of Kathleen. "marked" has our marks
on all three kinds, the other rows on ours alone; the network was trained with marks on all.
"""
TAIL = """

It was trained to know one model: speech of other generators is **not** found, and no figure above
says anything about them. A new bundled model or codec needs a new training.
"""
PARTS = {"speak": speak, "train": train, "measure": measure, "page": page}


def main() -> None:
    parser = argparse.ArgumentParser(description="The detector of our model's speech.")
    parser.add_argument("what", nargs="*", choices=[*PARTS, []], default=[])
    torch.set_num_threads(1)
    for name in parser.parse_args().what or PARTS:
        PARTS[name]()


if __name__ == "__main__":
    main()
