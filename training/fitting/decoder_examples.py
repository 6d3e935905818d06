"""What the learnt decoder is fitted to: codes as models say them, and what was recorded.

A model's codes are coarse, heard in the timbre of a short prompt, and what AR and NAR take for
likely. So each recording is coded in the pivot as it is, with codebooks 1..K-1 by the NAR, and with
all of them by both, and each is put into the timbre of some seconds of the same speaker. Forced
alignment tells which phoneme each frame says.
"""

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from sayso.model.audio import resample
from sayso.model.bundle import Bundle, load_bundle
from sayso.model.checkpoint import read_tensors
from sayso.model.codecs.base import NOTHING, Codec
from sayso.model.codecs.fargan import SAMPLE_RATE
from sayso.model.codecs.fargan_features import FarganFeatures
from sayso.model.errors import InputError
from sayso.model.extras.alignment import NONE, AlignedAR, AlignedNAR, ages, guided
from sayso.model.files import replacing
from sayso.model.generate import generate_nar
from sayso.model.sampling import draw, nucleus, probabilities
from sayso.model.text.forced_alignment import Aligner
from sayso.model.text.normalization import normalise
from sayso.model.text.tokenizers import BOUNDARY, Phonemes
from sayso.model.valle2 import pure_ar, pure_nar

from ..extras.align import align_tokens, pointers
from ..held_out import HeldOut, trained_on
from ..readers import Utterance
from ..speech import Filters, Unusable, read_speech

FILTERS = Filters(0.8, 20.0)
PROMPT_SECONDS = (3.0, 8.0)
LONGEST_CONTEXT = 4.4
"""Seconds of an utterance that may stand before another, as its prompt."""
LONGEST_PIECE = 5.2
"""Seconds from which on an utterance is said in pieces, cut between words."""
OF_A_SPEAKER = 3
"""Recordings in which a speaker's own timbre is measured."""


@dataclass(frozen=True)
class Example:
    """One recording."""

    said: list[Tensor]
    """Features (T, F) of its own codes and, where its text could be aligned, of the NAR's, and of
    AR's and NAR's."""
    recorded: Tensor
    """(2 T, 20) of FARGAN."""
    symbols: Tensor | None = None
    """(T,) int64, the text id that each frame says, or NOTHING; None where it was not aligned."""


