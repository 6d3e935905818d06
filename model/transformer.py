"""The Transformer both models share, its key-value cache passed as an argument (VALL-E 2, 3.2-3.3).

The paper gives the size ("following VALL-E", arXiv:2301.02111, 5.1) and no more. Decided here,
once: LayerNorm before each sub-layer and after the last (trains without a long warm-up), GELU,
weights N(0, 0.02) with the two layers that write to the residual scaled by 1/sqrt(2 * layers) as
in GPT-2. Dropout on the input and on what the sub-layers write to the residual, but not on
attention weights: fused attention keeps memory linear in tokens, and with that dropout PyTorch's
kept every pair on a CPU. Learnable positions that start as sinusoids: they may move, but text and
speech run in step, and a table that knows what "next" means should learn to read sooner than noise.
"""

import math
from copy import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

INIT_STD = 0.02


LARGEST = 2**32
"""Of layers x width x width: the paper's has 5e7."""


@dataclass(frozen=True)
class Size:
    """The size of a Transformer; the defaults are the paper's."""

    layers: int = 12
    """Transformer blocks."""
    heads: int = 16
    """Attention heads; must divide width."""
    width: int = 1024
    """Model width D."""
    feed_forward: int = 4096
    """Width inside the feed-forward layers."""
    dropout: float = 0.1
    """Dropout on the input and on both sub-layers' outputs."""

    def __post_init__(self):
        if min(self.layers, self.heads, self.width, self.feed_forward) < 1:
            raise ValueError(f"sizes must be at least 1: {self}")
        if self.layers * self.width * max(self.width, self.feed_forward) > LARGEST:
            raise ValueError(f"too large to be built: {self}")
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout {self.dropout} is outside [0, 1)")


class Cache:
    """Keys and values of the tokens seen so far; every row of the batch has its own length.

    A query reads the keys as a product of a matrix and a vector, and values are summed as an
    embedding bag's: fused attention takes three times as long for the one query of a step.
    """

    def __init__(
        self,
        size: Size,
        batch: int,
        capacity: int,
        like: Tensor,
        values: torch.dtype | None = None,
    ):
        """An empty one, on the device and of the type of `like`, but for the type of `values`."""
        shape = batch, size.heads, capacity, size.width // size.heads
        self.keys, self.values = (  # of each layer
            [torch.zeros(shape, dtype=dtype, device=like.device) for _ in range(size.layers)]
            for dtype in (like.dtype, values or like.dtype)
        )
        self.lengths = torch.zeros(batch, dtype=torch.long, device=like.device)  # (B,)
        self.used = 0  # slots looked at: no row has more, and no device is asked how many it has
        self.even = False  # whether all rows are known to have as many
        self.mask: Tensor | None = None  # (B, 1, used), True where a row may look
        self.slots = self.starts = self.lengths  # (B * H * used,), (B * H,)

    @property
    def capacity(self) -> int:
        """Tokens of a row that it can hold."""
        return self.values[0].shape[2]

    def rows(self, start: int, stop: int, used: int = 0, even: bool = False) -> "Cache":
        """These rows of it, in the same memory, of which none holds more than `used` tokens."""
        view = copy(self)
        view.keys, view.values = ([x[start:stop] for x in own] for own in (self.keys, self.values))
        view.lengths, view.used, view.even = self.lengths[start:stop], used, even
        return view

    def copy_row(self, source: int, target: int, used: int) -> None:
        """Let a row be like another, which holds at most `used` tokens."""
        for own in (*self.keys, *self.values):
            own[target, :, :used] = own[source, :, :used]
        self.lengths[target] = self.lengths[source]

    def reserve(self, new: int) -> None:
        """Place `new` tokens: one behind each row, or all of its first.

        ValueError where the capacity is too small, or where there is more than one and the cache
        is not empty.
        """
        if new > 1 and self.used:
            raise ValueError(f"{new} tokens at once behind {self.used}: only the first may be many")
        self.used += new
        if self.used > self.capacity:
            raise ValueError(f"cache holds {self.capacity} tokens, {self.used} needed")
        self.mask = None  # where all rows are even, or at their first, each sees what is there
        if new > 1:
            return
        here = self.lengths.device
        if not self.even:
            every = torch.arange(self.used, device=here)
            self.mask = (every <= self.lengths[:, None])[:, None]
        if self.lengths.is_cpu:
            heads = torch.arange(self.values[0].shape[:2].numel(), device=here)
            self.slots = heads[:, None] * self.capacity + torch.arange(self.used, device=here)
            self.slots, self.starts = self.slots.flatten(), heads * self.used

    def write(self, layer: int, key: Tensor, value: Tensor) -> None:
        """Store what was reserved for, (B, H, new, D/H)."""
        keys, values = self.keys[layer], self.values[layer]
        if self.mask is None:
            place, count = self.used - key.shape[2], key.shape[2]
            keys.narrow(2, place, count).copy_(key)
            values.narrow(2, place, count).copy_(value)
        else:
            row = torch.arange(len(key), device=key.device)
            keys[row, :, self.lengths] = key[:, :, 0]
            values[row, :, self.lengths] = value[:, :, 0].to(values.dtype)

    def look(self, layer: int, query: Tensor) -> Tensor:
        """What one query (B, H, D/H) of each row finds in all it holds: (B, D)."""
        B, H, d = query.shape
        keys, values = (x[layer].flatten(0, 1) for x in (self.keys, self.values))
        # Turned over, not (d, 1) as it lies: MKL then takes a quarter of the time.
        query = (query * d**-0.5).reshape(B * H, 1, d).transpose(1, 2)
        scores = torch.bmm(keys[:, : self.used], query).view(B, H, -1)
        if self.mask is not None:
            scores = scores.masked_fill_(~self.mask, -torch.inf)
        shares = scores.softmax(-1).to(values.dtype)
        if query.is_cpu:
            bags = self.slots, self.starts, False, 0, False, shares.flatten()
            found = torch.embedding_bag(values.flatten(0, 1), *bags)[0]
        else:
            found = torch.bmm(shares.view(B * H, 1, -1), values[:, : self.used])
        return found.to(query.dtype).view(B, H * d)

    def advance(self, lengths: Tensor) -> None:
        """Count `lengths` (B,) of the tokens just written; later ones (padding) get overwritten."""
        self.lengths += lengths


