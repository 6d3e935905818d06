"""What the learnt decoder is fitted to: codes as models say them, and what was recorded.

A model's codes are coarse, heard in the timbre of a short prompt, and but for codebook 0 what the
NAR takes for likely. So each recording is coded in the pivot, once as it is and once with codebooks
1..K-1 by the NAR, and both are put into the timbre of some seconds of the same speaker.
"""

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sayso.model.audio import resample
from sayso.model.bundle import Bundle, load_bundle
from sayso.model.codecs.base import Codec
from sayso.model.codecs.fargan import SAMPLE_RATE
from sayso.model.codecs.fargan_features import FarganFeatures
from sayso.model.errors import InputError
from sayso.model.extras.alignment import AlignedNAR
from sayso.model.files import replacing
from sayso.model.generate import generate_nar
from sayso.model.text.forced_alignment import Aligner
from sayso.model.text.normalization import normalise
from sayso.model.valle2 import pure_ar, pure_nar

from ..extras.align import align_tokens, pointers
from ..held_out import HeldOut, trained_on
from ..readers import Utterance
from ..speech import Filters, Unusable, read_speech

FILTERS = Filters(0.8, 20.0)
PROMPT_SECONDS = (3.0, 8.0)
LONGEST_CONTEXT = 4.4
"""Seconds of an utterance that may stand before another, as its prompt."""
OF_A_SPEAKER = 3
"""Recordings in which a speaker's own timbre is measured."""


@dataclass(frozen=True)
class Example:
    """One recording."""

    said: list[Tensor]
    """Features (T, F) of its own codes and, where its text could be aligned, of the NAR's."""
    recorded: Tensor
    """(2 T, 20) of FARGAN."""


