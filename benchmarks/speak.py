"""How well a model speaks: words, voice, quality, pitch, length, speed, on sentences it never saw.

    python -m benchmarks.speak kathleen nobody readers --corpora ../shared/corpora
    python -m benchmarks.speak kathleen nobody readers --most 20  # 20 utterances each
    python -m benchmarks.speak kathleen --model runs/mini/release --sampling greedy --most 20
    python -m benchmarks.speak kathleen --top-p 0 .2 .4 .6 .8 --threshold .1 0 --words  # Fig. 4

Every sentence goes through the gate in a store of its own, seed 0, as `sayso evaluate` does it, and
Whisper tiny.en writes down what it hears. `kathleen` and `nobody` say Kathleen's kept-out sentences
and benchmarks/sentences.txt; each of 20 kept-out readers of LibriSpeech says five sentences of the
other kept-out readers' text, as its corpus receipt allows no other. Quality is DistillMOS and
DNSMOS OVRL at 16 kHz, means over utterances. Figures are printed and kept in
benchmarks/results/speak.json; --out keeps speech, tables and a page. Needs the `enrol` and `bench`
extras.
"""

import argparse
import itertools
import json
import re
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from benchmarks.results import RESULTS, write
from sayso.evaluation.metrics import Panel, Sound, usual_metrics, whisper
from sayso.evaluation.protocols import Trial
from sayso.evaluation.report import write_report
from sayso.evaluation.run import Plan, Run
from sayso.inference.consent.other_voices import issue_corpus_voice
from sayso.inference.consent.prompt import cut_prompt
from sayso.inference.recognisers import RATE, Ears, embedding, load_ears
from sayso.inference.store.store import Store
from sayso.inference.synthesizer import Synthesizer
from sayso.model.audio import read_audio
from sayso.model.bundle import BUNDLED, load_bundle
from sayso.model.errors import InputError
from sayso.model.text.normalization import normalise
from sayso.training.held_out import held_out
from sayso.training.readers import Utterance, read_corpus

SENTENCES = Path(__file__).with_name("sentences.txt")
HELD_OUT_EVERY = {"kathleen": 47, "librispeech-clips": 11}
LEARNT_FROM = {  # models, codecs or decoder: one recording in so many is listened to
    **{"kathleen": 20, "librispeech-clips": 1, "ljspeech-part": 20},
    **{"vctk-p239": 30, "speechocean762-adults": 6},
}
READERS, EACH = 20, 5
TIME = (
    "An utterance takes about 4 s of one core: three times 100 need 20 minutes of a free core, "
    "40 of a shared one."
)
MODEL, CODED_AT = "the model", 24_000


def kept_out(corpus: str, root: Path) -> list[Utterance]:
    return [u for u in read_corpus(corpus, root) if held_out(u.id, HELD_OUT_EVERY[corpus])]


def short_sentences(utterances: list[Utterance]) -> list[tuple[str, str]]:
    """(reader, sentence or clause) of 4 to 12 words in transcripts; there are few whole ones."""
    found = []
    for utterance in utterances:
        for clause in re.split(r"(?<=[.?!,;:])\s+", utterance.text)[:-1]:  # the last is cut off
            if 4 <= len(clause.split()) <= 12 and not clause.lower().startswith("chapter"):
                found.append((utterance.speaker, clause))
    return found


def cut(utterance: Utterance, rate: int) -> tuple[torch.Tensor, str]:
    """A recording's last seconds (1, samples), and what they say."""
    start, transcript = cut_prompt(
        read_audio(utterance.path, RATE)[0].numpy(), normalise(utterance.text)
    )
    return read_audio(utterance.path, rate)[:, int(start * rate) :], transcript


def enrol(
    speaker: Synthesizer, name: str, corpus: str, utterance: Utterance, targets: list[str]
) -> None:
    """Register a recording's last seconds as a benchmark voice."""
    codec = speaker.bundle.codec
    audio, transcript = cut(utterance, codec.sample_rate)
    codes = codec.encode(audio)[0]
    issue_corpus_voice(
        speaker.store, name, codes, transcript, codec.identity, corpus, utterance.speaker, targets
    )


