"""What the samples of a recording tell: how much speech, cuts, and whether it was heard before.

Audio is (samples,) float32 at 16 kHz throughout. The fingerprint is Wang's (ISMIR 2003): pairs of
spectral peaks; it knows the same recording again after MP3, noise or a cut, and tells no voices
apart. Speech is told from other sound by WebRTC's voice activity detector.
"""

import base64
import math

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter, maximum_filter1d
from scipy.signal import butter, sosfiltfilt, stft

from sayso.model.errors import InputError

RATE = 16_000
Audio = NDArray[np.float32]
FRAME = RATE * 30 // 1000
AROUND = RATE // 2
RUMBLE = 50.0  # Hz; no voice is below
LOUD = 0.1
NEAR, FAR = 10, 200  # samples on each side of a click, not and still looked at
QUIETEST = 1e-5  # a third of a step of 16-bit audio: quieter frames are silence


def prepared(audio: Audio) -> Audio:
    """Without offset and rumble, its loud frames at `LOUD`: what every check but the cuts' gets.

    An offset makes pauses as loud as speech, and a second voice hides in them.
    """
    if len(audio) < FRAME:
        return audio
    filtered = sosfiltfilt(butter(2, RUMBLE, "highpass", fs=RATE, output="sos"), audio)
    return (filtered * gain(filtered)).astype(np.float32)


def gain(audio: Audio) -> float:
    """What brings the loud frames of a recording to `LOUD`."""
    loud = np.percentile(np.square(_frames(audio)).mean(axis=1), 95) if len(audio) >= FRAME else 0.0
    return LOUD / max(math.sqrt(loud), QUIETEST)


def speech_band(audio: Audio) -> Audio:
    """What a telephone passes: hum and hiss outside of it hide no voice."""
    return sosfiltfilt(butter(4, (300, 3400), "bandpass", fs=RATE, output="sos"), audio)


def _frames(audio: Audio) -> Audio:
    """(frames, `FRAME`): whole frames of 30 ms."""
    return audio[: len(audio) // FRAME * FRAME].reshape(-1, FRAME)


def speech_seconds(audio: Audio) -> float:
    """Seconds that the strictest setting of WebRTC's detector takes for speech.

    InputError without the detector (`enrol` extra).
    """
    return 0.03 * sum(_speech(audio, 3))


def speech_span(audio: Audio) -> tuple[int, int]:
    """First sample and the one behind the last of what may be speech, with `AROUND` on both sides.

    Recognisers hear words in long silence, and a prompt should not be one.
    """
    found = np.flatnonzero(_speech(audio, 1))
    if not len(found):
        return 0, len(audio)
    start, stop = found[0] * FRAME - AROUND, (found[-1] + 1) * FRAME + AROUND
    return max(0, int(start)), min(len(audio), int(stop))


def _speech(audio: Audio, strictness: int) -> list[bool]:
    """For each frame, whether WebRTC's detector takes it for speech."""
    try:
        import webrtcvad  # imported late: it comes with the extra
    except ImportError as error:
        raise InputError(f"{error.name} is missing: pip install 'sayso[enrol]'.") from None
    detector = webrtcvad.Vad(strictness)
    pcm = (np.clip(_frames(audio), -1, 1) * 32767).astype("<i2")
    return [detector.is_speech(frame.tobytes(), RATE) for frame in pcm]


def unevenness(audio: Audio) -> float:
    """Standard deviation of the loudness of 30 ms frames, dB: speech comes and goes, noise stays.

    The detector above calls steady noise and tones speech; this does not.
    """
    frames = _frames(audio)
    return float(np.std(10 * np.log10(np.square(frames).mean(axis=1) + 1e-8))) if len(frames) else 0


def longest_soft(audio: Audio) -> float:
    """Seconds of the longest stretch in which nothing comes within 18 dB of the loud frames.

    That is a pause; or a second voice, so soft that a speaker encoder cuts it out as one.
    """
    if len(audio) < FRAME:
        return 0.0
    return max(_longest_soft(audio), _longest_soft(speech_band(audio)))


def _longest_soft(audio: Audio) -> float:
    level = 10 * np.log10(np.square(_frames(audio)).mean(axis=1) + 1e-10)
    loud = np.flatnonzero(level > np.percentile(level, 95) - 18)
    edges = np.concatenate([[-1], loud, [len(level)]])
    return float(np.diff(edges).max() - 1) * 0.03


def flat_milliseconds(audio: Audio) -> float:
    """The longest stretch inside the recording in which no sample differs from the next.

    Microphones never stand still that long; gaps pasted between cuttings, and noise gates, do. In
    soft recordings a step of 16 bits is a movement.
    """
    moving = np.flatnonzero(np.abs(np.diff(audio)) > 2**-15 / max(1.0, gain(audio - audio.mean())))
    return float(np.diff(moving).max(initial=0)) * 1000 / RATE


def loneliest_click(audio: Audio) -> float:
    """How far the sharpest lone step (second difference) stands out of the 12 ms around it.

    A cut without a fade leaves one; speech has pulses and bursts, but they come with neighbours.
    """
    step = np.abs(np.diff(audio, 2))
    around = maximum_filter1d(step, FAR - NEAR)
    reach = NEAR + 1 + (FAR - NEAR) // 2
    beside = np.maximum(np.roll(around, -reach), np.roll(around, reach))
    lone = step / (beside + 2**-15)
    lone[step < maximum_filter1d(step, 2 * NEAR + 1)] = 0
    return float(lone[FAR:-FAR].max(initial=0))


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