class Block(nn.Module):
    """Self-attention and feed-forward, each behind a LayerNorm and added to the residual."""

    def __init__(self, size: Size):
        super().__init__()
        self.heads, self.dropout = size.heads, size.dropout
        self.attention_norm = nn.LayerNorm(size.width)
        self.qkv = nn.Linear(size.width, 3 * size.width)
        self.attention_out = nn.Linear(size.width, size.width)
        self.feed_forward_norm = nn.LayerNorm(size.width)
        self.feed_forward_in = nn.Linear(size.width, size.feed_forward)
        self.feed_forward_out = nn.Linear(size.feed_forward, size.width)
        for linear in (self.qkv, self.attention_out, self.feed_forward_in, self.feed_forward_out):
            nn.init.normal_(linear.weight, std=INIT_STD)
            nn.init.zeros_(linear.bias)
        for linear in (self.attention_out, self.feed_forward_out):
            nn.init.normal_(linear.weight, std=INIT_STD / math.sqrt(2 * size.layers))

    def forward(
        self,
        x: Tensor,  # (B, L, D)
        causal: bool,
        mask: Tensor | None,  # broadcasts to (B, H, L, keys), True where a query may look
        cache: Cache | None = None,
        layer: int = 0,
    ) -> Tensor:
        B, L, D = x.shape
        qkv = self.qkv(self.attention_norm(x)).view(B, L, 3, self.heads, D // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind()  # each (B, H, L, D/H)
        if cache is not None:
            cache.write(layer, key, value)
        if cache is not None and L == 1:
            y = cache.look(layer, query[:, :, 0])[:, None]
        else:
            y = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal)
            y = y.transpose(1, 2).reshape(B, L, D)
        y = self.attention_out(y)
        x = x + (F.dropout(y, self.dropout) if self.training else y)
        y = self.feed_forward_out(F.gelu(self.feed_forward_in(self.feed_forward_norm(x))))
        return x + (F.dropout(y, self.dropout) if self.training else y)


