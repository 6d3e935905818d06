"""Hears which phoneme each frame of FARGAN's features says, to tell a decoder how clear it is."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sayso.model.codecs.base import NOTHING
from sayso.model.codecs.decoder import PER_FRAME
from sayso.model.codecs.fargan import FEATURES

from .decoder_examples import Example

SMOOTHING = 0.05  # of the labels
OFFSET, NOISE = 0.15, 0.1
"""Deviations by which features are moved, as a whole and each, so that no hair decides."""
BATCH, FRAMES, RATE = 16, 128, 2e-3
IGNORED = -100


class Listener(nn.Module):
    """Features (B, 2 T, 20) to logits (B, T, symbols + 1) of the text ids, first of NOTHING."""

    mean: Tensor
    std: Tensor

    def __init__(self, symbols: int, width: int = 128, layers: int = 3):
        super().__init__()
        self.register_buffer("mean", torch.zeros(FEATURES))
        self.register_buffer("std", torch.ones(FEATURES))
        self.first = nn.Conv1d(PER_FRAME * FEATURES, width, 5, padding=2)
        self.layers = nn.ModuleList(nn.Conv1d(width, width, 5, padding=2) for _ in range(layers))
        self.last = nn.Conv1d(width, symbols + 1, 1)
        self.dropout = nn.Dropout(0.15)

    def forward(self, features: Tensor) -> Tensor:
        """As of the class."""
        x = ((features - self.mean) / self.std).unflatten(1, (-1, PER_FRAME)).flatten(2)
        x = F.gelu(self.first(x.transpose(1, 2)))
        for layer in self.layers:
            x = x + F.gelu(layer(self.dropout(x)))
        return self.last(x).transpose(1, 2)

    def unclear(self, features: Tensor, said: Tensor) -> Tensor:
        """Mean nats by which features (B, 2 T, 20) do not say text ids (B, T), scalar."""
        wanted = (said - NOTHING).flatten()
        return F.cross_entropy(self(features).flatten(0, 1), wanted, label_smoothing=SMOOTHING)


def fit_listener(
    heard: Sequence[Example],
    unheard: Sequence[Example],
    symbols: int,
    steps: int,
    seed: int,
    report: Callable[[str], None] = print,
) -> Listener:
    """A listener fitted to recordings of which it is known what each frame says, and frozen.

    Args:
        heard: At least one; examples without alignment are left out, here and of `unheard`.
        symbols: Text ids there are.
    """
    heard, unheard = (
        [each for each in part if each.symbols is not None] for part in (heard, unheard)
    )
    torch.manual_seed(seed)
    listener = Listener(symbols)
    rows = torch.cat([each.recorded for each in heard])
    listener.mean.copy_(rows.mean(0))
    listener.std.copy_(rows.std(0) + 1e-3)
    optimizer = torch.optim.AdamW(listener.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, steps)
    for number in range(steps):
        loss = _loss(listener, heard, np.random.default_rng([seed, number]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    listener.eval().requires_grad_(False)
    if unheard:
        right = [_share_right(listener, each) for each in unheard]
        report(f"listener: {np.mean(right):.3f} of the frames of {len(right)} recordings held out")
    return listener


def _loss(listener: Listener, heard: Sequence[Example], random: np.random.Generator) -> Tensor:
    recorded, said = [], []
    for _ in range(BATCH):
        each = heard[int(random.integers(len(heard)))]
        assert each.symbols is not None
        start = int(random.integers(max(1, len(each.symbols) - FRAMES + 1)))
        ids = each.symbols[start : start + FRAMES] - NOTHING
        rows = each.recorded[PER_FRAME * start : PER_FRAME * (start + len(ids))]
        short = FRAMES - len(ids)
        recorded.append(F.pad(rows, (0, 0, 0, PER_FRAME * short)))
        said.append(F.pad(ids, (0, short), value=IGNORED))
    x = torch.stack(recorded)
    x = x + listener.std * (OFFSET * torch.randn(BATCH, 1, FEATURES) + NOISE * torch.randn_like(x))
    logits = listener(x).flatten(0, 1)
    return F.cross_entropy(
        logits, torch.stack(said).flatten(), ignore_index=IGNORED, label_smoothing=SMOOTHING
    )


def _share_right(listener: Listener, example: Example) -> float:
    assert example.symbols is not None
    said = listener(example.recorded[None])[0].argmax(1) + NOTHING
    return float((said == example.symbols).float().mean())
