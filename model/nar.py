"""The non-autoregressive model of codebooks 1..K-1 (VALL-E 2, 3.3).

Reads text || <eos> || codes || <eos> || W_id[j] with full attention and predicts codebook j of
every target frame at once. Prompt frames are the sum of all K code embeddings, target frames that
of codebooks 0..j-1. What the paper leaves open: the <eos> behind the codes is a learned vector of
the code sequence, and it and the code-ID token take the two code positions behind the last frame.

The one seam for what the paper does not have is `extra`, added to the frames' embeddings; nothing
here makes one (`model/extras/`).
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from .ar import Loss, cross_entropy, logits
from .transformer import INIT_STD, Size, Transformer, embed_text, embedding, join, part, positions


@dataclass(frozen=True)
class NARConfig:
    """All that is needed to build a `NAR`."""

    text_size: int
    """Entries in the text vocabulary, without <eos>."""
    codebook_size: int
    """Entries in a codebook."""
    codebooks: int = 8
    """K, the AR model's codebook 0 included."""
    size: Size = field(default_factory=Size)
    max_text: int = 1024
    """Text positions, <eos> included."""
    max_frames: int = 4096
    """Longest code sequence in frames, prompt included."""

    def __post_init__(self):
        if min(self.text_size, self.codebook_size, self.max_text, self.max_frames) < 1:
            raise ValueError(f"sizes must be at least 1: {self}")
        if self.codebooks < 2:
            raise ValueError(f"codebooks {self.codebooks} leaves nothing for the NAR model")


class NAR(nn.Module):
    """Text, the prompt's codes and codebooks 0..j-1 in, distributions over codebook j out."""

    def __init__(self, config: NARConfig):
        super().__init__()
        self.config = config
        K, D = config.codebooks, config.size.width
        self.text_embedding = embedding(config.text_size + 1, D)
        self.text_position = positions(config.max_text, D)
        self.code_embeddings = nn.ModuleList(embedding(config.codebook_size, D) for _ in range(K))
        self.code_position = positions(config.max_frames + 2, D)
        self.eos = nn.Parameter(torch.randn(D) * INIT_STD)
        self.level_embedding = embedding(K - 1, D)  # W_id
        self.transformer = Transformer(config.size, causal=False)

    def read_text(self, text: Tensor, lengths: Tensor) -> Tensor:
        """Text (B, S), right-padded beyond `lengths` (B,), and <eos>: (B, S + 1, D)."""
        return embed_text(text, lengths, self.text_embedding, self.text_position)

    def embedded(self, codes: Tensor, level: int) -> Tensor:
        """Codes (B, T) of codebook `level` alone: (B, T, D)."""
        return self.code_embeddings[level](codes)

    def read_frames(self, codes: Tensor, prompt_lengths: Tensor, level: int) -> Tensor:
        """What is known of each frame of (B, K, T) before `level` is said: (B, T, D).

        Raises:
            ValueError: There is no such level or K, or the model's positions do not hold T.
        """
        K, T = codes.shape[1:]
        if not 1 <= level < self.config.codebooks or K != self.config.codebooks:
            raise ValueError(f"level {level} of {K} codebooks, model of {self.config.codebooks}")
        if T > self.config.max_frames:
            raise ValueError(f"{T} frames, the model holds {self.config.max_frames}")
        is_prompt = torch.arange(T, device=codes.device) < prompt_lengths[:, None]  # (B, T)
        frames = torch.zeros(
            *codes[:, 0].shape, self.config.size.width, dtype=self.eos.dtype, device=codes.device
        )
        for k in range(K):  # Eq. 12 the prompt, Eq. 13 the target
            embedded = self.embedded(codes[:, k], k)
            frames = frames + (embedded if k < level else embedded * is_prompt[..., None])
        return frames

    def say(
        self,
        text: Tensor,
        text_lengths: Tensor,
        frames: Tensor,
        lengths: Tensor,
        first: Tensor,
        count: int,
        level: int,
    ) -> Tensor:
        """Logits of codebook `level` at `count` frames from `first` (B,) on: (B, count, V).

        Args:
            text: (B, S + 1, D) of `read_text`.
            frames: (B, T, D) of `read_frames`, and what may be added to them.
        """
        T = frames.shape[1]
        tail = torch.stack([self.eos, self.level_embedding.weight[level - 1]])
        speech = join(frames, lengths, tail.expand(len(frames), -1, -1))
        speech = speech + self.code_position.weight[: T + 2]
        x = join(text, text_lengths + 1, speech)  # Eq. 14
        x = self.transformer(x, text_lengths + 1 + lengths + 2)
        return self.predict(part(x, text_lengths + 1 + first, count), level)

    def forward(
        self,
        text: Tensor,
        text_lengths: Tensor,
        codes: Tensor,
        lengths: Tensor,
        prompt_lengths: Tensor,
        level: int,
        extra: Tensor | None = None,
    ) -> Tensor:
        """Logits (B, T, V) of codebook `level` (1..K-1) at every frame.

        Args:
            text: (B, S) int64, right-padded beyond `text_lengths` (B,).
            codes: (B, K, T) int64, right-padded beyond `lengths` (B,). Target frames are read in
                codebooks 0..level-1 only.
            prompt_lengths: (B,) frames at the start that are the prompt, read in all codebooks.
            extra: (B, T, D), added to the frames' embeddings.

        Raises:
            ValueError: There is no such level or K, or the model's positions do not hold the text
                or the frames.
        """
        frames = self.read_frames(codes, prompt_lengths, level)
        frames = frames if extra is None else frames + extra
        read = self.read_text(text, text_lengths)
        first = torch.zeros_like(lengths)
        return self.say(read, text_lengths, frames, lengths, first, codes.shape[2], level)

    def predict(self, hidden: Tensor, level: int) -> Tensor:
        """(B, T, D) to logits (B, T, V) of codebook `level`, through its tied table, in fp32."""
        table = self.code_embeddings[level]
        assert isinstance(table, nn.Embedding)
        return logits(hidden, table.weight)

    def loss(
        self,
        text: Tensor,
        text_lengths: Tensor,
        codes: Tensor,
        lengths: Tensor,
        prompt_lengths: Tensor,
        level: int,
        extra: Tensor | None = None,
    ) -> Loss:
        """Mean nats per code of codebook `level` after the prompt (Eq. 15-17).

        One level of the sum over them; training draws it anew for each step. Arguments and errors
        as of `forward`.
        """
        predicted = self(text, text_lengths, codes, lengths, prompt_lengths, level, extra)
        frame = torch.arange(codes.shape[2], device=codes.device)
        counted = (frame >= prompt_lengths[:, None]) & (frame < lengths[:, None])
        return cross_entropy(predicted, codes[:, level], counted)
