"""A decoder that is learnt: what the codes say, 50 times a second, in FARGAN's terms, 100 times.

Codes keep the outline of speech; a vocoder needs the detail. Where the model knows which phoneme
each frame says, the decoder may be told, too: outlines of two may be too alike. Convolutions after
ConvNeXt (Liu et al., arXiv:2201.03545), as Vocos has them (arXiv:2306.00814), fitted with an
adversary by `training.fitting.decoder`. F features of a frame of codes, T such frames, D width.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import soxr
import torch
from torch import Tensor, nn

from .base import NOTHING, Stored, fingerprint
from .fargan import FEATURES, HOP, SAMPLE_RATE, FarganVocoder
from .fargan_weights import SHA256

PER_FRAME = 2
"""FARGAN's frames to one of codes: 10 ms to 20."""


@dataclass(frozen=True)
class DecoderConfig:
    features: int = 37
    """F: envelope, log F0 drawn across unvoiced frames, voicing, aperiodicity."""
    width: int = 256
    blocks: int = 6
    kernel: int = 7
    """Frames that one block looks at; odd."""
    symbols: int | None = None
    """Text ids there are, where it is told which of them each frame says; None where it is not."""

    def __post_init__(self):
        sizes = self.features, self.width, self.blocks, self.kernel, self.symbols or 1
        if min(sizes) < 1 or self.kernel % 2 == 0:
            raise ValueError(f"sizes must be at least 1 and the kernel odd: {self}")


class ConvNextBlock(nn.Module):
    """Depthwise convolution over time, then two layers at each frame, added to the residual."""

    def __init__(self, width: int, kernel: int, scale: float):
        super().__init__()
        self.depthwise = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)
        self.scale = nn.Parameter(torch.full((width,), scale))

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) to (B, T, D)."""
        y = self.depthwise(x.transpose(1, 2)).transpose(1, 2)
        return x + self.scale * self.down(nn.functional.gelu(self.up(self.norm(y))))


class Decoder(Stored):
    """Features of codes (B, T, F) to features of FARGAN (B, 2 T, 20)."""

    config_class = DecoderConfig
    mean_in: Tensor
    std_in: Tensor
    mean_out: Tensor
    std_out: Tensor

    def __init__(self, config: DecoderConfig):
        super().__init__()
        self.config = config
        D = config.width
        self.register_buffer("mean_in", torch.zeros(config.features))
        self.register_buffer("std_in", torch.ones(config.features))
        self.register_buffer("mean_out", torch.zeros(FEATURES))
        self.register_buffer("std_out", torch.ones(FEATURES))
        self.first = nn.Conv1d(config.features, D, config.kernel, padding=config.kernel // 2)
        self.first_norm = nn.LayerNorm(D)
        scale = 1 / config.blocks
        self.blocks = nn.ModuleList(
            ConvNextBlock(D, config.kernel, scale) for _ in range(config.blocks)
        )
        self.symbol: nn.Embedding | None = None
        if config.symbols is not None:
            self.symbol = nn.Embedding(config.symbols + 1, D)  # the first for NOTHING
            nn.init.normal_(self.symbol.weight, std=0.05)
        self.norm = nn.LayerNorm(D)
        self.last = nn.Linear(D, PER_FRAME * FEATURES)
        self.vocoder = FarganVocoder()

    @property
    def identity(self) -> str:
        """sha256 (hex) over config, every tensor and the vocoder's weights."""
        config = dataclasses.asdict(self.config) | {"vocoder": SHA256}
        return fingerprint({k: v for k, v in config.items() if v is not None}, self)

    def forward(self, features: Tensor, symbols: Tensor | None = None) -> Tensor:
        """(B, T, F), and the text ids (B, T) that they say or NOTHING, to (B, 2 T, 20)."""
        x = self.scaled_input(features)
        x = self.first_norm(self.first(x.transpose(1, 2)).transpose(1, 2))
        if self.symbol is not None:
            if symbols is None:
                symbols = torch.full(x.shape[:2], NOTHING, device=x.device)
            x = x + self.symbol(symbols - NOTHING)
        for block in self.blocks:
            x = block(x)
        y = self.last(self.norm(x)).unflatten(2, (PER_FRAME, FEATURES)).flatten(1, 2)
        return y * self.std_out + self.mean_out

    def scaled_input(self, features: Tensor) -> Tensor:
        """What goes in, (..., F), with mean 0 and deviation 1."""
        return (features - self.mean_in) / self.std_in

    def scaled_output(self, features: Tensor) -> Tensor:
        """What comes out, (..., 20), likewise."""
        return (features - self.mean_out) / self.std_out

    @torch.inference_mode()
    def speak(
        self,
        utterances: Sequence[Tensor],
        sample_rate: int,
        symbols: Sequence[Tensor | None] | None = None,
    ) -> list[Tensor]:
        """Features (T, F) of each utterance -> its audio (samples,) in [-1, 1], 20 ms for a frame.

        FARGAN makes all of them in one batch, in which the last frame of a shorter one goes on, as
        it does at the end of one alone. What is heard of one hangs on the others by no more than
        the order of floating-point sums.

        Args:
            symbols: (T,) int64 text ids of each, NOTHING where it is not known what a frame says.

        Raises:
            InputError: A feature is not finite.
        """
        here = self.mean_in.device
        told = [
            self(rows[None].to(self.mean_in), None if ids is None else ids[None].to(here))[0]
            for rows, ids in zip(utterances, symbols or [None] * len(utterances), strict=True)
        ]
        return self.heard(told, sample_rate)

    @torch.inference_mode()
    def heard(self, told: Sequence[Tensor], sample_rate: int) -> list[Tensor]:
        """FARGAN's features (2 T, 20) of each -> its audio, as of `speak`."""
        most = max(map(len, told))
        whole = torch.stack([torch.cat([t, t[-1:].expand(most - len(t), -1)]) for t in told])
        made = []
        for rows, audio in zip(told, self.vocoder(whole).cpu(), strict=True):
            audio = audio[: len(rows) * HOP]
            heard = soxr.resample(audio.numpy(), SAMPLE_RATE, sample_rate)
            length = round(len(rows) * sample_rate / 100)
            made.append(torch.from_numpy(heard[:length]).clamp(-1, 1).clone())
        return made
