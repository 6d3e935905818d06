"""Neural-codec tokens as VALL-E 2 sees them: (B, K, T) codes to and from audio (section 3.1).

Letters: B batch, K codebooks, T frames. The rest of Sayso knows a codec only by this interface;
frame rate, K and codebook size are read from it.
"""

import hashlib
import json
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..errors import InputError


class Codec(Protocol):
    """What every codec offers. All of it is deterministic."""

    sample_rate: int
    """Hz of the audio in and out."""
    frame_rate: float
    """Frames per second."""
    codebooks: int
    """K."""
    codebook_size: int
    """Entries of each codebook: codes are 0 <= code < codebook_size."""

    @property
    def identity(self) -> str:
        """sha256 (hex) over config and weights: goes into token manifests, receipts and cards."""
        ...

    def encode(self, audio: Tensor) -> Tensor:
        """Audio (B, samples) in [-1, 1] -> codes (B, K, T) int64; the last frame may be padded.

        Raises:
            InputError: The audio is empty, not finite, not floating point or not (B, samples).
        """
        ...

    def decode(self, codes: Tensor) -> Tensor:
        """Codes (B, k, T) int64 of the first k <= K codebooks -> audio (B, samples) float32.

        Raises:
            InputError: Codes of the wrong shape, type or range.
        """
        ...

    def entries(self) -> Tensor:
        """What the codes stand for, (K, codebook_size, features) float32: sums make a frame."""
        ...


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


def fingerprint(config: dict[str, Any], module: nn.Module) -> str:
    """sha256 (hex) over a config and every tensor of a module, by name."""
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for name, tensor in sorted(module.state_dict().items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
        digest.update(values.numpy().tobytes())
    return digest.hexdigest()
