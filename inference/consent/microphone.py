"""Recording from the microphone for consent sessions (the extra `mic`: sounddevice)."""

from pathlib import Path

import torch

from sayso.model.audio import write_audio
from sayso.model.errors import InputError

RATE = 48_000
SUFFIXES = ".wav", ".flac"
LONGEST = 600.0  # seconds


def record(path: Path, seconds: float) -> None:
    """Record mono audio for a fixed time into a WAV or FLAC file; blocks meanwhile.

    Raises:
        InputError: sounddevice or PortAudio is missing, there is no microphone to read, the name
            has another suffix, or nobody listens for so long.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{path}: the suffix must be one of {', '.join(SUFFIXES)}")
    if not 0 < seconds <= LONGEST:
        raise InputError(f"{seconds:g} s: record up to {LONGEST:g} s")
    try:
        import sounddevice
    except ImportError:
        raise InputError("sounddevice is missing: pip install 'sayso[mic]'.") from None
    except OSError as error:  # the Python part is there, the library is not
        raise InputError(f"{error}: install PortAudio (Debian: libportaudio2).") from None
    try:
        audio = sounddevice.rec(int(seconds * RATE), RATE, channels=1, dtype="float32")
        sounddevice.wait()
    except sounddevice.PortAudioError as error:
        raise InputError(f"The microphone cannot be read ({error}): give a file instead.") from None
    write_audio(path, torch.from_numpy(audio[:, 0].copy()), RATE)
