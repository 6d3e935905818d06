"""Prompts made to fool the speaker encoder: `python -m benchmarks.fooled [CLIPS]`.

Gradient steps on Resemblyzer's public weights turn one reader's clip into one that has another's
embedding (Adam, the noise held at `DECIBELS` below the clip). `expected` attacks in expectation
over the enrolment's own changes (Athalye et al., arXiv:1707.07397). Measured beside it: what
genuine prompts score through the same changes, which sets the limits. Needs ../shared/corpora;
genuine prompts about 10 minutes, an attacked clip 2 to 10.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import torch
from torch import Tensor

from benchmarks import readings
from benchmarks.consent import CLIPS
from sayso.inference.consent import changes
from sayso.inference.consent.recording import RATE, Audio, prepared
from sayso.inference.recognisers import Ears, embedding, least_alike, load_ears, same_speaker
from sayso.model.audio import read_audio
from sayso.model.bundle import BUNDLED
from sayso.model.codecs.load import load_codec
from sayso.model.files import write_json

RESULTS = Path(__file__).resolve().parent / "results" / "fooled.json"
STEPS, DECIBELS, SECONDS = 300, 17.0, 6
WINDOW, HOP = 160, 77  # frames of 10 ms


def clip(path: Path) -> Audio:
    return prepared(read_audio(path, RATE)[0].numpy())


def kathleen(start: int, count: int) -> Audio:
    names = list(readings.transcripts())[start : start + count]
    return prepared(np.concatenate([readings.clip(name) for name in names]))


def embedded(encoder: Any, audio: Tensor, bands: Tensor) -> Tensor:
    """The embedding that Resemblyzer would have of (samples,), with a gradient."""
    window = torch.hann_window(400)
    spectrum = torch.stft(audio, 400, 160, window=window, return_complex=True, pad_mode="constant")
    mels = (bands @ spectrum.abs().square()).T  # (frames, 40)
    starts = range(0, len(mels) - WINDOW + 1, HOP)
    each = encoder(torch.stack([mels[start : start + WINDOW] for start in starts]))
    mean = each.mean(0)
    return mean / mean.norm()


def changed(audio: Tensor, rng: np.random.Generator) -> Tensor:
    """A change like one of the enrolment's, drawn afresh, with a gradient."""
    kind = rng.integers(4)
    if kind == 0:
        return audio
    if kind == 1:
        scale = float(rng.uniform(0.93, 1.07))
        return torch.nn.functional.interpolate(
            audio[None, None], scale_factor=scale, mode="linear"
        )[0, 0]
    if kind == 2:
        level = audio.detach().square().mean().sqrt() * 10 ** (-rng.uniform(20, 35) / 20)
        return audio + level * torch.from_numpy(rng.standard_normal(len(audio)).astype(np.float32))
    cut = int(rng.uniform(2500, 6000) / (RATE / 2) * (len(audio) // 2 + 1))
    spectrum = torch.fft.rfft(audio)
    return torch.fft.irfft(torch.cat([spectrum[:cut], 0 * spectrum[cut:]]), len(audio))


def attack(
    ears: Ears, stranger: Audio, target: Audio, expected: int, seed: int
) -> tuple[Audio, float]:
    """A stranger's clip with the target's embedding; and how many seconds that took."""
    bands = torch.from_numpy(librosa.filters.mel(sr=RATE, n_fft=400, n_mels=40))
    wanted = torch.from_numpy(embedding(ears.voices(target)))
    clean, rng, began = torch.from_numpy(stranger), np.random.default_rng(seed), time.process_time()
    noise = torch.zeros_like(clean, requires_grad=True)
    loudest = clean.square().mean().sqrt() * 10 ** (-DECIBELS / 20)
    optimiser = torch.optim.Adam([noise], lr=2e-3)
    for _ in range(STEPS):
        sound = clean + noise
        tries = [changed(sound, rng) for _ in range(expected)] if expected else [sound]
        likeness = [embedded(ears.encoder, one, bands) @ wanted for one in tries]
        loss = -torch.stack(likeness).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            level = noise.square().mean().sqrt()
            noise.mul_(min(1.0, float(loudest / level)))
    return (clean + noise).detach().numpy().astype(np.float32), time.process_time() - began


def scores(ears: Ears, codec: Any, consent: Audio, prompt: Audio) -> dict[str, float]:
    """Likeness to the consent, as it is and through each change."""
    own = ears.voices(consent)
    found = {"as it is": same_speaker(own, ears.voices(prompt))}
    found["least stretch"] = least_alike(own, ears.voices(prompt))
    for name, audio in changes.heard_again(prompt, codec).items():
        windows = ears.voices(audio)
        found[name] = same_speaker(own, windows) if len(windows) else 0.0
    return found


def main() -> None:
    """Measure genuine prompts, then attack; goes on where it ended."""
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("attacks", nargs="?", type=int, default=3, help="of each kind")
    attacks = parser.parse_args().attacks
    ears, codec = load_ears(), load_codec(BUNDLED / "codec")
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"genuine": [], "attacked": []}
    paths = sorted((CLIPS / "audio").iterdir())
    pairs = [(kathleen(40 * i, 4), kathleen(40 * i + 20, 2)) for i in range(20)]
    halves = [audio for path in paths[::4] if len(audio := clip(path)) > 13 * RATE]
    pairs += [(audio[: len(audio) // 2], audio[len(audio) // 2 :]) for audio in halves]
    for consent, prompt in pairs[len(kept["genuine"]) :]:
        kept["genuine"].append(scores(ears, codec, consent, prompt))
        print(kept["genuine"][-1], file=sys.stderr, flush=True)
        write_json(RESULTS, kept)
    for place in range(len(kept["attacked"]), 2 * attacks):
        stranger, target = clip(paths[7 * place // 2 * 2 + 3])[: SECONDS * RATE], kathleen(0, 4)
        before = scores(ears, codec, target, stranger)
        made, seconds = attack(ears, stranger, target, 4 * (place % 2), place)
        noise = 10 * np.log10(np.square(stranger).mean() / np.square(made - stranger).mean())
        row = {
            "expected": place % 2,
            "seconds": seconds,
            "decibels": float(noise),
            "before": before,
        }
        kept["attacked"].append(row | {"after": scores(ears, codec, target, made)})
        print(kept["attacked"][-1], file=sys.stderr, flush=True)
        write_json(RESULTS, kept)


if __name__ == "__main__":
    main()
