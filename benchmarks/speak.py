"""How well a model speaks: words, voice, quality, pitch, length, speed, on sentences it never saw.

    python -m benchmarks.speak kathleen nobody readers --corpora ../shared/corpora
    python -m benchmarks.speak kathleen nobody readers --most 20  # 20 utterances each
    python -m benchmarks.speak kathleen --model runs/mini/release --sampling greedy --most 20
    python -m benchmarks.speak kathleen --top-p 0 .2 .4 .6 .8 --threshold .1  # as in Fig. 4

Every sentence goes through `Synthesizer.speak` in a store of its own, seed 0, and
Whisper tiny.en writes down what it hears. `kathleen` and `nobody` say Kathleen's kept-out sentences
and benchmarks/sentences.txt; each of 20 kept-out readers of LibriSpeech says five sentences of the
other kept-out readers' text, as its corpus receipt allows no other. Quality is DistillMOS and
DNSMOS OVRL at 16 kHz, means over utterances. Figures are printed and kept in
benchmarks/results/speak.json. Needs the `enrol` and `bench` extras.
"""

import argparse
import itertools
import json
import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import soundfile
import torch
from safetensors.torch import load_file
from whisper_normalizer.english import EnglishTextNormalizer

from benchmarks.results import RESULTS, write
from sayso.evaluation.sound import DistillMos, clicks, clipped, dnsmos, level, pitch
from sayso.inference.consent.other_voices import issue_corpus_voice
from sayso.inference.consent.prompt import cut_prompt
from sayso.inference.recognisers import RATE, Ears, embedding, load_ears
from sayso.inference.store.store import Store
from sayso.inference.synthesizer import Synthesizer
from sayso.model.audio import read_audio, read_samples, resample, seconds_of
from sayso.model.bundle import BUNDLED, load_bundle
from sayso.model.errors import InputError, UnfinishedError
from sayso.model.sampling import Sampling
from sayso.model.text.normalization import normalise
from sayso.training.held_out import held_out
from sayso.training.readers import Utterance, read_corpus

SENTENCES = Path(__file__).with_name("sentences.txt")
HELD_OUT_EVERY = {"kathleen": 47, "librispeech-clips": 11}
READERS, EACH = 20, 5
TIME = (
    "An utterance takes about 4 s of one core: three times 100 need 20 minutes of a free core, "
    "40 of a shared one."
)


@dataclass
class Said:
    """What came of one sentence."""

    voice: str
    text: str
    heard: str = ""
    finished: bool = False
    seconds: float = 0.0
    cost: float = 0.0
    length: float = 0.0  # over the recording's, where there is one
    likeness: float = 0.0  # Resemblyzer cosine to the voice's prompt
    pitch: float = 0.0  # median over the prompt's
    level: float = 0.0  # dB over the prompt's
    distillmos: float = 0.0
    ovrl: float = 0.0
    clicks: int = 0
    clipped: int = 0  # samples at full scale
    own: np.ndarray = field(default_factory=lambda: np.zeros(256, np.float32))


@dataclass(frozen=True)
class Prompt:
    """What speech in a voice is compared with."""

    own: np.ndarray  # (256,) embedding
    pitch: float  # Hz
    level: float  # dB


@dataclass(frozen=True)
class How:
    """How each sentence is spoken."""

    sampling: Sampling
    samples: int


@dataclass(frozen=True)
class Judges:
    """Who listens."""

    ears: Ears
    mos: DistillMos


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


def enrol(
    speaker: Synthesizer, name: str, corpus: str, utterance: Utterance, targets: list[str]
) -> Path:
    """Register a recording's last seconds as a benchmark voice; returns the prompt as a file."""
    codec = speaker.bundle.codec
    heard = read_audio(utterance.path, RATE)[0].numpy()
    start, transcript = cut_prompt(heard, normalise(utterance.text))
    audio = read_audio(utterance.path, codec.sample_rate)[:, int(start * codec.sample_rate) :]
    codes = codec.encode(audio)[0]
    issue_corpus_voice(
        speaker.store, name, codes, transcript, codec.identity, corpus, utterance.speaker, targets
    )
    prompt = speaker.store.home.parent / f"{name}-prompt.wav"
    soundfile.write(prompt, audio[0].numpy(), codec.sample_rate)
    return prompt


def nobodys(speaker: Synthesizer, model: Path) -> Path:
    """The prompt that a model folder ships, as a file."""
    codes = load_file(model / "voices/nobody/prompt.safetensors")["codes"].long()
    codec, prompt = speaker.bundle.codec, speaker.store.home.parent / "nobody-prompt.wav"
    soundfile.write(prompt, codec.hear(codes).numpy(), codec.sample_rate)
    return prompt


