"""Real speech that the marks are fitted to and measured on."""

from pathlib import Path

import numpy as np
from torch import Tensor

from sayso.model.audio import read_audio

CORPORA = Path(__file__).parents[1].parent / "shared/corpora"
RATE = 24_000


def real_clips() -> list[Path]:
    """251 LibriSpeech readers' clips, then Kathleen's."""
    folders = ("librispeech-clips", "kathleen")
    return [p for f in folders for p in sorted((CORPORA / f / "audio").glob("*.flac"))]


def is_fitted_on(path: Path) -> bool:
    """Whether a clip is in the half that fits the weights: by reader, or Kathleen's sentence."""
    name = path.stem.split("-")[0] if "librispeech" in str(path) else path.stem[-4:]
    return int(name) % 2 == 1


def mixed_clips() -> list[Path]:
    """Readers and Kathleen by turns: two readers, one sentence, in a drawn order."""
    clips = real_clips()
    readers, kathleen = clips[:251], clips[251:]
    out: list[Path] = []
    for place, index in enumerate(np.random.default_rng(7).permutation(251)):
        out.append(readers[index])
        if place % 2:
            out.append(kathleen[(place * 9) % len(kathleen)])
    return out


def excerpt(path: Path, seconds: float, rng: np.random.Generator) -> Tensor:
    """(samples,) at `RATE` from a random place, at most `seconds` long."""
    audio = read_audio(path, RATE)[0]
    length = int(seconds * RATE)
    start = int(rng.integers(0, max(1, len(audio) - length + 1)))
    return audio[start : start + length]
