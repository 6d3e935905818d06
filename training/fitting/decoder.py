"""The learnt decoder of a model with a timbre, fitted by regression and an adversary.

Regression alone gives the mean of what may have been said, which sounds flat. A discriminator over
time and features that knows what the codes say (least squares, arXiv:1611.04076, with feature
matching as in arXiv:1910.06711) asks for one of the many.
"""

import copy
import dataclasses
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from sayso.model import corpora
from sayso.model.codecs.decoder import PER_FRAME, Decoder, DecoderConfig
from sayso.model.codecs.fargan import CEPSTRA, FEATURES
from sayso.model.errors import InputError, SaysoError
from sayso.model.files import write_json

from ..checkpoints import collect, newest, prune, read_state, restore, save_state
from ..held_out import HeldOut, held_out
from ..recipe import read_settings
from .decoder_examples import Example, gather, read_example
from .residual import FITTED_ON

SLOPE = 0.2  # of the discriminator's leaky rectifiers
WARM_UP = 100  # steps
FINAL_RATE = 0.02  # share of the peak
WORTH = {0: 1.5, CEPSTRA: 1.5, CEPSTRA + 1: 1.2}
"""What columns weigh in the regression, beside 1: loudness, pitch, correlation."""


@dataclass(frozen=True)
class DecoderRecipe:
    """All settings of a run; configs/mini/decoder.yaml mirrors it."""

    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    """Its size."""
    most: int = 450
    """Utterances taken of each corpus, in turn of each speaker."""
    said_by_nar: float = 0.65
    """Share of examples whose codebooks 1..K-1 are the NAR's, where there are such."""
    held_out_every: int = 32
    """One example in so many is for validation."""
    batch: int = 16
    """Examples in a step."""
    frames: int = 96
    """Of codes, in an example."""
    steps: int = 6000
    """In all."""
    rate: float = 1e-3
    """Peak of AdamW's, falling as a cosine."""
    adversarial_from: int = 600
    """Step from which on the discriminator takes part."""
    adversarial_rate: float = 4e-4
    """Of the discriminator."""
    adversarial_weight: float = 0.3
    """Of its verdict, beside the regression."""
    feature_weight: float = 0.5
    """Of the distance of its features."""
    channels: int = 32
    """Of the discriminator's first layer."""
    ema: float = 0.999
    """Decay of the averaged weights that are kept."""
    seed: int = 1
    """Of weights and examples."""
    accelerator: Literal["cpu", "cuda"] = "cpu"
    """Where to train."""
    save_every: int = 200
    """Steps between checkpoints and validations."""

    def __post_init__(self) -> None:
        for name in ("most", "batch", "frames", "steps", "rate", "channels", "save_every"):
            if getattr(self, name) <= 0:
                raise InputError(f"{name} is {getattr(self, name)}; it must be above 0")
        if self.held_out_every < 2 or not 0 <= self.ema < 1 or not 0 <= self.said_by_nar <= 1:
            raise InputError(
                f"held_out_every {self.held_out_every}, ema {self.ema}, said_by_nar "
                f"{self.said_by_nar}: at least 2, in [0, 1) and in [0, 1]"
            )


def read_decoder_recipe(path: Path) -> DecoderRecipe:
    """Reads a YAML file; InputError for unknown keys and impossible values."""
    return read_settings(DecoderRecipe, path, "configs/mini/decoder.yaml")


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


def fit_decoder(
    recipe: DecoderRecipe,
    model: Path,
    roots: dict[str, Path],
    out: Path,
    rule: HeldOut,
    report: Callable[[str], None] = print,
) -> Decoder:
    """Fit a decoder to corpora, without their held-out utterances, and save it in `out`.

    Its examples lie in `out/examples`, its checkpoints in `out/checkpoints`; a killed run goes on.

    Args:
        model: As of `gather`.
        roots: Name on the list of consented corpora -> the unpacked corpus.

    Raises:
        CorpusError: A corpus is not listed, or not where it should be.
        CheckpointError: The model, an example or a checkpoint is damaged.
        InputError: There is no GPU, no timbre or too little speech, or the run is another one's.
        SaysoError: The loss is not finite.
    """
    if recipe.accelerator == "cuda" and not torch.cuda.is_available():
        raise InputError("accelerator is cuda, and PyTorch finds no GPU here: set it to cpu")
    entries = [corpora.get(name).to_json() for name in roots]
    paths = gather(model, roots, out / "examples", rule, recipe.most, report)
    kept = [held_out(path.stem, recipe.held_out_every) for path in paths]
    heard = [read_example(path) for path, out_ in zip(paths, kept, strict=True) if not out_]
    unheard = [read_example(path) for path, out_ in zip(paths, kept, strict=True) if out_]
    if not heard or not unheard:
        raise InputError(f"{len(paths)} recordings are too few to learn from and to check with")
    hours = sum(len(each.recorded) for each in heard) / 360_000
    report(f"{len(heard)} recordings, {hours:.2f} h; {len(unheard)} held out")
    torch.manual_seed(recipe.seed)
    device = torch.device(recipe.accelerator)
    decoder = Decoder(recipe.decoder).to(device)
    set_scales(decoder, heard)
    judge = Discriminator(recipe.decoder.features, recipe.channels).to(device)
    run = Run(recipe, decoder, judge)
    made_from = {"recipe": dataclasses.asdict(recipe), "corpora": entries, "count": len(heard)}
    made_from = json.loads(json.dumps(made_from))
    checkpoints = out / "checkpoints"
    step = 0
    if last := newest(checkpoints):
        tensors, head = read_state(last)
        if head["made_from"] != made_from:
            raise InputError(f"{last} was made with other settings; give another folder with --out")
        run.restore(tensors)
        step = head["step"]
    for number in range(step, recipe.steps):
        figures = run.step(*batch(heard, recipe, number), number)
        if not all(map(math.isfinite, figures.values())):
            raise SaysoError(f"step {number} is not finite ({figures}): lower the rate")
        if (number + 1) % recipe.save_every == 0 or number + 1 == recipe.steps:
            figures["held out"] = run.validate(unheard)
            text = ", ".join(f"{name} {value:.4f}" for name, value in figures.items())
            report(f"decoder step {number + 1}: {text}")
            head = {"step": number + 1, "made_from": made_from}
            save_state(checkpoints / f"step-{number + 1:08d}.safetensors", run.tensors(), head)
            prune(checkpoints, 2)
    made = run.averaged().cpu().eval()
    made.save(out)
    settings = {"corpora": entries, "held_out": vars(rule), "hours": round(hours, 3)}
    write_json(out / FITTED_ON, settings | {"steps": recipe.steps})
    return made