def look_at(ears: Ears, path: Path) -> Prompt:
    """What there is to compare in a prompt's file."""
    audio = read_audio(path, RATE)[0].numpy()
    return Prompt(embedding(ears.voices(audio)), pitch(audio, RATE), level(audio))


def say(
    speaker: Synthesizer,
    judges: Judges,
    voice: str,
    text: str,
    how: How,
    prompt: Prompt,
    recording: Path | None = None,
) -> Said:
    """One sentence through the gate, listened to; the file is deleted."""
    out = speaker.store.home.parent / "said.wav"
    start = time.perf_counter()
    try:
        spoken = speaker.speak(
            text,
            voice,
            out,
            purpose="benchmark",
            seed=0,
            sampling=how.sampling,
            samples=how.samples,
        )
    except UnfinishedError:
        return Said(voice, text)
    said = Said(voice, text, finished=True, seconds=spoken.seconds)
    said.cost = time.perf_counter() - start
    samples, rate = read_samples(out)
    whole = samples[:, 0]
    said.clicks, said.clipped = clicks(whole, rate), clipped(whole)
    audio = resample(whole, rate, RATE)
    said.heard = judges.ears.transcribe(audio)
    said.distillmos, said.ovrl = judges.mos(audio), dnsmos(judges.ears, audio)[0]
    said.level = level(audio) - prompt.level
    said.pitch = pitch(whole, rate) / max(1.0, prompt.pitch)
    if recording is not None:
        said.length = said.seconds / seconds_of(recording)
    windows = judges.ears.voices(audio)
    if len(windows):
        said.own = embedding(windows)
        said.likeness = float(said.own @ prompt.own)
    out.unlink()
    return said


def nearest_person(said: list[Said], ears: Ears, corpora: Path) -> dict[str, Any]:
    """Who of those the model or its codec learnt from is most like a voice, by mean embedding."""
    people: dict[str, list[np.ndarray]] = {}
    for corpus, every in (("kathleen", 20), ("librispeech-clips", 1)):
        for utterance in read_corpus(corpus, corpora / corpus)[::every]:
            windows = ears.voices(read_audio(utterance.path, RATE)[0].numpy())
            people.setdefault(f"{corpus} {utterance.speaker}", []).append(windows)
    voice = embedding(np.stack([each.own for each in said if each.own.any()]))
    likeness = {
        name: float(embedding(np.concatenate(windows)) @ voice) for name, windows in people.items()
    }
    name = max(likeness, key=lambda each: likeness[each])
    return {"nearest person": [name, round(likeness[name], 4)], "people": len(people)}


def sentences(root: Path, most: int) -> list[tuple[str, Path | None]]:
    """Sentences with their recordings, where there is one, by turns, so that any `most` is fair."""
    recorded = [(u.text, u.path) for u in kept_out("kathleen", root)]
    own = [(line, None) for line in SENTENCES.read_text().splitlines()]
    step = len(own) // max(1, len(recorded))
    mixed: list[tuple[str, Path | None]] = []
    for index, pair in enumerate(recorded):
        mixed += [pair, *own[index * step : (index + 1) * step]]
    return [*mixed, *own[len(recorded) * step :]][:most]


