"""Statements read wrongly on purpose, and rightly: `python -m benchmarks.statements` makes them.

Each is read by a synthesiser (flite, espeak-ng and festival: Debian packages) or put together from
Kathleen's words (readings.py), and heard by the enrolment's recogniser. What was heard is kept in
results/, so that rules can be judged again without the hours of listening:
`tests/test_statement.py` does. Needs ../shared/corpora; about 3 s a reading. The limits were chosen
on the first three readers; the others have other voices and names, and are wrong in other words.
"""

import argparse
import json
import random
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks import readings
from benchmarks.synthesisers import FESTIVAL, espeak, flite, say
from sayso.inference.consent import challenge, clauses
from sayso.inference.consent.recording import RATE, Audio, prepared
from sayso.inference.consent.statement import Phrase, Terms, phrases, text_of
from sayso.inference.recognisers import Ears, load_ears
from sayso.model.files import write_json

RESULTS = Path(__file__).resolve().parent / "results"
VARIANTS = "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan", "en-us+f3", "en-gb+f2", "en-us+m7"
VOICES = {
    "flite": [flite(voice) for voice in ("rms", "slt", "awb", "kal16")],
    "espeak-ng": [espeak(voice, "-s", "150") for voice in ("en-us", "en-gb")],
    "kal": [flite("kal")],
    "festival": [FESTIVAL],
    "variants": [espeak(voice, "-s", "140") for voice in VARIANTS],
}
DAY = 86400.0
FIRST = {"flite": (15, 95), "espeak-ng": (15, 95), "Kathleen": (57, 20)}  # right, wrong
FRESH = {"kal": (4, 32), "festival": (4, 32), "variants": (6, 36)}
MAY = 1_588_420_800.0  # 2 May 2020, noon: the day Kathleen's sentences can say
LEFT_OUT = ("who", "allows", "whom", "what for", "users", "amount", "until", "freely", "revocable")


@dataclass(frozen=True)
class Statement:
    """What a session announced, and what its reader said instead (or that: kind "genuine")."""

    reader: str
    voice: int
    kind: str
    terms: Terms
    words: tuple[str, ...]
    said: str


class Author:
    """Writes statements in the words that a reader has."""

    def __init__(self, reader: str, seed: int):
        words = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text("utf-8"))
        own = words["fresh" if reader in FRESH else "first"]
        self.reader, self.draw = reader, random.Random(f"{reader} {seed}")
        self.lists = words[reader]["names"] if reader == "Kathleen" else own["names"]
        self.replaced, self.around = own["replaced"], own["around"]
        self.plain = reader == "Kathleen"
        self.pool = list(challenge.word_list())
        if self.plain:
            self.pool = readings.readable_words(challenge.word_list(), last=True)

    def terms(self) -> Terms:
        """Terms drawn afresh."""
        pick, draw = self.lists, self.draw
        count = 1 if self.plain else draw.choice([1, 1, 2])
        days = 0 if self.plain else draw.randrange(1, 1000)
        return Terms(
            speaker=draw.choice(pick["speakers"]),
            controller=draw.choice(pick["controllers"]),
            purposes=tuple(draw.sample(pick["purposes"], count)),
            users=tuple(draw.sample(pick["users"], count)),
            until=MAY + days * DAY,
            max_uses=draw.choice([None, 10, 20, 50] if self.plain else [None, None, 25, 500]),
            max_characters=None if self.plain or draw.random() < 0.7 else 5000,
            may_alter=draw.random() < 0.5,
        )

    def genuine(self) -> Statement:
        """Read as it was shown."""
        terms = self.terms()
        return self._made("genuine", terms, [phrase.text for phrase in phrases(terms)])

    def wrong(self, kind: str) -> Statement:
        """Read with one thing wrong, by its kind."""
        terms = self.terms()
        read = phrases(terms)
        said = [phrase.text for phrase in read]
        before = after = ""
        if kind == "negation":
            place = self.draw.randrange(1, len(" ".join(said).split()) - 6)
            every = " ".join(said).split()
            said = [*every[:place], self.draw.choice(self.lists["negations"]), *every[place:]]
        elif kind == "replaced":
            having = [name for name in self.replaced if any(p.clause == name for p in read)]
            said = self._replaced(read, self.draw.choice(having))
        elif kind == "left out":
            clause = self.draw.choice(LEFT_OUT)
            said = [phrase.text for phrase in read if phrase.clause != clause]
        elif kind == "around":
            before, after = self.draw.choice(self.around)
        elif kind == "added":
            role, clause = self.draw.choice([("users", "users"), ("purposes", "what for")])
            at = max(i for i, p in enumerate(read) if p.clause == clause and p.announced)
            other = self._other(role, [phrase.text.strip(".") for phrase in read])
            said = [*said[:at], said[at].strip("."), "and", other + ".", *said[at + 1 :]]
        else:
            said = [phrase.text for phrase in phrases(self._changed(terms, kind))]
        return self._made(kind, terms, said, before, after)

    def _replaced(self, read: list[Phrase], clause: str) -> list[str]:
        options = list(self.replaced[clause])
        self.draw.shuffle(options)
        said, done = [], False
        for phrase in read:
            if phrase.clause != clause:
                said.append(phrase.text)
            elif not done:
                said.append(options[0])
                done = True
            elif clause == "allows":
                said.append(phrase.text)
        return said

    def _changed(self, terms: Terms, kind: str) -> Terms:
        draw, taken = self.draw, [terms.speaker, terms.controller, *terms.purposes, *terms.users]
        if kind == "other speaker":
            return replace(terms, speaker=self._other("speakers", taken))
        if kind == "other controller":
            return replace(terms, controller=self._other("controllers", taken))
        if kind == "other user":
            return replace(terms, users=(self._other("users", taken), *terms.users[1:]))
        if kind == "other purpose":
            return replace(terms, purposes=(self._other("purposes", taken), *terms.purposes[1:]))
        if kind == "other amount":
            other = [n for n in (None, 10, 20, 50, 500, 1000) if n != terms.max_uses]
            return replace(terms, max_uses=draw.choice(other[:4] if self.plain else other))
        assert kind == "other date", kind
        days = draw.choice([1, -1, 7, 30, 31, 365, 366, -10])
        return replace(terms, until=terms.until + (18 if self.plain else days) * DAY)

    def _other(self, role: str, taken: list[str]) -> str:
        return self.draw.choice([name for name in self.lists[role] if name not in taken])

    def _made(self, kind, terms, said, before="", after="") -> Statement:
        shown = challenge.tokens(text_of(phrases(terms)))
        left = [word for word in self.pool if not challenge.find_words(shown, [word])]
        words = tuple(self.draw.sample(left, challenge.words_needed(500)))
        spoken = " ".join([before, *said, ", ".join(words) + ".", after]).strip()
        voice = self.draw.randrange(len(VOICES.get(self.reader, [0])))
        return Statement(self.reader, voice, kind, terms, words, spoken)