def prompt_of(utterance: Utterance, root: Path) -> Trial:
    """A recording's last seconds as a prompt in `root`, for whatever is said with it."""
    audio, transcript = cut(utterance, CODED_AT)
    name = f"{utterance.id}.wav"
    soundfile.write(root / name, audio[0].numpy(), CODED_AT, "FLOAT")
    return Trial("", utterance.speaker, "", name, transcript)


def nearest_person(run: Run, ears: Ears, corpora: Path) -> dict[str, Any]:
    """Who of those the model or its codec learnt from is most like a voice, by mean embedding."""
    people: dict[str, list[np.ndarray]] = {}
    for corpus, every in LEARNT_FROM.items():
        for utterance in read_corpus(corpus, corpora / corpus)[::every]:
            windows = ears.voices(read_audio(utterance.path, RATE)[0].numpy())
            if len(windows):
                people.setdefault(f"{corpus} {utterance.speaker}", []).append(windows)
    done = [json.loads(path.read_bytes()) for path in sorted((run.out / "trials").glob("*.json"))]
    said = [each["rows"][MODEL][0] for each in done]
    voice = embedding(np.array([each["own"] for each in said if "own" in each]))
    likeness = {
        name: float(embedding(np.concatenate(windows)) @ voice) for name, windows in people.items()
    }
    name = max(likeness, key=lambda each: likeness[each])
    return {"nearest person": [name, round(likeness[name], 4)], "people": len(people)}


def sentences(root: Path, most: int) -> list[str]:
    """Her kept-out sentences and our own by turns, so that any `most` is fair."""
    recorded = [u.text for u in kept_out("kathleen", root)]
    own = SENTENCES.read_text().splitlines()
    step = len(own) // max(1, len(recorded))
    mixed: list[str] = []
    for index, text in enumerate(recorded):
        mixed += [text, *own[index * step : (index + 1) * step]]
    return [*mixed, *own[len(recorded) * step :]][:most]


