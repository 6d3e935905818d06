"""What every codec offers: audio to and from the codes (B, K, T) of VALL-E 2, section 3.1.

Letters: B batch, K codebooks, T frames. The rest of Sayso knows a codec only by this interface. A
codec may keep prompts in finer codes than its model reads and says; for most the two are the same.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol, Self

import torch
from torch import Tensor, nn

from ..checkpoint import load_module, save_module
from ..errors import InputError
from .voice_edit import Alteration

NOTHING = -1
"""In the place of a text id: it is not known what a frame says."""


class Said(NamedTuple):
    """What the model said to a prompt: the arguments of `Codec.speak`."""

    codes: Tensor
    prompt: Tensor
    edit: Alteration | None = None
    stressed: Tensor | None = None
    symbols: Tensor | None = None


class Pieces(Protocol):
    """The sound of one utterance that is still being said, piece by piece."""

    def add(self, said: Said, frames: int | None = None) -> Tensor:
        """The next samples (samples,), of all that was said by now: up to so many frames, those
        behind which are only looked at, or to its end. Raises as `Codec.speak`."""
        ...


class Codec(nn.Module):
    """Base of all codecs: `encode`, `decode` and `entries` are theirs; the rest may stay.

    Deterministic. Tensors may lie on any device; what is returned lies on the CPU.
    """

    sample_rate: int
    """Hz of the audio in and out."""
    frame_rate: float
    """Frames per second."""
    codebooks: int
    """K of the codes that the model reads and says."""
    codebook_size: int
    """Entries of each of its codebooks: codes are 0 <= code < codebook_size."""
    causal: bool = False
    """Whether a frame's codes depend on nothing after it: recordings may be padded to be encoded
    together."""
    edits: bool = False
    """Whether it can change speed, pitch and formants."""
    outlines: bool = False
    """Whether a decoder can be learnt for it, from what `outline` says."""
    stresses: bool = False
    """Whether it can emphasise words."""

    @property
    def identity(self) -> str:
        """sha256 (hex) over config and weights of what makes prompts: receipts are bound to it."""
        raise NotImplementedError

    @property
    def parts(self) -> dict[str, str]:
        """Identities of what makes the model's codes, as named on cards and in token manifests."""
        return {"codec": self.identity}

    @property
    def sound_parts(self) -> dict[str, str]:
        """Identities of what else makes sound of the model's codes, as named on cards."""
        return {}

    def encode(self, audio: Tensor) -> Tensor:
        """Audio (B, samples) in [-1, 1] -> prompt codes (B, K', T) int64; the last frame is padded.

        Raises:
            InputError: The audio is empty, not finite, not floating point or not (B, samples).
        """
        raise NotImplementedError

    def decode(self, codes: Tensor) -> Tensor:
        """Prompt codes (B, k, T) of the first k <= K' codebooks -> audio (B, samples) float32.

        Raises:
            InputError: Codes of the wrong shape, type or range.
        """
        raise NotImplementedError

    def entries(self) -> Tensor:
        """What the model's codes stand for, (K, codebook_size, D) float32: a frame is their sum."""
        raise NotImplementedError

    def read(self, prompt: Tensor) -> Tensor:
        """Prompt codes (K', T) -> codes (K, T) as the model reads them; T may be 0."""
        return prompt

    def speak(
        self,
        codes: Tensor,
        prompt: Tensor,
        edit: Alteration | None = None,
        stressed: Tensor | None = None,
        symbols: Tensor | None = None,
    ) -> Tensor:
        """What the model said to a prompt, heard in the prompt's voice.

        Args:
            codes: (K, T), the model's.
            prompt: (K', T'), the codes that were read; T' of 0 is nobody in particular.
            stressed: (T,) bool, which frames are of emphasised words.
            symbols: (T,) int64, the text id that each frame says, NOTHING where it is not known; a
                codec that does not ask for it sounds the same without.

        Returns:
            Audio (samples,) float32.

        Raises:
            InputError: Codes of the wrong shape, type or range, or the codec cannot edit.
        """
        return self.speak_all([Said(codes, prompt, edit, stressed, symbols)])[0]

    def speak_all(self, said: Sequence[Said]) -> list[Tensor]:
        """`speak` of several, which may be less work together; what each sounds like hangs on the
        others by no more than the order of floating-point sums. Raises as `speak` does."""
        return [self.say(one) for one in said]

    def say(self, one: Said) -> Tensor:
        """`speak` of one, for codecs that do not speak several together; raises InputError."""
        if one.stressed is not None:
            raise InputError(f"{type(self).__name__} cannot emphasise words: WORLD can")
        return self.hear(one.codes, one.edit)

    def in_pieces(self, prompt: Tensor) -> Pieces | None:
        """For what is to be heard while it is being said to a prompt (K', T'); None: it cannot."""
        return None

    def hear(self, prompt: Tensor, edit: Alteration | None = None) -> Tensor:
        """A prompt (K', T) itself, edited: audio (samples,). Raises as `speak` does."""
        self.check_edit(edit)
        return self.decode(prompt[None])[0]

    def check_edit(self, edit: Alteration | None) -> None:
        """InputError if an edit is asked for that this codec cannot do."""
        if edit is not None and not edit.neutral and not self.edits:
            raise InputError(
                "speed, pitch and formants need a codec that can edit, WORLD or FARGAN; this is "
                f"{type(self).__name__}"
            )

    def outline(self, codes: Tensor, prompt: Tensor) -> Tensor:
        """What a learnt decoder hears of the model's codes (K, T), said to a prompt (K', T').

        Returns:
            Features (T, F), float64.

        Raises:
            InputError: Codes of the wrong shape, type or range, or the codec has no such features.
        """
        raise InputError(f"no decoder is learnt for {type(self).__name__}: it needs a timbre")

    def as_prompt(
        self, codes: Tensor, voice: Tensor | None = None, symbols: Tensor | None = None
    ) -> Tensor:
        """The model's codes (K, T) as prompt codes (K', T): of nobody in particular; or `voice`,
        prompt codes that were made of them by an edit, nearer to how the codec speaks in it, which
        is `voice` itself where a codec says what it hears. `symbols` as of `speak`."""
        return codes if voice is None else voice

    def speaker(self, recordings: Iterable[Tensor]) -> Any:
        """For training: what a speaker's recordings (1, samples) share that the model's codes shall
        not hold, for `model_codes`. None where they hold all; then nothing is read."""
        return None

    def model_codes(
        self, audio: Tensor, speaker: Any = None, edits: Sequence[Alteration] = ()
    ) -> list[Tensor]:
        """For training: the model's codes (K, T) of audio (1, samples), then of its edited copies.

        Raises:
            InputError: As of `encode`, or the codec cannot edit.
        """
        for edit in edits:
            self.check_edit(edit)
        return [self.encode(audio)[0]] * (1 + len(edits))

    def nearest(self, other: "Codec") -> Tensor:
        """For each of its codes the one of another codec that sounds most like it.

        Returns:
            (K, codebook_size) codes of `other`, level by level.

        Raises:
            InputError: The two stand for different things.
        """
        raise InputError(
            f"codes of {type(other).__name__} cannot be carried over to {type(self).__name__}: "
            "start from a model with the same codec, or from nothing"
        )


