"""A training run as one tree of settings, whose defaults are VALL-E 2's (section 4.1).

``configs/paper.yaml`` has every key; the other recipes name only what differs. Where the paper is
silent, values are VALL-E's, or ours.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from jsonargparse import ArgumentError, ArgumentParser

from sayso.model import corpora
from sayso.model.ar import Size
from sayso.model.errors import InputError
from sayso.model.files import yaml_of

from .held_out import HeldOut

Settings = TypeVar("Settings")
PromptRule = Literal["paper", "icefall", "wide"]
PAPER_SIZE = Size(layers=12, heads=16, width=1024, feed_forward=4096, dropout=0.1)


@dataclass(frozen=True)
class Text:
    """The tokenizer the token files are made with."""

    folder: str
    """Folder of the tokenizer, relative to where the command is run."""
    kind: Literal["bpe", "phonemes"] = "bpe"
    """Byte pairs, or phonemes of the CMU dictionary."""


@dataclass(frozen=True)
class CodecChoice:
    """The codec the token files are made with."""

    folder: str
    """Folder of the codec, relative to where the command is run."""
    kind: Literal["world", "fargan", "encodec"] = "encodec"
    """WORLD or FARGAN vocoder with fitted codebooks, or EnCodec."""


@dataclass(frozen=True)
class Data:
    """What is trained on."""

    corpora: list[str]
    """Names on the list of consented corpora; token files of any other are refused."""
    tokens: list[str]
    """Token folders made by prepare, relative to where the command is run."""
    min_seconds: float = 0.5
    """Shorter clips are left out at prepare."""
    max_seconds: float = 30.0
    """Longer clips are left out at prepare."""
    held_out_speakers: int | dict[str, int] | None = None
    """One speaker in this many is held out for validation, by the hash of the name; by corpus. What
    a corpus keeps for development (dev-*) always is."""
    held_out_every: int | dict[str, int] | None = None
    """One utterance in this many, by the hash of its id; for corpora of one speaker."""
    validation_minutes: float = 30.0
    """Most held-out speech that a validation takes: the same random part of it each time."""
    join_seconds: float = 0.0
    """Utterances of a speaker are joined, up to a length drawn below this; 0 leaves them apart."""
    align: bool = False
    """Whether prepare finds where each phoneme is said; models with `alignment` need it."""
    copies: int = 0
    """Copies prepare makes of what is trained on, with other pitch and formants; WORLD only."""
    timbre: str | None = None
    """Timbre folder (``sayso train timbre``): all speech is changed into its pivot, and encoded by
    the codec in it; WORLD only."""

    def __post_init__(self) -> None:
        for name in self.corpora:
            corpora.get(name)
        if not self.corpora or not self.tokens:
            raise InputError("data needs at least one corpus and one token folder")
        if not 0 < self.min_seconds < self.max_seconds:
            raise InputError(f"min_seconds {self.min_seconds} is not below {self.max_seconds}")
        for key in ("held_out_speakers", "held_out_every"):
            for name, every in self._by_corpus(key).items():
                if name not in self.corpora:
                    raise InputError(f"{key} names {name}, which is not in corpora")
                if every < 2:
                    raise InputError(f"{key} of {name} is {every}; at least 2")

    def _by_corpus(self, key: str) -> dict[str, int]:
        value = getattr(self, key)
        return dict.fromkeys(self.corpora, value) if isinstance(value, int) else value or {}

    @property
    def held_out(self) -> HeldOut:
        """What is held out for validation."""
        return HeldOut(self._by_corpus("held_out_speakers"), self._by_corpus("held_out_every"))


@dataclass(frozen=True)
class Optimisation:
    """How one model is trained."""

    peak_rate: float = 5e-4
    """Learning rate of AdamW at the end of the warm-up."""
    warm_up: int = 32_000
    """Steps of linear warm-up."""
    steps: int = 800_000
    """Steps in all; the rate falls linearly to zero at the last."""
    max_minutes: float | None = None
    """Wall-clock limit; the rate then also falls with the minutes, to zero at the limit."""
    frames: int = 6_000
    """Codec frames in a batch of one device, padding included (the paper's acoustic tokens)."""
    accumulation: int = 1
    """Batches per step and device."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    weight_decay: float = 0.01
    """Of AdamW, on matrices only."""
    ema: float = 0.999
    """Decay of the averaged weights that are validated and exported; 0 for none."""
    seed: int = 1
    """Of weights, batches and dropout."""
    precision: Literal["32-true", "bf16-mixed"] = "bf16-mixed"
    """fp16 is not offered: it is where open VALL-E code turns to NaN."""
    accelerator: Literal["auto", "cpu", "cuda"] = "cuda"
    """Where to train."""
    devices: int = 8
    """Processes per node."""
    nodes: int = 2
    """Machines."""
    strategy: Literal["auto", "ddp", "fsdp"] = "ddp"
    """auto for one device, ddp, or fsdp (FSDP2, sharded by PyTorch's fully_shard)."""
    compile: bool = True
    """Whether to torch.compile the model's loss."""
    validate_every: int = 2_000
    """Steps between validations, after which weights may be exported."""
    save_every: int = 2_000
    """Steps between checkpoints."""
    keep: int = 3
    """Newest checkpoints that are kept."""
    export: Literal["best", "last", "judged"] = "best"
    """Which weights become the model: of the lowest validation loss, the newest, or of the lowest
    word error rate (`--evaluate-every`; of the lowest loss until there is one). A small model on
    little data reads better still while its validation loss already rises (docs/log.md)."""
    patience: int = 20
    """Non-finite steps in a row, each skipped and counted, before the run stops."""

    def __post_init__(self) -> None:
        positive = ("peak_rate", "steps", "frames", "accumulation", "clip", "devices", "nodes")
        for name in (*positive, "validate_every", "save_every", "keep", "patience"):
            if getattr(self, name) <= 0:
                raise InputError(f"{name} is {getattr(self, name)}; it must be above 0")
        if not 0 <= self.warm_up < self.steps:
            raise InputError(f"warm_up {self.warm_up} is not below steps {self.steps}")
        if not 0 <= self.ema < 1:
            raise InputError(f"ema {self.ema} is outside [0, 1)")
        if self.strategy == "auto" and self.devices * self.nodes > 1:
            raise InputError("more than one device needs strategy ddp or fsdp")


@dataclass(frozen=True)
class ModelRecipe:
    """What both models have."""

    size: Size = PAPER_SIZE
    """Layers, heads, width, feed-forward width, dropout."""
    max_text: int = 600
    """Text positions."""
    max_frames: int = 3_000
    """Frames, prompt included."""
    alignment: bool = False
    """Whether a pointer walks through the text (VALL-E R); not in VALL-E 2."""
    tied: bool = True
    """Whether codes are predicted through their embeddings, as in the paper; others found it hurts.
    False is for comparison, and for models without alignment."""
    code_init: Literal["random", "codebooks"] = "random"
    """Code tables start at random, or from the codec's codebooks: quicker on little data."""
    start_from: str | None = None
    """Model folder to fine-tune from; an AR of G = 1 may go into G > 1."""
    train: Optimisation = field(default_factory=Optimisation)
    """Its schedule."""


@dataclass(frozen=True)
class ARRecipe(ModelRecipe):
    """The autoregressive model."""

    group_size: int = 1
    """Frames per step, G."""


@dataclass(frozen=True)
class NARRecipe(ModelRecipe):
    """The non-autoregressive model, shared by all group sizes."""

    prompts: PromptRule = "paper"
    """How much of an utterance of T frames the NAR is given whole in training: min(T/2, U(3 s,
    30 s)); U(T/4, T/2) and at most 3 s (icefall); or U(0, T/2)."""
    expected: bool = False
    """Whether the middle of what is likely is taken, not the likeliest code; not in VALL-E 2."""
    train: Optimisation = field(default_factory=lambda: Optimisation(seed=2))
    """Its schedule."""


@dataclass(frozen=True)
class Recipe:
    """Everything a run is made from."""

    name: str
    """Of the run."""
    run: str
    """Folder of the run, relative to where the command is run."""
    text: Text
    codec: CodecChoice
    data: Data
    ar: ARRecipe = field(default_factory=ARRecipe)
    nar: NARRecipe = field(default_factory=NARRecipe)
    wandb: bool = False
    """Whether the log goes to Weights & Biases, too: RUN/wandb, or sent with WANDB_MODE=online."""

    @property
    def model_codec(self) -> Path:
        """Folder of the codec whose codes the models read and say; ``codec`` is that of prompts."""
        timbre = self.data.timbre
        return Path(self.codec.folder) if timbre is None else Path(timbre) / "codec"


def maker(recipe: Recipe, kind: str, folder: Path) -> str:
    """The command that makes a recipe's codec, text or timbre folder."""
    if kind == "codec" and recipe.codec.kind == "encodec":
        return f"sayso codec published --decoder vocos --out {folder}"
    roots = "" if kind == "text" and recipe.text.kind == "phonemes" else " --root NAME=FOLDER"
    pivot = " --pivot NAME" if kind == "timbre" else ""
    return f"sayso train {kind}{roots}{pivot} --out {folder}"


def read_recipe(path: Path | str, overrides: dict[str, object] | None = None) -> Recipe:
    """Reads a recipe; every key must be known and every value of its type.

    Args:
        path: A YAML file, such as ``configs/tiny.yaml``.
        overrides: Values by dotted key, such as ``{"ar.train.steps": 20}``.

    Raises:
        InputError: The file cannot be read, has unknown or missing keys or impossible values.
        CorpusError: It names a corpus that is not on the list.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"recipe {path} does not exist; see configs/")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Recipe, as_group=False)
    try:
        config = parser.parse_string(yaml_of(path), str(path))
        for key, value in (overrides or {}).items():
            if key not in config:
                raise InputError(f"{path}: unknown key {key!r}")
            config[key] = value
        parser.validate(config)
        return Recipe(**vars(parser.instantiate_classes(config)))
    except (ArgumentError, TypeError, ValueError, KeyError) as error:
        raise InputError(f"{path}: {' '.join(str(error).split())}") from error


def read_settings(kind: type[Settings], path: Path, example: str) -> Settings:
    """Reads a dataclass from a YAML file.

    Args:
        example: A file of the kind, which is named where there is none.

    Raises:
        InputError: The file does not exist, has unknown or missing keys or impossible values.
    """
    if not path.is_file():
        raise InputError(f"recipe {path} does not exist; see {example}")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind, as_group=False)
    try:
        config = parser.parse_string(yaml_of(path), str(path))
        return kind(**vars(parser.instantiate_classes(config)))
    except (ArgumentError, TypeError, ValueError, KeyError) as error:
        raise InputError(f"{path}: {' '.join(str(error).split())}") from error


def parse_overrides(text: str) -> dict[str, Any]:
    """Values by dotted key out of ``{ar.train.steps: 20, run: runs/other}``, as YAML.

    Raises:
        InputError: It is not that.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--set", type=dict[str, Any])
    try:
        return parser.parse_args(["--set", text]).set
    except (ArgumentError, TypeError, ValueError) as error:
        raise InputError(f"--set {text!r}: write '{{ar.train.steps: 20}}'") from error
