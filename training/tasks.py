"""Lightning modules that wire the models' losses to AdamW; the models know nothing of training."""

import torch
from lightning import LightningModule
from torch import Tensor, nn
from torch.optim import AdamW

from sayso.model.ar import AR, Loss, Size
from sayso.model.extras.alignment import AlignedAR, AlignedLoss, AlignedNAR
from sayso.model.nar import NAR
from sayso.model.valle2 import AnyAR, AnyNAR, pure_ar, pure_nar

from .data import Batch
from .recipe import Optimisation


def rate_factor(settings: Optimisation, step: int, minutes: float) -> float:
    """Share of the peak learning rate: linear warm-up, then linear decay (VALL-E 2, section 4.1).

    With a wall-clock limit the decay follows whichever is further on, steps or minutes, so that
    the rate is zero when the run ends.
    """
    done = max(0.0, (step - settings.warm_up) / (settings.steps - settings.warm_up))
    if settings.max_minutes is not None:
        done = max(done, minutes / settings.max_minutes)
    return min((step + 1) / (settings.warm_up + 1), max(0.0, 1.0 - done))


def make_optimizer(module: nn.Module, settings: Optimisation) -> AdamW:
    """AdamW with weight decay on matrices only."""
    matrices = [p for p in module.parameters() if p.ndim >= 2]
    others = [p for p in module.parameters() if p.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": settings.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return AdamW(groups, lr=settings.peak_rate, betas=(0.9, 0.95))


def step_flops(size: Size, tokens: Tensor, causal: bool) -> float:
    """Operations of a Transformer's forward and backward pass over sequences of (B,) tokens."""
    weights = size.layers * (4 * size.width**2 + 2 * size.width * size.feed_forward)
    pairs = float((tokens.double() ** 2).sum()) / (2 if causal else 1)
    return 6.0 * weights * float(tokens.sum()) + 12.0 * size.layers * size.width * pairs


def shuffle_texts(batch: Batch) -> Batch:
    """The batch with every utterance given its neighbour's text."""
    return batch._replace(text=batch.text.roll(1, 0), text_lengths=batch.text_lengths.roll(1, 0))


class Task(LightningModule):
    """What both models' tasks share."""

    settings: Optimisation
    levels: tuple[int, ...]
    """Codebooks this task predicts."""

    def measure(self, batch: Batch, level: int) -> Loss | AlignedLoss:
        """The model's loss of one codebook on one batch."""
        raise NotImplementedError

    def validation_step(self, batch: Batch) -> Tensor:
        """Sums (levels, 4): nats, codes, nats more with shuffled texts, codes of these.

        A lone utterance has no other's text.
        """
        sums = torch.zeros(len(self.levels), 4, dtype=torch.float64)
        for row, level in enumerate(self.levels):
            right = self.measure(batch, level)
            sums[row, :2] = torch.stack([right.summed.double(), right.count.double()]).cpu()
            if len(batch.text) > 1:
                wrong = self.measure(shuffle_texts(batch), level)
                gain = wrong.summed.double() - right.summed.double()
                sums[row, 2:] = torch.stack([gain, wrong.count.double()]).cpu()
        return sums if batch.step_frames else torch.zeros_like(sums)

    def configure_optimizers(self) -> AdamW:
        """AdamW; the rate is set by the loop from :func:`rate_factor`."""
        return make_optimizer(self, self.settings)


class ARTask(Task):
    """The loss of codebook 0."""

    def __init__(self, model: AnyAR, settings: Optimisation):
        super().__init__()
        self.model, self.settings, self.levels = model, settings, (0,)

    @property
    def pure(self) -> AR:
        """The paper's model inside."""
        return pure_ar(self.model)

    def measure(self, batch: Batch, level: int) -> Loss | AlignedLoss:
        """The model's loss of one codebook on one batch."""
        given = batch.text, batch.text_lengths, batch.codes[:, level], batch.lengths
        if isinstance(self.model, AlignedAR):
            assert batch.pointer is not None  # else the run would not have begun
            return self.model.loss(*given, batch.pointer)
        return self.model.loss(*given)

    def training_step(self, batch: Batch) -> tuple[Tensor, Loss | AlignedLoss]:
        """This batch's part in the mean over all frames of the step, and the loss itself."""
        loss = self.measure(batch, 0)
        aside = loss.moves if isinstance(loss, AlignedLoss) else 0.0
        return (loss.summed + aside) / batch.step_frames, loss

    def flops(self, batch: Batch) -> float:
        """Floating-point operations of a training step on a batch, padding not counted."""
        config = self.pure.config
        G, D = config.group_size, config.size.width
        groups = batch.lengths // G
        head = G * D * (config.codebook_size + 1) + (2 * G * D * D if G > 1 else 0)
        tokens = batch.text_lengths + 2 + groups
        return step_flops(config.size, tokens, True) + 6.0 * int(groups.sum()) * head


class NARTask(Task):
    """The loss of one codebook of 1..K-1, drawn per step."""

    def __init__(self, model: AnyNAR, settings: Optimisation):
        super().__init__()
        self.model, self.settings = model, settings
        self.levels = tuple(range(1, self.pure.config.codebooks))

    @property
    def pure(self) -> NAR:
        """The paper's model inside."""
        return pure_nar(self.model)

    def measure(self, batch: Batch, level: int) -> Loss:
        """The model's loss of one codebook on one batch."""
        text, prompt_lengths = (batch.text, batch.text_lengths), batch.prompt_lengths
        given = *text, batch.codes, batch.lengths, prompt_lengths, level
        if isinstance(self.model, AlignedNAR):
            assert batch.pointer is not None
            return self.model.loss(*given, batch.pointer)
        return self.model.loss(*given)

    def training_step(self, batch: Batch) -> tuple[Tensor, Loss]:
        """This batch's part in the mean over all targets of the step, and the loss itself."""
        loss = self.measure(batch, batch.level)
        return loss.summed / batch.step_targets, loss

    def flops(self, batch: Batch) -> float:
        """Floating-point operations of a training step on a batch, padding not counted."""
        config = self.pure.config
        head = config.size.width * config.codebook_size
        tokens = batch.text_lengths + 3 + batch.lengths
        return step_flops(config.size, tokens, False) + 6.0 * int(batch.lengths.sum()) * head
