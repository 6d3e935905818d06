"""Cuts a prompt out of a consent recording: VALL-E needs a few seconds and exactly their words."""

import re

from sayso.model.errors import InputError
from sayso.model.text.forced_alignment import Aligner
from sayso.model.text.phonemes import Dictionary

from .recording import RATE, Audio

PROMPT_SECONDS = 8.0
"""Most that is taken of a long recording: VALL-E's prompts are 3 to 10 s."""
MARGIN = 0.05
"""Seconds kept before the first word."""


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
    dictionary = Dictionary()
    spoken = [dictionary.phones(re.sub(r"[^a-z']", "", word.lower())) for word in words]
    starts = Aligner().word_starts(audio, spoken)
    late = [i for i, start in enumerate(starts) if length - start + MARGIN <= PROMPT_SECONDS]
    if not late:
        raise InputError(
            f"no word begins in the last {PROMPT_SECONDS:g} s of the recording: record again, or "
            "give --prompt"
        )
    first = late[0]
    return starts[first] - MARGIN, " ".join(words[first:])
