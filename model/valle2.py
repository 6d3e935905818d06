"""The language model as one object: AR, NAR and what they are asked by; `engine` speaks with it.

Either may be the paper's or one with a pointer through the text (`model/extras/alignment.py`).
"""

from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from .ar import AR, ARConfig
from .checkpoint import load_module, read_config, save_module
from .errors import CheckpointError, InputError
from .extras.alignment import AlignedAR, AlignedARConfig, AlignedNAR, AlignedNARConfig
from .extras.nearest import nearest_expected
from .extras.untied import UntiedAR, UntiedARConfig, UntiedNAR, UntiedNARConfig
from .generate import Choose
from .nar import NAR, NARConfig

ABLATIONS = ("AR prompt", "NAR prompt", "NAR text")
"""Inputs that can be left out (Table 3); with a prompt's codes goes its text."""
AnyAR = AR | AlignedAR
AnyNAR = NAR | AlignedNAR


@dataclass(frozen=True)
class Extras:
    """How a model with parts that VALL-E 2 does not have is asked; by default as the paper asks."""

    stay: float | None = None
    """With a pointer: it moves on once the chance that a drawn one would have stayed for so long is
    below this; 0.5 gives every phoneme its median length. None draws each move."""
    guidance: float = 0.0
    """With a pointer: how much further the logits go away from what the model would say if it were
    not told where it is in the text."""
    expected: bool = False
    """Whether the NAR's codes are the entries nearest to the expected ones, not the likeliest."""

    def __post_init__(self):
        if self.stay is not None and not 0 < self.stay < 1:
            raise ValueError(f"stay {self.stay} is outside (0, 1)")
        if not 0 <= self.guidance < float("inf"):
            raise ValueError(f"guidance {self.guidance} is below 0 or not finite")


def make_ar(config: ARConfig, alignment: bool = False, tied: bool = True) -> AnyAR:
    """A new AR model: the paper's, with a pointer, or with a prediction table of its own.

    Raises:
        InputError: A pointer and an own table are asked for together.
    """
    if tied:
        return AlignedAR(AlignedARConfig(config)) if alignment else AR(config)
    _check_tied(alignment)
    return UntiedAR(UntiedARConfig(**vars(config)))


def make_nar(config: NARConfig, alignment: bool = False, tied: bool = True) -> AnyNAR:
    """A new NAR model: the paper's, with a pointer, or with prediction tables of its own.

    Raises:
        InputError: A pointer and own tables are asked for together.
    """
    if tied:
        return AlignedNAR(AlignedNARConfig(config)) if alignment else NAR(config)
    _check_tied(alignment)
    return UntiedNAR(UntiedNARConfig(**vars(config)))


def _check_tied(alignment: bool) -> None:
    if alignment:
        raise InputError("tied: false and alignment: true cannot be had together: choose one")


def pure_ar(model: AnyAR) -> AR:
    """The paper's AR model inside."""
    return model.ar if isinstance(model, AlignedAR) else model


def pure_nar(model: AnyNAR) -> NAR:
    """The paper's NAR model inside."""
    return model.nar if isinstance(model, AlignedNAR) else model


def load_ar(folder: Path) -> AnyAR:
    """The AR model of a folder, on the CPU in eval mode; CheckpointError where it is damaged."""
    if "ar" in read_config(folder):
        return load_module(folder, AlignedAR, AlignedARConfig)
    if "untied" in read_config(folder):
        return load_module(folder, UntiedAR, UntiedARConfig)
    return load_module(folder, AR, ARConfig)


def load_nar(folder: Path) -> AnyNAR:
    """The NAR model of a folder, on the CPU in eval mode; CheckpointError where it is damaged."""
    if "nar" in read_config(folder):
        return load_module(folder, AlignedNAR, AlignedNARConfig)
    if "untied" in read_config(folder):
        return load_module(folder, UntiedNAR, UntiedNARConfig)
    return load_module(folder, NAR, NARConfig)


def find_device(name: str = "auto") -> torch.device:
    """The device of a name: cpu, cuda, mps, or auto for the fastest there is.

    Raises:
        InputError: There is no such device here.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    there["cpu"] = True
    if name == "auto":
        return torch.device(next(kind for kind, here in there.items() if here))
    if not there.get(name, False):
        found = ", ".join(kind for kind, here in there.items() if here)
        raise InputError(f"device {name!r} is not there: this machine has {found}; or give auto")
    return torch.device(name)


class Valle2:
    """An AR and a NAR model of one training, ready to speak."""

    def __init__(
        self,
        ar: AnyAR,
        nar: AnyNAR,
        extras: Extras = Extras(),
        entries: Tensor | None = None,
        device: str = "cpu",
    ):
        """Put both models on a device.

        Args:
            entries: (K, V, features) of the codec, for `extras.expected`.
            device: As of `find_device`.

        Raises:
            CheckpointError: The models, or what they are asked by, do not belong together.
            InputError: There is no such device here.
        """
        self.device = find_device(device)
        self.ar, self.nar = ar.to(self.device).eval(), nar.to(self.device).eval()
        self.extras = extras
        self.without = ""
        self.compiled = False  # whether steps are, as of `compiled.CompiledStep`
        self.choose: Choose | None = None
        aligned = isinstance(ar, AlignedAR)
        if isinstance(nar, AlignedNAR) and not aligned:
            raise CheckpointError("the NAR reads a pointer, and the AR has none to give")
        if (extras.guidance or extras.stay is not None) and not aligned:
            raise CheckpointError(f"{extras} needs an AR with a pointer")
        if extras.expected:
            if entries is None:
                raise CheckpointError(f"{extras} needs the codec's entries")
            table = entries.to(self.device)
            self.choose = lambda logits, level: nearest_expected(logits, table[level])

    @classmethod
    def load(
        cls,
        folder: Path,
        extras: Extras = Extras(),
        entries: Tensor | None = None,
        device: str = "auto",
    ) -> "Valle2":
        """Read `ar/` and `nar/` of a model folder; arguments and errors as of the class.

        Raises:
            CheckpointError: A file is missing or damaged, or the models do not belong together.
            InputError: There is no such device here.
        """
        return cls(load_ar(folder / "ar"), load_nar(folder / "nar"), extras, entries, device)

    def save(self, folder: Path) -> None:
        """Write `ar/` and `nar/` into a model folder."""
        save_module(folder / "ar", self.ar, self.ar.config)
        save_module(folder / "nar", self.nar, self.nar.config)

    @property
    def points(self) -> bool:
        """Whether a pointer says of each frame where it is in the text."""
        return isinstance(self.ar, AlignedAR)

    def ablated(self, part: str) -> Self:
        """One with the same weights that is not told one of `ABLATIONS`.

        Raises:
            ValueError: The part is none of them.
        """
        if part not in ABLATIONS:
            raise ValueError(f"{part!r} is none of {ABLATIONS}")
        other = copy(self)
        other.without = part
        return other

    def generator(self, seed: int) -> torch.Generator:
        """Randomness on the model's device."""
        return torch.Generator(self.device).manual_seed(seed)

    def room(self, prompt_frames: int) -> int:
        """Most new frames behind a prompt of so many; negative where the prompt alone is too long.

        As many as both models hold, whatever part of a group the prompt begins with.
        """
        ar, nar = pure_ar(self.ar).config, pure_nar(self.nar).config
        return min(ar.max_frames, nar.max_frames) - prompt_frames - ar.group_size
