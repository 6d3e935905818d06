"""More speakers than were recorded: copies of utterances with other pitch, formants and speed.

Zero-shot TTS needs thousands of speakers (VALL-E 2 has 7,000); a small consented corpus has few. A
copy is the same sentence by a speaker who does not exist, made in the vocoder's terms.
"""

import hashlib
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sayso.model.codecs.voice_edit import Alteration

from ..shards import COPY

VOICES = 40
"""Alterations of each recorded speaker and copy: few enough that a voice has several sentences."""
SEMITONES, RESONANCES, SPEEDS = 4.0, (0.86, 1.16), (0.88, 1.15)
NEUTRAL = 0.25
"""How much of pitch and formants is altered where all speech is in one timbre: as much as a prompt,
measured in a few seconds, may still be away from it."""


def altered_speaker(
    utterance: str, speaker: str, copy: int, strength: float = 1.0
) -> tuple[str, Alteration]:
    """Who says copy number `copy` of an utterance, and how that voice differs: always the same."""
    voice = int(hashlib.sha256(utterance.encode()).hexdigest(), 16) % VOICES
    name = f"{speaker}{COPY}{copy}.{voice}"
    random = np.random.default_rng(list(hashlib.sha256(name.encode()).digest()))
    pitch, formant, speed = random.uniform(
        [-SEMITONES, RESONANCES[0], SPEEDS[0]], [SEMITONES, RESONANCES[1], SPEEDS[1]]
    )
    return name, Alteration(float(speed), float(strength * pitch), float(formant**strength))


def altered_row(
    row: dict[str, Any], copy: int, speaker: str, edit: Alteration, codes: Tensor
) -> dict[str, Any]:
    """Copy number `copy` of a row of a shard, said by another speaker as codes (K, T)."""
    return row | {
        "id": f"{row['id']}{COPY}{copy}",
        "speaker": speaker,
        "starts": np.rint(row["starts"] / edit.speed).astype(np.int32),
        "codes": codes.flatten().to(torch.int16).numpy(),
        "frames": codes.shape[1],
    }
