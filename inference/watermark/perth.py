"""PerTh, the mark that anyone can look for, and no way on without it.

PerTh (Resemble AI, MIT, weights inside the `resemble-perth` wheel) changes magnitudes below 2 kHz;
it says "marked", it carries no payload and no key. Open projects fall back to a dummy when
the package is missing; here every such case is a MarkError, and nothing is spoken.
"""

import hashlib
import io
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from sayso.model.audio import resample
from sayso.model.files import MOST_WEIGHTS, read_bounded

from ..errors import MarkError
from .base import THRESHOLD, Stretch, Trace, check_audio, to_rate
from .perth_filter import BLOCK, HOP, SPEEDS, evidence, load_filter, spectra, windows_of
from .perth_filter import RATE as FILTER_RATE
from .perth_net import PerthNet

PERTH_FILE = "perth_net/pretrained/implicit/perth_net_250000.pth.tar"
PERTH_SHA256 = "a15bce457ebc53ce5e6c9c3f11df78cf7ee2bf9cdab0a798902135b4c4027670"
"""The weights in resemble-perth 1.0.1. Others would need a threshold of their own: refused."""
PERTH_RATE = 32_000
NETWORK_WEIGHT = 2.0
"""Deviations that a certain "yes" of PerTh's own network counts for."""
BLOCK_SECONDS = BLOCK * HOP / FILTER_RATE


@dataclass(frozen=True)
class PerthTrace(Trace):
    """A `Trace` with what PerTh's own detector says of the whole file, 0 to 1."""

    network: float = 0.0


class Perth:
    """PerTh's implicit watermark on one core (24 to 48 kHz hosts; 8 kHz works too).

    Args:
        net: With the published weights, as `load_watermarker` makes it.
    """

    name = "perth"

    def __init__(self, net: PerthNet):
        self.net = net
        self.filter = load_filter()

    @torch.inference_mode()
    def embed(self, audio: Tensor, sample_rate: int, strength: float = 1.0) -> Tensor:
        """(samples,) to (samples,), with `strength` times PerTh's own change in dB.

        What lies above PerTh's band is kept as it was: only the difference is resampled and added.
        MarkError if the audio is silent.
        """
        check_audio(audio)
        if float(audio.abs().max()) == 0:
            raise MarkError("There is nothing to mark: the audio is silent.")
        host = torch.from_numpy(resample(audio.numpy(), sample_rate, PERTH_RATE))
        # reflection padding of half a window needs more samples than that
        padded = torch.nn.functional.pad(host, (0, max(0, 2048 - len(host))))
        magnitude, phase = self.net.split(padded)  # (1025, T)
        marked = self.net.encoder(magnitude[None])
        changed = magnitude + strength * (marked[0] - magnitude)  # both in dB, scaled
        changed = self.net.join(changed, phase)
        difference = (changed - self.net.join(magnitude, phase))[: len(host)]
        return audio + to_rate(difference, PERTH_RATE, sample_rate, len(audio))

    @torch.inference_mode()
    def search(self, audio: Tensor, sample_rate: int) -> PerthTrace:
        """By the matched filter, helped by PerTh's own network (in short clips most)."""
        check_audio(audio)
        if float(audio.abs().max()) == 0:
            return PerthTrace(0.0)
        found, spans, parts, network = self._evidence(audio, sample_rate)
        one = SPEEDS.index(1.0)
        whole, whole_any, window, window_any = self.filter.limits
        plain = max(float(found[one]) / whole, float(parts[:, one].max()) / window)
        searched = torch.maximum(found / whole_any, parts.max(0).values / window_any)
        at = one if plain >= float(searched.max()) else int(searched.argmax())
        limit = window if at == one else window_any
        windows = [
            Stretch(
                start * BLOCK_SECONDS,
                min(stop * BLOCK_SECONDS, len(audio) / sample_rate),
                _to_score(float(z[at]) / limit),
            )
            for (start, stop), z in zip(spans, parts, strict=False)
        ]
        score = _to_score(max(plain, float(searched.max())))
        return PerthTrace(score, SPEEDS[at], tuple(windows), network)

    @torch.inference_mode()
    def statistics(self, audio: Tensor, sample_rate: int) -> tuple[float, float, float, float]:
        """The four numbers that have a limit each: whole and windows, as it is and at any speed."""
        found, _, parts, _ = self._evidence(audio, sample_rate)
        one = SPEEDS.index(1.0)
        numbers = (found[one], found.max(), parts[:, one].max(), parts.max())
        return float(numbers[0]), float(numbers[1]), float(numbers[2]), float(numbers[3])

    def _evidence(
        self, audio: Tensor, sample_rate: int
    ) -> tuple[Tensor, list[tuple[int, int]], Tensor, float]:
        """Of the whole, (speeds,); the windows' blocks; of each window, (windows, speeds); and what
        PerTh's network says."""
        narrow = torch.from_numpy(resample(audio.numpy(), sample_rate, FILTER_RATE))
        sums = spectra(narrow)
        found = evidence(sums, self.filter, 0, len(sums.values))
        spans = windows_of(len(sums.values))
        parts = torch.stack([evidence(sums, self.filter, *s) for s in spans] or [found])
        found = found.clone()
        network = self._network(narrow)
        found[SPEEDS.index(1.0)] += NETWORK_WEIGHT * network
        return found, spans, parts, network

    def _network(self, narrow: Tensor) -> float:
        """PerTh's own detector, 0 to 1, on what lies below 4 kHz: it reads no higher than 2 kHz."""
        narrow = torch.nn.functional.pad(narrow, (0, max(0, 512 - len(narrow))))
        window = torch.hann_window(512)
        spectrum = torch.stft(narrow, 512, 80, window=window, return_complex=True).abs()
        # four times fewer samples than at PerTh's 32 kHz; its unit is 195 dB from -180 dB
        magnitude = (20 * torch.log10((4 * spectrum).clamp(min=1e-9)) + 180) / 195
        score = float(self.net.decoder(magnitude[None])[0])
        return min(max(score, 0.0), 1.0) if score == score else 0.0

    def score(self, audio: Tensor, sample_rate: int) -> float:
        """0 to 1 at the best speed; 0 for silence."""
        return self.search(audio, sample_rate).score


