"""Make, train and measure the detector of our model's speech (inference/detection/classifier.py).

    python -m tools.fit_classifier           all of it; goes on where it was stopped
    python -m tools.fit_classifier speak     real speech, coded speech, and what our model says
    python -m tools.fit_classifier train     the network; weights to src/sayso/assets/synthetic
    python -m tools.fit_classifier measure   error rates to benchmarks/results/synthetic.json
    python -m tools.fit_classifier page      docs/detector.md from these

Do it again when the bundled model or codec changes. Real speech: the shared corpora; what is kept
out (25 readers, 28 sentences of Kathleen) is kept out here, too. Real speech goes through the codec
for the hard negative. Ours is spoken in corpus voices of training readers and, to be measured on,
of kept-out ones, each saying other readers' sentences. All three carry our watermarks in training,
so that it is the voice that is learnt and not the marks. `--every 4` tries it out on a quarter
(3.4, 1.4 and 0.8 minutes of one core for speak, train, measure); the weights then say "trial".
Strangers: `apt-get install espeak-ng flite festival festvox-kallpc16k`.
"""

import argparse
import itertools
import json
import shutil
import time
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import attacks
from benchmarks.results import read, write
from benchmarks.speak import SENTENCES
from benchmarks.synthesisers import FESTIVAL, espeak, flite, say
from sayso.inference.detection.classifier import (
    FOLDER,
    KINDS,
    RATE,
    WINDOW,
    Synthetic,
    SyntheticConfig,
    load_synthetic,
    log_odds,
    model_identity,
)
from sayso.model.checkpoint import CONFIG, read_config, save_module
from tools.classifier_clips import Clips, load, narrow, prepare, speak
from tools.classifier_page import write_page

STEPS, BATCH, PEAK = 1350, 24, 3e-3
FALSE_ALARMS = 0.02  # share of others that the shipped threshold lets through, on training voices
FEW = 40  # clips of a kind that go through a program of another's, which takes long to start
BOOTSTRAPS = 500


def make(every: int) -> None:
    """All sound, whatever is not there yet."""
    for split, marked in (("train", True), ("test", False), ("test", True)):
        prepare(split, marked, every)
    for split in ("test", "train"):
        speak(split, every)