@dataclass
class Gatherer:
    """What makes examples of utterances."""

    bundle: Bundle
    codec: Codec
    features: FarganFeatures = field(default_factory=FarganFeatures)
    aligner: Aligner = field(default_factory=Aligner)
    contexts: list[tuple[list[int], Tensor]] = field(default_factory=list)
    """Text and codes of short utterances of before."""

    def example(self, utterance: Utterance, own: Any, other: Utterance) -> Example:
        """An example of an utterance; the timbre is heard in `other`.

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
        codes, symbols = [true], None
        with contextlib.suppress(InputError):  # its text cannot be aligned
            ids, starts = self._aligned(utterance, audio)
            codes += self._said_by_models(ids, starts, true, random)
            symbols = torch.tensor([NOTHING, *ids])[pointers(starts, true.shape[1], self.group)]
        said = [codec.outline(each, prompt) for each in codes]
        narrow = torch.from_numpy(resample(audio[0].numpy(), codec.sample_rate, SAMPLE_RATE))
        frames = 2 * true.shape[1]
        recorded = self.features(torch.nn.functional.pad(narrow, (0, SAMPLE_RATE // 50))[None])[0]
        return Example(said, recorded[:frames], symbols)

    @property
    def group(self) -> int:
        """G of the AR."""
        return pure_ar(self.bundle.model.ar).config.group_size

    def _aligned(self, utterance: Utterance, audio: Tensor) -> tuple[list[int], np.ndarray]:
        """Text ids, and the first frame of each; InputError where they cannot be aligned."""
        tokenizer, rate = self.bundle.tokenizer, self.codec.sample_rate
        ids = tokenizer.encode(normalise(utterance.text))
        narrow = resample(audio[0].numpy(), rate, 16000)
        return ids, align_tokens(narrow, ids, tokenizer, self.codec.frame_rate, self.aligner)

    def _said_by_models(
        self, ids: list[int], starts: np.ndarray, true: Tensor, random: np.random.Generator
    ) -> list[Tensor]:
        """The codes (K, T) with codebooks 1..K-1 by the NAR, and with all of them by AR and NAR.

        Long utterances word for word in pieces, as the models hold them, each after a context. None
        if there is no context yet, or none that fits.
        """
        tokenizer, T = self.bundle.tokenizer, true.shape[1]
        cuts = [0]
        for number in range(1, len(ids)):
            long = starts[number] - starts[cuts[-1]] >= LONGEST_PIECE * self.codec.frame_rate
            between = isinstance(tokenizer, Phonemes) and tokenizer.symbols[ids[number]] == BOUNDARY
            if long and between and number < len(ids) - 8:
                cuts.append(number)
        pieces: list[tuple[Tensor, Tensor]] = []
        for first, last in pairwise([*cuts, len(ids)]):
            begin = int(starts[first]) if first else 0
            end = int(starts[last]) if last < len(ids) else T
            made = self._piece(
                ids[first:last], starts[first:last] - begin, true[:, begin:end], random
            )
            if made is None:
                pieces = []
                break
            pieces.append(made)
        if T <= LONGEST_CONTEXT * self.codec.frame_rate and len(self.contexts) < 60:
            self.contexts.append((ids, true))
        return [torch.cat(each, 1) for each in zip(*pieces, strict=True)]

    @torch.inference_mode()
    def _piece(
        self, ids: list[int], starts: np.ndarray, true: Tensor, random: np.random.Generator
    ) -> tuple[Tensor, Tensor] | None:
        """As of `_said_by_models`."""
        model, T, G = self.bundle.model, true.shape[1], self.group
        held = pure_nar(model.nar).config
        fitting = [
            (text, codes[:, codes.shape[1] % G :])
            for text, codes in self.contexts
            if len(text) + len(ids) < held.max_text and codes.shape[1] + T < held.max_frames - G
        ]
        if not fitting:
            return None
        before, prompt = fitting[random.integers(len(fitting))]
        text, P = torch.tensor([before + ids]), prompt.shape[1]
        sizes = [torch.tensor([n]) for n in (text.shape[1], P, T)]
        place = np.maximum(pointers(starts, T, G), 0) + len(before)
        extra = None
        if isinstance(model.nar, AlignedNAR):
            where = torch.from_numpy(np.pad(place, (P, 0)))[None]
            extra = model.nar.told(text, sizes[0], where, sizes[1])
        generator = model.generator(int(random.integers(2**31)))
        drawn = drawn_codes(self.bundle, text, prompt[0], true[0], place, generator)
        nar = pure_nar(model.nar)
        by_nar, by_both = (
            generate_nar(
                nar,
                text,
                sizes[0],
                prompt[None],
                sizes[1],
                first[None],
                sizes[2],
                extra,
                model.choose,
            )[0].clone()
            for first in (true[0], drawn)
        )
        return by_nar, by_both


def drawn_codes(
    bundle: Bundle,
    text: Tensor,
    prompt: Tensor,
    true: Tensor,
    place: np.ndarray,
    generator: torch.Generator,
) -> Tensor:
    """Codebook 0 as the AR draws each code where all those before were as recorded: (T,).

    Args:
        text: (1, S) of prompt and speech.
        prompt: (P,) codes of whole groups.
        true: (T,) codes; what is left over of a group at the start stays.
        place: (T,) where in the text each frame is, from 1.
    """
    model, told, untold = bundle.model, None, None
    ar = pure_ar(model.ar)
    G = ar.config.group_size
    over = len(true) % G
    codes, size = torch.cat([prompt, true[over:]])[None], torch.tensor([text.shape[1]])
    first, last = len(prompt) // G, codes.shape[1] // G
    if isinstance(model.ar, AlignedAR):
        steps = np.concatenate([np.full(first, NONE), place[over:][G - 1 :: G], [text.shape[1]]])
        pointer = torch.from_numpy(steps)[None]
        told = model.ar.told(text, size, pointer, ages(pointer))
        untold = model.ar.pointer.none.expand_as(told) if model.extras.guidance else None
    length = torch.tensor([codes.shape[1]])
    logits = ar(text, size, codes, length, told)
    if untold is not None:
        logits = guided(logits, ar(text, size, codes, length, untold), model.extras.guidance)
    logits = logits[0, first:last, :, : ar.eos_id].flatten(0, 1)
    p = nucleus(probabilities(logits, bundle.sampling.temperature), bundle.sampling.top_p)
    return torch.cat([true[:over], draw(p, generator)])


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
                    _write(path, gatherer.example(each, own[each.speaker], other))
            if path.is_file():
                files.append(path)
            if number % 50 == 49:
                report(f"{name}: {number + 1} of {len(taken)}")
    if not files:
        raise InputError(f"no recording in {', '.join(map(str, roots.values()))} can be used")
    return sorted(files)


def read_example(path: Path) -> Example:
    """An example as `gather` wrote it, float32."""
    tensors = read_tensors(path)
    recorded, symbols = tensors.pop("recorded"), tensors.pop("symbols", None)
    said = [tensors[name].float() for name in sorted(tensors)]
    return Example(said, recorded.float(), None if symbols is None else symbols.long())


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


def _write(path: Path, example: Example) -> None:
    tensors = {f"said{i}": each.half().contiguous() for i, each in enumerate(example.said)}
    tensors["recorded"] = example.recorded.half().contiguous()
    if example.symbols is not None:
        tensors["symbols"] = example.symbols.short()
    with replacing(path) as part:
        save_file(tensors, part)


def _random(id: str) -> np.random.Generator:
    """The same draws for an utterance on every machine."""
    return np.random.default_rng(list(hashlib.sha256(id.encode()).digest()))