def load_watermarker() -> Perth:
    """PerTh, with its weights verified.

    Raises:
        MarkError: The package is absent, or its weights are not the known ones.
    """
    spec = find_spec("perth")  # not imported: see perth_net.py
    if spec is None or not spec.submodule_search_locations:
        raise MarkError(
            "The watermark package resemble-perth is missing. Nothing is spoken without it: "
            "pip install 'resemble-perth==1.0.1'"
        )
    return Perth(
        PerthNet().load(read_weights(Path(spec.submodule_search_locations[0]) / PERTH_FILE))
    )


def read_weights(file: Path) -> dict[str, Tensor]:
    """PerTh's published weights, from the very bytes whose hash was checked.

    PerTh's own loader unpickles whichever file of the folder has the highest number: not used.

    Raises:
        MarkError: The file is missing, or holds anything else.
    """
    try:
        data = read_bounded(file, MOST_WEIGHTS)
    except OSError as error:
        raise MarkError(
            f"The watermark's weights are missing: {file} ({error.strerror}). Reinstall "
            "resemble-perth==1.0.1."
        ) from None
    found = hashlib.sha256(data).hexdigest()
    if found != PERTH_SHA256:
        raise MarkError(
            f"The watermark's weights {file.name} are damaged or not those of resemble-perth 1.0.1 "
            f"({len(data)} bytes, sha256 {found[:16]}). Reinstall resemble-perth==1.0.1."
        )
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)["model"]


def _to_score(over_limit: float) -> float:
    return min(max(THRESHOLD * over_limit, 0.0), 1.0)
