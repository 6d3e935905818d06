"""When each phone of a known text is said: forced alignment by pocketsphinx (BSD, CMU Sphinx).

The pronunciations are ours (`Dictionary`), so that the phones found are those the models read.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError

RATE = 16000
"""Hz; what the acoustic model hears."""
FRAMES_PER_SECOND = 100
QUIET_SECONDS = 0.3


class Phone(NamedTuple):
    """One phone of one word, in seconds from the start of the audio."""

    word: int
    """Number of the word in the text."""
    start: float
    end: float


class Aligner:
    """A loaded acoustic model (about 0.3 s, 30 MB)."""

    def __init__(self):
        import pocketsphinx  # 39 MB, which none needs who trains on what is aligned

        self.decoder = pocketsphinx.Decoder(samprate=RATE, loglevel="FATAL", lm=None)

    def align(self, audio: NDArray[np.float32], words: list[list[str]]) -> list[Phone]:
        """The phones of `words` (lists of ARPAbet phones) in (samples,) audio at 16 kHz.

        Returns:
            As many phones as there are in all words, in order; silences lie between them.

        Raises:
            InputError: The words cannot be aligned with the audio.
        """
        names, pcm = self._names(words), _pcm(audio)
        try:
            self.decoder.set_align_text(" ".join(names))
            self._hear(pcm)
            self.decoder.set_alignment()  # the words found, to be cut into phones
            self._hear(pcm)
            # Each word's phones are read at once: pocketsphinx frees them when it goes on.
            found = [
                (word.name, [(phone.start, phone.start + phone.duration) for phone in word])
                for word in self.decoder.get_alignment() or ()
            ]
        except RuntimeError as error:
            raise InputError(f"the recording cannot be aligned with its words ({error})") from None
        spoken = [(name, phones) for name, phones in found if name.startswith("w_")]
        if [name for name, _ in spoken] != names:
            raise InputError(f"{len(spoken)} of {len(names)} words could be aligned")
        result = [
            Phone(number, start / FRAMES_PER_SECOND, end / FRAMES_PER_SECOND)
            for number, (_, phones) in enumerate(spoken)
            for start, end in phones
        ]
        if len(result) != sum(map(len, words)):
            raise InputError(f"{len(result)} of {sum(map(len, words))} phones could be aligned")
        return result

    def word_starts(self, audio: NDArray[np.float32], words: list[list[str]]) -> list[float]:
        """When each of `words`, given as of `align`, begins: seconds from the start of the audio.

        Raises:
            InputError: The words cannot be aligned with the audio.
        """
        names = self._names(words)
        try:
            self.decoder.set_align_text(" ".join(names))
            self._hear(_pcm(audio))
            found = [each for each in self.decoder.seg() or () if each.word.startswith("w_")]
        except RuntimeError as error:
            raise InputError(f"the recording cannot be aligned with its words ({error})") from None
        if [each.word for each in found] != names:
            raise InputError(f"{len(found)} of {len(names)} words could be aligned")
        return [each.start_frame / FRAMES_PER_SECOND for each in found]

    def _names(self, words: list[list[str]]) -> list[str]:
        """What the decoder calls these words, which it then knows."""
        names = ["w_" + "_".join(phones).lower() for phones in words]
        for name, phones in dict(zip(names, words, strict=True)).items():
            if self.decoder.lookup_word(name) is None:
                self.decoder.add_word(name, " ".join(phones), True)
        return names

    def _hear(self, pcm: bytes) -> None:
        self.decoder.start_utt()
        self.decoder.process_raw(pcm, full_utt=True)
        self.decoder.end_utt()


def _pcm(audio: NDArray[np.float32]) -> bytes:
    """16-bit samples; a word that ends with the recording is lost without a little silence."""
    padded = np.pad(np.clip(audio, -1, 1), (0, int(QUIET_SECONDS * RATE)))
    return (padded * 32767).astype("<i2").tobytes()
