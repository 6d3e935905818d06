"""Where each text token is said: forced alignment of a recording with its phonemes."""

from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from sayso.model.errors import InputError
from sayso.model.text.forced_alignment import Aligner, Phone
from sayso.model.text.tokenizers import BOUNDARY, PUNCTUATION, Phonemes, Tokenizer


def spoken_words(ids: list[int], tokenizer: Phonemes) -> list[list[str]]:
    """The words of a phoneme sequence, each a list of phones."""
    symbols = [tokenizer.symbols[id] for id in ids]
    runs = groupby(symbols, key=lambda symbol: symbol not in (BOUNDARY, *PUNCTUATION))
    return [list(run) for is_word, run in runs if is_word]


def first_frames(
    ids: list[int], tokenizer: Phonemes, phones: list[Phone], frame_rate: float
) -> NDArray[np.int32]:
    """The first frame (S,) of each text token, never falling.

    Of the marks between two words the first gets the pause, if there is one; the others, which
    nobody hears, have the first frame of what follows and so none of their own.
    """
    starts: list[float] = []
    said, pause_over = 0, False
    for id in ids:
        if tokenizer.symbols[id] not in (BOUNDARY, *PUNCTUATION):
            starts.append(phones[said].start)
            said, pause_over = said + 1, False
            continue
        before = phones[said - 1].end if said else 0.0
        after = phones[said].start if said < len(phones) else before
        starts.append(after if pause_over else before)
        pause_over = True
    return np.rint(np.array(starts) * frame_rate).astype(np.int32)


def align_tokens(
    audio: NDArray[np.float32], ids: list[int], tokenizer: Tokenizer, frame_rate: float, by: Aligner
) -> NDArray[np.int32]:
    """First frames (S,) of text tokens in (samples,) audio at 16 kHz.

    Raises:
        InputError: The tokens are no phonemes, or cannot be aligned with the audio.
    """
    if not isinstance(tokenizer, Phonemes):
        raise InputError(f"alignment needs phonemes, not {tokenizer.kind}: set data.align: false")
    phones = by.align(audio, spoken_words(ids, tokenizer))
    return first_frames(ids, tokenizer, phones, frame_rate)


def pointers(starts: NDArray[np.int32], frames: int, group_size: int) -> NDArray[np.int64]:
    """Where each frame (T,) is in the text: 0 before it, i at token i, counted from 1.

    All frames of a group, counted from the end as the models do, are where its last one is.
    """
    frame = np.arange(frames)
    last = frames - 1 - (frames - 1 - frame) // group_size * group_size
    return np.searchsorted(starts, last, side="right")
