"""What was said beside what should have been: word and character errors, repeats, skips.

Both sides go through Whisper's English normaliser (arXiv:2212.04356, appendix C).
"""

from collections.abc import Sequence

import jiwer
from whisper_normalizer.english import EnglishTextNormalizer

LONGEST_LOOP = 4
"""Words of a phrase that is said again at once."""
SHORTEST_SKIP = 2
"""Words lost in a row from which on they were skipped, and not misheard."""


def compare(text: str, heard: str, plain: EnglishTextNormalizer) -> dict[str, int]:
    """Counts of one sentence.

    Returns:
        words, characters: of the text; errors (the sum of substitutions, insertions, deletions) and
        character errors; repeats: places where the last 1 to `LONGEST_LOOP` words come again, more
        than the text has; skipped: words lost in runs of at least `SHORTEST_SKIP`.

    Raises:
        ValueError: The text has no words.
    """
    wanted, said = plain(text).split(), plain(heard).split()
    if not wanted:
        raise ValueError(f"{text!r} has no words")
    found = jiwer.process_words(" ".join(wanted), " ".join(said))
    letters = jiwer.process_characters(" ".join(wanted), " ".join(said))
    lost = [
        part.ref_end_idx - part.ref_start_idx
        for part in found.alignments[0]
        if part.type == "delete"
    ]
    errors = found.substitutions + found.insertions + found.deletions
    return {
        "words": len(wanted),
        "errors": errors,
        "insertions": found.insertions,
        "deletions": found.deletions,
        "characters": len(" ".join(wanted)),
        "character errors": letters.substitutions + letters.insertions + letters.deletions,
        "repeats": max(0, loops(said) - loops(wanted)),
        "skipped": sum(count for count in lost if count >= SHORTEST_SKIP),
    }


def loops(words: Sequence[str]) -> int:
    """Places where some of the last words, 1 to `LONGEST_LOOP`, come again at once."""
    return sum(
        any(
            words[place : place + size] == words[place + size : place + 2 * size]
            for size in range(1, min(LONGEST_LOOP, (len(words) - place) // 2) + 1)
        )
        for place in range(len(words))
    )
