"""More speakers than were recorded: copies of utterances with other pitch, formants and speed.

Zero-shot TTS needs thousands of speakers (VALL-E 2 has 7,000); a small consented corpus has few. A
copy is the same sentence by a speaker who does not exist, made in the vocoder's terms.
"""

import hashlib
from typing import Any

import numpy as np
import torch

from sayso.model.codecs.voice_edit import Alteration, alter
from sayso.model.codecs.world import Features, WorldCodec

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


def altered_rows(
    row: dict[str, Any], features: Features, codec: WorldCodec, copies: int, strength: float = 1.0
) -> list[dict[str, Any]]:
    """Copies of one row of a shard, whose speech is `features`."""
    rows = []
    for copy in range(1, copies + 1):
        speaker, alteration = altered_speaker(row["id"], row["speaker"], copy, strength)
        codes = codec.quantize(alter(features, codec.config, alteration))  # (K, T)
        starts = np.rint(row["starts"] / alteration.speed).astype(np.int32)
        made = {"id": f"{row['id']}{COPY}{copy}", "speaker": speaker, "frames": codes.shape[1]}
        rows.append(
            row | made | {"starts": starts, "codes": codes.flatten().to(torch.int16).numpy()}
        )
    return rows
