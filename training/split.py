"""Which utterances are kept out of every fit and every training step, by their names alone."""

import hashlib


def held_out(utterance_id: str, every: int = 47) -> bool:
    """Whether an utterance is kept out: one in `every`, the same ones on every machine.

    Args:
        utterance_id: The id in the corpus's metadata, such as ``arctic_a0001``.
        every: 1 keeps everything out; must be at least 1.
    """
    return int(hashlib.sha256(utterance_id.encode()).hexdigest(), 16) % every == 0