def trials_of(what: str, corpora: Path, most: int, root: Path) -> tuple[str, list[Trial]]:
    """The corpus of one kind of voice's prompts, and who says what; prompts are put into `root`."""
    if what == "readers":
        readers = kept_out("librispeech-clips", corpora / "librispeech-clips")
        left, found = itertools.cycle(short_sentences(readers)), []
        for reader in readers[: min(READERS, -(-most // EACH))]:
            targets = [t for s, t in itertools.islice(left, 2 * EACH) if s != reader.speaker]
            try:
                prompt = prompt_of(reader, root)
            except InputError as error:
                print(f"{reader.id}: {error}; left out")
                continue
            ids = (f"{reader.speaker}-{number}" for number in range(EACH))
            found += [replace(prompt, id=i, text=t) for i, t in zip(ids, targets, strict=False)]
        return "LibriSpeech", found
    texts = sentences(corpora / "kathleen", most)
    ids = [f"{what}-{number:03d}" for number in range(len(texts))]
    if what == "nobody":
        return "", [Trial(i, "nobody", text) for i, text in zip(ids, texts, strict=True)]
    first, second = kept_out("kathleen", corpora / "kathleen")[:2]
    one, other = prompt_of(first, root), prompt_of(second, root)
    return "Kathleen", [
        replace(other if text == first.text else one, id=i, text=text)
        for i, text in zip(ids, texts, strict=True)
    ]


def figures(found: dict[str, Any], run: Run, samples: int) -> dict[str, Any]:
    """The table's row for one kind of voice."""
    name = MODEL if samples == 1 else f"{MODEL}, best of {samples} by Eq. 23"
    row, said = found["rows"][name], [trial["rows"][name] for trial in found["trials"]]
    levels = [each["level"] for each in said if "level" in each]
    bundle = run.speakers[MODEL].bundle
    asked = found["run"]["rows"][MODEL]["sampling"] | asdict(bundle.model.extras)
    nothing = {"value": None}
    likeness = row.get("SIM-o") or row.get("SIM-r") or nothing
    figures = {
        "sentences": len(said),
        "unfinished": sum(each["unfinished"] for each in said),
        "wer": row["WER"]["value"],
        "wer, 95 % of bootstraps": row["WER"]["utterances"],
        "seconds of work per second": found["time"][MODEL] * samples,
        "likeness to the prompt, mean": likeness["value"],
        "pitch within 15 % of the prompt's": row["same pitch"]["value"],
        "DistillMOS": row.get("DistillMOS", nothing)["value"],
        "DNSMOS OVRL": row.get("OVRL", nothing)["value"],
        "clicks": sum(each.get("clicks", 0) for each in said),
        "clipped samples": sum(each.get("clipped", 0) for each in said),
        "level over the prompt's in dB, mean and most": [
            row["level"]["value"],
            round(max(levels, key=abs, default=0.0), 2),
        ],
        "card": bundle.card_hash[:16],
        "sampling": {key: value for key, value in asked.items() if value},
        "samples": samples,
    }
    if "nearest" in row:
        figures["nearest to the own prompt"] = row["nearest"]["value"]
        figures["readers"] = len({trial["speaker"] for trial in found["trials"]})
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description="How well a model speaks.", epilog=TIME)
    parser.add_argument("what", nargs="+", choices=["kathleen", "nobody", "readers"])
    parser.add_argument("--corpora", type=Path, default=Path("../shared/corpora"))
    parser.add_argument("--model", type=Path, default=BUNDLED)
    parser.add_argument(
        "--most", type=int, default=100, help="utterances of each; readers say five"
    )
    parser.add_argument("--sampling", choices=["ras", "nucleus", "greedy", "random"])
    parser.add_argument(
        "--top-p", type=float, nargs="+", help="one or more; the model's own by default"
    )
    parser.add_argument(
        "--threshold", type=float, nargs="+", help="t_r; 0: one hit fires; one or more"
    )
    parser.add_argument("--words", action="store_true", help="word errors alone: half of the time")
    parser.add_argument("--samples", type=int, default=1, help="of which Eq. 23 keeps one")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--name", default="", help="before the voice's, for the file")
    parser.add_argument("--out", type=Path, help="keep speech, report.md and index.html there")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    ears = load_ears()
    own = load_bundle(given.model).sampling
    masses, thresholds = given.top_p or [own.top_p], given.threshold or [own.threshold]
    swept = len(masses) * len(thresholds) > 1
    file = RESULTS / "speak.json"
    for what, threshold, top_p in itertools.product(given.what, thresholds, masses):
        asked = replace(own, method=given.sampling or own.method, top_p=top_p, threshold=threshold)
        name = f"{given.name} {what}".strip()
        name += f", v {top_p:g}, t_r {threshold:g}" if swept else ""
        with tempfile.TemporaryDirectory() as folder, Store.open(Path(folder) / "home") as store:
            root = Path(folder) / "prompts"
            root.mkdir()
            corpus, trials = trials_of(what, given.corpora, given.most, root)
            out = Path(folder) / "out" if given.out is None else given.out / name
            plan = Plan("kept-out", trials, root, {MODEL: given.model}, corpus=corpus)
            metrics = [whisper("tiny.en", ears), Sound()] if given.words else usual_metrics(ears)
            panel = Panel(metrics, out / "cache")
            run = Run(replace(plan, sampling=asked, takes=given.samples), out, panel, store)
            for line in run.work():
                print(line, flush=True)
            found = run.results()
            assert found is not None
            row = figures(found, run, given.samples)
            if what == "nobody" and not given.words:
                row |= nearest_person(run, ears, given.corpora)
            if given.out is not None:
                write_report(found, out, root)
        print(name, json.dumps(row, indent=1))
        known = json.loads(file.read_text()) if file.exists() else {}
        write(file.name, known | {name: row})


if __name__ == "__main__":
    main()