KINDS = (
    *("negation", "replaced", "left out", "around", "added", "other speaker", "other controller"),
    *("other user", "other purpose", "other amount", "other date", "negation", "replaced"),
)


def read_aloud(statement: Statement, rng: np.random.Generator) -> Audio | None:
    """(samples,) at 16 kHz; None when the reader has not all of the words."""
    if statement.reader != "Kathleen":
        return say(VOICES[statement.reader][statement.voice], statement.said, RATE)
    before, words, after = statement.said.partition(", ".join(statement.words) + ".")
    assert words
    audio = readings.reading(readings.stretches(before), list(statement.words), rng, last=True)
    if audio is None or not after.strip():
        return audio
    more = readings.cuttings(challenge.tokens(after), rng)
    return None if more is None else np.concatenate([audio, readings.room(0.3, rng), *more])


def judge(ears: Ears, audio: Audio, statement: Statement) -> dict:
    """What was heard of it, as the enrolment hears it."""
    heard = clauses.spoken(prepared(audio), phrases(statement.terms), statement.words, ears)
    return {
        "heard": " ".join(heard.said),
        "found": heard.found,
        "denied": heard.denied,
        "differences": [asdict(each) for each in heard.differences],
        "seconds": round(len(audio) / RATE, 2),
    }


def collect(name: str, author: Author, right: int, wrong: int, ears: Ears) -> None:
    """Read and hear statements until there are so many, in a file; goes on where it ended."""
    path = RESULTS / f"statements_{name}.json"
    kept = json.loads(path.read_text()) if path.exists() else []
    rng = np.random.default_rng(len(kept))
    while len(kept) < right + wrong:
        done = sum(row["kind"] == "genuine" for row in kept)
        is_right = done < right and (len(kept) % 5 != 4 or len(kept) - done >= wrong)
        audio, kind = None, KINDS[(len(kept) - done) % len(KINDS)]
        while audio is None:
            statement = author.genuine() if is_right else author.wrong(kind)
            audio = read_aloud(statement, rng)
        kept.append(asdict(statement) | judge(ears, audio, statement))
        print(kept[-1], file=sys.stderr, flush=True)
        write_json(path, kept)


def judged() -> dict[str, Any]:
    """How the enrolment judges all statements that were kept."""
    found = {}
    for path in sorted(RESULTS.glob("statements_*.json")):
        rows = json.loads(path.read_text())
        wrong = [row for row in rows if row["kind"] != "genuine"]
        right = [row for row in rows if row["kind"] == "genuine"]
        denied = [row for row in wrong if is_denied(row)]
        excess = [worst_excess(row) for row in wrong if row not in denied and row["found"] == 5]
        found[path.stem.removeprefix("statements_")] = {
            "wrong": len(wrong),
            "wrong, accepted": sum(map(is_taken, wrong)),
            "wrong, a negation heard": len(denied),
            "the others' doubt above its limit, least": min(excess, default=None),
            "right": len(right),
            "right, all words heard": sum(row["found"] == len(row["words"]) for row in right),
            "right, accepted": sum(map(is_taken, right)),
        }
    return found


def is_denied(row: dict[str, Any]) -> bool:
    """Whether a negation was heard, or fits better somewhere than what was shown."""
    return bool(row["denied"]) or any(each["denied"] for each in row["differences"])


def is_taken(row: dict[str, Any]) -> bool:
    """Whether the enrolment would take what was heard of a statement."""
    found = [clauses.Difference(**each) for each in row["differences"]]
    whole = row["found"] == len(row["words"])
    return whole and not row["denied"] and all(each.good for each in found)


def worst_excess(row: dict[str, Any]) -> float:
    """Nats by which the worst difference of a statement exceeds its limit."""
    found = [clauses.Difference(**each) for each in row["differences"]]
    return max((each.doubt - each.limit for each in found), default=-clauses.MAX_DOUBT)


def main() -> None:
    """Collect the statements of some readers, or of all."""
    every = FIRST | FRESH
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("readers", nargs="*", help=", ".join(every), metavar="READER")
    parser.add_argument("--draw", type=int, default=1, help="of the last three readers")
    asked, ears = parser.parse_args(), load_ears()
    for name in asked.readers or every:
        draw = asked.draw if name in FRESH else 0
        kept = f"fresh{draw if draw > 1 else ''}_{name}" if draw else name
        collect(kept, Author(name, 20261124 + draw if draw else 0), *every[name], ears)


if __name__ == "__main__":
    main()
