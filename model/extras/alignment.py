"""Monotonic alignment, an option: what is said next, step by step (VALL-E R, arXiv:2406.07855).

Not in VALL-E 2, and off in `configs/paper.yaml`: on little speech a decoder alone takes very long
to find out which word it is at. Here a pointer walks through the text with the frames. As in
VALL-E R the model reads, beside the last codes, the phoneme that comes next, and predicts where the
pointer goes after it. What differs, decided here: the pointer may pass several phonemes at once,
since a group of G frames may be longer than a phoneme; the phonemes around it are read with it, and
for how long it has stood there; and a prompt needs no pointer, so that none is asked of a voice.

A pointer is 0 before the text, i at token i (counted from 1), and NONE where it is not known.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ar import AR, ARConfig, Loss, clip_to_groups, cross_entropy
from ..nar import NAR, NARConfig
from ..sampling import Random, draw
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


@dataclass(frozen=True)
class AlignedARConfig:
    """All that is needed to build an `AlignedAR`."""

    ar: ARConfig
    """Of the model inside."""


@dataclass(frozen=True)
class AlignedNARConfig:
    """All that is needed to build an `AlignedNAR`."""

    nar: NARConfig
    """Of the model inside."""


class AlignedLoss(NamedTuple):
    """A `Loss` of codes, and that of the pointer's moves."""

    total: Tensor
    """Mean nats per code, scalar, differentiable."""
    summed: Tensor
    """Sum of nats of codes over the batch, scalar."""
    count: Tensor
    """Codes that were counted, scalar."""
    moves: Tensor
    """Sum of nats of the pointer's moves, to be added in training; scalar, differentiable."""


