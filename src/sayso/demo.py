"""`sayso demo`: speak, look, detect, and be refused, with what the package brings along."""

from pathlib import Path

import numpy as np

from sayso.inference.detection.detector import detect
from sayso.inference.errors import MarkError, RefusedError
from sayso.inference.synthesizer import Synthesizer
from sayso.model.audio import read_audio
from sayso.model.errors import InputError
from sayso.model.printable import printable

SENTENCE = "The speaker said so, and so I may speak."
STRANGER = "somebody"


def spectrogram(audio_file: Path, picture: Path) -> None:
    """Save a spectrogram of an audio file as PNG; InputError without matplotlib (`plot` extra)."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise InputError("the spectrogram needs matplotlib: pip install 'sayso[plot]'") from None
    rate = 24_000
    audio = read_audio(audio_file, rate)[0].numpy()
    figure = Figure(figsize=(10, 4), layout="constrained")
    axes = figure.subplots()
    axes.specgram(audio + 1e-8 * np.ones_like(audio), NFFT=1024, Fs=rate, noverlap=768, vmin=-140)
    axes.set(xlabel="seconds", ylabel="Hz", ylim=(0, 8000), title=audio_file.name)
    figure.savefig(picture, dpi=100)


def run(out: Path) -> None:
    """Write `nobody.wav` and `nobody.png` into `out`, and print what was found.

    Raises:
        MarkError: A mark is missing on the result.
        RuntimeError: A voice that nobody enrolled was not refused.
    """
    out.mkdir(parents=True, exist_ok=True)
    audio_file, picture = out / "nobody.wav", out / "nobody.png"
    synthesizer = Synthesizer()
    spoken = synthesizer.speak(SENTENCE, "nobody", audio_file, purpose="demo", user="demo")
    print(
        printable(
            f"said    {SENTENCE!r} in the voice of nobody: {audio_file}, {spoken.seconds:.2f} s"
        )
    )
    spectrogram(audio_file, picture)
    print(printable(f"drew    {picture}"))
    found = detect(audio_file, synthesizer.store.home)
    print(printable(f"found   watermark {found.score:.2f}, C2PA {found.manifest.state}"))
    if not (found.present and found.manifest.state == "trusted"):
        raise MarkError(f"{audio_file} does not carry both marks: {found.to_json()}")
    print(printable(f"        ledger id {found.manifest.ledger_id}"))
    try:
        synthesizer.speak(SENTENCE, STRANGER, out / "refused.wav", purpose="demo", user="demo")
    except RefusedError as error:
        print(printable(f"refused {STRANGER!r}: {error}"))
    else:
        raise RuntimeError("a voice without a receipt spoke")
