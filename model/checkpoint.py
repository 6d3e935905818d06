"""Weights on disk: `config.json` and `model.safetensors`, loaded strictly.

A pickle only of a published model, if its hash is known, and then as tensors alone.
"""

import dataclasses
import errno
import hashlib
import io
import json
import os
import pickle
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .errors import CheckpointError, InputError
from .files import MOST_JSON, MOST_WEIGHTS, open_regular, read_bounded, read_regular, replacing

Module = TypeVar("Module", bound=nn.Module)
LARGEST = 2**24
"""Of the numbers in a config."""
CONFIG, WEIGHTS = "config.json", "model.safetensors"


def save_module(folder: Path, module: nn.Module, config: Any) -> None:
    """Write a module's weights and its config (a dataclass), each file whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.detach().cpu() for name, tensor in module.state_dict().items()}
    with replacing(folder / WEIGHTS) as weights_part, replacing(folder / CONFIG) as config_part:
        save_file(weights, weights_part)
        config_part.write_text(json.dumps(dataclasses.asdict(config), indent=2) + "\n")


def read_config(folder: Path) -> dict[str, Any]:
    """The folder's `config.json`; CheckpointError where there is none or it is no JSON object."""
    path = folder / CONFIG
    if not path.exists():
        raise CheckpointError(f"{path} is missing: is {folder} a model folder?")
    try:
        config = json.loads(read_regular(path, MOST_JSON))
    except (InputError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}): restore or train it anew"
        ) from None
    if not isinstance(config, dict):
        raise CheckpointError(f"{path} holds no JSON object: restore or train it anew")
    return config


def load_weights(folder: Path, module: nn.Module) -> None:
    """Fill a module from the folder's weights; CheckpointError unless every tensor fits exactly."""
    path = folder / WEIGHTS
    if not path.is_file():
        raise CheckpointError(f"{path} is missing: restore it or train it anew")
    try:
        module.load_state_dict(read_tensors(path), strict=True)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged ({error}): restore it or train it anew") from None
    except RuntimeError as error:
        raise CheckpointError(f"{path} does not fit {folder / CONFIG}: {error}") from None


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, on the CPU.

    Raises:
        OSError: It cannot be read, is no regular file, or larger than any weights.
        SafetensorError: It is damaged.
    """
    with open_regular(path) as file:
        if os.fstat(file.fileno()).st_size > MOST_WEIGHTS:
            raise OSError(errno.EFBIG, "it is larger than any weights", str(path))
    return load_file(path)


def build(config_class: type, values: dict[str, Any], origin: Path) -> Any:
    """A (nested) frozen dataclass from JSON; CheckpointError on unknown, missing or bad values."""
    if not isinstance(values, dict):
        raise CheckpointError(f"{origin}: {str(values)[:60]} is no {config_class.__name__}")
    known = {f.name: f for f in dataclasses.fields(config_class)}
    arguments = {}
    for name, value in values.items():
        if name not in known:
            raise CheckpointError(f"{origin} has an unknown key {name!r}: other version of Sayso?")
        kind = known[name].type
        if kind is int and (type(value) is not int or abs(value) > LARGEST):
            raise CheckpointError(
                f"{origin}: {name} is {str(value)[:60]}, not a whole number up to {LARGEST}"
            )
        nested = isinstance(kind, type) and dataclasses.is_dataclass(kind)
        arguments[name] = build(kind, value, origin) if nested else value  # type: ignore[arg-type]
    try:
        return config_class(**arguments)
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"{origin} does not describe a {config_class.__name__}: {error}"
        ) from None


def load_module(folder: Path, module_class: type[Module], config_class: type) -> Module:
    """Build `module_class(config)` from a folder and load it strictly, in eval mode.

    Raises:
        CheckpointError: A file is missing or damaged, or weights and config do not fit.
    """
    config = build(config_class, read_config(folder), folder / CONFIG)
    try:
        module = module_class(config)
    except RuntimeError as error:
        raise CheckpointError(f"{folder / CONFIG} cannot be built: {error}") from None
    load_weights(folder, module)
    return module.eval()


def read_known(path: Path, sha256: str, remedy: str) -> bytes:
    """A published file, if it is the one of that sha256 (hex); else CheckpointError."""
    try:
        data = read_bounded(path, MOST_WEIGHTS)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}): {remedy}") from None
    if (found := hashlib.sha256(data).hexdigest()) != sha256:
        raise CheckpointError(f"{path} has sha256 {found[:16]}..., not {sha256[:16]}...: {remedy}")
    return data


def load_pickle(path: Path, sha256: str) -> dict[str, Tensor]:
    """The tensors of a published file, read from the very bytes that were hashed.

    Raises:
        CheckpointError: The file is missing, not the one of that sha256 (hex), or no such file.
    """
    data = read_known(path, sha256, "fetch it anew")
    try:
        tensors = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (EOFError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"{path} holds no weights ({error}): fetch it anew") from None
    if not isinstance(tensors, dict):
        raise CheckpointError(f"{path} holds a {type(tensors).__name__}, no weights by name")
    return tensors
