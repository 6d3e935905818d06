"""How loud speech is, and made as loud as it shall be: neither codec nor marks may change it."""

from torch import Tensor
from torch.nn.functional import pad

LOUD = 0.95
"""Share of the frames of speech that are no louder than its loudness."""
FRAME = 720  # samples
HIGHEST = 0.9
"""Of the samples, after a change of loudness: marks need some room."""


def loudness(audio: Tensor) -> float:
    """Root mean square of a loud frame of speech (samples,)."""
    frames = pad(audio, (0, -len(audio) % FRAME)).view(-1, FRAME)
    power = frames.double().square().mean(1)
    return float(power.quantile(LOUD).sqrt())


def as_loud(audio: Tensor, wanted: float, own: float | None = None) -> Tensor:
    """Speech (samples,) of a loudness, or as near to it as full scale allows.

    Args:
        own: What is taken for its loudness, where it is not to be measured.
    """
    own, most = loudness(audio) if own is None else own, float(audio.abs().max())
    if own == 0 or most == 0:
        return audio
    return audio * min(wanted / own, HIGHEST / most)
