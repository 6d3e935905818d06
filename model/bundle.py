"""A model folder: text/, codec/, ar/, nar/, card.json and perhaps timbre/, opened whole."""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .ar import AR, ARConfig
from .card import CARD
from .checkpoint import load_module
from .codecs.base import Codec
from .codecs.load import load_codec
from .codecs.timbre import SpeechModel
from .codecs.world import Features, WorldCodec
from .errors import CheckpointError, InputError
from .files import ASSETS
from .generate import Codes, generate_ar, generate_nar
from .nar import NAR, NARConfig
from .sampling import Sampling
from .text.tokenizers import Tokenizer, load_tokenizer

BUNDLED = ASSETS / "mini"
"""The model that ships with the package."""


@dataclass(frozen=True)
class Bundle:
    """Everything that turns text and a prompt into codes and codes into audio."""

    folder: Path
    tokenizer: Tokenizer
    codec: Codec
    """Of prompts, and of speech where there is no timbre."""
    ar: AR
    nar: NAR
    card: dict[str, Any]
    card_hash: str
    """sha256 (hex) of `card.json` as it stands on disk."""
    sampling: Sampling = field(default_factory=Sampling)
    """How this model speaks best, by its card; the paper's if that says nothing."""
    timbre: SpeechModel | None = None
    """Takes the prompt's timbre off for the model and puts it on its speech; not in VALL-E 2."""
    neutral_codec: WorldCodec | None = None
    """With a timbre: of the codes that AR and NAR read and say, all in its pivot."""

    @property
    def model_codec(self) -> Codec:
        """The codec whose codes AR and NAR read and say."""
        return self.codec if self.neutral_codec is None else self.neutral_codec

    def neutral(self, prompt: Tensor) -> Tensor:
        """Prompt codes (K, T) as the model reads them, which may be of another K."""
        if self.timbre is None or self.neutral_codec is None:
            return prompt
        if prompt.shape[1] == 0:
            return prompt[:1].expand(self.neutral_codec.codebooks, 0)
        assert isinstance(self.codec, WorldCodec)
        heard = self.codec.features(prompt)
        own = self.timbre.measure(heard)
        return self.neutral_codec.quantize(self.timbre.change(heard, own, self.timbre.pivot))

    def voiced(self, codes: Tensor, prompt: Tensor) -> Features:
        """Vocoder features of codes (K, T) that `generate` made for a prompt, in its timbre.

        For a prompt of no frames they are in the usual one.

        Raises:
            ValueError: The codec is no WORLD codec.
        """
        if not isinstance(self.codec, WorldCodec) or not isinstance(self.model_codec, WorldCodec):
            raise ValueError(f"{type(self.codec).__name__} has no vocoder features")
        said = self.model_codec.features(codes)
        if self.timbre is None:
            return said
        wanted = self.timbre.usual
        if prompt.shape[1]:
            wanted = self.timbre.measure(self.codec.features(prompt))
        # The models keep the envelope of the pivot, but not quite its pitch, and that is heard.
        median, pivot = self.timbre.measure_pitch(said)[0], self.timbre.pivot
        old = pivot._replace(pitch=np.array([median, pivot.pitch[1]]))
        return self.timbre.change(said, old, wanted)

    def generate(
        self,
        text: list[list[int]],
        prompts: list[Tensor],
        limits: list[int],
        sampling: Sampling,
        generator: torch.Generator,
        said: list[int],
    ) -> tuple[list[Tensor], Codes]:
        """Speak a batch.

        Args:
            text: B lists of text ids, the prompt's transcript in front of the new text.
            prompts: B codes (K, T_b) int64 of `codec`; T_b may be 0.
            limits: B most new frames.
            said: B numbers of text ids that are the prompt's.

        Returns:
            B codes (K, T'_b) of `model_codec`, to be heard through `voiced` where there is a
            timbre, and codebook 0 with its `finished` flags.

        Raises:
            InputError: Text or speech is longer than the model holds.
        """
        text_lengths = torch.tensor([len(ids) for ids in text])
        prompt_lengths = torch.tensor([codes.shape[1] for codes in prompts])
        for name, needed, room in (
            ("text tokens", int(text_lengths.max()) + 1, self.ar.config.max_text),
            (
                "frames of prompt and speech",
                int((prompt_lengths + torch.tensor(limits)).max()) + self.ar.config.group_size,
                self.ar.config.max_frames,
            ),
        ):
            if needed > room:
                raise InputError(
                    f"{needed} {name}, this model holds {room}: speak shorter sentences or enrol "
                    "a shorter prompt"
                )
        ids = pad([torch.tensor(row, dtype=torch.long) for row in text])  # (B, S)
        # The same prompt may be there for many sentences.
        read = {id(codes): self.neutral(codes) for codes in prompts}
        prompt = pad([read[id(codes)].T for codes in prompts]).transpose(1, 2)  # (B, K, T)
        first = generate_ar(
            self.ar,
            ids,
            text_lengths,
            prompt[:, 0],
            prompt_lengths,
            torch.tensor(limits),
            sampling,
            generator,
            said=torch.tensor(said) if self.ar.config.alignment else None,
        )
        full = generate_nar(
            self.nar,
            ids,
            text_lengths,
            prompt,
            prompt_lengths,
            first.codes,
            first.lengths,
            first.pointer if self.nar.config.alignment else None,
            self.model_codec.entries() if self.nar.config.expected else None,
        )
        return [row[:, : int(n)] for row, n in zip(full, first.lengths, strict=True)], first


