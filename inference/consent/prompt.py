"""When each word of a known text is said: forced alignment by pocketsphinx (BSD, CMU Sphinx).

Used to cut a prompt out of a consent recording: VALL-E needs a few seconds and exactly their words.
"""

import re

import numpy as np
import pocketsphinx

from sayso.model.errors import InputError
from sayso.model.text.phonemes import Dictionary

from .recording import RATE, Audio

PROMPT_SECONDS = 8.0
"""Most that is taken of a long recording: VALL-E's prompts are 3 to 10 s."""
QUIET_SECONDS = 0.3
MARGIN = 0.05
"""Seconds kept before the first word."""


def word_starts(audio: Audio, words: list[str]) -> list[float]:
    """Start of each of `words`, in seconds, in (samples,) audio at 16 kHz that says just them.

    Raises:
        InputError: The words cannot be aligned with the audio.
    """
    decoder = pocketsphinx.Decoder(samprate=RATE, loglevel="FATAL", lm=None)
    dictionary = Dictionary()
    spoken = [re.sub(r"[^a-z']", "", word.lower()) for word in words]
    for word in set(spoken):
        if decoder.lookup_word(word) is None:
            decoder.add_word(word, " ".join(dictionary.phones(word)), True)
    # A word that ends with the recording is lost without a little silence behind it.
    padded = np.pad(np.clip(audio, -1, 1), (0, int(QUIET_SECONDS * RATE)))
    pcm = (padded * 32767).astype("<i2").tobytes()
    try:
        decoder.set_align_text(" ".join(spoken))
        decoder.start_utt()
        decoder.process_raw(pcm, full_utt=True)
        decoder.end_utt()
        found = [s for s in decoder.seg() or () if not s.word.startswith(("<", "["))]
    except RuntimeError as error:
        raise InputError(f"the recording cannot be aligned with its words ({error})") from None
    if len(found) != len(spoken):
        raise InputError(
            f"{len(found)} of {len(spoken)} words could be aligned: record again, or give --prompt"
        )
    return [segment.start_frame / 100 for segment in found]  # 10 ms frames


def cut_prompt(audio: Audio, text: str) -> tuple[float, str]:
    """Where the last `PROMPT_SECONDS` of whole words begin, in seconds, and what they say.

    All of a recording that is shorter than that is kept.

    Raises:
        InputError: The words cannot be aligned with the audio, or all of them are said earlier.
    """
    length = len(audio) / RATE
    if length <= PROMPT_SECONDS:
        return 0.0, text
    words = text.split()
    starts = word_starts(audio, words)
    late = [i for i, start in enumerate(starts) if length - start + MARGIN <= PROMPT_SECONDS]
    if not late:
        raise InputError(
            f"no word begins in the last {PROMPT_SECONDS:g} s of the recording: record again, or "
            "give --prompt"
        )
    first = late[0]
    return starts[first] - MARGIN, " ".join(words[first:])