class Transformer(nn.Module):
    """A stack of blocks over right-padded sequences."""

    def __init__(self, size: Size, causal: bool):
        super().__init__()
        self.size, self.causal = size, causal
        self.kept: torch.dtype | None = None  # values in a cache; else as the model
        self.blocks = nn.ModuleList(Block(size) for _ in range(size.layers))
        self.norm = nn.LayerNorm(size.width)

    def cache(self, batch: int, capacity: int) -> Cache:
        """An empty one for so many rows and tokens."""
        return Cache(self.size, batch, capacity, self.norm.weight, self.kept)

    def forward(self, x: Tensor, lengths: Tensor, cache: Cache | None = None) -> Tensor:
        """(B, L, D) to (B, L, D); rows are right-padded beyond `lengths` (B,).

        With a cache, `x` holds the token that follows those in it, or all of the first (causal
        models only, others raise ValueError).
        """
        x = F.dropout(x, self.size.dropout, self.training)
        mask = None
        if cache is not None:
            if not self.causal:
                raise ValueError("only a causal Transformer can use a cache")
            cache.reserve(x.shape[1])
        elif not self.causal:
            mask = torch.arange(x.shape[1], device=x.device) < lengths[:, None]
            mask = mask[:, None, None]  # (B, 1, 1, L)
        # Right padding needs no mask under causal attention: no real token looks behind itself.
        for layer, block in enumerate(self.blocks):
            x = block(x, self.causal, mask, cache, layer)
        if cache is not None:
            cache.advance(lengths)
        return self.norm(x)


def positions(count: int, width: int) -> nn.Embedding:
    """A learnable position table (count, width) that starts as sinusoids of deviation 0.02."""
    angle = torch.arange(count)[:, None] * torch.exp(
        -math.log(10_000) * torch.arange(0, width, 2) / width
    )
    table = torch.stack([angle.sin(), angle.cos()], -1).flatten(1)[:, :width]
    return nn.Embedding(count, width, _weight=table * math.sqrt(2) * INIT_STD)


def embedding(count: int, width: int) -> nn.Embedding:
    """An embedding table (count, width) drawn from N(0, 0.02)."""
    return nn.Embedding(count, width, _weight=torch.randn(count, width) * INIT_STD)


def embed_text(
    text: Tensor, lengths: Tensor, table: nn.Embedding, position: nn.Embedding
) -> Tensor:
    """Text ids (B, S), right-padded beyond `lengths` (B,), and <eos> (Eq. 5): (B, S + 1, D).

    <eos> is the last row of `table`, behind the vocabulary. ValueError for more text than
    positions.
    """
    text = F.pad(text, (0, 1)).scatter(1, lengths[:, None], table.num_embeddings - 1)
    if text.shape[1] > position.num_embeddings:
        raise ValueError(f"{text.shape[1]} text tokens, the model holds {position.num_embeddings}")
    return table(text) + position.weight[: text.shape[1]]


def join(first: Tensor, first_lengths: Tensor, second: Tensor) -> Tensor:
    """Put each row of `second` right behind the real part of `first`'s row, padding last.

    Args:
        first: (B, A, D), of which `first_lengths` (B,) tokens are real.
        second: (B, C, D), right-padded.

    Returns:
        (B, A + C, D)
    """
    both = torch.cat([first, second], 1)
    slot = torch.arange(both.shape[1], device=both.device)[None]
    start = first_lengths[:, None]
    source = torch.where(slot < start, slot, slot - start + first.shape[1])
    return both.gather(1, source.clamp(max=both.shape[1] - 1)[..., None].expand_as(both))


def part(joined: Tensor, start: Tensor, count: int) -> Tensor:
    """The `count` tokens of each row (B, L, D) from `start` (B,), the last again behind the end:
    (B, count, D)."""
    index = start[:, None] + torch.arange(count, device=joined.device)
    index = index.clamp(max=joined.shape[1] - 1)
    return joined.gather(1, index[..., None].expand(-1, -1, joined.shape[2]))
