"""A small EnCodec of one's own, for those who cannot or may not use Meta's (arXiv:2210.13438, 3.4).

Encoder, quantizer and decoder are `EncodecCodec`'s, the multi-scale STFT discriminator is the
`encodec` package's, the loss balancer, which that lacks, is in `losses`. Meant for one GPU. What is
written is a codec folder as `load_codec` opens it, with the corpora it was trained on beside it.
"""

import contextlib
import dataclasses
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from encodec.msstftd import MultiScaleSTFTDiscriminator
from torch import Tensor, nn

from sayso.model import corpora
from sayso.model.codecs.encodec import EncodecCodec, EncodecConfig
from sayso.model.errors import InputError, SaysoError
from sayso.model.files import write_json

from ..checkpoints import collect, newest, prune, read_state, restore, save_state
from ..held_out import trained_on
from ..readers import Utterance
from ..recipe import read_settings
from ..speech import Filters, Unusable, read_speech
from .losses import Balancer, MelDistance, quantize
from .residual import FITTED_ON, usual_rule

Report = Callable[[str], None]


@dataclass(frozen=True)
class CodecRecipe:
    """All settings of a run; configs/codec-mini.yaml mirrors it."""

    codec: EncodecConfig
    """Sizes of the codec."""
    discriminator_filters: int
    """Channels of the discriminators."""
    segment_seconds: float
    """Length of a training example."""
    batch: int
    """Examples in a step."""
    steps: int
    """Steps in all."""
    rate: float
    """Learning rate of Adam, of codec and discriminators."""
    adversarial_from: int
    """Step from which on the discriminators take part."""
    time_weight: float
    """Share of the L1 distance in time (paper: 0.1)."""
    frequency_weight: float
    """Share of the mel distances (1)."""
    adversarial_weight: float
    """Share of the discriminators' verdict (3)."""
    feature_weight: float
    """Share of the distance of their features (3)."""
    commitment_weight: float
    """Factor on the commitment loss, which is not balanced (1)."""
    seed: int
    """Of weights, examples and the number of codebooks per step."""
    accelerator: Literal["cpu", "cuda"]
    """Where to train."""
    save_every: int
    """Steps between checkpoints."""
    keep: int
    """Newest checkpoints that are kept."""
    patience: int
    """Non-finite steps in a row, each skipped, before the run stops."""

    def __post_init__(self) -> None:
        for name in ("batch", "steps", "rate", "segment_seconds", "save_every", "keep", "patience"):
            if getattr(self, name) <= 0:
                raise InputError(f"{name} is {getattr(self, name)}; it must be above 0")
        if self.codec.source != "folder":
            raise InputError("codec.source must be folder: published weights are not trained here")


def read_codec_recipe(path: Path) -> CodecRecipe:
    """Reads a YAML file; InputError for unknown or missing keys and impossible values."""
    return read_settings(CodecRecipe, path, "configs/codec-mini.yaml")


@dataclass
class Run:
    """What is trained, and by what."""

    codec: EncodecCodec
    judge: nn.Module
    """The discriminators."""
    optimizers: dict[str, torch.optim.Adam]
    """Of `codec` and `judge`."""
    balancer: Balancer

    def parts(self) -> Iterator[tuple[str, nn.Module, torch.optim.Adam]]:
        """Name, module and optimizer of what a checkpoint holds."""
        yield "codec", self.codec, self.optimizers["codec"]
        yield "judge", self.judge, self.optimizers["judge"]


