"""Monotonic alignment, an option: what is said next, step by step (VALL-E R, arXiv:2406.07855).

Not in VALL-E 2, and off in `configs/paper.yaml`: on little speech a decoder alone takes very long
to find out which word it is at. Here a pointer walks through the text with the frames. As in
VALL-E R the model reads, beside the last codes, the phoneme that comes next, and predicts where the
pointer goes after it. What differs, decided here: the pointer may pass several phonemes at once,
since a group of G frames may be longer than a phoneme; the phonemes around it are read with it, and
for how long it has stood there; and a prompt needs no pointer, so that none is asked of a voice.

A pointer is 0 before the text, i at token i (counted from 1), and NONE where it is not known.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..transformer import INIT_STD, embedding

NONE = -1
BEFORE, AFTER = 2, 3
"""Tokens read on either side of the pointer's own."""
OLDEST = 31
"""Steps from which on the pointer counts as having stood for ever."""
FARTHEST = 7
"""Most tokens the pointer moves on in one step."""


class Pointer(nn.Module):
    """Where the pointer stands, as an embedding."""

    def __init__(self, width: int):
        super().__init__()
        count = BEFORE + 1 + AFTER
        self.tokens = nn.Linear(count * width, width, bias=False)
        nn.init.normal_(self.tokens.weight, std=(count * width) ** -0.5)
        self.age = embedding(OLDEST + 1, width)
        self.none = nn.Parameter(torch.randn(width) * INIT_STD)

    def forward(
        self, text: Tensor, lengths: Tensor, table: nn.Embedding, pointer: Tensor, age: Tensor
    ) -> Tensor:
        """(B, N, D) for pointers and their ages (B, N).

        Args:
            text: (B, S) int64 of `table`, whose last row is <eos>; right-padded beyond `lengths`.
        """
        eos = table.num_embeddings - 1
        offset = torch.arange(-BEFORE, AFTER + 1, device=text.device)
        place = pointer[..., None] + offset - 1  # (B, N, 6), from 0 at the first token
        inside = (place >= 0) & (place < lengths[:, None, None])
        ids = text.gather(1, place.clamp(0, text.shape[1] - 1).flatten(1)).view(place.shape)
        rows = table(torch.where(inside, ids, eos))  # (B, N, 6, D)
        known = self.tokens(rows.flatten(2)) + self.age(age.clamp(max=OLDEST))
        return torch.where((pointer == NONE)[..., None], self.none, known)


def ages(pointer: Tensor) -> Tensor:
    """For how many steps before each the pointer (B, N) stood where it stands: (B, N)."""
    step = torch.arange(pointer.shape[1], device=pointer.device).expand_as(pointer)
    moved = F.pad(pointer[:, 1:] != pointer[:, :-1], (1, 0), value=True)
    return step - torch.where(moved, step, 0).cummax(1).values


def moves(pointer: Tensor) -> Tensor:
    """How far the pointer (B, N) goes at each step but the last: (B, N - 1), NONE if not known."""
    step = pointer[:, 1:] - pointer[:, :-1]
    known = (pointer[:, :-1] != NONE) & (step >= 0) & (step <= FARTHEST)
    return torch.where(known, step, NONE)


def to_groups(pointer: Tensor, group_size: int) -> Tensor:
    """Of the pointers (B, N * G) of frames each group's last: (B, N)."""
    return pointer[:, group_size - 1 :: group_size]


def allowed(logits: Tensor, pointer: Tensor, lengths: Tensor) -> Tensor:
    """Logits of moves (B, FARTHEST + 1), -inf where a move would pass the text's last token."""
    move = torch.arange(logits.shape[1], device=logits.device)
    room = (lengths - pointer).clamp(min=0)[:, None]
    return logits.masked_fill(move > room, float("-inf"))