def crop(audio: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """`WINDOW` samples from anywhere; shorter audio is repeated."""
    while len(audio) < WINDOW:
        audio = np.concatenate([audio, audio])
    start = random.integers(0, len(audio) - WINDOW + 1)
    return audio[start : start + WINDOW]


def disturbed(audio: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """The same for all kinds: ripples, noise, a low-pass, another level, MP3 now and then.

    The ripples hide PerTh's mark, which is one: else recordings without it would be new to it.
    """
    if random.random() < 0.7:
        spectrum = np.fft.rfft(audio)
        gains = np.repeat(random.normal(0.0, 2.0, 256), -(-len(spectrum) // 256))
        audio = np.fft.irfft(spectrum * 10 ** (gains[: len(spectrum)] / 20), len(audio))
        audio = audio.astype(np.float32)
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


def mp3(audio: np.ndarray) -> np.ndarray:
    """32 kbit/s, (samples,) at 16 kHz."""
    wide = attacks.soxr.resample(audio, RATE, attacks.RATE).astype(np.float32)
    run = attacks.ATTACKS["MP3 32 kbit/s"]
    return narrow(run(np.clip(wide, -1, 1), np.random.default_rng(0)), attacks.RATE)


def train(every: int) -> None:
    """The network on balanced batches; AdamW, one cycle. Not again for the same model."""
    if (FOLDER / CONFIG).exists() and read_config(FOLDER).get("model") == model_identity():
        print(f"{FOLDER} knows this model: delete it to train it anew")
        return
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    heard = {
        kind: [(voice, narrow(audio, attacks.RATE)) for voice, audio in group]
        for kind, group in load("train", marked=True).items()
    }
    print({kind: len(group) for kind, group in heard.items()}, flush=True)
    # Every tenth voice's clips choose the threshold and are not trained on.
    names = sorted({voice for group in heard.values() for voice, _ in group})
    kept = set(names[::10]) - {"kathleen", "nobody"}
    learnt = {k: [a for v, a in group if v not in kept] for k, group in heard.items()}
    model = Synthetic(SyntheticConfig())
    print(sum(p.numel() for p in model.parameters()), "parameters", flush=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK, weight_decay=0.02)
    steps = STEPS // every
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK, total_steps=steps)
    labels = torch.arange(BATCH) % len(KINDS)
    model.train()
    for step in range(steps):
        groups = [learnt[KINDS[label]] for label in labels.tolist()]
        drawn = [group[random.integers(len(group))] for group in groups]
        batch = np.stack([disturbed(crop(each, random), random) for each in drawn])
        loss = F.cross_entropy(model(torch.from_numpy(batch).float()), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 50 == 49:
            print(step + 1, round(loss.item(), 4), flush=True)
    model.eval()
    others = [
        log_odds(model, torch.from_numpy(audio))
        for kind in KINDS[:2]
        for voice, audio in heard[kind]
        if voice in kept
    ]
    threshold = max(round(float(np.quantile(others, 1 - FALSE_ALARMS)), 3), 0.0)
    learnt_of = model_identity() + (" (trial)" if every > 1 else "")
    save_module(FOLDER, model, SyntheticConfig(threshold=threshold, model=learnt_of))
    print("threshold", threshold, "from", len(others), "clips of", len(kept), "voices")


def equal_error(others: np.ndarray, ours: np.ndarray) -> float:
    """Where as many of the others are called ours as of ours are missed."""
    limits = np.sort(np.concatenate([others, ours]))
    alarms = 1 - np.searchsorted(np.sort(others), limits) / len(others)  # others >= limit
    misses = np.searchsorted(np.sort(ours), limits) / len(ours)  # ours < limit
    best = np.argmin(np.abs(alarms - misses))
    return float((alarms[best] + misses[best]) / 2)


def interval(others: dict[str, list[float]], ours: dict[str, list[float]]) -> list[float]:
    """95 % of the equal error rate when voices are drawn anew: clips of one voice are alike."""
    random = np.random.default_rng(0)

    def redrawn(voices: list[list[float]]) -> np.ndarray:
        picked = random.integers(len(voices), size=len(voices))
        return np.concatenate([voices[i] for i in picked])

    pools = list(others.values()), list(ours.values())
    drawn = [equal_error(*(redrawn(pool) for pool in pools)) for _ in range(BOOTSTRAPS)]
    return np.round(np.quantile(drawn, [0.025, 0.975]), 4).tolist()


def strangers(texts: list[str]) -> dict[str, list[np.ndarray]]:
    """Speech of generators that the network never heard; those that are not installed, left out."""
    found: dict[str, list[np.ndarray]] = {}
    ways = {
        "espeak-ng (formants)": [espeak("en-us"), espeak("en-gb+f3")],
        "flite (HMM, clustered units)": [flite("slt"), flite("awb"), flite("rms")],
        "festival (diphones)": [FESTIVAL],
    }
    for name, commands in ways.items():
        if shutil.which(commands[0][0]) is None:
            print(f"{name} is not installed (see the top of this file): it is left out")
            continue
        turns = zip(itertools.cycle(commands), texts, strict=False)
        found[name] = [say(command, text, RATE) for command, text in turns]
    return found


def conditions() -> dict[str, tuple[int | None, attacks.Attack]]:
    """What is done to all three kinds: how many clips of each, and the change."""
    known = attacks.ATTACKS
    rows: dict[str, tuple[int | None, attacks.Attack]] = {
        "3 s only": (None, attacks.cropped(3)),
        "noise 20 dB": (None, known["noise 20 dB"]),
        "noise 10 dB": (None, known["noise 10 dB"]),
        "telephone": (None, known["telephone"]),
        "reverberation 0.4 s": (None, known["reverberation 0.4 s"]),
    }
    for name in ("MP3 32 kbit/s", "Opus 16 kbit/s", "Codec2 3.2 kbit/s", "WORLD resynthesis"):
        rows[name] = (FEW, known[name])
    return rows


def scored(model: Synthetic, clips: Clips) -> dict[str, dict[str, list[float]]]:
    """Log-odds per kind and voice, of clips at the codec's rate."""
    out: dict[str, dict[str, list[float]]] = {}
    for kind, group in clips.items():
        for voice, audio in group:
            score = log_odds(model, torch.from_numpy(narrow(audio, attacks.RATE)))
            out.setdefault(kind, {}).setdefault(voice, []).append(score)
    return out


def evenly(group: list, few: int | None) -> list:
    return group[:: max(1, -(-len(group) // few))] if few else group


def measure(every: int) -> None:
    """Error rates on kept-out speakers and sentences, disturbed ones, and strangers."""
    model = load_synthetic()
    limit = model.config.threshold
    plain = load("test", marked=False)
    heard = {"as recorded": plain, "marked": load("test", marked=True)}
    for name, (few, change) in conditions().items():
        heard[name] = {
            kind: [
                (voice, change(audio, np.random.default_rng([i, *name.encode()])))
                for i, (voice, audio) in enumerate(evenly(group, few))
            ]
            for kind, group in plain.items()
        }
    rows: dict[str, Any] = {
        "model": model.config.model,
        "threshold": limit,
        "parameters": sum(p.numel() for p in model.parameters()),
        "conditions": {},
    }
    found = {name: scored(model, clips) for name, clips in heard.items()}
    for name, scores in found.items():
        rows["conditions"][name] = compared(scores, limit)
    scores = found["as recorded"]
    rows["voices"] = {
        voice: {
            kind: [sum(s >= limit for s in scores[kind].get(voice, [])), len(by.get(voice, []))]
            for kind, by in scores.items()
        }
        for voice in sorted({voice for by in scores.values() for voice in by})
    }
    real = np.concatenate(list(scores[KINDS[0]].values()))
    rows["strangers"] = {}
    for name, group in strangers(SENTENCES.read_text().splitlines()[:24]).items():
        others = np.array([log_odds(model, torch.from_numpy(audio)) for audio in group])
        rows["strangers"][name] = {
            "called ours": int((others >= limit).sum()),
            "clips": len(others),
            "equal error against recordings": equal_error(real, others),
        }
    sound = np.concatenate([audio for _, audio in plain[KINDS[0]]])[: 60 * attacks.RATE]
    rows["cost"] = cost(model, torch.from_numpy(narrow(sound, attacks.RATE)))
    write("synthetic.json", rows)
    print(json.dumps(rows, indent=1))


def cost(model: Synthetic, audio: Tensor) -> float:
    """CPU seconds per second of sound."""
    start = time.process_time()
    log_odds(model, audio)
    return round((time.process_time() - start) / (len(audio) / RATE), 4)


def compared(scores: dict[str, dict[str, list[float]]], limit: float) -> dict[str, Any]:
    """Ours against each of the others, and against both."""
    flat = {kind: np.concatenate(list(by.values())) for kind, by in scores.items()}
    ours = flat[KINDS[2]]
    row: dict[str, Any] = {
        "called ours": {kind: int((values >= limit).sum()) for kind, values in flat.items()},
        "clips": {kind: len(values) for kind, values in flat.items()},
    }
    both: dict[str, list[float]] = {}
    for kind in KINDS[:2]:
        row[f"equal error, {kind}"] = equal_error(flat[kind], ours)
        row[f"equal error, {kind}, 95 %"] = interval(scores[kind], scores[KINDS[2]])
        for voice, values in scores[kind].items():
            both.setdefault(voice, []).extend(values)
    row["equal error"] = equal_error(np.concatenate(list(both.values())), ours)
    row["equal error, 95 %"] = interval(both, scores[KINDS[2]])
    return row


def page(every: int) -> None:
    write_page(read("synthetic.json"))


PARTS = {"speak": make, "train": train, "measure": measure, "page": page}


def main() -> None:
    parser = argparse.ArgumentParser(description="The detector of our model's speech.")
    parser.add_argument("what", nargs="*", choices=[*PARTS, []], default=[])
    parser.add_argument("--every", type=int, default=1, help="A trial: one clip, step in so many.")
    given = parser.parse_args()
    torch.set_num_threads(1)
    for name in given.what or PARTS:
        start = time.process_time()
        with torch.set_grad_enabled(name == "train"):
            PARTS[name](given.every)
        print(f"{name}: {(time.process_time() - start) / 60:.1f} CPU minutes", flush=True)


if __name__ == "__main__":
    main()
