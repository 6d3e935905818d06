"""Metrics, each with the model it asks: VALL-E 2, 4.1.3, as far as open weights go.

The paper asks a Conformer-Transducer, WavLM-TDNN and DNSMOS P.808. Here: faster-whisper,
Resemblyzer or a WavLM with an x-vector head out of a folder, DNSMOS, DistillMOS. A figure is
comparable with another only if model, version and hash agree; all three stand in the results.
"""

import hashlib
import runpy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sayso.inference.recognisers import RATE, WEIGHTS, WHISPER, Ears, embedding
from sayso.inference.saying import limit_seconds
from sayso.model.audio import resample
from sayso.model.errors import InputError
from sayso.model.files import file_hash, read_json, write_json

from .sound import Audio, DistillMos, clicks, clipped, dnsmos, level, pitch
from .words import compare

Embed = Callable[[Audio], NDArray[np.float32] | None]
SAME_PITCH = 0.15
ENOUGH_SECONDS = 1.6
"""Of speech for an encoder; of shorter samples nothing is said, of longer silence SIM 0."""


@dataclass(frozen=True, eq=False)
class Prompt:
    """What a voice was given: (samples,) at 16 kHz, and what it says."""

    audio: Audio
    text: str = ""

    @cached_property
    def seen(self) -> dict[str, float]:
        """Pitch in Hz and level in dB."""
        return {"pitch": pitch(self.audio, RATE), "level": level(self.audio)}


@dataclass(frozen=True)
class Sample:
    """One thing to judge."""

    wave: Audio
    """(samples,) as it is in its file."""
    rate: int
    text: str
    """What should be said."""
    prompt: Prompt | None = None
    """As recorded; None where nobody recorded it."""
    coded: Prompt | None = None
    """Through the codec."""

    @cached_property
    def audio(self) -> Audio:
        """(samples,) at 16 kHz."""
        return resample(self.wave, self.rate, RATE)

    @property
    def seconds(self) -> float:
        """Its length."""
        return len(self.wave) / self.rate


Values = dict[str, Any]
"""Column to a number, or to text, or to a vector (`own`, `prompt's`)."""


class Metric:
    """One way to judge, and who judges."""

    name: str
    model: str
    version: str
    hash: str
    needs: tuple[str, ...]
    """Of `text`, `prompt` and `coded`: what else than the sound a value depends on."""

    def __call__(self, sample: Sample) -> Values:
        """The values of one sample; a column that cannot be measured is not there."""
        raise NotImplementedError


class WordErrors(Metric):
    """Transcribes (samples,) at 16 kHz, by default with faster-whisper, and compares."""

    name, needs = "words", ("text",)

    def __init__(
        self, transcribe: Callable[[Audio], str], model: str, sha256: str, code: str | None = None
    ):
        from whisper_normalizer.english import EnglishTextNormalizer

        self.transcribe, self.model, self.hash = transcribe, model, sha256
        self.version = code or f"faster-whisper {version('faster-whisper')}"
        self.plain = EnglishTextNormalizer()

    def __call__(self, sample: Sample) -> Values:
        heard = self.transcribe(sample.audio)
        return {"heard": heard, **compare(sample.text, heard, self.plain)}

    def lost(self, text: str) -> Values:
        """The counts where nothing was said."""
        return {"heard": "", **compare(text, "", self.plain)}


class Similarity(Metric):
    """SIM-o to the prompt as recorded, SIM-r to the prompt through the codec: cosines."""

    name, needs = "similarity", ("prompt", "coded")

    def __init__(self, embed: Embed, model: str, version: str, sha256: str):
        self.embed, self.model, self.version, self.hash = embed, model, version, sha256
        self._of = lru_cache(8)(lambda prompt: embed(prompt.audio))

    def __call__(self, sample: Sample) -> Values:
        own = self.embed(sample.audio)
        values: Values = {} if own is None else {"own": np.round(own, 5).tolist()}
        for column, prompt in (("SIM-o", sample.prompt), ("SIM-r", sample.coded)):
            there = None if prompt is None else self._of(prompt)
            if there is not None and (own is not None or sample.seconds >= ENOUGH_SECONDS):
                values[column] = 0.0 if own is None else float(own @ there)
                values.setdefault("prompt's", np.round(there, 5).tolist())
        return values


class DnsMos(Metric):
    """DNSMOS P.835 overall, and P.808."""

    name, needs = "dnsmos", ()

    def __init__(self, ears: Ears):
        self.ears, self.model = ears, "DNSMOS"
        self.version = f"speechmos {version('speechmos')}"
        self.hash = _joined(WEIGHTS["speechmos"])

    def __call__(self, sample: Sample) -> Values:
        overall, p808 = dnsmos(self.ears, sample.audio)
        return {"OVRL": overall, "P.808": p808}


class Distilled(Metric):
    """DistillMOS."""

    name, needs = "distillmos", ()

    def __init__(self):
        self.judge, self.model = DistillMos(), "DistillMOS"
        self.version, self.hash = version("distillmos"), file_hash(self.judge.weights)

    def __call__(self, sample: Sample) -> Values:
        return {"DistillMOS": self.judge(sample.audio)}


