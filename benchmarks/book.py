"""A book of some two hours, killed and resumed: its memory, its words, whether a sentence is lost.

    python -m benchmarks.book --out runs/book --corpora ../shared/corpora

20,000 words of LJSpeech's transcripts (public domain), of chapters that no bundled model heard, are
said by `sayso speak --file` in a process that is killed (SIGKILL) at random times and resumed. Then
Whisper tiny.en writes down each sentence of the parts, by their .srt; and 100 of the sentences,
said once more alone. Takes an hour and more of one core; what is there already is not made again.

    python -m benchmarks.book --out runs/memory --words 30000 --memory

says it in one process, not killed, and tells how flat its memory is: nothing else.
"""

import argparse
import json
import os
import random
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jiwer
import torch
from whisper_normalizer.english import EnglishTextNormalizer

from benchmarks.results import write
from sayso.evaluation.words import compare
from sayso.inference.recognisers import RATE, load_ears
from sayso.inference.store.checking import verify
from sayso.inference.store.store import Store
from sayso.inference.synthesizer import Synthesizer
from sayso.model.audio import read_audio
from sayso.model.text.book import parts_of, sentences_of
from sayso.model.text.captions import read_srt

CHAPTERS = range(3, 51)  # LJ001 and LJ002 were learnt from
PARAGRAPH = 600  # characters after which a sentence's end ends one
PART_BYTES = 25_000_000  # of a whole part, or so
WARM = 2  # minutes of a process that are left out: it loads, and reads ahead


def kept(file: Path, make: Callable[[], list[dict]]) -> list[dict]:
    """What was made before and lies in a file, or is made now."""
    if not file.exists():
        file.write_text(json.dumps(make()))
    return json.loads(file.read_text())


def book(corpora: Path, words: int) -> str:
    """Markdown of so many words: a chapter for each of LJSpeech's."""
    lines = (corpora / "text" / "ljspeech-sentences.tsv").read_text("utf-8").splitlines()[1:]
    text, paragraph, before = "", "", 0
    for name, line in (line.split("\t") for line in lines):
        chapter = int(name[2:5])
        if chapter not in CHAPTERS:
            continue
        if chapter != before or (len(paragraph) > PARAGRAPH and paragraph[-1] in ".?!"):
            text, paragraph = f"{text}{paragraph}\n\n", ""
            if len(text.split()) >= words:
                return text
        if chapter != before:
            text, before = f"{text}# Chapter {chapter}\n\n", chapter
        paragraph = f"{paragraph} {line}".strip()
    raise SystemExit(f"the corpus has no {words} words")


def resident(process: int) -> float:
    """MB of memory that a process holds."""
    status = Path(f"/proc/{process}/status").read_text()
    return int((re.search(r"VmRSS:\s+(\d+)", status) or ["", "0"])[1]) / 1024


def said_of(folder: Path, parts: int) -> float:
    """How much of the book is said, 0 to 1, as its state has it."""
    try:
        state = json.loads((folder / "book.json").read_text())
    except (OSError, ValueError):
        return 0.0
    drafts = sum(path.stat().st_size for path in folder.glob(".*.part"))
    return (len(state["done"]) + drafts / PART_BYTES) / parts


