"""`sayso speak | demo | detect`: sound out, and what is marked."""

from collections.abc import Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .files import say
from .options import Compiled, Device, Model, Precision

if TYPE_CHECKING:
    from sayso.inference.synthesizer import Chunk

app = typer.Typer()

# Each verb imports what it needs: `sayso --help` must not wait for torch.


@app.command()
def speak(
    voice: Annotated[str, typer.Option(help="Id of an enrolled voice; `nobody` is bundled.")],
    out: Annotated[
        Path,
        typer.Option(help="File (.wav, .flac, .mp3, .ogg, .opus); with --file a folder."),
    ],
    text: Annotated[str | None, typer.Option(help="What to say.")] = None,
    file: Annotated[
        Path | None, typer.Option(help="A long text, .txt, .md or .epub: a file for each chapter.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with --file where it was interrupted.")
    ] = False,
    whole: Annotated[
        str, typer.Option(help="m4b or ogg: with --file, one file of all chapters, too (ffmpeg).")
    ] = "",
    purpose: Annotated[str, typer.Option(help="What for; the receipt must allow it.")] = "research",
    user: Annotated[str | None, typer.Option(help="Who asks; the login name by default.")] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of the random draws; by default a fresh one.")
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option(help="Probability mass of nucleus sampling, 0 to 1; by default the model's."),
    ] = None,
    speed: Annotated[float, typer.Option(help="Twice as fast at 2.")] = 1.0,
    pitch: Annotated[float, typer.Option(help="Semitones up; the receipt must allow it.")] = 0.0,
    formant: Annotated[
        float, typer.Option(help="Resonances times this: apparent size; the receipt must allow it.")
    ] = 1.0,
    samples: Annotated[
        int, typer.Option(help="Samples of each sentence; the best is kept (extra: enrol).")
    ] = 1,
    lexicon: Annotated[
        Path | None, typer.Option(help="Own words: each a line, word, tab, IPA or ARPAbet.")
    ] = None,
    model: Model = None,
    device: Device = "auto",
    precision: Precision = "fp32",
    compiled: Compiled = False,
    stream: Annotated[
        bool,
        typer.Option("--stream", help="Write each sentence when it is said; --out .wav or -."),
    ] = False,
) -> None:
    """Say a text in an enrolled voice, into a marked file."""
    from dataclasses import replace

    from sayso.inference.memory import hold_little
    from sayso.inference.synthesizer import Synthesizer
    from sayso.model.bundle import BUNDLED
    from sayso.model.codecs.voice_edit import Alteration
    from sayso.model.errors import InputError
    from sayso.model.text.markup import read_lexicon, respell

    if (text is None) == (file is None) or ((resume or whole) and not file) or (stream and file):
        raise InputError(
            "Give --text or --file; --resume and --whole go with --file, --stream with --text."
        )
    text = text if file is None else read_text(file)
    assert text is not None
    if file is not None:
        hold_little()
    text = text if lexicon is None else respell(text, read_lexicon(lexicon))
    alteration = Alteration(speed, pitch, formant)
    synthesizer = Synthesizer(
        model or BUNDLED, device=device, precision=precision, compiled=compiled
    )
    for note in synthesizer.gate.notes:
        say(note, error=True)
    sampling = synthesizer.bundle.sampling
    if top_p is not None:  # of what the model's card says this changes nothing else
        try:
            sampling = replace(sampling, top_p=top_p)
        except ValueError as error:
            raise InputError(f"--top-p: {error}") from None
    if file is not None:
        from rich.console import Console
        from rich.progress import Progress

        from sayso.inference.book import read_out

        manner = synthesizer.manner(seed, sampling, alteration, samples)
        with Progress(console=Console(stderr=True)) as progress:
            task = progress.add_task("", total=None)

            def report(said: int, all: int) -> None:
                progress.update(task, completed=said, total=all)

            read = read_out(
                *(synthesizer, text, voice, out, purpose, user, manner, resume, report),
                f".{whole.lstrip('.')}" if whole else "",
            )
        return say(f"{out}: {len(read)} files, each marked and signed, .srt and .vtt beside it")
    if stream:
        sent = synthesizer.stream(
            text, voice, purpose, user, seed, sampling, alteration, samples, out.name
        )
        return say(write_stream(sent, out, synthesizer.store.home), error=True)
    spoken = synthesizer.speak(text, voice, out, purpose, user, seed, sampling, alteration, samples)
    say(
        f"{spoken.path}: {spoken.seconds:.2f} s, watermark found ({spoken.watermark_score:.2f}), "
        f"C2PA signed, ledger {spoken.ledger_id}, seed {spoken.seed}"
    )