class Sound(Metric):
    """Length, rate, pitch and level, the last three against the prompt's; clicks and clipping."""

    name, model, version, hash = "sound", "samples alone", "1", ""
    needs = ("text", "prompt", "coded")

    def __call__(self, sample: Sample) -> Values:
        values: Values = {
            "seconds": sample.seconds,
            "over-long": int(sample.seconds > limit_seconds(sample.text)),
            "clicks": clicks(sample.wave, sample.rate),
            "clipped": clipped(sample.wave),
        }
        prompt = sample.prompt or sample.coded
        if prompt is None:
            return values
        if prompt.text:
            per_letter = len(prompt.audio) / RATE / len(prompt.text)
            values["rate"] = per_letter / (sample.seconds / len(sample.text))
        values["level"] = level(sample.audio) - prompt.seen["level"]
        values["pitch"] = pitch(sample.audio, RATE) / max(1.0, prompt.seen["pitch"])
        values["same pitch"] = int(abs(values["pitch"] - 1) <= SAME_PITCH)
        return values


def resemblyzer(ears: Ears) -> Similarity:
    """SIM by the encoder that enrolment has: GE2E, 256 numbers."""

    def embed(audio: Audio) -> NDArray[np.float32] | None:
        windows = ears.voices(audio) if audio.any() else ()
        return embedding(np.asarray(windows)) if len(windows) else None

    known = _joined(WEIGHTS["resemblyzer"])
    return Similarity(embed, "Resemblyzer", f"resemblyzer {version('resemblyzer')}", known)


def whisper(size: str, ears: Ears) -> WordErrors:
    """A recogniser by name: `tiny.en` is there; others are loaded as faster-whisper loads them.

    Raises:
        InputError: It is not to be had.
    """
    if size == "tiny.en":
        return WordErrors(ears.transcribe, "Whisper tiny.en, int8", _joined(WEIGHTS[WHISPER]))
    from faster_whisper import WhisperModel
    from faster_whisper.utils import download_model

    try:
        folder = Path(size) if Path(size).is_dir() else Path(download_model(size))
        device = "cuda" if torch.cuda.is_available() else "cpu"
        model = WhisperModel(str(folder), device=device, cpu_threads=torch.get_num_threads())
        sha256 = file_hash(folder / "model.bin")
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"no Whisper {size!r} here ({error}): give its folder") from None
    return WordErrors(Ears(model, None).transcribe, f"Whisper {size}", sha256)


def usual_metrics(
    ears: Ears, size: str = "tiny.en", likeness: Similarity | None = None
) -> list[Metric]:
    """All of them.

    Args:
        size: Whisper's name or folder.
        likeness: Resemblyzer's if None.
    """
    likeness = likeness or resemblyzer(ears)
    return [whisper(size, ears), likeness, DnsMos(ears), Distilled(), Sound()]


def judge_of(file: Path) -> Metric:
    """A judge of one's own: what `judge()` in a Python file gives, a `Metric`.

    Raises:
        InputError: There is no such file, it cannot be loaded, or it has no such judge.
    """
    try:
        made = runpy.run_path(str(file))["judge"]()
    except Exception as error:  # of whatever it is made of
        raise InputError(f"{file} holds no judge ({type(error).__name__}: {error})") from error
    parts = ("name", "model", "version", "hash", "needs")  # all stand in the results
    if not isinstance(made, Metric) or not all(hasattr(made, part) for part in parts):
        raise InputError(
            f"{file} holds no judge: judge() gives a {type(made).__name__}, not a Metric with "
            f"{', '.join(parts)}"
        )
    return made


def replaced(usual: Sequence[Metric], own: Sequence[Metric]) -> list[Metric]:
    """The usual metrics; one's own of a name, such as `words` or `similarity`, in their place."""
    names = {metric.name for metric in own}
    return [*own, *(metric for metric in usual if metric.name not in names)]


class Panel:
    """Several metrics, and a folder with what they said before, by content."""

    def __init__(self, metrics: Sequence[Metric], cache: Path):
        self.metrics, self.cache = metrics, cache
        cache.mkdir(parents=True, exist_ok=True)

    def __call__(self, sample: Sample) -> Values:
        """All values of a sample, from the cache where it was judged before."""
        values: Values = {}
        for metric in self.metrics:
            place = self.cache / f"{self._key(metric, sample)}.json"
            if not place.is_file():
                write_json(place, metric(sample))
            values |= read_json(place)
        return values

    def lost(self, text: str) -> Values:
        """Of a sentence that was never said: all its words are lost."""
        return next(m.lost(text) for m in self.metrics if isinstance(m, WordErrors))

    def named(self) -> dict[str, dict[str, str]]:
        """Who judged, for the results."""
        columns = ("model", "version", "hash")
        return {m.name: {each: getattr(m, each) for each in columns} for m in self.metrics}

    @staticmethod
    def _key(metric: Metric, sample: Sample) -> str:
        found = hashlib.sha256(f"{metric.name} {metric.version} {metric.hash}".encode())
        found.update(f"{sample.rate} {sample.wave.dtype}".encode() + sample.wave.tobytes())
        for need in metric.needs:
            part = getattr(sample, need)
            if isinstance(part, Prompt):
                found.update(part.text.encode() + part.audio.tobytes())
            else:
                found.update(f"{need} {part}".encode())
        return found.hexdigest()


def _joined(hashes: dict[str, str]) -> str:
    """One hash of several files'."""
    return hashlib.sha256("".join(hashes.values()).encode()).hexdigest()
