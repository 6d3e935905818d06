"""The autoregressive model with grouped code modeling (VALL-E 2, 3.1-3.2, Eq. 5-11).

Reads text || <eos>, <bos> || groups of G codes of codebook 0, and predicts the next group: its G
codes independently of each other, given all earlier groups (Eq. 11). What the paper leaves open:

- <eos> is id `codebook_size`, one row more in the code table. It fills the whole last group, all G
  places, as the number of frames is made a multiple of G before (3.1). When sampling, the first
  place decides whether the utterance ends, and the others are drawn given that it did not: since
  targets only hold whole groups of <eos>, that is the exact joint distribution, while "any place
  may end it" would end up to G times too often.
- <bos> is one learned vector, as it has to stand where a whole group would.
- A prompt is clipped at inference as utterances are in training: at its start, to a multiple of G.
- No bias in the tied softmax, none in the group embedding (Eq. 6 is a plain matrix).
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .extras.alignment import FARTHEST, NONE, Pointer, ages, moves, to_groups
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
    alignment: bool = False
    """Whether a pointer walks through the text (`model/extras/alignment.py`); not in VALL-E 2."""

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
    aside: Tensor | None = None
    """Nats of what is predicted beside codes, a sum to be added in training; not in the others."""


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
        self.pointer = Pointer(D) if config.alignment else None
        self.move = nn.Linear(D, FARTHEST + 1) if config.alignment else None
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
        groups = self.code_embedding(codes).view(B, T // G, G * D)
        if self.group_embedding is not None:
            groups = self.group_embedding(groups)
        number = first[:, None] + torch.arange(T // G, device=codes.device)
        return groups + self.code_position(number.clamp(max=self.code_position.num_embeddings - 1))

    def guide(self, text: Tensor, text_lengths: Tensor, pointer: Tensor, age: Tensor) -> Tensor:
        """What is said next, for pointers and their ages (B, N): (B, N, D).

        Raises:
            ValueError: The model was built without `alignment`.
        """
        if self.pointer is None:
            raise ValueError("this model has no pointer: its config says alignment: false")
        return self.pointer(text, text_lengths, self.text_embedding, pointer, age)

    def embed_start(
        self, text: Tensor, text_lengths: Tensor, codes: Tensor, guide: Tensor | None
    ) -> Tensor:
        """Text || <eos>, <bos> || groups: (B, S + 2 + N, D), right-padded."""
        if codes.shape[1] > self.config.max_frames:
            raise ValueError(f"{codes.shape[1]} frames, the model holds {self.config.max_frames}")
        if (guide is None) == self.config.alignment:
            raise ValueError(f"alignment is {self.config.alignment} in this model's config")
        x = embed_text(text, text_lengths, self.text_embedding, self.text_position)
        bos = (self.bos + self.code_position.weight[0]).expand(len(codes), 1, -1)
        groups = self.embed_groups(codes, torch.ones_like(text_lengths))
        speech = torch.cat([bos, groups], 1)
        return join(x, text_lengths + 1, speech if guide is None else speech + guide)

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
        guide: Tensor | None = None,
    ) -> Tensor:
        """What is known before each group, and after the last: (B, N + 1, D).

        Args:
            text: (B, S) int64, right-padded beyond `text_lengths` (B,).
            codes: (B, N * G) int64 of codebook 0, right-padded beyond `lengths` (B,), which are
                multiples of G.
            guide: (B, N + 1, D) of `guide`, where each of the groups is in the text; only for
                models with `alignment`.
        """
        G = self.config.group_size
        x = self.embed_start(text, text_lengths, codes, guide)
        x = self.transformer(x, text_lengths + 2 + lengths // G)
        return part(x, text_lengths + 1, 1 + codes.shape[1] // G)

    def forward(
        self,
        text: Tensor,
        text_lengths: Tensor,
        codes: Tensor,
        lengths: Tensor,
        guide: Tensor | None = None,
    ) -> Tensor:
        """Logits for every group and the one after the last: (B, N + 1, G, codebook_size + 1).

        Arguments as of `read`.
        """
        return self.predict(self.read(text, text_lengths, codes, lengths, guide))

    def loss(
        self,
        text: Tensor,
        text_lengths: Tensor,
        codes: Tensor,
        lengths: Tensor,
        pointer: Tensor | None = None,
    ) -> Loss:
        """Mean nats per code (Eq. 8), <eos> included; utterances are clipped to whole groups here.

        Args:
            text: (B, S) int64, right-padded beyond `text_lengths` (B,).
            codes: (B, T) int64 of codebook 0, right-padded beyond `lengths` (B,).
            pointer: (B, T) int64, where each frame is in the text; only for models with
                `alignment`. The nats of its moves are the loss's `aside`.
        """
        G = self.config.group_size
        guide = groups = None
        if pointer is not None:
            groups = to_groups(clip_to_groups(pointer, lengths, G)[0], G)
        codes, lengths = clip_to_groups(codes, lengths, G)
        last = (lengths // G)[:, None]
        number = torch.arange(1 + codes.shape[1] // G, device=codes.device)[None]  # (1, N + 1)
        if groups is not None:
            # Behind the last group the text is said, and nothing is asked of the pointer.
            groups = torch.where(number < last, F.pad(groups, (0, 1)), text_lengths[:, None])
            guide = self.guide(text, text_lengths, groups, ages(groups))
        hidden = self.read(text, text_lengths, codes, lengths, guide)
        targets = F.pad(codes, (0, G)).unflatten(1, (-1, G))  # (B, N + 1, G)
        targets = targets.masked_fill((number >= last)[..., None], self.eos_id)
        counted = (number <= last)[..., None].expand_as(targets)
        loss = cross_entropy(self.predict(hidden), targets, counted)
        if groups is None or self.move is None:
            return loss
        target = moves(groups)  # (B, N)
        known = (target != NONE) & (number[:, :-1] < last)
        return loss._replace(aside=cross_entropy(self.move(hidden[:, :-1]), target, known).summed)

    def prefill(
        self,
        text: Tensor,
        text_lengths: Tensor,
        codes: Tensor,
        lengths: Tensor,
        cache: Cache,
        guide: Tensor | None = None,
    ) -> Tensor:
        """Read text and prompt into an empty cache: what is known before the next group (B, D)."""
        G = self.config.group_size
        x = self.embed_start(text, text_lengths, codes, guide)
        total = text_lengths + 2 + lengths // G
        x = self.transformer(x, total, cache)
        return part(x, total - 1, 1)[:, 0]

    def decode(
        self, group: Tensor, number: Tensor, cache: Cache, guide: Tensor | None = None
    ) -> Tensor:
        """Read group `number` (B,), of codes (B, G): what is known before the next (B, D)."""
        x = self.embed_groups(group, number)
        x = x if guide is None else x + guide
        return self.transformer(x, torch.ones_like(number), cache)[:, 0]
