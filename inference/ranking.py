"""Which of several samples of a sentence to keep. VALL-E 2, 4.1.3, Eq. 23.

The paper takes the lexicographic argmax of [min(SIM, 0.3), 1 - WER]: of the samples that are the
speaker for sure, the one with the fewest word errors. Its SIM is WavLM-TDNN's, ours Resemblyzer's,
where two recordings of one reader have .80 and more, so the bar is another. Its WER comes from
a Conformer-Transducer, ours from Whisper tiny.en.
"""

from collections.abc import Sequence

from .consent.challenge import distance, tokens
from .consent.recording import Audio
from .recognisers import Ears, embedding

ENOUGH = 0.65
"""Cosine to the prompt from which on a sample counts as the voice. Samples of the bundled model
reach it for readers it never heard; a higher bar would choose by voice alone and never by words."""


def best(samples: Sequence[Audio], prompt: Audio, text: str, ears: Ears) -> int:
    """Index of the sample to keep; the first of equals.

    Args:
        samples: At least one, (samples,) at 16 kHz.
        prompt: Speech of the voice, (samples,) at 16 kHz.
        text: What they should say, normalised.
    """
    wanted, windows = tokens(text), ears.voices(prompt)
    voice = embedding(windows) if len(windows) else None
    scores = []
    for audio in samples:
        windows = ears.voices(audio)
        similarity = 0.0 if voice is None or not len(windows) else embedding(windows) @ voice
        errors = distance(wanted, tokens(ears.transcribe(audio))) / max(1, len(wanted))
        scores.append((min(float(similarity), ENOUGH), 1 - errors))
    return scores.index(max(scores))
