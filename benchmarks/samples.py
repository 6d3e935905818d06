"""The audio samples in docs/samples: `python -m benchmarks.samples --corpora ../shared/corpora`.

Spoken by the bundled model through the gate, marked like everything else, first try, seed 0. The
store they come from is thrown away; its root certificate stays beside them, so that `sayso detect
docs/samples --root docs/samples/root.pem` finds them trusted. `--before kathleen.wav`, what a model
of before said of the same, draws docs/mini.png: the recording, before, now.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks.speak import SENTENCES, enrol, kept_out, short_sentences
from sayso.inference.provenance.certificates import export_ca
from sayso.inference.store.store import Store
from sayso.inference.synthesizer import Synthesizer
from sayso.model.audio import read_audio
from sayso.model.codecs.voice_edit import Alteration

OUT = Path(__file__).resolve().parents[1] / "docs" / "samples"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpora", type=Path, default=Path("../shared/corpora"))
    parser.add_argument("--before", type=Path, help="To be compared in docs/mini.png.")
    given = parser.parse_args()
    corpora = given.corpora
    torch.set_num_threads(1)
    OUT.mkdir(parents=True, exist_ok=True)
    said: list[tuple[str, str, str]] = []
    with tempfile.TemporaryDirectory() as folder, Store.open(Path(folder) / "home") as store:
        speaker = Synthesizer(store=store)

        def say(name: str, text: str, voice: str, **more) -> None:
            speaker.speak(text, voice, OUT / f"{name}.wav", purpose="benchmark", seed=0, **more)
            said.append((name, voice, text))

        own = SENTENCES.read_text().splitlines()
        say("nobody-1", own[0], "nobody")
        say("nobody-2", own[1], "nobody")
        say("nobody-lower", own[1], "nobody", alteration=Alteration(pitch=-4.0, formant=0.9))
        say("nobody-best-of-5", own[1], "nobody", samples=5)
        prompt, target = kept_out("kathleen", corpora / "kathleen")[:2]
        enrol(speaker, "kathleen", "Kathleen", prompt, [target.text])
        say("kathleen", target.text, "kathleen")
        readers = kept_out("librispeech-clips", corpora / "librispeech-clips")
        text = short_sentences(readers[1:])[0][1]
        enrol(speaker, "reader", "LibriSpeech", readers[0], [text])
        say(f"reader-{readers[0].speaker}", text, "reader")
        export_ca(store.home / "ca", OUT / "root.pem")
    if given.before is not None:
        files = {"recording": target.path, "before": given.before, "now": OUT / "kathleen.wav"}
        draw(files, OUT.parent / "mini.png")
    rows = "".join(f"| [{n}.wav]({n}.wav) | {v} | {t} |\n" for n, v, t in said)
    (OUT / "README.md").write_text(HEAD + rows)
    print(rows)


def draw(files: dict[str, Path], out: Path) -> None:
    """Spectrograms, one below the other, of the same sentence."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 7), layout="constrained")
    places = figure.subplots(len(files), sharex=True)
    for axes, (name, file) in zip(places, files.items(), strict=True):
        audio = read_audio(file, 24_000)[0].numpy()
        audio = audio / np.abs(audio).max() + 1e-6
        axes.specgram(audio, NFFT=512, Fs=24_000, noverlap=384, vmin=-130, vmax=-40)
        axes.set(ylabel=f"{name}, Hz", ylim=(0, 8000))
    axes.set(xlabel="seconds")
    figure.savefig(out, dpi=80)


HEAD = """# Samples
Made by `python -m benchmarks.samples`: what the bundled model said at the first try (seed 0), each
file with its watermark
and its C2PA manifest. See for yourself: `sayso detect docs/samples --root docs/samples/root.pem`.

| file | voice | text |
|---|---|---|
"""

if __name__ == "__main__":
    main()
