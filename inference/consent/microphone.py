"""Recording from the microphone for consent sessions (the extra `mic`: sounddevice)."""

from pathlib import Path

import torch

from sayso.model.audio import write_audio
from sayso.model.errors import InputError

RATE = 48_000


def record(path: Path, seconds: float) -> None:
    """Record mono audio for a fixed time into a WAV or FLAC file; blocks meanwhile.

    Raises:
        InputError: sounddevice or PortAudio is missing, or there is no microphone to read.
    """
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
