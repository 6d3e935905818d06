"""A model folder: text/, codec/, ar/, nar/, card.json and perhaps timbre/, opened whole."""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .card import CARD
from .codecs.base import Codec
from .codecs.load import load_codec
from .errors import CheckpointError, InputError
from .files import ASSETS, MOST_JSON, read_regular
from .precision import check_precision, convert
from .sampling import Sampling
from .text.tokenizers import Tokenizer, load_tokenizer
from .valle2 import Extras, Valle2, find_device, pure_ar, pure_nar

PARTS = ("codec", "timbre", "decoder")
"""On the card, with the identity of what makes the codes and the sound of them."""
BUNDLED = ASSETS / "mini"
"""The model that ships with the package."""


@dataclass(frozen=True)
class Bundle:
    """Everything that turns text and a prompt into codes and codes into audio."""

    folder: Path
    tokenizer: Tokenizer
    codec: Codec
    model: Valle2
    card: dict[str, Any]
    card_hash: str
    """sha256 (hex) of `card.json` as it stands on disk."""
    sampling: Sampling = field(default_factory=Sampling)
    """How this model speaks best, by its card; the paper's if that says nothing."""


def load_bundle(
    folder: Path = BUNDLED, device: str = "auto", precision: str = "fp32", compiled: bool = False
) -> Bundle:
    """Open a model folder, to speak with: its models cannot be trained or saved.

    Args:
        device: Of the language model, as of `valle2.find_device`; codecs stay on the CPU.
        precision: Of its linear layers: fp32, bf16 or int8, as of `precision.convert`.
        compiled: Whether the AR's step is, as of `compiled.CompiledStep`.

    Raises:
        CheckpointError: A part is missing or damaged, or the parts do not belong together.
        InputError: There is no such device here, or not in this precision.
    """
    check_precision(precision, find_device(device))
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is no folder: give one with text/ codec/ ar/ nar/")
    raw, card = _card_of(folder / CARD)
    tokenizer = load_tokenizer(folder / "text")
    timbre = folder / "timbre"
    codec = load_codec(folder / "codec", timbre if timbre.exists() else None)
    try:
        how = dict(card.get("sampling", {}))
        pointer = {name: how.pop(name) for name in ("stay", "guidance") if name in how}
        expected = card.get("models", {}).get("nar", {}).get("expected", False)
        sampling, extras = Sampling(**how), Extras(**pointer, expected=expected)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{folder / CARD}: sampling is no Sampling ({error})") from None
    model = Valle2.load(folder, extras, codec.entries() if expected else None, device)
    ar, nar = pure_ar(model.ar).config, pure_nar(model.nar).config
    named = {part: card[part].get("identity") for part in PARTS if part in card}
    for name, got, wanted in (
        ("ar text_size", ar.text_size, tokenizer.size),
        ("nar text_size", nar.text_size, tokenizer.size),
        ("ar codebook_size", ar.codebook_size, codec.codebook_size),
        ("nar codebook_size", nar.codebook_size, codec.codebook_size),
        ("nar codebooks", nar.codebooks, codec.codebooks),
        ("codec on the card", named, codec.parts | codec.sound_parts),
    ):
        if got != wanted:
            raise CheckpointError(
                f"{folder}: {name} is {got}, text and codec beside it need {wanted}: "
                "these parts are not of one training"
            )
    convert(model.ar, precision, pack=not compiled)
    convert(model.nar, precision)
    model.compiled = compiled
    digest = hashlib.sha256(raw).hexdigest()
    return Bundle(folder, tokenizer, codec, model, card, digest, sampling)


def _card_of(path: Path) -> tuple[bytes, dict[str, Any]]:
    """A card as it stands on disk, and its fields, of which those read here are objects."""
    try:
        raw = read_regular(path, MOST_JSON)
        card = json.loads(raw)
        asked = [card, card.get("models", {}), card.get("sampling", {})]
        asked += [card["models"].get("nar", {})] if "models" in card else []
        asked += [card[part] for part in PARTS if part in card]
        if not all(isinstance(each, dict) for each in asked):
            raise ValueError("a list or a value stands where an object should")
    except (InputError, ValueError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}): restore it") from None
    return raw, card
