"""Figures of docs/text.md: the table of spoken forms, homographs, unknown words, idempotence.

    python -m benchmarks.text --corpora ../shared/corpora --generated 20000

Everything runs on the CPU in some minutes; the result is printed.
"""
# ruff: noqa: RUF001

import argparse
import random
import re
from collections import Counter
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from sayso.inference.consent.challenge import distance, pronunciations
from sayso.model.errors import InputError
from sayso.model.text.homographs import homograph
from sayso.model.text.normalization import normalise
from sayso.model.text.phonemes import Dictionary

DATA = Path(__file__).parents[1] / "tests" / "data"
LEFT_OUT = 500
PIECES = (
    "0 1 2 3 7 12 1999 2,000 .5 $ £ € % & @ # + = ° ' \" ( ) ½ ² ₂ ± ≤ × é - – — / . , : ; ? ! … "
    "a A I the of and to kg km/h m/s St. Dr. No. p. p.m. Jan. May 5th U.S. 'em Mr. e.g. 10:45 "
    "VIII IX GPU NASA https://x.org x@y.com **b** [l](u) `c` # | \\ ~ ^ _ < > { } [ ] * 😀 π § ™ \n"
).split(" ")


def rows(name: str) -> list[list[str]]:
    lines = (DATA / name).read_text(encoding="utf-8").splitlines()
    return [line.split("\t") for line in lines[1:]]


def unescaped(text: str) -> str:
    """`\\n`, `\\u00ad` and `\\\\` of the table as characters."""
    signs = {"n": "\n", "\\": "\\"}
    return re.sub(
        r"\\(n|\\|u[0-9a-f]{4})", lambda m: signs.get(m[1]) or chr(int(m[1][1:], 16)), text
    )


def table() -> None:
    right, all_rows = Counter(), Counter()
    for written, spoken, source in rows("spoken.tsv"):
        kind = source.split(":")[0]
        all_rows[kind] += 1
        right[kind] += normalise(unescaped(written)) == spoken
    for kind, count in all_rows.items():
        print(f"spoken.tsv, {kind}: {right[kind]} of {count}")
    print(f"spoken.tsv: {right.total()} of {all_rows.total()}")


def homographs() -> None:
    dictionary, found = Dictionary(), rows("homographs.tsv")
    ours = first = 0
    for sentence, place, phones in found:
        words = sentence.split()
        ours += homograph(words, int(place)) == phones
        first += dictionary.words[words[int(place)]] == phones
    print(f"homographs: {ours} of {len(found)}; the dictionary's first entry {first}")


def unknown_words() -> None:
    """Words of the CMU dictionary, each taken out of it before it is read."""
    dictionary = Dictionary()
    ways = pronunciations()
    known = sorted(word for word in dictionary.words if re.fullmatch("[a-z]{4,}", word))
    right = wrong = total = 0
    for word in random.Random(17).sample(known, LEFT_OUT):
        kept = dictionary.words.pop(word)
        said = dictionary.phones(word)
        dictionary.words[word] = kept
        errors, length = min((distance(said, way), len(way)) for way in ways[word])
        right, wrong, total = right + (errors == 0), wrong + errors, total + length
    print(f"unknown words: {right / LEFT_OUT:.1%} right, {wrong / total:.1%} of phones wrong")


def check(count: Counter[str], text: str) -> None:
    try:
        said = normalise(text)
    except InputError:
        count["refused"] += 1
        return
    same = len(said) > 1000 or normalise(said) == said
    count["the same again" if same else "changed"] += 1
    if not same:
        print(repr(text), repr(said), repr(normalise(said)))


def idempotence(texts: list[str], generated: int) -> None:
    count: Counter[str] = Counter()
    for text in texts:
        check(count, text)
    print(f"{len(texts)} sentences of the corpus: {dict(count)}")
    typed = st.lists(st.sampled_from(PIECES), max_size=25).map("".join)
    spaced = st.lists(st.sampled_from(PIECES), max_size=20).map(" ".join)
    count.clear()

    @settings(max_examples=generated, deadline=None, database=None)
    @given(st.text(max_size=60) | typed | spaced)
    def run(text: str) -> None:
        check(count, text)

    run()
    print(f"{count.total()} generated texts: {dict(count)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpora", type=Path, required=True)
    parser.add_argument("--generated", type=int, default=20_000)
    arguments = parser.parse_args()
    table()
    homographs()
    unknown_words()
    lines = (arguments.corpora / "text" / "ljspeech-sentences.tsv").read_text("utf-8").splitlines()
    idempotence([line.split("\t")[1] for line in lines[1:]], arguments.generated)


if __name__ == "__main__":
    main()
