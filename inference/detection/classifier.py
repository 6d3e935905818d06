"""Does it sound like our model? A small network beside the marks, for files that lost theirs.

VALL-E 2's ethics statement asks for such a detector. This one knows three kinds of sound: real
recordings, real recordings through our codec (the hard negative: vocoded, but said by a person),
and what our model says. Convolutions over the spectrogram, as in LCNN (arXiv:1904.05576), of about
AASIST-L's size (arXiv:2110.01200). It was trained on one model and one codec by
tools/fit_classifier.py; docs/detector.md has its error rates, high ones for other generators. What
it says is a hint and no proof, either way.
"""

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from sayso.model.bundle import BUNDLED
from sayso.model.checkpoint import WEIGHTS, load_module
from sayso.model.errors import CheckpointError
from sayso.model.files import ASSETS, MOST_WEIGHTS, read_bounded

FOLDER = ASSETS / "synthetic"
KINDS = ("real", "real through the codec", "ours")
RATE = 16_000
"""Hz; everything is looked at below 8 kHz, where all corpora have sound."""
WINDOW, HOP = 3 * RATE, RATE  # samples looked at together, and from one look to the next
FFT, STEP = 512, 160
SILENT = 1e-4
"""A window with no sample beyond this is not asked about."""
AT_ONCE = 16  # windows


@dataclass(frozen=True)
class SyntheticConfig:
    """All that is needed to build a `Synthetic`."""

    channels: tuple[int, ...] = (12, 24, 32, 48)
    """Of the convolutions, each of which halves both axes."""
    width: int = 32
    """Features of a moment after all frequencies are put together."""
    threshold: float = 0.0
    """A file counts as ours from this log-odds on."""
    model: str = ""
    """`model_identity` of the model whose speech it learnt."""

    def __post_init__(self):
        object.__setattr__(self, "channels", tuple(self.channels))
        if min(*self.channels, self.width) < 1:
            raise ValueError(f"sizes must be at least 1: {self}")


class Synthetic(nn.Module):
    """Audio in, log-odds of the three kinds out."""

    def __init__(self, config: SyntheticConfig):
        super().__init__()
        self.config = config
        layers: list[nn.Module] = []
        before, rows = 1, FFT // 2
        for channels in config.channels:
            layers += [
                nn.Conv2d(before, 2 * channels, 3, stride=2, padding=1),
                nn.GLU(1),  # half of the channels gate the others, as max-feature-map does
                nn.BatchNorm2d(channels),
            ]
            before, rows = channels, -(-rows // 2)
        self.convolutions = nn.Sequential(*layers)
        self.project = nn.Linear(before * rows, config.width)
        self.kinds = nn.Linear(2 * config.width, len(KINDS))

    def forward(self, audio: Tensor) -> Tensor:
        """(B, samples) at 16 kHz to logits (B, 3)."""
        x = self.convolutions(spectrogram(audio)[:, None])  # (B, C, F, T)
        x = torch.relu(self.project(x.flatten(1, 2).transpose(1, 2)))  # (B, T, width)
        return self.kinds(torch.cat([x.mean(1), x.std(1)], 1))


def spectrogram(audio: Tensor) -> Tensor:
    """(B, samples) to the log spectrum (B, FFT / 2, frames), level-free."""
    window = torch.hann_window(FFT, device=audio.device)
    spectrum = torch.stft(audio, FFT, STEP, window=window, return_complex=True)
    logs = (spectrum[:, 1:].abs().square() + 1e-8).log()
    return (logs - logs.mean((1, 2), keepdim=True)) / 4.0


def load_synthetic(folder: Path = FOLDER) -> Synthetic:
    """The bundled network; CheckpointError if its files are missing or damaged."""
    return load_module(folder, Synthetic, SyntheticConfig).eval()


@dataclass(frozen=True)
class Likeness:
    """How much a file sounds like our model: a hint, and no mark.

    Attributes:
        log_odds: See `log_odds`; NaN for silence.
        threshold: "Like ours" is said from here on.
        current: Whether the network learnt the model that is bundled now, and not an older one.
    """

    log_odds: float
    threshold: float
    current: bool

    @property
    def like_ours(self) -> bool:
        """Whether the log odds reach the threshold; not for silence."""
        return self.log_odds >= self.threshold


def listen(model: Synthetic, audio: Tensor) -> Likeness:
    """Of (samples,) audio at 16 kHz."""
    config = model.config
    return Likeness(log_odds(model, audio), config.threshold, config.model == model_identity())


@cache
def model_identity(folder: Path = BUNDLED) -> str:
    """12 hex digits that change with any weight of a model; CheckpointError if one is missing."""
    digest = hashlib.sha256()
    more = ("timbre", "timbre/codec", "timbre/decoder")
    for part in ("codec", "ar", "nar", *(each for each in more if (folder / each).exists())):
        try:
            digest.update(read_bounded(folder / part / WEIGHTS, MOST_WEIGHTS))
        except OSError as error:
            raise CheckpointError(
                f"{folder / part / WEIGHTS} cannot be read ({error.strerror}): restore it"
            ) from None
    return digest.hexdigest()[:12]


@torch.inference_mode()
def log_odds(model: Synthetic, audio: Tensor) -> float:
    """Of (samples,) audio at 16 kHz: "ours" against both others, the mean over windows of 3 s.

    Shorter audio is repeated to fill a window; NaN for silence.
    """
    if len(audio) and len(audio) < WINDOW:
        audio = audio.repeat(-(-WINDOW // len(audio)))[:WINDOW]
    total, heard = 0.0, 0
    for part in audio.unfold(0, WINDOW, HOP).split(AT_ONCE) if len(audio) else ():
        part = part[part.abs().amax(1) > SILENT]  # copied here: a long file is not, as a whole
        if len(part):
            total += float(odds(model(part)).sum())
            heard += len(part)
    return total / heard if heard else float("nan")


def odds(logits: Tensor) -> Tensor:
    """Logits (B, 3) to the log-odds (B,) of "ours" against both others."""
    return logits[:, 2] - logits[:, :2].logsumexp(1)