class Stored(nn.Module):
    """What lies in a folder as `config.json` and `model.safetensors`."""

    config_class: ClassVar[type]
    config: Any
    """Of that class."""

    @classmethod
    def load(cls, folder: Path) -> Self:
        """What is saved in a folder, in eval mode; CheckpointError unless everything fits."""
        return load_module(folder, cls, cls.config_class)

    def save(self, folder: Path) -> None:
        """Write `config.json` and `model.safetensors`."""
        save_module(folder, self, self.config)

    @property
    def identity(self) -> str:
        """sha256 (hex) over config and every tensor, by name."""
        config = dataclasses.asdict(self.config).items()
        return fingerprint({name: value for name, value in config if value is not None}, self)


def fingerprint(config: dict[str, Any], module: nn.Module) -> str:
    """sha256 (hex) over a config and every tensor of a module, by name."""
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for name, tensor in sorted(module.state_dict().items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
        digest.update(values.numpy().tobytes())
    return digest.hexdigest()


def check_audio(audio: Tensor) -> None:
    """InputError unless audio is (B, samples), floating point, finite and not empty."""
    if audio.ndim != 2 or 0 in audio.shape:
        raise InputError(f"audio of shape {tuple(audio.shape)}: a codec takes (B, samples)")
    if not audio.is_floating_point():
        raise InputError(f"audio of type {audio.dtype}: convert it to floats in [-1, 1]")
    if not torch.isfinite(audio).all():
        raise InputError("audio has NaN or infinite samples: record or read it again")


def check_codes(codes: Tensor, codebooks: int, codebook_size: int) -> None:
    """InputError unless codes are (B, k, T) int64 with k <= codebooks, each a codebook entry."""
    if codes.ndim != 3 or 0 in codes.shape or codes.shape[1] > codebooks:
        raise InputError(
            f"codes of shape {tuple(codes.shape)}: this codec takes (B, 1..{codebooks}, T)"
        )
    if codes.dtype != torch.int64:
        raise InputError(f"codes of type {codes.dtype}: they must be int64")
    low, high = int(codes.min()), int(codes.max())
    if low < 0 or high >= codebook_size:
        raise InputError(f"codes from {low} to {high}: they must be within 0..{codebook_size - 1}")
