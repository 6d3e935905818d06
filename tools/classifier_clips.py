"""The three kinds of sound that the detector learns and is measured on: files in runs/synthetic.

Real recordings and the same through the codec stand under the codec's identity (they stay good when
the model is trained anew), what our model says under the model's. All are 16-bit WAV at the codec's
rate and read in one way, so that no kind is told by how it was kept.
"""

import hashlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
import soxr
from torch import Tensor

from benchmarks.clips import CORPORA
from benchmarks.speak import HELD_OUT_EVERY, SENTENCES, enrol, short_sentences
from sayso.inference.detection.classifier import KINDS, RATE, model_identity
from sayso.inference.store.store import Store
from sayso.inference.synthesizer import Synthesizer
from sayso.inference.watermark.ensemble import PERTH_STRENGTHS
from sayso.inference.watermark.keyed import Keyed
from sayso.inference.watermark.perth import load_watermarker
from sayso.model.audio import read_audio, write_audio
from sayso.model.bundle import BUNDLED, Bundle, load_bundle
from sayso.model.errors import InputError, UnfinishedError
from sayso.training.held_out import held_out
from sayso.training.readers import Utterance, read_corpus

RUN = Path(__file__).resolve().parents[1] / "runs" / "synthetic"
VOICES = {"train": 60, "test": 25}  # readers that our model imitates
EACH = {"train": 2, "test": 3}  # sentences in each of these voices
OWN = {"train": 30, "test": 20}  # sentences of Kathleen and of nobody each
EVERY = {"train": 8, "test": 1}  # of Kathleen's recordings one in so many
EXCERPT = 4.5  # seconds of each recording that are trained on
Clips = dict[str, list[tuple[str, np.ndarray]]]
"""Per kind, (voice, (samples,) audio at the codec's rate)."""


def corpus(name: str, split: str) -> list[Utterance]:
    every = HELD_OUT_EVERY[name]
    found = read_corpus(name, CORPORA / name)
    return [u for u in found if held_out(u.id, every) == (split == "test")]


def spoken_folder(split: str) -> Path:
    return RUN / f"said-{model_identity()}" / split


def heard_folder(split: str, marked: bool) -> Path:
    codec = load_bundle().codec
    parts = [codec.identity, *codec.parts.values(), *codec.sound_parts.values()]
    made = hashlib.sha256("".join(parts).encode()).hexdigest()[:12]
    return RUN / f"heard-{made}" / (f"{split}-marked" if marked else split)


def coded(bundle: Bundle, real: Tensor) -> Tensor:
    """Real speech (1, samples) by the way of what our model says: through the codec, and with one
    timbre its own taken off and put on again."""
    codes = bundle.codec.encode(real)[0]
    return bundle.codec.speak(bundle.codec.read(codes), codes)[None]


def prepare(split: str, marked: bool, every: int = 1) -> None:
    """Real recordings, as they are and through the codec, with or without our marks.

    Args:
        every: For a trial, one in so many of them.
    """
    folder = heard_folder(split, marked)
    bundle, perth = load_bundle(), load_watermarker()
    codec = bundle.codec
    for part in KINDS[:2]:
        (folder / part).mkdir(parents=True, exist_ok=True)
    for name in ("librispeech-clips", "kathleen"):
        chosen = corpus(name, split)[:: EVERY[split] if name == "kathleen" else 1]
        for utterance in chosen[::every]:
            voice = "kathleen" if name == "kathleen" else f"reader-{utterance.speaker}"
            outs = [folder / part / f"{voice}-{utterance.id}.wav" for part in KINDS[:2]]
            if all(out.exists() for out in outs):
                continue
            real = read_audio(utterance.path, codec.sample_rate)
            if split == "train":
                real = real[:, : int(EXCERPT * codec.sample_rate)]
            again = coded(bundle, real)
            # A key of its own for each: the network must not learn whose key a mark is of.
            keyed = Keyed(utterance.id.encode().ljust(32, b"-"))
            for kept, out in ((real[0], outs[0]), (again[0], outs[1])):
                if marked:  # as nearly all released files are; looking again would cost most here
                    kept = perth.embed(kept, codec.sample_rate, PERTH_STRENGTHS[0])
                    kept = keyed.embed(kept, codec.sample_rate, utterance.id)
                draft = out.with_name(f".{out.name}")
                write_audio(draft, kept / kept.abs().max().clamp(min=1.0), codec.sample_rate)
                draft.replace(out)