def train_codec(
    recipe: CodecRecipe, roots: dict[str, Path], out: Path, report: Report = print
) -> EncodecCodec:
    """Train a codec on corpora, without their held-out utterances, and save it in `out`.

    A killed run continues from the newest checkpoint in `out/checkpoints`.

    Raises:
        CorpusError: A corpus is not listed, or not where it should be.
        InputError: There is too little speech, or `out` holds a run of another recipe.
        SaysoError: The loss stayed non-finite.
    """
    if recipe.accelerator == "cuda" and not torch.cuda.is_available():
        raise InputError("accelerator is cuda, and PyTorch finds no GPU here: set it to cpu")
    entries = [corpora.get(name).to_json() for name in roots]
    rule = usual_rule(roots)
    utterances = [each for some in trained_on(roots, rule).values() for each in some]
    torch.manual_seed(recipe.seed)
    device = torch.device(recipe.accelerator)
    codec = EncodecCodec(recipe.codec).to(device).train()
    judge = MultiScaleSTFTDiscriminator(filters=recipe.discriminator_filters).to(device).train()
    mel = MelDistance(recipe.codec.sample_rate).to(device)
    optimizers = {
        name: torch.optim.Adam(module.parameters(), lr=recipe.rate, betas=(0.5, 0.9))
        for name, module in (("codec", codec), ("judge", judge))
    }
    weights = {
        "time": recipe.time_weight,
        "frequency": recipe.frequency_weight,
        "adversarial": recipe.adversarial_weight,
        "features": recipe.feature_weight,
    }
    run = Run(codec, judge, optimizers, Balancer(weights))
    step = resume(recipe, entries, out, run)
    skipped = 0
    for number in range(step, recipe.steps):
        audio = examples(utterances, recipe, number).to(device)  # (B, 1, samples)
        figures = one_step(recipe, run, mel, audio, number)
        skipped = 0 if all(map(math.isfinite, figures.values())) else skipped + 1
        if skipped >= recipe.patience:
            raise SaysoError(f"{skipped} non-finite steps in a row up to {number}: lower the rate")
        if (number + 1) % recipe.save_every == 0 or number + 1 == recipe.steps:
            text = ", ".join(f"{name} {value:.4f}" for name, value in figures.items())
            report(f"codec step {number + 1}: {text}")
            save(recipe, entries, out, run, number + 1)
    codec = codec.cpu().eval()
    codec.save(out)
    write_json(out / FITTED_ON, {"corpora": entries, "held_out": vars(rule)})
    return codec


def one_step(
    recipe: CodecRecipe, run: Run, mel: MelDistance, audio: Tensor, number: int
) -> dict[str, float]:
    """Codec and, two steps in three, discriminators once; non-finite gradients change nothing."""
    codec, judge = run.codec, run.judge
    random = np.random.default_rng([recipe.seed, number, 1])
    torch.manual_seed(int(random.integers(2**31)))  # dead codebook entries are drawn anew
    books = int(random.choice([b for b in (1, 2, 4, 8, 16, 32) if b <= recipe.codec.codebooks]))
    quantized, commitment = quantize(codec, codec.encoder(audio), books)
    made = codec.decoder(quantized)[..., : audio.shape[-1]]
    losses = {"time": (audio - made).abs().mean(), "frequency": mel(audio, made)}
    adversarial = number >= recipe.adversarial_from
    if adversarial:
        verdicts, features = judge(made)
        with torch.no_grad():
            _, wanted = judge(audio)
        losses["adversarial"] = torch.stack([F.relu(1 - each).mean() for each in verdicts]).mean()
        losses["features"] = torch.stack(
            [
                (a - b).abs().mean() / (b.abs().mean() + 1e-8)
                for scale, real in zip(features, wanted, strict=True)
                for a, b in zip(scale, real, strict=True)
            ]
        ).mean()
    gradient = run.balancer.gradient(losses, made)
    for optimizer in run.optimizers.values():
        optimizer.zero_grad()
    torch.autograd.backward(
        [made, recipe.commitment_weight * commitment], [gradient, torch.ones_like(commitment)]
    )
    _step_if_finite(run.optimizers["codec"], codec)
    figures = {name: float(loss.detach()) for name, loss in losses.items()}
    if adversarial and random.random() < 2 / 3:
        run.optimizers["judge"].zero_grad()
        real, fake = judge(audio)[0], judge(made.detach())[0]
        loss = torch.stack(
            [F.relu(1 - a).mean() + F.relu(1 + b).mean() for a, b in zip(real, fake, strict=True)]
        ).mean()
        loss.backward()
        _step_if_finite(run.optimizers["judge"], judge)
        figures["discriminator"] = float(loss.detach())
    return figures | {"commitment": float(commitment.detach())}


