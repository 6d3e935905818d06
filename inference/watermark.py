"""The inaudible mark: one interface, PerTh behind it, and no way on without it.

PerTh (Resemble AI, MIT, weights inside the `resemble-perth` wheel) changes magnitudes below 2 kHz;
it says "marked", it carries no payload and no key. Open projects fall back to a dummy when
the package is missing; here every such case is a MarkError, and nothing is spoken.
"""

import contextlib
import hashlib
import io
import warnings
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from sayso.inference.audio import resample
from sayso.model.errors import MarkError

PERTH_FILE = "perth_net_250000.pth.tar"
PERTH_SHA256 = "a15bce457ebc53ce5e6c9c3f11df78cf7ee2bf9cdab0a798902135b4c4027670"
"""The weights in resemble-perth 1.0.1. Others would need a threshold of their own: refused."""
PERTH_RATE = 32_000
THRESHOLD = 0.5
"""A score from here on means marked."""


class Watermarker(Protocol):
    """A mark that is put into samples and found in them again."""

    name: str

    def embed(self, audio: Tensor, sample_rate: int) -> Tensor:
        """Marks (samples,) float audio; the same length comes back. MarkError if it cannot."""
        ...

    def score(self, audio: Tensor, sample_rate: int) -> float:
        """How marked (samples,) audio looks, 0 to 1; silence is 0. MarkError for NaN."""
        ...


class Perth:
    """PerTh's implicit watermark on one core (24 to 48 kHz hosts; 8 kHz works too).

    Args:
        net: `PerthNet`, as `load_watermarker` makes it.
    """

    name = "perth"

    def __init__(self, net: Any):
        self.net = net

    @torch.inference_mode()
    def embed(self, audio: Tensor, sample_rate: int) -> Tensor:
        """(samples,) to (samples,). What lies above PerTh's band is kept as it was: only the
        difference it makes is resampled and added."""
        _check(audio)
        if float(audio.abs().max()) == 0:
            raise MarkError("There is nothing to mark: the audio is silent.")
        host = torch.from_numpy(resample(audio.numpy(), sample_rate, PERTH_RATE))
        # reflection padding of half a window needs more samples than that
        padded = torch.nn.functional.pad(host, (0, max(0, 2048 - len(host))))
        magnitude, phase = self.net.ap.signal_to_magphase(padded)  # (1025, T)
        marked, _ = self.net.encoder(magnitude[None])
        changed = self.net.ap.magphase_to_signal(marked[0], phase)
        plain = self.net.ap.magphase_to_signal(magnitude, phase)
        difference = (changed - plain)[: len(host)].numpy()
        difference = torch.from_numpy(resample(difference, PERTH_RATE, sample_rate))
        difference = torch.nn.functional.pad(difference, (0, max(0, len(audio) - len(difference))))
        return audio + difference[: len(audio)]

    @torch.inference_mode()
    def score(self, audio: Tensor, sample_rate: int) -> float:
        """0 to 1; 0 for silence, where PerTh itself divides by zero."""
        _check(audio)
        if float(audio.abs().max()) == 0:
            return 0.0
        host = torch.from_numpy(resample(audio.numpy(), sample_rate, PERTH_RATE))
        host = torch.nn.functional.pad(host, (0, max(0, 2048 - len(host))))
        magnitude, _ = self.net.ap.signal_to_magphase(host)
        score = float(self.net.decoder(magnitude[None])[0])
        if score != score:
            raise MarkError("The watermark detector returned NaN; the audio cannot be judged.")
        return min(max(score, 0.0), 1.0)


def load_watermarker() -> Watermarker:
    """PerTh, with its weights verified.

    Raises:
        MarkError: The package is absent, or unusable, or its weights are not the known ones.
    """
    remedy = "Nothing is spoken without it: pip install --force-reinstall 'resemble-perth==1.0.1'"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pkg_resources says at every import that it is old
            import perth
    except ImportError as error:
        raise MarkError(
            f"The watermark package resemble-perth is missing ({error}). {remedy}"
        ) from error
    # perth swallows its own ImportError (no pkg_resources since setuptools 81) and exports None.
    if getattr(perth, "PerthImplicitWatermarker", None) is None:
        raise MarkError(
            "The watermark package resemble-perth cannot load its network; it needs pkg_resources: "
            f"pip install 'setuptools<81'. {remedy}"
        )
    check_weights(Path(perth.__file__).parent / "perth_net/pretrained/implicit" / PERTH_FILE)
    with contextlib.redirect_stdout(io.StringIO()):  # it prints a line at every load
        net = perth.PerthImplicitWatermarker().perth_net
    return Perth(net.eval())


def check_weights(path: Path) -> None:
    """Raises MarkError unless the file holds exactly PerTh's published weights."""
    if not path.is_file():
        raise MarkError(
            f"The watermark's weights are missing: {path}. Reinstall resemble-perth==1.0.1."
        )
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != PERTH_SHA256:
        raise MarkError(
            f"The watermark's weights {path.name} are damaged or not those of resemble-perth 1.0.1 "
            f"({path.stat().st_size} bytes, sha256 {found[:16]}). Reinstall resemble-perth==1.0.1."
        )


def _check(audio: Tensor) -> None:
    if audio.ndim != 1 or not len(audio):
        raise MarkError(f"The mark needs audio of shape (samples,), not {tuple(audio.shape)}.")
    if not torch.isfinite(audio).all():
        raise MarkError("The audio holds samples that are not numbers; it cannot carry a mark.")