def run(
    what: str,
    speaker: Synthesizer,
    judges: Judges,
    given: argparse.Namespace,
    how: How,
    prompts: dict[str, Prompt],
) -> Iterator[Said]:
    """All sentences of one kind of voice; yields what came of each, and fills in `prompts`."""
    ears, corpora, most = judges.ears, given.corpora, given.most
    if what == "nobody":
        prompts["nobody"] = look_at(ears, nobodys(speaker, given.model))
        for text, recording in sentences(corpora / "kathleen", most):
            yield say(speaker, judges, "nobody", text, how, prompts["nobody"], recording)
    elif what == "kathleen":
        chosen = sentences(corpora / "kathleen", most)
        first, second = kept_out("kathleen", corpora / "kathleen")[:2]
        for name, utterance in (("kathleen", first), ("kathleen-2", second)):
            path = enrol(speaker, name, "Kathleen", utterance, [text for text, _ in chosen])
            prompts[name] = look_at(ears, path)
        for text, recording in chosen:
            name = "kathleen-2" if text == first.text else "kathleen"
            yield say(speaker, judges, name, text, how, prompts[name], recording)
    else:
        readers = kept_out("librispeech-clips", corpora / "librispeech-clips")
        texts = short_sentences(readers)
        left = itertools.cycle(texts)
        for reader in readers[: min(READERS, -(-most // EACH))]:
            targets = [t for s, t in itertools.islice(left, 2 * EACH) if s != reader.speaker]
            name = f"reader-{reader.speaker}"
            try:
                path = enrol(speaker, name, "LibriSpeech", reader, targets[:EACH])
            except InputError as error:
                print(f"{name}: {error}; left out")
                continue
            prompts[name] = look_at(ears, path)
            for text in targets[:EACH]:
                yield say(speaker, judges, name, text, how, prompts[name])


def figures(said: list[Said], prompts: dict[str, Prompt]) -> dict[str, Any]:
    """The table's row for one kind of voice."""
    words = EnglishTextNormalizer()
    done = [each for each in said if each.finished]
    wanted = [words(each.text) for each in said]
    heard = [words(each.heard) for each in said]
    per = np.array([jiwer.wer(a, b) * len(a.split()) for a, b in zip(wanted, heard, strict=True)])
    sizes = np.array([len(a.split()) for a in wanted])
    draw = np.random.default_rng(0).integers(0, len(per), (2000, len(per)))
    rates = per[draw].sum(1) / sizes[draw].sum(1)
    row: dict[str, Any] = {
        "sentences": len(said),
        "unfinished": len(said) - len(done),
        "wer": round(float(per.sum() / sizes.sum()), 4),
        "wer, 95 % of bootstraps": np.round(np.quantile(rates, [0.025, 0.975]), 4).tolist(),
        "seconds of work per second": round(
            sum(d.cost for d in done) / sum(d.seconds for d in done), 3
        ),
    }
    lengths = [each.length for each in done if each.length]
    if lengths:
        row["length over the recording's, median and 10-90 %"] = np.round(
            np.quantile(lengths, [0.5, 0.1, 0.9]), 3
        ).tolist()
    row["likeness to the prompt, mean"] = mean([each.likeness for each in done])
    row["pitch within 15 % of the prompt's"] = mean([abs(d.pitch - 1) <= 0.15 for d in done])
    row["DistillMOS"] = mean([each.distillmos for each in done])
    row["DNSMOS OVRL"] = mean([each.ovrl for each in done])
    row["clicks"] = sum(each.clicks for each in done)
    row["clipped samples"] = sum(each.clipped for each in done)
    row["level over the prompt's in dB, mean and most"] = [
        mean([each.level for each in done]),
        round(max((each.level for each in done), key=abs, default=0.0), 2),
    ]
    names = sorted({each.voice for each in done})
    if len(names) > 2:
        own = np.stack([prompts[name].own for name in names])
        right = [names[int((own @ each.own).argmax())] == each.voice for each in done]
        row["nearest to the own prompt"] = mean(right)
        row["readers"] = len(names)
    return row


def mean(values: Sequence[float]) -> float:
    return round(float(np.mean(values)), 4) if values else 0.0


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
    parser.add_argument("--threshold", type=float, help="t_r; 0: one hit fires")
    parser.add_argument("--samples", type=int, default=1, help="of which Eq. 23 keeps one")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--name", default="", help="before the voice's, for the file")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    judges = Judges(load_ears(), DistillMos())
    sampling = load_bundle(given.model).sampling
    sampling = replace(
        sampling,
        method=given.sampling or sampling.method,
        threshold=sampling.threshold if given.threshold is None else given.threshold,
    )
    values = given.top_p or [sampling.top_p]
    file = RESULTS / "speak.json"
    for what, top_p in itertools.product(given.what, values):
        how = How(replace(sampling, top_p=top_p), given.samples)
        with tempfile.TemporaryDirectory() as folder, Store.open(Path(folder) / "home") as store:
            speaker = Synthesizer(given.model, store)
            said, prompts = [], {}
            for each in run(what, speaker, judges, given, how, prompts):
                said.append(each)
                print(f"{each.voice}: {each.text!r} -> {each.heard!r}", flush=True)
            row = figures(said, prompts)
            if what == "nobody":
                row |= nearest_person(said, judges.ears, given.corpora)
        row["card"] = speaker.bundle.card_hash[:16]
        asked = asdict(how.sampling) | asdict(speaker.bundle.model.extras)
        row["sampling"] = {key: value for key, value in asked.items() if value}
        row["samples"] = given.samples
        print(what, json.dumps(row, indent=1))
        known = json.loads(file.read_text()) if file.exists() else {}
        name = f"{given.name} {what}".strip() + (f", v {top_p:g}" if len(values) > 1 else "")
        write(file.name, known | {name: row})


if __name__ == "__main__":
    main()
