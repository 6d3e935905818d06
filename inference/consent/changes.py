"""A prompt as the model hears it, and after small changes that no listener minds.

A clip can be made to fool the speaker encoder by steps along its gradient. Of a hasty one little is
left through the codec, at another rate, in noise or in half of the band; half a minute of steps
passes this, too (benchmarks/fooled.py). A consent recording as its own prompt needs none of it.
"""

import numpy as np
import torch
from scipy.signal import butter, sosfiltfilt

from sayso.model.audio import resample
from sayso.model.codecs.base import Codec

from .recording import RATE, Audio

SPEEDS = (0.95, 1.05)
NOISE = 25.0  # dB below the prompt
BAND = 3400.0  # Hz


def heard_again(prompt: Audio, codec: Codec) -> dict[str, Audio]:
    """A prompt, (samples,) at 16 kHz, by what was done to it."""
    return {"through the codec": decoded(prompt, codec)} | changed(prompt)


def decoded(prompt: Audio, codec: Codec) -> Audio:
    """What the model hears: the prompt's codes, decoded again."""
    audio = torch.from_numpy(resample(prompt, RATE, codec.sample_rate))[None]
    return resample(codec.hear(codec.encode(audio)[0]).numpy(), codec.sample_rate, RATE)


def changed(prompt: Audio) -> dict[str, Audio]:
    """The prompt slower, faster, in noise, and in half of its band."""
    found = {f"at speed {speed}": resample(prompt, RATE, RATE / speed) for speed in SPEEDS}
    level = np.sqrt(np.square(prompt).mean()) * 10 ** (-NOISE / 20)
    noise = np.random.default_rng(len(prompt)).standard_normal(len(prompt))
    found["in noise"] = (prompt + level * noise).astype(np.float32)
    low = butter(8, BAND, fs=RATE, output="sos")
    found["in half of its band"] = sosfiltfilt(low, prompt).astype(np.float32)
    return found