def speak(text: Path, folder: Path, home: Path, kills: int) -> list[dict]:
    """Say the book, killed so often; of each process how it ended and its memory by minutes."""
    command = [sys.executable, "-m", "sayso", "speak", "--voice", "nobody", "--file", str(text)]
    command += ["--out", str(folder), "--seed", "18"]
    draw, runs, parts = random.Random(18), list[dict](), len(parts_of(text.read_text("utf-8")))
    places = sorted(draw.uniform(0.02, 0.8) for _ in range(kills))
    while not runs or runs[-1]["code"] != 0:
        more = ["--resume"] if runs else []
        begin, samples, until = time.monotonic(), list[tuple[float, float]](), float("inf")
        with subprocess.Popen([*command, *more], env=os.environ | {"SAYSO_HOME": str(home)}) as one:
            while one.poll() is None:
                samples.append((time.monotonic() - begin, resident(one.pid)))
                if len(runs) < kills and said_of(folder, parts) > places[len(runs)]:
                    until = min(until, samples[-1][0] + draw.uniform(0, 5))
                if samples[-1][0] > until:
                    one.kill()
                time.sleep(0.5)
        if one.returncode not in (0, -9) or (one.returncode == -9 and len(runs) >= kills):
            raise SystemExit(f"sayso speak ended with {one.returncode}")
        run = {"code": one.returncode, "seconds": samples[-1][0], "said": said_of(folder, parts)}
        run |= {"MB by minutes": by_minutes(samples)}
        runs.append(run | {"most MB": max(size for _, size in samples)})
        print(runs[-1], flush=True)
    return runs


