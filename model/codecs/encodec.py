"""EnCodec tokens, the ones VALL-E 2 uses: 8 codebooks x 1024 at 75 Hz, decoded by EnCodec or Vocos.

Défossez et al., arXiv:2210.13438, by the `encodec` package.
"""

import math
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any, cast
from urllib.request import urlopen

import torch
from encodec.model import ROOT_URL, EncodecModel
from encodec.modules.seanet import SEANetDecoder, SEANetEncoder
from encodec.quantization.core_vq import VectorQuantization
from encodec.quantization.vq import ResidualVectorQuantizer
from torch import Tensor

from ..checkpoint import CONFIG, build, load_pickle, load_weights, read_config, save_module
from ..errors import CheckpointError, InputError
from ..files import file_hash
from .base import Codec, Stored, check_audio, check_codes
from .vocos import BANDWIDTHS, VocosDecoder, vocos_files

PRETRAINED = "encodec_24khz"
PRETRAINED_FILE = "encodec_24khz-d7cc33bc.th"
PRETRAINED_SHA256 = "d7cc33bcf1aad7f2dad9836f36431530744abeace3ca033005e3290ed4fa47bf"
PRETRAINED_CODEBOOKS = 32
MOST_PRETRAINED = 2**27  # bytes: it has 93 MB


@dataclass(frozen=True)
class EncodecConfig:
    kind: str = "encodec"
    source: str = "folder"
    """`folder`: weights in `model.safetensors`. `encodec_24khz`: the published ones, from
    `encodec_24khz-d7cc33bc.th` in the folder, else torch hub's cache, else the network."""
    decoder: str = "encodec"
    """`encodec`, or `vocos`: its two files in `vocos/` in the folder, else the hub's cache or the
    network. Only for the published weights."""
    vocos_sha256: str | None = None
    """Of Vocos's weights, as `published_codec` first found them: no others are read."""
    codebooks: int = 8
    codebook_size: int = 1024
    sample_rate: int = 24000
    """Hz."""
    filters: int = 32
    dimension: int = 128
    ratios: tuple[int, ...] = (8, 5, 4, 2)
    """Strides of the decoder; their product is the hop in samples."""
    lstm: int = 2

    def __post_init__(self):
        if self.kind != "encodec":
            raise ValueError(f"kind {self.kind!r} is not 'encodec'")
        if self.source not in ("folder", PRETRAINED) or self.decoder not in ("encodec", "vocos"):
            raise ValueError(f"unknown source {self.source!r} or decoder {self.decoder!r}")
        object.__setattr__(self, "ratios", tuple(self.ratios))  # JSON has lists only
        if min(self.codebooks, self.sample_rate, self.filters, self.dimension, *self.ratios) < 1:
            raise ValueError("sizes must be >= 1")
        if self.codebook_size < 2 or self.codebook_size & (self.codebook_size - 1):
            raise ValueError(f"codebook_size {self.codebook_size} is not a power of 2")
        fixed = EncodecConfig.__dataclass_fields__
        sizes = ("codebook_size", "sample_rate", "filters", "dimension", "ratios", "lstm")
        if self.source == PRETRAINED and any(getattr(self, s) != fixed[s].default for s in sizes):
            raise ValueError(f"{PRETRAINED} has fixed sizes: leave {', '.join(sizes)} out")
        if self.source == PRETRAINED and self.codebooks > PRETRAINED_CODEBOOKS:
            raise ValueError(f"{PRETRAINED} has no more than {PRETRAINED_CODEBOOKS} codebooks")
        if self.decoder == "vocos" and self.source != PRETRAINED:
            raise ValueError(f"decoder 'vocos' was trained on {PRETRAINED} only")
        if self.decoder == "vocos" and self.codebooks not in BANDWIDTHS:
            raise ValueError(f"vocos decodes {tuple(BANDWIDTHS)} codebooks")

    @property
    def hop(self) -> int:
        """Samples per frame."""
        return math.prod(self.ratios)


