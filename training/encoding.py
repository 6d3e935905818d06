"""From utterances to the model's codes: one by one, or many of like lengths at once on a GPU."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sayso.model.codecs.base import Codec
from sayso.model.codecs.voice_edit import Alteration
from sayso.model.errors import InputError
from sayso.model.text.normalization import normalise
from sayso.model.text.tokenizers import Tokenizer

from .extras.augment import NEUTRAL, altered_speaker
from .layouts import DEVELOPMENT
from .readers import Utterance
from .speech import Filters, Unusable, read_speech

BATCH_SECONDS = 120.0
"""Of speech, padding included, that is encoded at once: about 2 GB with EnCodec."""


@dataclass(frozen=True)
class Heard:
    """An utterance that can be used, before it is encoded."""

    utterance: Utterance
    text: str
    text_ids: list[int]
    audio: Tensor
    """(1, samples), whole frames: padded with silence at the end."""
    sha256: str
    """See `Utterance.sha256`."""


@dataclass(frozen=True)
class Coded:
    """Codes (K, T) of an utterance, and of its altered copies with who says them and how."""

    codes: Tensor
    copies: list[tuple[str, Alteration, Tensor]]


def hear(utterance: Utterance, codec: Codec, tokenizer: Tokenizer, filters: Filters) -> Heard:
    """Reads one utterance.

    Raises:
        Unusable: Its text or its recording cannot be used.
    """
    try:
        text = normalise(utterance.text)
        text_ids = tokenizer.encode(text)
    except InputError as error:
        raise Unusable("text") from error
    if not text_ids:
        raise Unusable("text")
    if min(text_ids) < 0 or max(text_ids) >= tokenizer.size:
        raise Unusable("text id beyond the vocabulary")
    audio = read_speech(utterance.recording, codec.sample_rate, filters)
    hop = round(codec.sample_rate / codec.frame_rate)
    whole = F.pad(audio, (0, -audio.shape[1] % hop))
    return Heard(utterance, text, text_ids, whole, utterance.sha256())


def encode(
    heard: list[Heard],
    codec: Codec,
    copies: int = 0,
    own: Callable[[str], Any] = lambda speaker: None,
) -> list[Coded | Unusable]:
    """Encodes utterances, as if each were alone; what cannot be encoded has its reason.

    Args:
        copies: Altered copies of each utterance that may be trained on.
        own: What `Codec.speaker` finds in a speaker's recordings.
    """
    if codec.causal and not copies:
        try:
            together = encode_together([each.audio for each in heard], codec)
            return [_checked(Coded(codes, []), codec) for codes in together]
        except InputError:
            pass  # one of them cannot be encoded: each for itself
    return [_encode_one(each, codec, copies, own) for each in heard]


def encode_together(recordings: list[Tensor], codec: Codec) -> list[Tensor]:
    """Codes (K, T) of recordings (1, samples) of whole frames, in batches of like lengths.

    What comes after a causal codec's frame changes nothing in it, so padding is cut off again.

    Raises:
        InputError: One of them cannot be encoded.
    """
    hop = round(codec.sample_rate / codec.frame_rate)
    order = sorted(range(len(recordings)), key=lambda i: recordings[i].shape[1])
    made: dict[int, Tensor] = {}
    while order:
        longest = recordings[order[-1]].shape[1]
        count = max(1, int(BATCH_SECONDS * codec.sample_rate / longest))
        order, batch = order[:-count], order[-count:]
        padded = [F.pad(recordings[i], (0, longest - recordings[i].shape[1])) for i in batch]
        codes = codec.encode(torch.cat(padded))  # (B, K, T)
        for i, row in zip(batch, codes, strict=True):
            made[i] = row[:, : recordings[i].shape[1] // hop]
    return [made[i] for i in range(len(recordings))]


def _encode_one(
    heard: Heard, codec: Codec, copies: int, own: Callable[[str], Any]
) -> Coded | Unusable:
    utterance = heard.utterance
    try:
        speaker = own(utterance.speaker)
        strength = 1.0 if speaker is None else NEUTRAL
        others = [
            altered_speaker(utterance.id, utterance.speaker, copy, strength)
            for copy in range(1, 1 + (0 if utterance.part == DEVELOPMENT else copies))
        ]
        codes, *altered = codec.model_codes(heard.audio, speaker, [edit for _, edit in others])
    except InputError:
        return Unusable("codec")
    pairs = zip(others, altered, strict=True)
    return _checked(Coded(codes, [(name, edit, new) for (name, edit), new in pairs]), codec)


def _checked(coded: Coded, codec: Codec) -> Coded | Unusable:
    codes = coded.codes
    if len(codes) != codec.codebooks:
        return Unusable("wrong number of codebooks")
    if codes.shape[1] < 2:
        return Unusable("too short")
    if int(codes.min()) < 0 or int(codes.max()) >= codec.codebook_size:
        return Unusable("code beyond the codebook")
    return coded
