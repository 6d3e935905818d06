"""AudioSeal as a further mark, where its package and weights are (San Roman et al. 2024, MIT).

Its weights are only on a model hub. They are never fetched behind one's back: AudioSeal's own
loader downloads and unpickles whatever it is sent, so here its published files are read from a
folder that somebody has put them in, tensors only. No weights could be had where this was written:
the wiring is tested with random ones, and nothing about its robustness has been measured by us.
"""

import io
import os
from hashlib import sha1
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from torch import Tensor

from sayso.model.audio import resample
from sayso.model.files import MOST_WEIGHTS, read_bounded

from ..errors import MarkError
from .base import Stretch, Trace, check_audio, to_rate

RATE = 16_000
BITS = 16
CARDS = {"generator": "audioseal_wm_16bits", "detector": "audioseal_detector_16bits"}
URLS = {
    "generator": "https://huggingface.co/facebook/audioseal/resolve/main/generator_base.pth",
    "detector": "https://huggingface.co/facebook/audioseal/resolve/main/detector_base.pth",
}
WINDOW, STEP = 2.0, 0.5
"""Seconds of the windows that say where the mark is."""


class AudioSealMark:
    """AudioSeal at 16 kHz with 16 bits; the score is its own probability, not calibrated by us.

    Args:
        generator, detector: AudioSeal's networks, in eval mode.
    """

    name = "audioseal"

    def __init__(self, generator: Any, detector: Any):
        self.generator = generator
        self.detector = detector

    @torch.inference_mode()
    def embed(self, audio: Tensor, sample_rate: int, message: int = 0) -> Tensor:
        """Marks (samples,) with 16 bits; what lies above 8 kHz is kept as it was."""
        check_audio(audio)
        host = torch.from_numpy(resample(audio.numpy(), sample_rate, RATE))
        bits = torch.tensor([[message >> i & 1 for i in range(BITS)]])
        mark = self.generator.get_watermark(host[None, None], message=bits)[0, 0]
        return audio + to_rate(mark, RATE, sample_rate, len(audio))

    @torch.inference_mode()
    def search(self, audio: Tensor, sample_rate: int) -> Trace:
        """In both polarities, which AudioSeal takes for different sounds; only at its own speed."""
        check_audio(audio)
        if float(audio.abs().max()) == 0:
            return Trace(0.0)
        host = torch.from_numpy(resample(audio.numpy(), sample_rate, RATE))
        signs = torch.stack([host, -host])[:, None]  # (2, 1, samples)
        marked = self.detector(signs)[0][:, 1]  # (2, samples): the probability at each
        better = marked[int(marked.mean(1).argmax())]
        length, step = int(WINDOW * RATE), int(STEP * RATE)
        starts = range(0, max(1, len(better) - length + 1), step)
        windows = [
            Stretch(start / RATE, (start + length) / RATE, float(better[start:][:length].mean()))
            for start in starts
            if len(better) > length
        ]
        score = max([float(better.mean()), *(window.score for window in windows)])
        return Trace(min(max(score, 0.0), 1.0), 1.0, tuple(windows))

    def score(self, audio: Tensor, sample_rate: int) -> float:
        """0 to 1 in the better polarity; 0 for silence."""
        return self.search(audio, sample_rate).score


def audioseal_files(folder: Path | None = None) -> dict[str, Path] | None:
    """AudioSeal's two weight files in its own cache folder (or another), or None.

    Taken as AudioSeal names them in its cache, or as they are called on the hub.
    """
    if folder is None:
        cache = os.environ.get("AUDIOSEAL_CACHE_DIR") or os.environ.get("XDG_CACHE_HOME")
        folder = Path(cache or Path.home() / ".cache") / "audioseal"
    found = {}
    for role, url in URLS.items():
        path = urlparse(url).path
        names = (sha1(path.encode()).hexdigest()[:24], Path(path).name)
        present = [folder / name for name in names if (folder / name).is_file()]
        if not present:
            return None
        found[role] = present[0]
    return found


def load_audioseal(folder: Path | None = None) -> AudioSealMark:
    """AudioSeal from the weights in a folder.

    Raises:
        MarkError: The package or its weights are missing, or damaged.
    """
    files = audioseal_files(folder)
    if find_spec("audioseal") is None:
        raise MarkError("The audioseal package is missing: pip install 'sayso[audioseal]'.")
    if files is None:
        raise MarkError(
            "AudioSeal's weights are not on this machine. Fetch generator_base.pth and "
            "detector_base.pth from huggingface.co/facebook/audioseal into ~/.cache/audioseal "
            "(or the folder audioseal under AUDIOSEAL_CACHE_DIR)."
        )
    networks = {}
    for role in CARDS:
        network = build(role)
        loader = import_module("audioseal.loader")
        try:
            data = io.BytesIO(read_bounded(files[role], MOST_WEIGHTS))
            stored = torch.load(data, map_location="cpu", weights_only=True)
            stored = stored.get("model", stored)
            stored = loader.convert_state_dict_for_scriptable_model(stored)
            loader.load_state_dict(network, stored)
        except Exception as error:  # what a damaged pickle raises is not listed anywhere
            raise MarkError(
                f"AudioSeal's {role} in {files[role]} cannot be read ({type(error).__name__}: "
                f"{str(error).splitlines()[0] if str(error) else ''}). Fetch it again."
            ) from error
        networks[role] = network.eval()
    return AudioSealMark(networks["generator"], networks["detector"])


def build(role: str) -> Any:
    """AudioSeal's generator or detector as its package describes it, with random weights."""
    os.environ.setdefault("NO_TORCH_COMPILE", "1")  # else its first call compiles for minutes
    loader, builder = import_module("audioseal.loader"), import_module("audioseal.builder")
    kind, create = {
        "generator": (loader.AudioSealWMConfig, builder.create_generator),
        "detector": (loader.AudioSealDetectorConfig, builder.create_detector),
    }[role]
    card = loader.OmegaConf.to_container(loader.load_local_model_config(CARDS[role]), resolve=True)
    card.pop("checkpoint")
    return create(loader.AudioSeal.parse_config(card, config_type=kind, nbits=BITS))