class EncodecCodec(Stored, Codec):
    """EnCodec: `EncodecCodec(config)` has random weights, `load` fills them."""

    config_class = EncodecConfig
    causal = True

    def __init__(self, config: EncodecConfig):
        super().__init__()
        self.config = config
        self.sample_rate = config.sample_rate
        self.frame_rate = config.sample_rate / config.hop
        self.codebooks, self.codebook_size = config.codebooks, config.codebook_size
        sizes: dict[str, Any] = {
            "dimension": config.dimension,
            "n_filters": config.filters,
            "ratios": list(config.ratios),
            "lstm": config.lstm,
            "causal": True,
        }
        self.encoder = SEANetEncoder(**sizes)
        self.decoder = SEANetDecoder(**sizes)
        self.quantizer = ResidualVectorQuantizer(
            dimension=config.dimension,
            n_q=config.codebooks,
            bins=config.codebook_size,
            kmeans_init=False,  # five minutes on a CPU; random entries train as well
        )
        self.vocos: VocosDecoder | None = None
        self.eval()

    @classmethod
    def load(cls, folder: Path) -> "EncodecCodec":
        """The codec described by a folder's `config.json`.

        Raises:
            CheckpointError: A file is missing, damaged or does not fit, `vocos` is not installed,
                or published weights are neither here nor to be downloaded.
        """
        config: EncodecConfig = build(EncodecConfig, read_config(folder), folder / CONFIG)
        codec = cls(config)
        if config.source == "folder":
            load_weights(folder, codec)
            return codec.eval()
        published = pretrained_encodec(folder)
        published.quantizer.vq.layers = published.quantizer.vq.layers[: config.codebooks]
        codec.encoder, codec.decoder = published.encoder, published.decoder
        codec.quantizer = published.quantizer
        if config.decoder == "vocos":
            if config.vocos_sha256 is None:
                raise CheckpointError(
                    f"{folder / CONFIG} names no vocos_sha256: make this codec anew, with "
                    "`sayso codec published --decoder vocos`"
                )
            codec.vocos = VocosDecoder.load(
                folder / "vocos", config.vocos_sha256, config.codebooks, config.codebook_size
            )
        return codec.eval()

    def save(self, folder: Path) -> None:
        """Write `config.json`, and `model.safetensors` unless the weights are published ones."""
        save_module(folder, self, self.config)
        if self.config.source == PRETRAINED:
            (folder / "model.safetensors").unlink()

    @torch.no_grad()
    def encode(self, audio: Tensor) -> Tensor:
        """Audio (B, samples) -> codes (B, K, ceil(samples / hop)); raises InputError."""
        check_audio(audio)
        embedding = self.encoder(audio.to(self._device()).float()[:, None])  # (B, D, T)
        return self.quantizer.vq.encode(embedding).transpose(0, 1).cpu()

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Codes (B, k, T) -> audio (B, T * hop) float32; Vocos takes all K only.

        Raises:
            InputError: Codes of the wrong shape, type or range.
        """
        check_codes(codes, self.codebooks, self.codebook_size)
        codes = codes.to(self._device()).transpose(0, 1)  # (k, B, T)
        # Vocos was trained on 2, 4, 8 and 16 codebooks; other numbers go to EnCodec.
        if self.vocos is not None and len(codes) == self.codebooks:
            return self.vocos(codes).cpu()
        return self.decoder(self.quantizer.decode(codes))[:, 0].cpu()

    def entries(self) -> Tensor:
        """All entries, (K, codebook_size, dimension)."""
        layers = (cast(VectorQuantization, layer) for layer in self.quantizer.vq.layers)
        return torch.stack([cast(Tensor, layer.codebook).float() for layer in layers]).cpu()

    def _device(self) -> torch.device:
        return next(self.parameters()).device


def published_codec(folder: Path, decoder: str = "encodec") -> EncodecCodec:
    """Make `folder` the published EnCodec, 8 codebooks (6 kbps), as the paper has it.

    Raises:
        InputError: No such decoder.
        CheckpointError: The published weights are neither here nor to be downloaded.
    """
    if decoder not in ("encodec", "vocos"):
        raise InputError(f"decoder {decoder!r}: it must be encodec or vocos")
    if (folder / CONFIG).exists():
        raise InputError(f"{folder} holds a codec already: give another folder")
    known = file_hash(vocos_files(folder / "vocos")[1]) if decoder == "vocos" else None
    config = EncodecConfig(source=PRETRAINED, decoder=decoder, vocos_sha256=known)
    EncodecCodec(config).save(folder)
    try:
        return EncodecCodec.load(folder)
    except CheckpointError:
        (folder / CONFIG).unlink()
        raise


def pretrained_encodec(folder: Path) -> EncodecModel:
    """Meta's encodec_24khz with all 32 codebooks; CheckpointError where it is out of reach."""
    cache = Path(torch.hub.get_dir()) / "checkpoints"
    places = [folder / PRETRAINED_FILE, cache / PRETRAINED_FILE]
    path = next((place for place in places if place.is_file()), None) or download(cache)
    model = EncodecModel.encodec_model_24khz(pretrained=False)
    model.load_state_dict(load_pickle(path, PRETRAINED_SHA256))
    return model


def download(cache: Path) -> Path:
    """Fetch encodec_24khz into torch hub's cache, whole or not at all: else CheckpointError."""
    path = cache / PRETRAINED_FILE
    part = path.with_suffix(".part")
    try:
        cache.mkdir(parents=True, exist_ok=True)
        # Not torch.hub's own download, which waits for ever on a silent network.
        with urlopen(ROOT_URL + PRETRAINED_FILE, timeout=20) as response, part.open("wb") as file:
            file.write(response.read(MOST_PRETRAINED))  # more is another file
    except (OSError, HTTPException) as error:
        part.unlink(missing_ok=True)
        raise CheckpointError(
            f"{PRETRAINED_FILE} is not cached and cannot be fetched ({error}): put it from "
            f"{ROOT_URL} into {cache} or beside the codec's {CONFIG}"
        ) from None
    return part.replace(path)
