"""The autoregressive model with grouped code modeling (VALL-E 2, 3.1-3.3).

Reads text || <eos>, <bos> || groups of G codes of codebook 0, and predicts the next group: its G
codes independently of each other, given all earlier groups. What the paper leaves open:

- <eos> is id `codebook_size`, one row more in the code table. It fills the whole last group, all G
  places, as the number of frames is made a multiple of G before (3.1). When sampling, the first
  place decides whether the utterance ends, and the others are drawn given that it did not: since
  targets only hold whole groups of <eos>, that is the exact joint distribution, while "any place
  may end it" would end up to G times too often.
- <bos> is one learned vector, as it has to stand where a whole group would.
- A prompt is clipped at inference as utterances are in training: at its start, to a multiple of G.
- No bias in the tied softmax, none in the group embedding (the paper's is a plain matrix).

The one seam for what the paper does not have is `extra`, added to the speech embeddings; nothing
here makes one (`model/extras/`).
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .transformer import (
    INIT_STD,
    Cache,
    Size,
    Transformer,
    embed_text,
    embedding,
    join,
    part,
    positions,
)


@dataclass(frozen=True)
class ARConfig:
    """All that is needed to build an `AR`."""

    text_size: int
    """Entries in the text vocabulary, without <eos>."""
    codebook_size: int
    """Entries in a codebook, without <eos>."""
    group_size: int = 1
    """G, codes per step; 1 has neither group layer."""
    size: Size = field(default_factory=Size)
    max_text: int = 1024
    """Text positions, <eos> included."""
    max_frames: int = 4096
    """Longest code sequence in frames, prompt included."""

    def __post_init__(self):
        if min(self.text_size, self.codebook_size, self.group_size, self.max_text) < 1:
            raise ValueError(f"sizes must be at least 1: {self}")
        if self.max_frames < self.group_size:
            raise ValueError(f"max_frames {self.max_frames} holds no group of {self.group_size}")


class Loss(NamedTuple):
    """A loss in nats."""

    total: Tensor
    """Mean nats per code, scalar, differentiable."""
    summed: Tensor
    """Sum of nats over the batch, scalar."""
    count: Tensor
    """Codes that were counted, scalar."""


def logits(hidden: Tensor, table: Tensor) -> Tensor:
    """Hidden states (..., D) times a tied table (V, D): (..., V), in fp32 under autocast, too."""
    with torch.autocast(hidden.device.type, enabled=False):
        return hidden.float() @ table.float().T


def cross_entropy(logits: Tensor, targets: Tensor, counted: Tensor) -> Loss:
    """Mean over the `counted` (bool) places of (..., V) logits, in fp32 whatever the model is."""
    nats = F.cross_entropy(logits[counted].float(), targets[counted], reduction="none")
    count = counted.sum()
    return Loss(nats.sum() / count.clamp(min=1), nats.sum(), count)


def clip_to_groups(codes: Tensor, lengths: Tensor, group_size: int) -> tuple[Tensor, Tensor]:
    """Drop frames from the START of each utterance so that its length is a multiple of G (3.1).

    Args:
        codes: (B, T) int64, right-padded beyond `lengths` (B,).

    Returns:
        (B, T rounded up to whole groups) and the new lengths (B,).
    """
    extra = lengths % group_size
    frames = -(-codes.shape[1] // group_size) * group_size
    codes = F.pad(codes, (0, frames - codes.shape[1]))
    source = torch.arange(frames, device=codes.device) + extra[:, None]
    return codes.gather(1, source.clamp(max=frames - 1)), lengths - extra


class AR(nn.Module):
    """Text and codes of codebook 0 in, distributions over the next group of codes out."""

    def __init__(self, config: ARConfig):
        super().__init__()
        self.config = config
        G, D = config.group_size, config.size.width
        self.text_embedding = embedding(config.text_size + 1, D)
        self.text_position = positions(config.max_text, D)
        self.code_embedding = embedding(config.codebook_size + 1, D)
        self.code_position = positions(1 + config.max_frames // G, D)
        self.bos = nn.Parameter(torch.randn(D) * INIT_STD)
        self.transformer = Transformer(config.size, causal=True)
        self.group_embedding: nn.Linear | None = None
        self.group_prediction: nn.Linear | None = None
        if G > 1:
            self.group_embedding = nn.Linear(G * D, D, bias=False)
            self.group_prediction = nn.Linear(D, G * D)
            # A group starts as the mean-like sum of its codes, on the scale of one embedding.
            nn.init.normal_(self.group_embedding.weight, std=(G * D) ** -0.5)
            nn.init.normal_(self.group_prediction.weight, std=D**-0.5)
            nn.init.zeros_(self.group_prediction.bias)

    @property
    def eos_id(self) -> int:
        """<eos> in the code table: the row behind the codebook."""
        return self.config.codebook_size

    def embed_groups(self, codes: Tensor, first: Tensor) -> Tensor:
        """(B, N * G) codes to (B, N, D), as groups number `first` (B,) and on; <bos> is 0."""
        B, T = codes.shape
        G, D = self.config.group_size, self.config.size.width
        groups = self.code_embedding(codes).view(B, T // G, G * D)  # Eq. 6
        if self.group_embedding is not None:
            groups = self.group_embedding(groups)  # Eq. 7
        number = first[:, None] + torch.arange(T // G, device=codes.device)
        return groups + self.code_position(number.clamp(max=self.code_position.num_embeddings - 1))

    def embed(
        self, text: Tensor, text_lengths: Tensor, codes: Tensor, extra: Tensor | None = None
    ) -> Tensor:
        """Text || <eos>, <bos> || groups (Eq. 8): (B, S + 2 + N, D), right-padded.

        Raises:
            ValueError: The model's positions do not hold the text or the codes.
        """
        if codes.shape[1] > self.config.max_frames:
            raise ValueError(f"{codes.shape[1]} frames, the model holds {self.config.max_frames}")
        x = embed_text(text, text_lengths, self.text_embedding, self.text_position)
        bos = (self.bos + self.code_position.weight[0]).expand(len(codes), 1, -1)
        groups = self.embed_groups(codes, torch.ones_like(text_lengths))
        speech = torch.cat([bos, groups], 1)
        return join(x, text_lengths + 1, speech if extra is None else speech + extra)

    def predict(self, hidden: Tensor) -> Tensor:
        """(..., D) to logits (..., G, V + 1) through the tied code table, in fp32."""
        if self.group_prediction is not None:
            hidden = self.group_prediction(hidden)
        G, D = self.config.group_size, self.config.size.width
        return logits(hidden.unflatten(-1, (G, D)), self.code_embedding.weight)

    def read(
        self,
        text: Tensor,
        text_lengths: Tensor,
        codes: Tensor,
        lengths: Tensor,
        extra: Tensor | None = None,
    ) -> Tensor:
        """What is known before each group, and after the last: (B, N + 1, D).

        Args:
            text: (B, S) int64, right-padded beyond `text_lengths` (B,).
            codes: (B, N * G) int64 of codebook 0, right-padded beyond `lengths` (B,), which are
                multiples of G.
            extra: (B, N + 1, D), added to the embeddings of <bos> and the groups.

        Raises:
            ValueError: The model's positions do not hold the text or the codes.
        """
        G = self.config.group_size
        x = self.embed(text, text_lengths, codes, extra)
        x = self.transformer(x, text_lengths + 2 + lengths // G)
        return part(x, text_lengths + 1, 1 + codes.shape[1] // G)

    def forward(
        self,
        text: Tensor,
        text_lengths: Tensor,
        codes: Tensor,
        lengths: Tensor,
        extra: Tensor | None = None,
    ) -> Tensor:
        """Logits for every group and the one after the last: (B, N + 1, G, codebook_size + 1).

        Arguments and errors as of `read`.
        """
        return self.predict(self.read(text, text_lengths, codes, lengths, extra))

    def loss(self, text: Tensor, text_lengths: Tensor, codes: Tensor, lengths: Tensor) -> Loss:
        """Mean nats per code, <eos> included; utterances are clipped to whole groups here.

        Args:
            text: (B, S) int64, right-padded beyond `text_lengths` (B,).
            codes: (B, T) int64 of codebook 0, right-padded beyond `lengths` (B,).

        Raises:
            ValueError: The model's positions do not hold the text or the codes.
        """
        codes, lengths = clip_to_groups(codes, lengths, self.config.group_size)
        return self.code_loss(self.read(text, text_lengths, codes, lengths), codes, lengths)

    def code_loss(self, hidden: Tensor, codes: Tensor, lengths: Tensor) -> Loss:
        """Mean nats per code (Eq. 9-11) of what `read` made (B, N + 1, D) of whole groups."""
        G = self.config.group_size
        last = (lengths // G)[:, None]
        number = torch.arange(1 + codes.shape[1] // G, device=codes.device)[None]  # (1, N + 1)
        targets = F.pad(codes, (0, G)).unflatten(1, (-1, G))  # (B, N + 1, G)
        targets = targets.masked_fill((number >= last)[..., None], self.eos_id)
        counted = (number <= last)[..., None].expand_as(targets)
        return cross_entropy(self.predict(hidden), targets, counted)

    def prefill(
        self,
        text: Tensor,
        text_lengths: Tensor,
        codes: Tensor,
        lengths: Tensor,
        cache: Cache,
        extra: Tensor | None = None,
    ) -> Tensor:
        """Read text and prompt into an empty cache: what is known before the next group (B, D).

        Arguments and errors as of `read`.
        """
        x = self.embed(text, text_lengths, codes, extra)
        total = text_lengths + 2 + lengths // self.config.group_size
        x = self.transformer(x, total, cache)
        return part(x, total - 1, 1)[:, 0]

    def decode(
        self, group: Tensor, number: Tensor, cache: Cache, extra: Tensor | None = None
    ) -> Tensor:
        """Read group `number` (B,), of codes (B, G): what is known before the next (B, D).

        `extra` (B, 1, D) is added to the group's embedding.
        """
        x = self.embed_groups(group, number)
        x = x if extra is None else x + extra
        return self.transformer(x, torch.ones_like(number), cache)[:, 0]
