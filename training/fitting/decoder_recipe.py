"""The settings by which a decoder is fitted."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from sayso.model.codecs.decoder import DecoderConfig
from sayso.model.errors import InputError

from ..recipe import read_settings


@dataclass(frozen=True)
class DecoderRecipe:
    """All settings of a run; configs/mini/decoder.yaml mirrors it."""

    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    """Its size."""
    most: int = 450
    """Utterances taken of each corpus, in turn of each speaker."""
    said_by_nar: float = 0.25
    """Share of examples whose codebooks 1..K-1 are the NAR's, where there are such."""
    said_by_model: float = 0.55
    """Share whose codebook 0, too, is drawn: by the AR."""
    told: bool = True
    """Whether the decoder is told which text id each frame says, by the model's pointer."""
    untold: float = 0.1
    """Share of examples of which it is not told, as there may be no pointer."""
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
    listener_steps: int = 2500
    """Of a classifier of phonemes, fitted to recordings."""
    clear_steps: int = 1200
    """After `steps`, with the listener, where the decoder is told what is said; 0 for none."""
    clear_weight: float = 0.3
    """Of the listener's nats in these."""
    clear_share: float = 0.4
    """How far from the decoder before the listener to that after it the one that is kept lies."""
    joined_steps: int = 1200
    """In which it learns to be there."""
    ema: float = 0.999
    """Decay of the averaged weights that are kept."""
    seed: int = 1
    """Of weights and examples."""
    accelerator: Literal["cpu", "cuda"] = "cpu"
    """Where to train."""
    save_every: int = 200
    """Steps between checkpoints and validations."""

    def __post_init__(self) -> None:
        counts = "most", "batch", "frames", "steps", "listener_steps", "channels", "save_every"
        for name in (*counts, "rate"):
            if getattr(self, name) <= 0:
                raise InputError(f"{name} is {getattr(self, name)}; it must be above 0")
        shares = self.said_by_nar + self.said_by_model, self.untold, self.clear_share
        if min(self.clear_steps, self.joined_steps, self.said_by_nar, self.said_by_model) < 0:
            raise InputError("clear_steps, joined_steps and said_by_... must be at least 0")
        if (
            self.held_out_every < 2
            or not 0 <= self.ema < 1
            or not 0 <= min(shares) <= max(shares) <= 1
        ):
            raise InputError(
                f"held_out_every {self.held_out_every}, ema {self.ema}, said_by_nar and _model, "
                f"untold, clear_share {shares}: at least 2, in [0, 1) and in [0, 1]"
            )


def read_decoder_recipe(path: Path) -> DecoderRecipe:
    """Reads a YAML file; InputError for unknown keys and impossible values."""
    return read_settings(DecoderRecipe, path, "configs/mini/decoder.yaml")