class Run:
    """What is trained, and by what."""

    def __init__(self, recipe: DecoderRecipe, decoder: Decoder, judge: Discriminator):
        self.recipe, self.decoder, self.judge = recipe, decoder, judge
        self.average = {name: p.detach().clone() for name, p in decoder.named_parameters()}
        self.optimizer = torch.optim.AdamW(decoder.parameters(), recipe.rate, (0.8, 0.98))
        rate = recipe.adversarial_rate
        self.judges = torch.optim.AdamW(judge.parameters(), rate, (0.8, 0.98))
        self.worth = torch.ones(FEATURES, device=decoder.mean_in.device)
        for column, worth in WORTH.items():
            self.worth[column] = worth

    def step(self, said: Tensor, recorded: Tensor, number: int) -> dict[str, float]:
        """One step on (B, T, F) and (B, 2 T, 20): the discriminator, then the decoder."""
        recipe, device = self.recipe, self.worth.device
        share = 0.5 + 0.5 * math.cos(math.pi * number / recipe.steps)
        share = min(1.0, (number + 1) / WARM_UP) * (FINAL_RATE + (1 - FINAL_RATE) * share)
        self.optimizer.param_groups[0]["lr"] = recipe.rate * share
        self.judges.param_groups[0]["lr"] = recipe.adversarial_rate * share
        said, recorded = said.to(device), recorded.to(device)
        known, wanted = self.decoder.scaled_input(said), self.decoder.scaled_output(recorded)
        made = self.decoder.scaled_output(self.decoder(said))
        loss = ((made - wanted).abs() * self.worth).mean()
        figures = {"distance": float(loss.detach())}
        if number >= recipe.adversarial_from:
            real, fake = self.judge(wanted, known)[0], self.judge(made.detach(), known)[0]
            verdict = (1 - real).square().mean() + fake.square().mean()
            self._update(self.judges, self.judge, verdict, 5.0)
            fake, outputs = self.judge(made, known)
            with torch.no_grad():
                aims = self.judge(wanted, known)[1]
            apart = [(a - b).abs().mean() for a, b in zip(outputs, aims, strict=True)]
            loss = loss + recipe.adversarial_weight * (1 - fake).square().mean()
            loss = loss + recipe.feature_weight * torch.stack(apart).mean()
            figures["discriminator"] = float(verdict.detach())
        self._update(self.optimizer, self.decoder, loss, 1.0)
        decay = min(recipe.ema, (number + 1) / (number + 10))
        with torch.no_grad():
            for name, parameter in self.decoder.named_parameters():
                self.average[name].lerp_(parameter, 1 - decay)
        return figures

    def _update(
        self, optimizer: torch.optim.AdamW, module: nn.Module, loss: Tensor, most: float
    ) -> None:
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), most)
        optimizer.step()

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
            said, recorded = each.said[-1][None], each.recorded[None]
            said, recorded = said.to(self.worth), recorded.to(self.worth)
            made, wanted = map(decoder.scaled_output, (decoder(said), recorded))
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


def set_scales(decoder: Decoder, examples: list[Example]) -> None:
    """Mean and deviation of what goes in and what comes out."""
    said = torch.cat([each.said[0] for each in examples])
    recorded = torch.cat([each.recorded for each in examples])
    for name, rows in (("in", said), ("out", recorded)):
        getattr(decoder, f"mean_{name}").copy_(rows.mean(0))
        getattr(decoder, f"std_{name}").copy_(rows.std(0) + 1e-3)


def batch(examples: list[Example], recipe: DecoderRecipe, number: int) -> tuple[Tensor, Tensor]:
    """The pieces (B, T, F) and (B, 2 T, 20) of step `number`; short recordings go round."""
    random, T = np.random.default_rng([recipe.seed, number]), recipe.frames
    said, recorded = [], []
    for _ in range(recipe.batch):
        each = examples[random.integers(len(examples))]
        rows = each.said[-1 if random.random() < recipe.said_by_nar else 0]
        start = int(random.integers(max(1, len(rows) - T + 1)))
        frames = (start + np.arange(T)) % len(rows)
        places = (frames[:, None] * PER_FRAME + np.arange(PER_FRAME)).ravel()
        said.append(rows[frames])
        recorded.append(each.recorded[places])
    return torch.stack(said), torch.stack(recorded)
