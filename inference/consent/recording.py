"""What the samples of a recording tell: how much speech, cuts, and whether it was heard before.

Audio is (samples,) float32 at 16 kHz throughout. The fingerprint is Wang's (ISMIR 2003): pairs of
spectral peaks; it knows the same recording again after MP3, noise or a cut, and tells no voices
apart. Speech is told from other sound by WebRTC's voice activity detector.
"""

import base64

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter, maximum_filter1d
from scipy.signal import stft

from sayso.model.errors import InputError

RATE = 16_000
Audio = NDArray[np.float32]


def speech_seconds(audio: Audio) -> float:
    """Seconds that the strictest setting of WebRTC's detector takes for speech."""
    try:
        import webrtcvad  # imported late: it comes with the extra
    except ImportError as error:
        raise InputError(f"{error.name} is missing: pip install 'sayso[enrol]'.") from None
    detector, frame = webrtcvad.Vad(3), RATE * 30 // 1000
    pcm = (np.clip(audio, -1, 1) * 32767).astype("<i2")
    starts = range(0, len(pcm) - frame + 1, frame)
    return 0.03 * sum(
        detector.is_speech(pcm[start : start + frame].tobytes(), RATE) for start in starts
    )


def unevenness(audio: Audio) -> float:
    """Standard deviation of the loudness of 30 ms frames, dB: speech comes and goes, noise stays.

    The detector above calls steady noise and tones speech; this does not.
    """
    frame = RATE * 30 // 1000
    frames = audio[: len(audio) // frame * frame].reshape(-1, frame)
    return float(np.std(10 * np.log10(np.square(frames).mean(axis=1) + 1e-8))) if len(frames) else 0


def longest_soft(audio: Audio) -> float:
    """Seconds of the longest stretch in which nothing comes within 18 dB of the loud frames.

    That is a pause; or a second voice, so soft that a speaker encoder cuts it out as one.
    """
    frame = RATE * 30 // 1000
    frames = audio[: len(audio) // frame * frame].reshape(-1, frame)
    if not len(frames):
        return 0.0
    level = 10 * np.log10(np.square(frames).mean(axis=1) + 1e-10)
    loud = np.flatnonzero(level > np.percentile(level, 95) - 18)
    edges = np.concatenate([[-1], loud, [len(level)]])
    return float(np.diff(edges).max() - 1) * 0.03


def flat_milliseconds(audio: Audio) -> float:
    """The longest stretch inside the recording in which no sample differs from the next.

    Microphones never stand still that long; gaps pasted between cuttings, and noise gates, do.
    """
    moving = np.flatnonzero(np.abs(np.diff(audio)) > 2**-15)
    return float(np.diff(moving).max(initial=0)) * 1000 / RATE


def loneliest_click(audio: Audio, near: int = 10, far: int = 200) -> float:
    """How far the sharpest lone step (second difference) stands out of the 12 ms around it.

    A cut without a fade leaves one; speech has pulses and bursts, but they come with neighbours.
    """
    step = np.abs(np.diff(audio, 2))
    width = far - near
    around = maximum_filter1d(step, width)
    reach = near + 1 + width // 2
    beside = np.maximum(np.roll(around, -reach), np.roll(around, reach))
    lone = step / (beside + 2**-15)
    lone[step < maximum_filter1d(step, 2 * near + 1)] = 0
    return float(lone[far:-far].max(initial=0))


def fingerprint(audio: Audio) -> NDArray[np.uint32]:
    """Hashes of pairs of spectral peaks, sorted: about 60 a second of speech."""
    if len(audio) < RATE // 2:
        return np.zeros(0, np.uint32)
    _, _, spectrum = stft(audio, RATE, nperseg=1024, noverlap=768, padded=False)
    power = np.log(np.abs(spectrum[:256]) + 1e-6)  # up to 4 kHz: what every codec keeps
    peaks = (power == maximum_filter(power, (25, 13))) & (power > np.median(power) + 2)
    times, bins = np.nonzero(peaks.T)
    hashes = []
    for ahead in range(1, 6):  # each peak with its next five
        gap = times[ahead:] - times[:-ahead]
        near = (gap > 0) & (gap < 64)
        pair = bins[:-ahead][near] << 14 | bins[ahead:][near] << 6 | gap[near]
        hashes.append(pair.astype(np.uint32))
    return np.unique(np.concatenate(hashes))


def overlap(first: NDArray[np.uint32], second: NDArray[np.uint32]) -> float:
    """The share of the smaller fingerprint that is in the other, 0 to 1."""
    smaller = min(len(first), len(second))
    return float(len(np.intersect1d(first, second)) / smaller) if smaller else 0.0


def pack(hashes: NDArray[np.uint32]) -> str:
    """A fingerprint as text."""
    return base64.b64encode(hashes.astype("<u4").tobytes()).decode()


def unpack(text: str) -> NDArray[np.uint32]:
    """The inverse of `pack`."""
    return np.frombuffer(base64.b64decode(text), "<u4")
