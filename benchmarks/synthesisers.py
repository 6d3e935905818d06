"""Other programs that speak: flite, espeak-ng and festival, Debian's packages of these names."""

import subprocess
import tempfile
from pathlib import Path

import numpy as np

from sayso.model.audio import read_audio

FESTIVAL = ("text2wave", "-o", "OUT", "FILE")


def flite(voice: str) -> tuple[str, ...]:
    """The command that says TEXT in a voice into the file OUT."""
    return "flite", "-voice", voice, "-t", "TEXT", "-o", "OUT"


def espeak(voice: str, *flags: str) -> tuple[str, ...]:
    """The same of espeak-ng, with further flags."""
    return "espeak-ng", *flags, "-v", voice, "-w", "OUT", "--", "TEXT"


def say(command: tuple[str, ...], text: str, rate: int) -> np.ndarray:
    """What a program says: (samples,) float32 at a rate in Hz.

    Args:
        command: In it OUT stands for the file to write, TEXT and FILE for the text or a file of it.
    """
    with tempfile.TemporaryDirectory() as folder:
        file, out = Path(folder) / "text", Path(folder) / "out.wav"
        file.write_text(text)
        words = {"OUT": str(out), "TEXT": text, "FILE": str(file)}
        run = [words.get(word, word) for word in command]
        subprocess.run(run, check=True, stdin=subprocess.DEVNULL, capture_output=True)
        return read_audio(out, rate)[0].numpy()
