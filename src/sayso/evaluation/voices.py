"""Prompts and the voices made of them: what a trial is spoken from, and what it is compared with.

A corpus's prompt is spoken under a receipt of the basis "corpus" that allows its one sentence, and
is withdrawn when it is said.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from sayso.inference.consent.other_voices import issue_corpus_voice
from sayso.inference.nobody import INVENTED, NOBODY
from sayso.inference.recognisers import RATE
from sayso.inference.synthesizer import Synthesizer
from sayso.model.audio import read_audio, read_samples, resample
from sayso.model.checkpoint import read_tensors
from sayso.model.codecs.base import Codec
from sayso.model.errors import InputError
from sayso.model.files import unique
from sayso.model.text.forced_alignment import Aligner
from sayso.model.text.normalization import normalise
from sayso.model.text.phonemes import Dictionary

from .metrics import Prompt
from .protocols import Trial
from .sound import Audio


class Voices:
    """What one model speaks from.

    Args:
        model: Its folder: `nobody`'s prompt may be there.
        root: Where the trials' paths start from.
        corpus: Whose recordings they are, as receipts name it.
    """

    def __init__(self, speaker: Synthesizer, model: Path, root: Path, corpus: str):
        self.speaker, self.root, self.corpus = speaker, root, corpus
        self._shipped = model / f"voices/{NOBODY}/prompt.safetensors"
        self._codes = lru_cache(64)(self._read_codes)
        self._nobodys = lru_cache(self._read_nobodys)

    @contextmanager
    def of(
        self, trial: Trial, prompt: Prompt | None, text: str
    ) -> Iterator[tuple[str, Prompt | None]]:
        """The id of a voice that may say `text`, and its prompt through the codec.

        None where that may not be heard: of an enrolled person.
        """
        if prompt is None:
            yield trial.speaker, self._nobodys() if trial.speaker == NOBODY else None
            return
        codes, heard = self._codes(trial.prompt, prompt.text, trial.seconds)
        voice = f"evaluation-{unique()}"
        with self.speaker.store.passing(voice):  # it is for this one sentence
            issue_corpus_voice(
                self.speaker.store,
                voice,
                codes,
                normalise(prompt.text),
                self.speaker.bundle.codec.identity,
                self.corpus,
                trial.speaker,
                [text],
            )
            yield voice, heard

    def _read_codes(self, path: str, text: str, seconds: float) -> tuple[Tensor, Prompt]:
        """A prompt's codes (K, T), and what is heard of them."""
        codec = self.speaker.bundle.codec
        audio = read_audio(self.root / path, codec.sample_rate)
        if seconds:
            audio = audio[:, : int(seconds * codec.sample_rate)]
        codes = codec.encode(audio)[0]
        return codes, coded_prompt(codec, codes, text)

    def _read_nobodys(self) -> Prompt | None:
        if not self._shipped.is_file():
            return None
        codes = read_tensors(self._shipped)["codes"].long()
        return coded_prompt(self.speaker.bundle.codec, codes, INVENTED)


def coded_prompt(codec: Codec, codes: Tensor, text: str) -> Prompt:
    """What is heard of a prompt's codes (K, T)."""
    heard = codec.decode(codes[None])[0].numpy()
    return Prompt(resample(heard, codec.sample_rate, RATE), text)


def read_prompt(path: Path, text: str, seconds: float) -> Prompt:
    """A prompt as it was recorded; above 0, only its first seconds."""
    audio = read_audio(path, RATE)[0].numpy()
    return Prompt(audio[: int(seconds * RATE)] if seconds else audio, text)


def split_at(audio: Audio, text: str, seconds: float) -> tuple[str, str]:
    """What is said before and after a moment of a recording (samples,) at 16 kHz.

    A word belongs to the side on which the middle between its start and the next one's lies. Both
    parts together are the whole text, as the paper gives it to the model.

    Raises:
        InputError: The words cannot be aligned, or all of them are on one side.
    """
    words, dictionary = normalise(text).split(), Dictionary()
    plain = [re.sub(r"[^a-z']", "", word.lower()) for word in words]
    starts = Aligner().word_starts(audio, [dictionary.phones(word) for word in plain])
    ends = [*starts[1:], len(audio) / RATE]
    count = sum((a + b) / 2 < seconds for a, b in zip(starts, ends, strict=True))
    if not 0 < count < len(words):
        raise InputError(f"all words of {text[:60]!r} are on one side of {seconds:g} s")
    return " ".join(words[:count]), " ".join(words[count:])


def through(codec: Codec, audio: Audio) -> Audio:
    """A recording (samples,) at the codec's rate, encoded and decoded again."""
    return codec.decode(codec.encode(torch.from_numpy(audio)[None]))[0].numpy()


def wave_of(path: Path) -> tuple[Audio, int]:
    """What a file holds as one channel (samples,), and its rate."""
    samples, rate = read_samples(path)
    return samples.mean(axis=1), rate