def _step_if_finite(optimizer: torch.optim.Adam, module: nn.Module) -> None:
    norm = nn.utils.clip_grad_norm_(module.parameters(), 10.0)
    if bool(norm.isfinite()):
        optimizer.step()


def examples(utterances: list[Utterance], recipe: CodecRecipe, number: int) -> Tensor:
    """The batch (B, 1, samples) of step `number`: random pieces of random recordings.

    Raises:
        InputError: A hundred recordings in a row cannot be used.
    """
    random = np.random.default_rng([recipe.seed, number])
    size = int(recipe.segment_seconds * recipe.codec.sample_rate)
    return torch.stack([_piece(utterances, recipe, size, random) for _ in range(recipe.batch)])


def _piece(
    utterances: list[Utterance], recipe: CodecRecipe, size: int, random: np.random.Generator
) -> Tensor:
    """A random piece (1, size); recordings that cannot be used, and silent pieces, are no loss."""
    for _ in range(100):
        recording = utterances[random.integers(len(utterances))].recording
        with contextlib.suppress(Unusable):
            audio = read_speech(  # (1, samples)
                recording, recipe.codec.sample_rate, Filters(0.0, 60.0)
            )
            start = int(random.integers(0, max(1, audio.shape[1] - size)))
            cut = audio[:, start : start + size]
            if cut.abs().max() > 1e-3:
                return F.pad(cut, (0, size - cut.shape[1]))
    raise InputError("a hundred recordings in a row were unreadable or silent: check the corpora")


def save(
    recipe: CodecRecipe, entries: list[dict[str, Any]], out: Path, run: Run, step: int
) -> None:
    """A checkpoint, whole or not at all."""
    tensors: dict[str, Tensor] = {}
    for name, module, optimizer in run.parts():
        parts = collect(module, optimizer, {})
        tensors |= {f"{name}/{key}": value for key, value in parts.items()}
    tensors |= {f"buffer/{k}": v.detach().cpu().clone() for k, v in run.codec.named_buffers()}
    norms = run.balancer.norms
    tensors |= {f"norm/{k}": v.detach().cpu().reshape(1) for k, v in norms.items()}
    head = {"step": step, "balanced": run.balancer.steps, "made_from": made_from(recipe, entries)}
    save_state(out / "checkpoints" / f"step-{step:08d}.safetensors", tensors, head)
    prune(out / "checkpoints", recipe.keep)


def resume(recipe: CodecRecipe, entries: list[dict[str, Any]], out: Path, run: Run) -> int:
    """Steps done so far; fills everything from the newest checkpoint, if there is one.

    Raises:
        InputError: The checkpoint was made with other settings.
    """
    last = newest(out / "checkpoints")
    if last is None:
        return 0
    tensors, head = read_state(last)
    if head["made_from"] != made_from(recipe, entries):
        raise InputError(f"{last} was made with other settings; give another folder with --out")
    for name, module, optimizer in run.parts():
        restore(_part_of(tensors, f"{name}/"), module, optimizer, {})
    for key, buffer in run.codec.named_buffers():
        buffer.copy_(tensors[f"buffer/{key}"])
    device = next(run.codec.parameters()).device
    run.balancer.norms = {k: v[0].to(device) for k, v in _part_of(tensors, "norm/").items()}
    run.balancer.steps = head["balanced"]
    return head["step"]


def _part_of(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def made_from(recipe: CodecRecipe, entries: list[dict[str, Any]]) -> dict[str, Any]:
    """What a checkpoint must agree with; how long and how often may change."""
    settings = dataclasses.asdict(recipe)
    for name in ("steps", "save_every", "keep", "patience", "accelerator"):
        del settings[name]
    return json.loads(json.dumps({"recipe": settings, "corpora": entries}))
