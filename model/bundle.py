"""A model folder: text/, codec/, ar/, nar/, card.json and perhaps timbre/, opened whole."""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .ar import AR, ARConfig
from .card import CARD
from .checkpoint import load_module
from .codecs.base import Codec
from .codecs.load import load_codec
from .errors import CheckpointError, InputError
from .files import ASSETS
from .generate import Codes, generate_ar, generate_nar
from .nar import NAR, NARConfig
from .sampling import Sampling
from .text.tokenizers import Tokenizer, load_tokenizer

PARTS = ("codec", "timbre")
"""On the card, with the identity of what makes the codes."""
BUNDLED = ASSETS / "mini"
"""The model that ships with the package."""


@dataclass(frozen=True)
class Bundle:
    """Everything that turns text and a prompt into codes and codes into audio."""

    folder: Path
    tokenizer: Tokenizer
    codec: Codec
    ar: AR
    nar: NAR
    card: dict[str, Any]
    card_hash: str
    """sha256 (hex) of `card.json` as it stands on disk."""
    sampling: Sampling = field(default_factory=Sampling)
    """How this model speaks best, by its card; the paper's if that says nothing."""

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
            prompts: B codes (K, T_b) int64, as `codec.read` gives them; T_b may be 0.
            limits: B most new frames.
            said: B numbers of text ids that are the prompt's.

        Returns:
            B codes (K, T'_b), for `codec.speak`, and codebook 0 with its `finished` flags.

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
        prompt = pad([codes.T for codes in prompts]).transpose(1, 2)  # (B, K, T)
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
            self.codec.entries() if self.nar.config.expected else None,
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
    timbre = folder / "timbre"
    codec = load_codec(folder / "codec", timbre if timbre.exists() else None)
    ar = load_module(folder / "ar", AR, ARConfig)
    nar = load_module(folder / "nar", NAR, NARConfig)
    named = {part: card[part].get("identity") for part in PARTS if part in card}
    for name, got, wanted in (
        ("ar text_size", ar.config.text_size, tokenizer.size),
        ("nar text_size", nar.config.text_size, tokenizer.size),
        ("ar codebook_size", ar.config.codebook_size, codec.codebook_size),
        ("nar codebook_size", nar.config.codebook_size, codec.codebook_size),
        ("nar codebooks", nar.config.codebooks, codec.codebooks),
        ("codec on the card", named, codec.parts),
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
    return Bundle(folder, tokenizer, codec, ar, nar, card, digest, sampling)
