"""What samples alone tell: clicks, clipping, level, pitch, and how good judges find them.

DNSMOS: arXiv:2110.01763 (P.835) and 2010.15258 (P.808), through speechmos. DistillMOS:
arXiv:2502.05356, through distillmos, whose wheel holds the weights.
"""

import contextlib
import io
import math
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.signal import fftconvolve

from sayso.inference.consent.recording import LOUD, gain
from sayso.inference.recognisers import RATE, Ears
from sayso.model.audio import resample
from sayso.model.codecs.world import WorldConfig, analyse
from sayso.model.errors import InputError

Audio = NDArray[np.float32]
CLICK = 25.0
"""Bend of the wave over the RMS of its neighbourhood. Of 28 clips of Kathleen and 28 of LibriSpeech
readers none reaches 20; a step of .1 of full scale does in a pause, and drowns in an s."""
FLOOR = 1e-3  # of full scale: bends below it are heard by nobody
FULL_SCALE = 0.999


def clicks(audio: Audio, rate: int) -> int:
    """How often a wave (samples,) jumps: second differences far above those within 4 ms around."""
    bend = np.abs(np.diff(audio.astype(np.float64), 2))
    reach = max(6, int(rate * 0.004))
    around = np.ones(2 * reach + 1)
    around[reach - 4 : reach + 5] = 0.0  # the jump itself
    power = fftconvolve(np.square(bend), around / around.sum(), "same")
    found = np.flatnonzero(bend > CLICK * (np.sqrt(np.maximum(power, 0.0)) + FLOOR))
    return int(len(found) and 1 + (np.diff(found) > reach).sum())


def clipped(audio: Audio) -> int:
    """Samples at full scale."""
    return int((np.abs(audio) >= FULL_SCALE).sum())


def level(audio: Audio) -> float:
    """dB of the loud 30-ms frames of (samples,) speech at 16 kHz, full scale being 0."""
    return 20 * math.log10(LOUD / gain(audio))


def pitch(audio: Audio, rate: int) -> float:
    """Median F0 of (samples,) speech, Hz; 0 where nothing is voiced."""
    config = WorldConfig()
    f0 = analyse(resample(audio, rate, config.sample_rate), config).f0
    return float(np.median(f0[f0 > 0])) if (f0 > 0).any() else 0.0


def dnsmos(ears: Ears, audio: Audio) -> tuple[float, float]:
    """OVRL and P.808, 1 to 5, of (samples,) speech at 16 kHz; short speech is heard repeatedly."""
    found = ears.judge(audio / max(1.0, float(np.abs(audio).max())), RATE, False)
    return float(found["ovrl_mos"]), float(found["p808_mos"])


class DistillMos:
    """A judge of quality, 1 to 5, distilled from one of a billion parameters."""

    def __init__(self):
        try:
            import distillmos
            from distillmos.sqa import DEFAULT_WEIGHTS_CHKPT
        except ImportError:
            raise InputError("distillmos is missing: pip install 'sayso[bench]'.") from None
        self.weights = Path(DEFAULT_WEIGHTS_CHKPT)
        with contextlib.redirect_stdout(io.StringIO()):  # it says where it loads from
            self.model = distillmos.ConvTransformerSQAModel().eval()

    @torch.inference_mode()
    def __call__(self, audio: Audio) -> float:
        """Of (samples,) speech at 16 kHz; it hears long speech in overlapping pieces."""
        return float(self.model(torch.from_numpy(audio)[None])[0].mean())