def speak(split: str, every: int = 1) -> None:
    """Marked speech of our model in corpus voices; what is there is not said again."""
    folder = spoken_folder(split)
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / "unfinished.json"
    given_up = set(json.loads(unfinished.read_text())) if unfinished.exists() else set()
    with tempfile.TemporaryDirectory() as home, Store.open(Path(home) / "home") as store:
        speaker = Synthesizer(BUNDLED, store)
        for voice, utterance, texts in casting(split, every):
            wanted = {f"{voice}-{number}": text for number, text in enumerate(texts)}
            missing = [n for n in wanted if not (folder / f"{n}.wav").exists()]
            missing = [n for n in missing if n not in given_up]
            if not missing:
                continue
            if utterance is not None:
                source = "Kathleen" if voice == "kathleen" else "LibriSpeech"
                try:
                    enrol(speaker, voice, source, utterance, texts)
                except InputError as error:
                    print(f"{voice} left out: {error}", flush=True)
                    continue
            for name in missing:
                out, seed = folder / f"{name}.wav", int(name.rsplit("-", 1)[1])
                try:
                    speaker.speak(wanted[name], voice, out, purpose="benchmark", seed=seed)
                except UnfinishedError:
                    given_up.add(name)
                    unfinished.write_text(json.dumps(sorted(given_up)))
    print(f"{split}: {len(list(folder.glob('*.wav')))} said, {len(given_up)} without end")


def casting(split: str, every: int) -> Iterator[tuple[str, Utterance | None, list[str]]]:
    """Who says what: readers the sentences of others, Kathleen and nobody everyday ones."""
    readers = corpus("librispeech-clips", split)
    said = short_sentences(readers)
    random = np.random.default_rng(len(split))
    for number, reader in enumerate(readers[: VOICES[split]]):
        others = [text for who, text in said if who != reader.speaker]
        texts = [others[i] for i in random.permutation(len(others))[: EACH[split]]]
        if number % every == 0:
            yield f"reader-{reader.speaker}", reader, texts
    own = SENTENCES.read_text().splitlines()
    texts = own[: OWN[split]] if split == "train" else own[-OWN[split] :]
    few = len(texts) // every
    yield "kathleen", corpus("kathleen", split)[0], texts[:few]
    yield "nobody", None, texts[:few]


def load(split: str, marked: bool) -> Clips:
    """All three kinds; `marked` asks for our marks on what is not ours, too (ours always has)."""
    folders = {kind: heard_folder(split, marked) / kind for kind in KINDS[:2]}
    folders[KINDS[2]] = spoken_folder(split)
    found: Clips = {}
    for kind, folder in folders.items():
        files = [p for p in sorted(folder.glob("*.wav")) if not p.name.startswith(".")]
        found[kind] = [(voice_of(p), soundfile.read(p, dtype="float32")[0]) for p in files]
    return found


def voice_of(path: Path) -> str:
    """`reader-19-198-0000` is of reader-19, `kathleen-arctic_a0001` of kathleen."""
    parts = path.stem.split("-")
    return "-".join(parts[:2]) if parts[0] == "reader" else parts[0]


def narrow(audio: np.ndarray, rate: int) -> np.ndarray:
    """(samples,) at 16 kHz."""
    return soxr.resample(audio, rate, RATE).astype(np.float32)