def read_text(path: Path) -> str:
    """The text of a file; InputError if it is not UTF-8, no whole EPUB, or too long."""
    from sayso.inference.permission import MAX_TEXT
    from sayso.model.errors import InputError
    from sayso.model.files import read_regular
    from sayso.model.text.epub import read_epub

    if path.suffix.lower() == ".epub":
        return read_epub(path)
    if path.suffix.lower() not in (".txt", ".md"):
        raise InputError(f"--file {path}: give .txt, .md or .epub.")
    try:
        return read_regular(path, 4 * MAX_TEXT).decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError:
        raise InputError(f"--file {path} is not UTF-8: save it as UTF-8.") from None


def write_stream(sent: "Iterator[Chunk]", out: Path, home: Path) -> str:
    """Write a stream as it comes, to a new .wav file or, with "-", to standard output.

    Returns:
        What to tell about it.

    Raises:
        InputError: `out` is neither, is there already, or cannot be written.
    """
    import os
    import sys

    from sayso.inference.provenance.c2pa import kept_path, sidecar_of
    from sayso.inference.store.releases import check_destination
    from sayso.model.audio import wav_header
    from sayso.model.errors import InputError
    from sayso.model.files import check_outside, replace_file

    pipe = str(out) == "-"
    if not pipe:
        if out.suffix.lower() != ".wav" or out.exists():
            raise InputError(f"--out {out}: a stream goes into a new .wav file, or to - (a pipe).")
        check_destination(out)
        check_outside(home, out)
    chunk = next(sent)  # refusals come before there is a file
    try:
        with nullcontext(sys.stdout.buffer) if pipe else out.open("xb") as file:
            file.write(wav_header(chunk.sample_rate))
            while not chunk.manifest:
                file.write(chunk.pcm)
                file.flush()
                chunk = next(sent)
            if not pipe:
                os.fsync(file.fileno())
        beside = kept_path(home, chunk.ledger_id) if pipe else sidecar_of(out)
        if not pipe:
            replace_file(beside, chunk.manifest, 0o644)
    except OSError as error:
        sent.close()  # type: ignore[attr-defined]
        raise InputError(
            f"{out} cannot be written ({error.strerror}): the stream was cut."
        ) from None
    return (
        f"{out}: {chunk.start:.2f} s streamed, each sentence marked, C2PA manifest in {beside}, "
        f"ledger {chunk.ledger_id}, seed {chunk.seed}"
    )


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the WAV and the picture.")] = Path("demo"),
) -> None:
    """Speak with the bundled model, find both marks, and be refused."""
    from sayso.demo import run

    run(out)


@app.command()
def detect(
    paths: Annotated[
        list[Path], typer.Argument(help="Audio files or folders.", metavar="FILES...")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False,
    root: Annotated[
        Path | None, typer.Option(help="Root certificate to trust; this machine's by default.")
    ] = None,
    pictures: Annotated[
        Path | None, typer.Option(help="Folder for spectrograms with the marked stretches.")
    ] = None,
) -> None:
    """Say what marks files carry. Exits 0: all marked, 4: one not for sure, 5: one unreadable."""
    from sayso.inference.detection import report
    from sayso.inference.errors import StoreError
    from sayso.inference.store.home import default_home
    from sayso.model.errors import InputError

    if root is not None and not (root.is_file() or (root / "ca").is_dir()):
        raise InputError(f"--root {root} is no certificate and no store that has one: give one.")
    store = root
    if root is None:
        with suppress(StoreError):  # who has no home has no store, and may look all the same
            store = home if (home := default_home()).is_dir() else None
    raise typer.Exit(report.run(paths, store, as_json, pictures))