def by_minutes(samples: list[tuple[float, float]]) -> list[float]:
    """Of (seconds, MB) the median MB of each whole minute after `WARM` that has one."""
    sizes = [list[float]() for _ in range(int(samples[-1][0] // 60))]
    for at, size in samples:
        if at < 60 * len(sizes):
            sizes[int(at // 60)].append(size)
    return [statistics.median(each) for each in sizes[WARM:] if each]


def flatness(minutes: list[float]) -> dict[str, object]:
    """How far the medians of minutes are from their own median, and whether they rise: by thirds.

    Nothing is left out. ValueError of fewer than three.
    """
    if len(minutes) < 3:
        raise ValueError(f"{len(minutes)} minutes have no thirds: give more --words")
    middle, count = statistics.median(minutes), len(minutes)
    thirds = [minutes[count * third // 3 : count * (third + 1) // 3] for third in range(3)]
    return {
        "minutes": count,
        "median MB": middle,
        "lowest and highest over it": [min(minutes) / middle - 1, max(minutes) / middle - 1],
        "thirds, MB in the mean": [statistics.mean(each) for each in thirds],
    }


def heard_in(path: Path) -> list[dict]:
    """Each sentence of a part: what it should say, and what is heard."""
    ears, audio, found = load_ears(), read_audio(path, RATE)[0].numpy(), list[dict]()
    for cue in read_srt(path.with_suffix(".srt").read_text()):
        own = audio[cue.start * RATE // 1000 : cue.stop * RATE // 1000]
        said = {"part": path.name, "seconds": len(own) / RATE, "text": cue.text}
        found.append(said | {"heard": ears.transcribe(own)})
    return found


def alone(sentences: list[dict], home: Path, out: Path) -> list[dict]:
    """The same of sentences said one by one."""
    ears, found = load_ears(), list[dict]()
    with Store.open(home) as store:
        speaker = Synthesizer(store=store)
        for seed, each in enumerate(sentences):
            file = out / "alone.wav"
            speaker.speak(each["text"], "nobody", file, seed=seed)
            heard = ears.transcribe(read_audio(file, RATE)[0].numpy())
            found.append({"text": each["text"], "heard": heard})
    return found


def rate(sentences: list[dict], plain: EnglishTextNormalizer) -> dict[str, float]:
    """Word errors of sentences, with 95 % of bootstraps."""
    counted = [compare(each["text"], each["heard"], plain) for each in sentences]
    pairs = [(each["errors"], each["words"]) for each in counted]
    draw, rates = random.Random(0), list[float]()
    for _ in range(1000):
        own = draw.choices(pairs, k=len(pairs))
        rates.append(sum(errors for errors, _ in own) / sum(words for _, words in own))
    rates.sort()
    errors, words = (sum(column) for column in zip(*pairs, strict=True))
    return {"words": words, "WER": errors / words, "from": rates[25], "to": rates[974]}


def lost(sentences: list[dict], plain: EnglishTextNormalizer) -> dict[str, object]:
    """By alignment of each part's words: the longest gaps, and sentences that are hardly there."""
    gaps, extra, poor = [0], [0], list[tuple[str, str]]()
    for part in sorted({each["part"] for each in sentences}):
        own = [each for each in sentences if each["part"] == part]
        wanted = [plain(each["text"]).split() for each in own]
        said = " ".join(plain(each["heard"]) for each in own)
        found = jiwer.process_words(" ".join(word for each in wanted for word in each), said)
        good = set[int]()
        for chunk in found.alignments[0]:
            if chunk.type == "equal":
                good |= set(range(chunk.ref_start_idx, chunk.ref_end_idx))
            gaps += [chunk.ref_end_idx - chunk.ref_start_idx] * (chunk.type == "delete")
            extra += [chunk.hyp_end_idx - chunk.hyp_start_idx] * (chunk.type == "insert")
        place = 0
        for words, each in zip(wanted, own, strict=True):
            there = len(good & set(range(place, place + len(words))))
            place += len(words)
            if there < len(words) / 2:
                poor.append((each["text"], each["heard"]))
    return {"longest gap": max(gaps), "longest extra": max(extra), "under half heard": poor}


def same_words(text: str, sentences: list[dict]) -> bool:
    """Whether the transcripts have the text's words, each once and in order."""
    wanted = " ".join(p.text for part in parts_of(text) for p in sentences_of(part.text))
    words = (
        re.findall(r"\w+", each) for each in (wanted, " ".join(each["text"] for each in sentences))
    )
    return next(words) == next(words)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--corpora", type=Path, default=Path("../shared/corpora"))
    parser.add_argument("--words", type=int, default=20_000)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--alone", type=int, default=100)
    parser.add_argument("--memory", action="store_true", help="one process, and its memory alone")
    given = parser.parse_args()
    torch.set_num_threads(1)
    home, folder, text = given.out / "home", given.out / "book", given.out / "book.md"
    given.out.mkdir(parents=True, exist_ok=True)
    text.write_text(book(given.corpora, given.words), "utf-8")

    kills = 0 if given.memory else given.kills
    runs = kept(given.out / "runs.json", lambda: speak(text, folder, home, kills))
    if given.memory:
        found = {"words": len(text.read_text("utf-8").split()), "seconds": runs[-1]["seconds"]}
        found |= flatness(runs[-1]["MB by minutes"]) | {"MB by minutes": runs[-1]["MB by minutes"]}
        found |= {"most MB": runs[-1]["most MB"]}
        print(json.dumps(found, indent=1))
        return write("book_memory.json", found)
    with Store.open(home) as store:
        verify(store)
        unfinished = sum(not store.entries("released", e.id) for e in store.entries("part"))
    heard = list[dict]()
    for path in sorted(folder.glob("*.wav")):
        heard += kept(given.out / f"{path.stem}.json", lambda: heard_in(path))  # noqa: B023
    some = random.Random(18).sample(range(len(heard)), given.alone)
    asked = [heard[place] for place in some]
    single = kept(given.out / "alone.json", lambda: alone(asked, home, given.out))
    plain, warm = EnglishTextNormalizer(), [mb for run in runs for mb in run["MB by minutes"]]
    result = {
        "words": len(text.read_text("utf-8").split()),
        "hours of speech": sum(each["seconds"] for each in heard) / 3600,
        "hours of work": sum(run["seconds"] for run in runs) / 3600,
        "killed when said": [round(run["said"], 3) for run in runs[:-1]],
        "MB, least and most minute": [min(warm), max(warm)],
        "MB, last process": flatness(runs[-1]["MB by minutes"]),
        "MB, most at all": max(run["most MB"] for run in runs),
        "sentences": len(heard),
        "transcripts have the text's words": same_words(text.read_text("utf-8"), heard),
        "parts without an end in the ledger": unfinished,
        "whole": rate(heard, plain),
        "some, in the book": rate(asked, plain),
        "some, alone": rate(single, plain),
        **lost(heard, plain),
    }
    print(json.dumps(result, indent=1))
    write("book.json", result)


if __name__ == "__main__":
    main()
