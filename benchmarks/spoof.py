"""Fit the spoof score and measure it: `python -m benchmarks.spoof [OUT.json]` (about 90 s of CPU).

Real: 3 s of every second reader of ../shared/corpora/librispeech-clips. Spoofed: the same through
WORLD (pyworld, 10 ms). Half of the readers fit the weights, the other half gives the error rates.
Then what it has not seen: MP3, Griffin-Lim from 80 mel bands, another reader and microphone.
"""

import io
import json
import sys
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import pyworld as compiled
import soundfile
from scipy.optimize import minimize

from sayso.inference.consent.recording import RATE, Audio
from sayso.inference.spoof import spoof_features
from sayso.model.audio import resample

pyworld: Any = compiled  # a compiled module, without types
CORPORA = Path(__file__).resolve().parents[2] / "shared" / "corpora"
SECONDS = 3


def world(audio: Audio) -> Audio:
    wide = audio.astype(np.float64)
    pitch, times = pyworld.dio(wide, RATE, frame_period=10.0)
    pitch = pyworld.stonemask(wide, pitch, times, RATE)
    envelope = pyworld.cheaptrick(wide, pitch, times, RATE)
    noise = pyworld.d4c(wide, pitch, times, RATE)
    made = pyworld.synthesize(pitch, envelope, noise, RATE, 10.0)
    return made[: len(audio)].astype(np.float32)


def mp3(audio: Audio) -> Audio:
    file = io.BytesIO()
    soundfile.write(file, audio, RATE, format="MP3")
    file.seek(0)
    return np.asarray(soundfile.read(file, dtype="float32")[0], np.float32)


def griffin_lim(audio: Audio) -> Audio:
    mel = librosa.feature.melspectrogram(y=audio, sr=RATE, n_fft=1024, hop_length=256, n_mels=80)
    return librosa.feature.inverse.mel_to_audio(
        mel, sr=RATE, n_fft=1024, hop_length=256, n_iter=16
    ).astype(np.float32)


def read(path: Path, seconds: int = SECONDS) -> Audio:
    audio, rate = soundfile.read(path, dtype="float32")
    audio = resample(audio, rate, RATE)
    return audio[RATE // 4 :][: seconds * RATE]


def fit(real: np.ndarray, spoofed: np.ndarray) -> dict[str, np.ndarray]:
    """Logistic regression with a ridge of 1 on standardised features."""
    both = np.concatenate([real, spoofed])
    label = np.repeat([-1.0, 1.0], [len(real), len(spoofed)])
    mean, scale = both.mean(axis=0), both.std(axis=0) + 1e-9
    data = (both - mean) / scale

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        margin = label * (data @ weights[:-1] + weights[-1])
        slope = -label / (1 + np.exp(margin))
        gradient = np.append(data.T @ slope + weights[:-1], slope.sum())
        return np.logaddexp(0, -margin).sum() + 0.5 * np.square(weights[:-1]).sum(), gradient

    found = minimize(loss, np.zeros(data.shape[1] + 1), jac=True, method="L-BFGS-B").x
    return {"mean": mean, "scale": scale, "slope": found[:-1], "offset": found[-1:]}


def score(weights: dict[str, np.ndarray], features: np.ndarray) -> np.ndarray:
    return ((features - weights["mean"]) / weights["scale"]) @ weights["slope"] + weights["offset"]


def equal_error(real: np.ndarray, spoofed: np.ndarray) -> float:
    limits = np.sort(np.concatenate([real, spoofed]))
    alarms = np.array([(real >= limit).mean() for limit in limits])
    misses = np.array([(spoofed < limit).mean() for limit in limits])
    best = np.argmin(np.abs(alarms - misses))
    return float((alarms[best] + misses[best]) / 2)


def main() -> None:
    clips = [read(path) for path in sorted((CORPORA / "librispeech-clips/audio").iterdir())[::2]]
    clips = [clip for clip in clips if len(clip) == SECONDS * RATE]
    real = np.array([spoof_features(clip) for clip in clips])
    spoofed = np.array([spoof_features(world(clip)) for clip in clips])
    weights = fit(real[::2], spoofed[::2])
    held_out, good, bad = clips[1::2], score(weights, real[1::2]), score(weights, spoofed[1::2])
    others = {
        "real, MP3": [mp3(clip) for clip in held_out],
        "real, Kathleen": [
            read(path) for path in sorted((CORPORA / "kathleen/audio").iterdir())[::12]
        ],
        "WORLD, MP3": [mp3(world(clip)) for clip in held_out[:20]],
        "Griffin-Lim (unseen)": [griffin_lim(clip) for clip in held_out[:20]],
    }
    figures: dict[str, float | int] = {
        "readers fitted": len(real[::2]),
        "readers held out": len(good),
        "equal error rate": equal_error(good, bad),
        "real called spoofed at .5": float((good >= 0).mean()),
        "WORLD called spoofed at .5": float((bad >= 0).mean()),
    }
    for name, group in others.items():
        found = score(weights, np.array([spoof_features(clip) for clip in group]))
        figures[f"{name} called spoofed at .5"] = float((found >= 0).mean())
    for name, value in figures.items():
        print(f"{name:45} {value:.4g}")
    if len(sys.argv) > 1:
        lists = {name: np.round(values, 6).tolist() for name, values in weights.items()}
        lists["offset"] = lists["offset"][0]
        Path(sys.argv[1]).write_text(json.dumps({"figures": figures} | lists, indent=1) + "\n")


if __name__ == "__main__":
    main()
