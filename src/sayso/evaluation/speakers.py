"""Speaker encoders out of files: WavLM with x-vectors, and UniSpeech's, which the paper asks."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sayso.inference.recognisers import RATE
from sayso.model.errors import CheckpointError, InputError
from sayso.model.files import file_hash

from .metrics import Similarity
from .sound import Audio
from .unispeech import load_encoder


def speaker_encoder(path: Path) -> Similarity:
    """SIM by the encoder in a folder (`wavlm`) or in a file (`unispeech`); errors as of those."""
    return wavlm(path) if path.is_dir() else unispeech(path)


def wavlm(folder: Path) -> Similarity:
    """SIM by a WavLM with an x-vector head, such as microsoft/wavlm-base-plus-sv, out of a folder.

    Raises:
        InputError: transformers is missing.
        CheckpointError: The folder holds no such model as safetensors.
    """
    try:
        from transformers import AutoFeatureExtractor, WavLMForXVector
    except ImportError:
        raise InputError("transformers is missing: pip install 'sayso[bench]'.") from None
    weights = folder / "model.safetensors"
    try:
        sha256 = file_hash(weights)
        extract = AutoFeatureExtractor.from_pretrained(folder, local_files_only=True)
        load: Any = WavLMForXVector.from_pretrained  # with the loading info it gives two
        model, found = load(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{folder} holds no WavLM with an x-vector head ({error})") from None
    if odd := sorted([*found["missing_keys"], *found["unexpected_keys"]]):
        raise CheckpointError(f"{weights}: {len(odd)} weights lack or are odd, such as {odd[0]}")
    model.eval()

    @torch.inference_mode()
    def embed(audio: Audio) -> NDArray[np.float32] | None:
        if len(audio) < RATE or not audio.any():
            return None
        heard = extract(audio, sampling_rate=RATE, return_tensors="pt")
        return torch.nn.functional.normalize(model(**heard).embeddings[0], dim=0).numpy()

    code = f"transformers {version('transformers')}"
    return Similarity(embed, f"WavLM {folder.name}", code, sha256)


def unispeech(path: Path) -> Similarity:
    """SIM by UniSpeech's WavLM-large and ECAPA-TDNN, out of its weights as safetensors.

    Raises:
        InputError: transformers is missing.
        CheckpointError: The file holds no such model.
    """
    encoder = load_encoder(path)

    @torch.inference_mode()
    def embed(audio: Audio) -> NDArray[np.float32] | None:
        if len(audio) < RATE or not audio.any():
            return None
        return encoder(torch.from_numpy(audio)[None])[0].numpy()

    code = f"transformers {version('transformers')}"
    return Similarity(embed, f"WavLM, ECAPA-TDNN {path.name}", code, file_hash(path))
