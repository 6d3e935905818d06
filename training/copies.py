"""More speakers than were recorded: copies of utterances with other pitch, formants and speed.

Zero-shot TTS needs thousands of speakers (VALL-E 2 has 7,000); a small consented corpus has few. A
copy is the same sentence by a speaker who does not exist, made in the vocoder's terms.
"""

import hashlib
from typing import Any

import numpy as np
import torch

from sayso.model.alter import Alteration, alter
from sayso.model.codec import Codec
from sayso.model.errors import InputError
from sayso.model.world import WorldCodec, analyse

from .shards import COPY

VOICES = 40
"""Alterations of each recorded speaker and copy: few enough that a voice has several sentences."""
SEMITONES, RESONANCES, SPEEDS = 4.0, (0.86, 1.16), (0.88, 1.15)


def altered_speaker(utterance: str, speaker: str, copy: int) -> tuple[str, Alteration]:
    """Who says copy number `copy` of an utterance, and how that voice differs: always the same."""
    voice = int(hashlib.sha256(utterance.encode()).hexdigest(), 16) % VOICES
    name = f"{speaker}{COPY}{copy}.{voice}"
    random = np.random.default_rng(list(hashlib.sha256(name.encode()).digest()))
    pitch, formant, speed = random.uniform(
        [-SEMITONES, RESONANCES[0], SPEEDS[0]], [SEMITONES, RESONANCES[1], SPEEDS[1]]
    )
    return name, Alteration(float(speed), float(pitch), float(formant))


def altered_rows(
    row: dict[str, Any], audio: torch.Tensor, codec: Codec, copies: int
) -> list[dict[str, Any]]:
    """Copies of one row of a shard, whose speech is `audio` (1, samples).

    Raises:
        InputError: The codec does not know pitch and formants.
    """
    if not isinstance(codec, WorldCodec):
        raise InputError(f"data.copies needs a WORLD codec, this is {type(codec).__name__}")
    features = analyse(audio[0].numpy(), codec.config)
    rows = []
    for copy in range(1, copies + 1):
        speaker, alteration = altered_speaker(row["id"], row["speaker"], copy)
        codes = codec.quantize(alter(features, codec.config, alteration))  # (K, T)
        starts = np.rint(row["starts"] / alteration.speed).astype(np.int32)
        made = {"id": f"{row['id']}{COPY}{copy}", "speaker": speaker, "frames": codes.shape[1]}
        rows.append(
            row | made | {"starts": starts, "codes": codes.flatten().to(torch.int16).numpy()}
        )
    return rows
