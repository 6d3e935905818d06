"""What a decoder is trained by, step by step: regression, an adversary, a listener; their mean."""

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from sayso.model.codecs.base import NOTHING
from sayso.model.codecs.decoder import PER_FRAME, Decoder
from sayso.model.codecs.fargan import CEPSTRA, FEATURES
from sayso.model.errors import InputError, SaysoError

from ..checkpoints import collect, newest, prune, read_state, restore, save_state
from ..stopping import Stop
from .decoder_examples import Example
from .decoder_recipe import DecoderRecipe
from .listener import Listener

SLOPE = 0.2  # of the discriminator's leaky rectifiers
WARM_UP = 100  # steps
FINAL_RATE = 0.02  # share of the peak
WORTH = {0: 1.5, CEPSTRA: 1.5, CEPSTRA + 1: 1.2}
"""What columns weigh in the regression, beside 1: loudness, pitch, correlation."""


class StoppedError(SaysoError):
    """The run was asked to end, and saved: the same command goes on."""


class Discriminator(nn.Module):
    """Whether features (B, 2 T, 20) were recorded, given what codes say (B, T, F)."""

    def __init__(self, features: int, channels: int):
        super().__init__()
        C = channels
        shapes = ((1, C, 5, (1, 1)), (C, C, 5, (2, 1)), (C, 2 * C, 3, (2, 2)))
        shapes += ((2 * C, 2 * C, 3, (2, 2)),)
        self.layers = nn.ModuleList(
            weight_norm(nn.Conv2d(a, b, size, stride, size // 2)) for a, b, size, stride in shapes
        )
        self.told = nn.Conv1d(features, 2 * C, 5, 2, 2)
        self.last = weight_norm(nn.Conv2d(2 * C, 1, 3, padding=1))

    def forward(self, recorded: Tensor, said: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The verdict, 1 for recorded, at each place (B, N, M); and the layers' outputs."""
        hidden, outputs = recorded[:, None], []
        for layer in self.layers:
            hidden = F.leaky_relu(layer(hidden), SLOPE)
            outputs.append(hidden)
        told = self.told(said.transpose(1, 2))  # (B, 2 C, T / 2)
        told = F.interpolate(told, size=hidden.shape[2], mode="linear")
        return self.last(hidden)[:, 0] + (hidden * told[..., None]).mean(1), outputs


class Run:
    """What is trained, and by what."""

    def __init__(
        self,
        recipe: DecoderRecipe,
        decoder: Decoder,
        judge: Discriminator,
        listener: Listener | None = None,
    ):
        self.recipe, self.decoder, self.judge, self.listener = recipe, decoder, judge, listener
        self.average = {name: p.detach().clone() for name, p in decoder.named_parameters()}
        self.optimizer = torch.optim.AdamW(decoder.parameters(), recipe.rate, (0.8, 0.98))
        rate = recipe.adversarial_rate
        self.judges = torch.optim.AdamW(judge.parameters(), rate, (0.8, 0.98))
        self.worth = torch.ones(FEATURES, device=decoder.mean_in.device)
        for column, worth in WORTH.items():
            self.worth[column] = worth

    def train(
        self,
        steps: int,
        heard: list[Example],
        unheard: list[Example],
        checkpoints: Path,
        made_from: dict[str, Any],
        report: Callable[[str], None],
    ) -> None:
        """All steps, or those that are left behind the newest checkpoint of a folder.

        Raises:
            CheckpointError: The checkpoint is damaged.
            InputError: It is of a run that was made from something else.
            SaysoError: The loss is not finite.
            StoppedError: A signal asked it to end; it was saved after its last step.
        """
        step = 0
        if last := newest(checkpoints):
            tensors, head = read_state(last)
            if head["made_from"] != made_from:
                raise InputError(
                    f"{last} was made with other settings; give another folder with --out"
                )
            self.restore(tensors)
            step = head["step"]
        with Stop() as stop:
            for number in range(step, steps):
                figures = self.step(*batch(heard, self.recipe, number), number, steps)
                if not all(map(math.isfinite, figures.values())):
                    raise SaysoError(f"step {number} is not finite ({figures}): lower the rate")
                due = (number + 1) % self.recipe.save_every == 0 or number + 1 == steps
                if due:
                    figures["held out"] = self.validate(unheard)
                    text = ", ".join(f"{name} {value:.4f}" for name, value in figures.items())
                    report(f"decoder step {number + 1}: {text}")
                if due or stop.asked:
                    head = {"step": number + 1, "made_from": made_from}
                    path = checkpoints / f"step-{number + 1:08d}.safetensors"
                    save_state(path, self.tensors(), head)
                    prune(checkpoints, 2)
                if stop.asked:
                    raise StoppedError(f"asked to end; saved after step {number + 1}")

    def step(
        self, said: Tensor, symbols: Tensor, recorded: Tensor, number: int, steps: int
    ) -> dict[str, float]:
        """One of so many steps: the discriminator, then the decoder.

        Args:
            said: (B, T, F).
            symbols: (B, T) text ids, or NOTHING.
            recorded: (B, 2 T, 20).
        """
        recipe, device = self.recipe, self.worth.device
        share = share_of_rate(number, steps)
        self.optimizer.param_groups[0]["lr"] = recipe.rate * share
        self.judges.param_groups[0]["lr"] = recipe.adversarial_rate * share
        said, symbols, recorded = said.to(device), symbols.to(device), recorded.to(device)
        known, wanted = self.decoder.scaled_input(said), self.decoder.scaled_output(recorded)
        spoken = self.decoder(said, symbols)
        made = self.decoder.scaled_output(spoken)
        loss = ((made - wanted).abs() * self.worth).mean()
        figures = {"distance": float(loss.detach())}
        if self.listener is not None and bool((told := (symbols != NOTHING).any(1)).any()):
            unclear = self.listener.unclear(spoken[told], symbols[told])
            figures["unclear"] = float(unclear.detach())
            loss = loss + recipe.clear_weight * unclear
        if number >= recipe.adversarial_from or self.listener is not None:
            real, fake = self.judge(wanted, known)[0], self.judge(made.detach(), known)[0]
            verdict = (1 - real).square().mean() + fake.square().mean()
            descend(self.judges, self.judge, verdict, 5.0)
            fake, outputs = self.judge(made, known)
            with torch.no_grad():
                aims = self.judge(wanted, known)[1]
            apart = [(a - b).abs().mean() for a, b in zip(outputs, aims, strict=True)]
            loss = loss + recipe.adversarial_weight * (1 - fake).square().mean()
            loss = loss + recipe.feature_weight * torch.stack(apart).mean()
            figures["discriminator"] = float(verdict.detach())
        descend(self.optimizer, self.decoder, loss, 1.0)
        decay = min(recipe.ema, (number + 1) / (number + 10))
        with torch.no_grad():
            for name, parameter in self.decoder.named_parameters():
                self.average[name].lerp_(parameter, 1 - decay)
        return figures

    def averaged(self) -> Decoder:
        """The decoder with averaged weights."""
        made = copy.deepcopy(self.decoder)
        with torch.no_grad():
            for name, parameter in made.named_parameters():
                parameter.copy_(self.average[name])
        return made

    @torch.no_grad()
    def validate(self, examples: list[Example]) -> float:
        """The averaged weights' regression, in deviations, on whole examples."""
        decoder, total = self.averaged(), []
        for each in examples:
            symbols = None if each.symbols is None else each.symbols[None].to(self.worth.device)
            said, recorded = each.said[-1][None].to(self.worth), each.recorded[None].to(self.worth)
            made, wanted = map(decoder.scaled_output, (decoder(said, symbols), recorded))
            total.append(float(((made - wanted).abs() * self.worth).mean()))
        return float(np.mean(total))

    def tensors(self) -> dict[str, Tensor]:
        """All that a checkpoint holds."""
        judge = collect(self.judge, self.judges, {})
        tensors = collect(self.decoder, self.optimizer, self.average)
        return tensors | {f"judge/{name}": value for name, value in judge.items()}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Put a checkpoint's tensors back; CheckpointError if one is missing."""
        restore(tensors, self.decoder, self.optimizer, self.average)
        judge = {k.removeprefix("judge/"): v for k, v in tensors.items() if k.startswith("judge/")}
        restore(judge, self.judge, self.judges, {})


def joined(
    recipe: DecoderRecipe,
    natural: Decoder,
    clear: Decoder,
    heard: list[Example],
    report: Callable[[str], None],
) -> Decoder:
    """One decoder that says what lies between two, `recipe.clear_share` of the way to the second.

    What an adversary and a listener each make rough is not the same in both, and so smoothed, while
    half the clearness stays. Of the weights themselves the same mean is far less clear.
    """
    made, share = copy.deepcopy(natural), recipe.clear_share
    optimizer = torch.optim.AdamW(made.parameters(), recipe.rate / 2, (0.8, 0.98))
    device = made.mean_in.device
    for number in range(recipe.joined_steps):
        said, symbols, _ = batch(heard, recipe, number, of="joined")
        said, symbols = said.to(device), symbols.to(device)
        with torch.no_grad():
            aim = torch.lerp(natural(said, symbols), clear(said, symbols), share)
        loss = ((made(said, symbols) - aim) / made.std_out).abs().mean()
        share_now = share_of_rate(number, recipe.joined_steps)
        optimizer.param_groups[0]["lr"] = recipe.rate / 2 * share_now
        descend(optimizer, made, loss, 1.0)
        if (number + 1) % recipe.save_every == 0:
            report(f"joined step {number + 1}: {float(loss.detach()):.4f} from the mean of both")
    return made


def descend(optimizer: torch.optim.AdamW, module: nn.Module, loss: Tensor, most: float) -> None:
    """One step down a loss, the gradient's norm cut to `most`."""
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(module.parameters(), most)
    optimizer.step()


def share_of_rate(number: int, steps: int) -> float:
    """What step `number` of so many has of the peak: a warm-up, then a cosine."""
    cosine = 0.5 + 0.5 * math.cos(math.pi * number / steps)
    return min(1.0, (number + 1) / WARM_UP) * (FINAL_RATE + (1 - FINAL_RATE) * cosine)


def set_scales(decoder: Decoder, examples: list[Example]) -> None:
    """Mean and deviation of what goes in and what comes out."""
    said = torch.cat([each.said[0] for each in examples])
    recorded = torch.cat([each.recorded for each in examples])
    for name, rows in (("in", said), ("out", recorded)):
        getattr(decoder, f"mean_{name}").copy_(rows.mean(0))
        getattr(decoder, f"std_{name}").copy_(rows.std(0) + 1e-3)


def batch(
    examples: list[Example], recipe: DecoderRecipe, number: int, of: str = ""
) -> tuple[Tensor, Tensor, Tensor]:
    """The pieces (B, T, F), (B, T) and (B, 2 T, 20) of step `number`; short recordings go round."""
    random, T = np.random.default_rng([recipe.seed, number, *of.encode()]), recipe.frames
    said, symbols, recorded = [], [], []
    for _ in range(recipe.batch):
        each = examples[random.integers(len(examples))]
        share, untold = random.random(), random.random() < recipe.untold
        by = 2 if share < recipe.said_by_model else 1
        by = 0 if share >= recipe.said_by_model + recipe.said_by_nar else by
        rows = each.said[min(by, len(each.said) - 1)]
        start = int(random.integers(max(1, len(rows) - T + 1)))
        frames = (start + np.arange(T)) % len(rows)
        places = (frames[:, None] * PER_FRAME + np.arange(PER_FRAME)).ravel()
        said.append(rows[frames])
        told = each.symbols if not untold else None
        symbols.append(torch.full((T,), NOTHING) if told is None else told[frames])
        recorded.append(each.recorded[places])
    return torch.stack(said), torch.stack(symbols), torch.stack(recorded)