class AlignedAR(nn.Module):
    """An AR model that reads where in the text each group is, and predicts where it goes next."""

    def __init__(self, config: AlignedARConfig):
        super().__init__()
        self.config = config
        self.ar = AR(config.ar)
        self.pointer = Pointer(config.ar.size.width)
        self.move = nn.Linear(config.ar.size.width, FARTHEST + 1)

    def told(self, text: Tensor, text_lengths: Tensor, pointer: Tensor, age: Tensor) -> Tensor:
        """What is said next, for pointers and their ages (B, N): (B, N, D), the AR's `extra`."""
        return self.pointer(text, text_lengths, self.ar.text_embedding, pointer, age)

    def loss(
        self,
        text: Tensor,
        text_lengths: Tensor,
        codes: Tensor,
        lengths: Tensor,
        pointer: Tensor,
    ) -> AlignedLoss:
        """As `AR.loss`, and that of the moves, given where each frame is in the text.

        Args:
            text: (B, S) int64, right-padded beyond `text_lengths` (B,).
            codes: (B, T) int64 of codebook 0, right-padded beyond `lengths` (B,).
            pointer: (B, T) int64.

        Raises:
            ValueError: The model's positions do not hold the text or the codes.
        """
        G = self.config.ar.group_size
        groups = to_groups(clip_to_groups(pointer, lengths, G)[0], G)
        codes, lengths = clip_to_groups(codes, lengths, G)
        last = (lengths // G)[:, None]
        number = torch.arange(1 + codes.shape[1] // G, device=codes.device)[None]  # (1, N + 1)
        # Behind the last group the text is said, and nothing is asked of the pointer.
        groups = torch.where(number < last, F.pad(groups, (0, 1)), text_lengths[:, None])
        extra = self.told(text, text_lengths, groups, ages(groups))
        hidden = self.ar.read(text, text_lengths, codes, lengths, extra)
        loss = self.ar.code_loss(hidden, codes, lengths)
        target = moves(groups)  # (B, N)
        known = (target != NONE) & (number[:, :-1] < last)
        moved = cross_entropy(self.move(hidden[:, :-1]), target, known)
        return AlignedLoss(loss.total, loss.summed, loss.count, moved.summed)


class AlignedNAR(nn.Module):
    """A NAR model that reads where in the text each frame behind the prompt is."""

    def __init__(self, config: AlignedNARConfig):
        super().__init__()
        self.config = config
        self.nar = NAR(config.nar)
        self.pointer = Pointer(config.nar.size.width)

    def told(
        self, text: Tensor, text_lengths: Tensor, pointer: Tensor, prompt_lengths: Tensor
    ) -> Tensor:
        """What is said, for pointers (B, T) of prompt and speech: (B, T, D), the NAR's `extra`.

        Pointers within prompts are not read.
        """
        frame = torch.arange(pointer.shape[1], device=pointer.device)
        pointer = pointer.masked_fill(frame < prompt_lengths[:, None], NONE)
        return self.pointer(text, text_lengths, self.nar.text_embedding, pointer, ages(pointer))

    def loss(
        self,
        text: Tensor,
        text_lengths: Tensor,
        codes: Tensor,
        lengths: Tensor,
        prompt_lengths: Tensor,
        level: int,
        pointer: Tensor,
    ) -> Loss:
        """As `NAR.loss`, given where each frame (B, T) is in the text; errors as there."""
        extra = self.told(text, text_lengths, pointer, prompt_lengths)
        return self.nar.loss(text, text_lengths, codes, lengths, prompt_lengths, level, extra)


def guided(logits: Tensor, unaware: Tensor, guidance: float) -> Tensor:
    """Classifier-free guidance (Ho and Salimans, arXiv:2207.12598) on logits (..., V).

    `unaware` are the logits of the same model without what it should heed. Guidance 0 gives the
    log probabilities of `logits`.
    """
    aware, unaware = logits.float().log_softmax(-1), unaware.float().log_softmax(-1)
    return aware + guidance * (aware - unaware)


class Walk:
    """A `Steer`: the pointer of each row, from the end of the prompt's text to the last token.

    No row may end before its last token.
    """

    def __init__(
        self,
        model: AlignedAR,
        text: Tensor,
        text_lengths: Tensor,
        said: Tensor,
        stay: float | None = None,
        guidance: float = 0.0,
    ):
        """Stand behind the prompt's text.

        Args:
            text: (B, S) int64, the prompt's text and the new text, right-padded.
            text_lengths: (B,)
            said: (B,) tokens that are the prompt's.
            stay: The pointer moves on once the chance that a drawn one would have stayed for so
                long is below this; 0.5 gives every phoneme its median length. None draws each move.
            guidance: How much further the logits go away from what the model would say if it were
                not told where it is in the text; each row is then read twice (`guided`).
        """
        self.model, self.stay, self.guidance = model, stay, guidance
        self.text, self.text_lengths = text, text_lengths
        self.pointer = said  # (B,)
        self.age = torch.zeros_like(said)  # groups for which it has stood there
        self.stayed = torch.ones_like(said, dtype=torch.float32)  # the chance of so long a stay
        self.trail = said[:, None][:, :0]  # (B, steps), where the pointer stood
        self.born = [0] * len(said)  # of each row, the step at which its trail begins

    def _told(self, pointer: Tensor, age: Tensor) -> Tensor:
        told = self.model.told(self.text, self.text_lengths, pointer, age)
        if not self.guidance:
            return told
        return torch.stack([told, self.model.pointer.none.expand_as(told)], 1).flatten(0, 1)

    def start(self, groups: Tensor) -> Tensor:
        """As of `Steer`: nothing is known of <bos> and prompts but what their last says next."""
        number = torch.arange(int(groups.max()) + 1, device=groups.device)
        pointer = torch.where(number == groups[:, None], self.pointer[:, None], NONE)
        return self._told(pointer, torch.zeros_like(pointer))

    def logits(self, logits: Tensor) -> Tensor:
        """As of `Steer`: guided, and without <eos> before the last token."""
        if self.guidance:
            logits = guided(logits[::2], logits[1::2], self.guidance)
        early = self.pointer < self.text_lengths
        logits = logits.clone()
        logits[:, 0, self.model.ar.eos_id] = logits[:, 0, self.model.ar.eos_id].masked_fill(
            early, -torch.inf
        )
        return logits

    def step(self, hidden: Tensor, random: Random) -> Tensor:
        """As of `Steer`: move the pointer, by what was known before the group just drawn."""
        self.trail = torch.cat([self.trail, self.pointer[:, None]], 1)
        hidden = hidden[:: 2 if self.guidance else 1]
        chances = allowed(self.model.move(hidden).float(), self.pointer, self.text_lengths)
        chances = chances.softmax(-1)
        stayed = self.stayed * chances[:, 0]
        if self.stay is None:
            move = draw(chances, random)
        else:
            # Drawn lengths scatter widely around the likely ones, as each step is its own draw.
            onward = chances[:, 1:]
            goes = (stayed < self.stay) & (onward.sum(1) > 0)  # at the last token it stays
            move = torch.where(goes, 1 + onward.argmax(1), 0)
        moved = move > 0
        self.pointer = self.pointer + move
        self.age = torch.where(moved, 0, self.age + 1)
        self.stayed = torch.where(moved, torch.ones_like(stayed), stayed)
        return self._told(self.pointer[:, None], self.age[:, None])

    def frames(self, row: int, count: int) -> Tensor:
        """As of `Steer`: where each of the first `count` frames was in the text."""
        G = self.model.config.ar.group_size
        return self.trail[row, self.born[row] :].repeat_interleave(G)[:count]

    def join(self, other: "Walk") -> None:
        """As of `Steer`."""
        wide = max(self.text.shape[1], other.text.shape[1])
        self.text = torch.cat([F.pad(w.text, (0, wide - w.text.shape[1])) for w in (self, other)])
        steps = self.trail.shape[1]
        self.trail = torch.cat([self.trail, F.pad(other.trail, (steps, 0))])
        self.born += [steps + born for born in other.born]
        for name in ("text_lengths", "pointer", "age", "stayed"):
            setattr(self, name, torch.cat([getattr(self, name), getattr(other, name)]))

    def keep(self, order: Tensor) -> None:
        """As of `Steer`; what no row left has walked is forgotten."""
        for name in ("text", "text_lengths", "pointer", "age", "stayed", "trail"):
            setattr(self, name, getattr(self, name)[order])
        self.born = [self.born[row] for row in order.tolist()]
        first = min(self.born, default=0)
        self.trail, self.born = self.trail[:, first:], [born - first for born in self.born]