def pad(rows: list[Tensor]) -> Tensor:
    """Stack (T_b, ...) tensors of unequal lengths, right-padded with zeros: (B, T, ...)."""
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)


def load_bundle(folder: Path = BUNDLED) -> Bundle:
    """Open a model folder.

    Raises:
        CheckpointError: A part is missing or damaged, or the parts do not belong together.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is no folder: give one with text/ codec/ ar/ nar/")
    try:
        raw = (folder / CARD).read_bytes()
        card = json.loads(raw)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder / CARD} cannot be read ({error}): restore it") from None
    tokenizer = load_tokenizer(folder / "text")
    codec = load_codec(folder / "codec")
    timbre = neutral_codec = None
    # The card says whether there is one: without its folder the voices would be others.
    if "timbre" in card:
        timbre = SpeechModel.load(folder / "timbre")
        neutral_codec = WorldCodec.load(folder / "timbre" / "codec")
        if (
            card["timbre"].get("identity") != timbre.identity
            or not isinstance(codec, WorldCodec)
            or any(c.config.envelope != timbre.config.envelope for c in (codec, neutral_codec))
            or codec.config.hop != neutral_codec.config.hop
            or codec.sample_rate != neutral_codec.sample_rate
        ):
            raise CheckpointError(f"{folder}: timbre and codec are not of one model")
    elif (folder / "timbre").exists():
        raise CheckpointError(f"{folder} has a timbre that its card does not name: restore both")
    spoken = codec if neutral_codec is None else neutral_codec
    ar = load_module(folder / "ar", AR, ARConfig)
    nar = load_module(folder / "nar", NAR, NARConfig)
    for name, got, wanted in (
        ("ar text_size", ar.config.text_size, tokenizer.size),
        ("nar text_size", nar.config.text_size, tokenizer.size),
        ("ar codebook_size", ar.config.codebook_size, spoken.codebook_size),
        ("nar codebook_size", nar.config.codebook_size, spoken.codebook_size),
        ("nar codebooks", nar.config.codebooks, spoken.codebooks),
        ("codec on the card", card.get("codec", {}).get("identity"), spoken.identity),
        ("ar alignment", ar.config.alignment or not nar.config.alignment, True),
    ):
        if got != wanted:
            raise CheckpointError(
                f"{folder}: {name} is {got}, text and codec beside it need {wanted}: "
                "these parts are not of one training"
            )
    try:
        sampling = Sampling(**card.get("sampling", {}))
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{folder / CARD}: sampling is no Sampling ({error})") from None
    digest = hashlib.sha256(raw).hexdigest()
    return Bundle(folder, tokenizer, codec, ar, nar, card, digest, sampling, timbre, neutral_codec)
