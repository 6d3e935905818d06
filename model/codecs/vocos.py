"""Vocos: what EnCodec's codes sound like (Siuzdak, arXiv:2306.00814), by the `vocos` package.

Its published config names classes and arguments; here it is data: the one class that fits, its own
arguments, nothing else.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from ..checkpoint import build, load_pickle
from ..errors import CheckpointError, InputError
from ..files import yaml_of

REPOSITORY = "charactr/vocos-encodec-24khz"
FILES = ("config.yaml", "pytorch_model.bin")
BANDWIDTHS = {2: 0, 4: 1, 8: 2, 16: 3}  # codebooks -> its bandwidth_id
LARGEST = 4096
"""No size in a config may be above it."""


@dataclass(frozen=True)
class FeatureArguments:
    encodec_model: str = "encodec_24khz"
    bandwidths: tuple[float, ...] = (1.5, 3.0, 6.0, 12.0)
    """kbps of 2, 4, 8, 16 codebooks."""
    train_codebooks: bool = False
    """Whether its code table was trained further; it is read in any case."""

    def __post_init__(self):
        fixed = FeatureArguments.__dataclass_fields__
        if self.encodec_model != fixed["encodec_model"].default:
            raise ValueError(f"encodec_model is {self.encodec_model!r}")
        if tuple(self.bandwidths) != fixed["bandwidths"].default:
            raise ValueError(f"bandwidths are {self.bandwidths}")


@dataclass(frozen=True)
class BackboneArguments:
    input_channels: int
    dim: int
    intermediate_dim: int
    num_layers: int
    adanorm_num_embeddings: int
    layer_scale_init_value: float | None = None

    def __post_init__(self):
        sizes = (self.input_channels, self.dim, self.intermediate_dim, self.num_layers)
        check_sizes(*sizes, self.adanorm_num_embeddings)
        if not isinstance(self.layer_scale_init_value, float | None):
            raise ValueError(f"layer_scale_init_value is {self.layer_scale_init_value!r}")


@dataclass(frozen=True)
class HeadArguments:
    dim: int
    n_fft: int
    hop_length: int
    padding: str = "same"

    def __post_init__(self):
        check_sizes(self.dim, self.n_fft, self.hop_length)
        if self.padding != "same":
            raise ValueError(f"padding is {self.padding!r}")


SECTIONS = {
    "feature_extractor": ("vocos.feature_extractors.EncodecFeatures", FeatureArguments),
    "backbone": ("vocos.models.VocosBackbone", BackboneArguments),
    "head": ("vocos.heads.ISTFTHead", HeadArguments),
}


def check_sizes(*sizes: int) -> None:
    """ValueError unless each is a whole number from 1 to `LARGEST`."""
    if not all(type(size) is int and 1 <= size <= LARGEST for size in sizes):
        raise ValueError(f"sizes {sizes} are not all from 1 to {LARGEST}")


def read_arguments(path: Path) -> dict[str, Any]:
    """The arguments of each part in a published `config.yaml`, by its section.

    Raises:
        CheckpointError: It is no YAML, or names another class or argument than those of `SECTIONS`.
    """
    try:
        found = yaml.safe_load(yaml_of(path))
    except (InputError, ValueError, yaml.YAMLError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}): fetch it anew") from None
    if not isinstance(found, dict) or set(found) != set(SECTIONS):
        raise CheckpointError(f"{path} has not the sections {list(SECTIONS)}: fetch it anew")
    arguments = {}
    for section, (known, kind) in SECTIONS.items():
        part = found[section]
        if not isinstance(part, dict) or set(part) != {"class_path", "init_args"}:
            raise CheckpointError(f"{path}: {section} is no class_path with init_args")
        if part["class_path"] != known or not isinstance(part["init_args"], dict):
            raise CheckpointError(f"{path}: {section} is {part['class_path']!r}, not {known}")
        arguments[section] = build(kind, part["init_args"], path)
    return arguments


class VocosDecoder(nn.Module):
    """Vocos without its EnCodec: codes (K, B, T) -> audio (B, T * 320)."""

    table: Tensor
    bandwidth: Tensor
    offsets: Tensor

    def __init__(self, backbone: nn.Module, head: nn.Module, table: Tensor, codebooks: int):
        """`table` (K * codebook_size, D) is its own, which need not be EnCodec's."""
        super().__init__()
        self.backbone, self.head = backbone, head
        self.register_buffer("table", table)
        self.register_buffer("bandwidth", torch.tensor([BANDWIDTHS[codebooks]]))
        self.register_buffer("offsets", torch.arange(codebooks) * (len(table) // codebooks))

    @classmethod
    def load(cls, folder: Path, sha256: str, codebooks: int, codebook_size: int) -> "VocosDecoder":
        """The published files, in a folder or as of `vocos_files`, for so many codebooks.

        Raises:
            CheckpointError: The package or a file is missing, the weights are not those of
                `sha256`, or they do not fit the config.
        """
        try:
            from vocos.heads import ISTFTHead
            from vocos.models import VocosBackbone
        except ImportError as error:
            raise CheckpointError(
                f"decoder 'vocos' needs the vocos package ({error}): pip install 'sayso[vocos]'"
            ) from None
        config, weights = vocos_files(folder)
        arguments = read_arguments(config)
        state = load_pickle(weights, sha256)
        try:
            with torch.device("meta"):  # nothing is allocated for sizes that do not fit
                backbone = VocosBackbone(**vars(arguments["backbone"]))
                head = ISTFTHead(**vars(arguments["head"]))
            for prefix, module in (("backbone.", backbone), ("head.", head)):
                own = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
                module.load_state_dict(own, strict=True, assign=True)
            table = state["feature_extractor.codebook_weights"][: codebooks * codebook_size].clone()
            if table.shape != (codebooks * codebook_size, arguments["backbone"].input_channels):
                raise ValueError(f"codebook_weights are {tuple(table.shape)}")
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            raise CheckpointError(f"{weights.parent} holds no Vocos that fits: {error}") from None
        return cls(backbone, head, table, codebooks).eval()

    def forward(self, codes: Tensor) -> Tensor:
        """Codes (K, B, T) -> audio (B, samples), summed as `codes_to_features` of vocos does."""
        rows = codes + self.offsets[:, None, None]
        features = nn.functional.embedding(rows, self.table).sum(dim=0).transpose(1, 2)  # (B, D, T)
        return self.head(self.backbone(features, bandwidth_id=self.bandwidth))


def vocos_files(folder: Path) -> tuple[Path, Path]:
    """Config and weights, from the folder, else the hub's cache, else the network.

    Raises:
        CheckpointError: They are nowhere.
    """
    local = folder / FILES[0], folder / FILES[1]
    if all(path.is_file() for path in local):
        return local
    from huggingface_hub import hf_hub_download  # comes with tokenizers
    from huggingface_hub.errors import LocalEntryNotFoundError

    def find(name: str) -> Path:
        try:
            return Path(hf_hub_download(REPOSITORY, name, local_files_only=True))
        except LocalEntryNotFoundError:
            return Path(hf_hub_download(REPOSITORY, name))

    try:
        return find(FILES[0]), find(FILES[1])
    except OSError as error:  # the hub's errors are all of this kind; it gives up after 30 s
        raise CheckpointError(
            f"{REPOSITORY} is not cached and cannot be fetched ({type(error).__name__}): "
            f"put {' and '.join(FILES)} into {folder}, or set decoder to 'encodec'"
        ) from None