@dataclass
class Gatherer:
    """What makes examples of utterances."""

    bundle: Bundle
    codec: Codec
    features: FarganFeatures = field(default_factory=FarganFeatures)
    aligner: Aligner = field(default_factory=Aligner)
    contexts: list[tuple[list[int], Tensor]] = field(default_factory=list)
    """Text and codes of short utterances of before."""

    def example(
        self, utterance: Utterance, own: Any, other: Utterance
    ) -> tuple[list[Tensor], Tensor]:
        """What is said and recorded, as of `Example`; the timbre is heard in `other`.

        Raises:
            Unusable: A recording cannot be used.
            InputError: It cannot be encoded.
        """
        codec, random = self.codec, _random(utterance.id)
        audio = read_speech(utterance.recording, codec.sample_rate, FILTERS)
        true = codec.model_codes(audio, own)[0]  # (K, T)
        heard = read_speech(other.recording, codec.sample_rate, FILTERS)
        length = min(heard.shape[1], int(random.uniform(*PROMPT_SECONDS) * codec.sample_rate))
        start = int(random.integers(heard.shape[1] - length + 1))
        prompt = codec.encode(heard[:, start : start + length])[0]
        codes = [true]
        with contextlib.suppress(InputError):  # its text cannot be aligned
            codes += self._said_by_nar(utterance, audio, true, random)
        said = [codec.outline(each, prompt) for each in codes]
        narrow = torch.from_numpy(resample(audio[0].numpy(), codec.sample_rate, SAMPLE_RATE))
        frames = 2 * true.shape[1]
        recorded = self.features(torch.nn.functional.pad(narrow, (0, SAMPLE_RATE // 50))[None])[0]
        return said, recorded[:frames]

    def _said_by_nar(
        self, utterance: Utterance, audio: Tensor, true: Tensor, random: np.random.Generator
    ) -> list[Tensor]:
        """The codes with codebooks 1..K-1 as the NAR says them, if it can hold them."""
        model, tokenizer = self.bundle.model, self.bundle.tokenizer
        ids = tokenizer.encode(normalise(utterance.text))
        rate = self.codec.sample_rate
        narrow = resample(audio[0].numpy(), rate, 16000)
        starts = align_tokens(narrow, ids, tokenizer, self.codec.frame_rate, self.aligner)
        contexts, T = self.contexts, true.shape[1]
        said = []
        if contexts:
            before, prompt = contexts[random.integers(len(contexts))]
            text, P = torch.tensor([before + ids]), prompt.shape[1]
            held = pure_nar(model.nar).config
            if text.shape[1] >= held.max_text or P + T > held.max_frames:
                return []
            lengths = [torch.tensor([n]) for n in (text.shape[1], P, T)]
            extra = None
            if isinstance(model.nar, AlignedNAR):
                place = pointers(starts, T, pure_ar(model.ar).config.group_size)
                where = np.pad(np.maximum(place, 0) + len(before), (P, 0))
                with torch.inference_mode():
                    extra = model.nar.told(
                        text, lengths[0], torch.from_numpy(where)[None], lengths[1]
                    )
            said = [
                generate_nar(
                    pure_nar(model.nar),
                    text,
                    lengths[0],
                    prompt[None],
                    lengths[1],
                    true[:1],
                    lengths[2],
                    extra,
                    model.choose,
                )[0].clone()
            ]
        if T <= LONGEST_CONTEXT * self.codec.frame_rate and len(contexts) < 60:
            contexts.append((ids, true))
        return said


def gather(
    model: Path,
    roots: dict[str, Path],
    folder: Path,
    rule: HeldOut,
    most: int,
    report: Callable[[str], None] = lambda line: None,
) -> list[Path]:
    """Write the examples of corpora into a folder, each a file; those that are there stay.

    Args:
        model: A model folder or a run, with a timbre.
        roots: Name on the list of consented corpora -> the unpacked corpus.
        rule: What is held out.
        most: Utterances taken of each corpus, in turn of each of its speakers.

    Returns:
        The files, in order of their names.

    Raises:
        CorpusError: A corpus is not listed, or not where it should be.
        CheckpointError: The model is damaged.
        InputError: The model has no timbre, or no recording can be used.
    """
    bundle = load_bundle(model, "cpu")
    if not bundle.codec.outlines:
        raise InputError(f"{model} has no timbre: a decoder is learnt for models that have one")
    gatherer, files = Gatherer(bundle, bundle.codec), []
    folder.mkdir(parents=True, exist_ok=True)
    for name, utterances in trained_on(roots, rule).items():
        taken = in_turn(utterances, most)
        report(f"{name}: {len(taken)} of {len(utterances)} recordings")
        theirs: dict[str, list[Utterance]] = {}
        for each in utterances:
            theirs.setdefault(each.speaker, []).append(each)
        own: dict[str, Any] = {}
        for number, each in enumerate(taken):
            path = folder / f"{name}~{each.id.replace('/', '~')}.safetensors"
            if not path.is_file():
                with contextlib.suppress(Unusable, InputError):
                    if each.speaker not in own:
                        speech = _readable(theirs[each.speaker], bundle.codec.sample_rate)
                        own[each.speaker] = bundle.codec.speaker(speech)
                    others = theirs[each.speaker][:4]
                    other = others[_random(each.id).integers(len(others))]
                    _write(path, *gatherer.example(each, own[each.speaker], other))
            if path.is_file():
                files.append(path)
            if number % 50 == 49:
                report(f"{name}: {number + 1} of {len(taken)}")
    if not files:
        raise InputError(f"no recording in {', '.join(map(str, roots.values()))} can be used")
    return sorted(files)


def read_example(path: Path) -> Example:
    """An example as `gather` wrote it, float32."""
    tensors = {name: value.float() for name, value in load_file(path).items()}
    recorded = tensors.pop("recorded")
    return Example([tensors[name] for name in sorted(tensors)], recorded)


def in_turn(utterances: list[Utterance], most: int) -> list[Utterance]:
    """At most so many utterances, one of each speaker, then a second of each, and so on."""
    turn: dict[str, int] = {}
    order = []
    for each in utterances:
        turn[each.speaker] = turn.get(each.speaker, 0) + 1
        order.append((turn[each.speaker], each.speaker, each))
    return [each for _, _, each in sorted(order, key=lambda row: row[:2])][:most]


def _readable(utterances: list[Utterance], sample_rate: int) -> Iterator[Tensor]:
    """Recordings of a speaker that can be used, the first few."""
    for each in utterances[:OF_A_SPEAKER]:
        with contextlib.suppress(Unusable):
            yield read_speech(each.recording, sample_rate, FILTERS)


def _write(path: Path, said: list[Tensor], recorded: Tensor) -> None:
    tensors = {f"said{i}": each.half().contiguous() for i, each in enumerate(said)}
    with replacing(path) as part:
        save_file(tensors | {"recorded": recorded.half().contiguous()}, part)


def _random(id: str) -> np.random.Generator:
    """The same draws for an utterance on every machine."""
    return np.random.default_rng(list(hashlib.sha256(id.encode()).digest()))
