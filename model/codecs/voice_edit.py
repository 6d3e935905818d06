"""Speed, pitch and formants: how a voice is edited, by codecs that can (`Codec.edits`).

For the controls of `speak`, and in training for more speakers than there are recordings of. WORLD's
and FARGAN's parameters are these terms; EnCodec does not know them.
"""

import math
from dataclasses import dataclass

from ..errors import InputError

SPEEDS, PITCHES, FORMANTS = (0.5, 2.0), (-12.0, 12.0), (0.7, 1.4)


@dataclass(frozen=True)
class Alteration:
    """How a voice is altered; the defaults alter nothing.

    Raises:
        InputError: A value is not finite or out of its range.
    """

    speed: float = 1.0
    """Twice as fast at 2; `SPEEDS`."""
    pitch: float = 0.0
    """Semitones up; `PITCHES`."""
    formant: float = 1.0
    """Factor on the resonances: above 1 a smaller head, below 1 a larger one; `FORMANTS`."""

    def __post_init__(self):
        for name, (least, most) in (("speed", SPEEDS), ("pitch", PITCHES), ("formant", FORMANTS)):
            value = getattr(self, name)
            if not (math.isfinite(value) and least <= value <= most):
                raise InputError(f"{name} is {value}: it must be from {least:g} to {most:g}")

    @property
    def neutral(self) -> bool:
        """Whether nothing is altered."""
        return self == Alteration()

    @property
    def changes_voice(self) -> bool:
        """Whether the voice itself is changed, which its speaker must have allowed."""
        return (self.pitch, self.formant) != (0.0, 1.0)
