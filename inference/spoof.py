"""A spoof score: how much a recording looks like WORLD-resynthesised speech. Reported, never proof.

A logistic regression on band energies (mean, spread, and spread of change), fitted and measured by
benchmarks/spoof.py on LibriSpeech readers; held-out readers give the error rates in the weights
file. It knows the one vocoder it was fitted on. Detectors of this size are near chance on
generators they have not seen (ASVspoof), and this one is: no decision may rest on it.
"""

import json
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.signal import stft

from sayso.model.files import ASSETS

from .consent.recording import RATE, Audio

WEIGHTS = ASSETS / "spoof" / "world.json"
BANDS = 32


def spoof_features(audio: Audio) -> NDArray[np.float64]:
    """(96,) level-free features of (samples,) audio at 16 kHz, from its louder half."""
    _, _, spectrum = stft(audio, RATE, nperseg=512, noverlap=352)
    power = np.abs(spectrum[1:257]) ** 2
    bands = np.log(power.reshape(BANDS, -1, power.shape[1]).mean(axis=1) + 1e-10)  # (32, frames)
    loudness = bands.mean(axis=0)
    loud = bands[:, loudness >= np.median(loudness)]
    change = np.diff(bands, axis=1)[:, loudness[1:] >= np.median(loudness)]
    mean = loud.mean(axis=1)
    return np.concatenate([mean - mean.mean(), loud.std(axis=1), change.std(axis=1)])


def spoof_score(audio: Audio) -> float:
    """0 (like the recordings it was fitted on) to 1 (like their WORLD resynthesis)."""
    weights = _weights()
    features = (spoof_features(audio) - weights["mean"]) / weights["scale"]
    margin = features @ weights["slope"] + weights["offset"]
    return float(1 / (1 + np.exp(-np.clip(margin, -50, 50))))


@cache
def _weights() -> dict[str, NDArray[np.float64]]:
    found = json.loads(WEIGHTS.read_text())
    return {name: np.array(found[name]) for name in ("mean", "scale", "slope", "offset")}
