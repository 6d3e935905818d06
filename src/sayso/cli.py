"""The command line: `sayso VERB`. Each verb is one typed function that calls one of the library.

A refusal prints one line and exits 3, any other known error 1, wrong usage 2.
"""

import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from sayso.model.errors import RefusedError, SaysoError

app = typer.Typer(help="VALL-E 2 that speaks only on the speaker's say-so.", no_args_is_help=True)
enrol = typer.Typer(help="Ask a person for their consent, and check it.", no_args_is_help=True)
receipt = typer.Typer(help="Receipts of consent.", no_args_is_help=True)
ledger = typer.Typer(
    help="The log of all that was allowed, refused and made.", no_args_is_help=True
)
ca = typer.Typer(help="The authority that signs our files.", no_args_is_help=True)
corpora = typer.Typer(help="The corpora that may be trained on.", no_args_is_help=True)
train = typer.Typer(help="Train a part of a model from a recipe.", no_args_is_help=True)
for name, group in (
    ("enrol", enrol),
    ("receipt", receipt),
    ("ledger", ledger),
    ("ca", ca),
    ("corpora", corpora),
    ("train", train),
):
    app.add_typer(group, name=name)

# Each verb imports what it needs: `sayso --help` must not wait for torch.


@app.command()
def speak(
    voice: Annotated[str, typer.Option(help="Id of an enrolled voice; `nobody` is bundled.")],
    text: Annotated[str, typer.Option(help="What to say.")],
    out: Annotated[Path, typer.Option(help="File to write: .wav, .flac or .mp3.")],
    purpose: Annotated[str, typer.Option(help="What for; the receipt must allow it.")] = "research",
    user: Annotated[str | None, typer.Option(help="Who asks; the login name by default.")] = None,
    seed: Annotated[int, typer.Option(help="Of the random draws.")] = 0,
    top_p: Annotated[
        float, typer.Option(help="Probability mass of nucleus sampling, 0 to 1.")
    ] = 0.8,
    model: Annotated[Path | None, typer.Option(help="Model folder; bundled by default.")] = None,
) -> None:
    """Say a text in an enrolled voice, into a marked file."""
    from sayso.inference.synthesizer import Synthesizer
    from sayso.model.bundle import BUNDLED
    from sayso.model.errors import InputError
    from sayso.model.sampling import Sampling

    try:
        sampling = Sampling(top_p=top_p)
    except ValueError as error:
        raise InputError(f"--top-p: {error}") from None
    synthesizer = Synthesizer(model or BUNDLED)
    spoken = synthesizer.speak(text, voice, out, purpose, user, seed, sampling)
    print(
        f"{spoken.path}: {spoken.seconds:.2f} s, watermark found ({spoken.watermark_score:.2f}), "
        f"C2PA signed, ledger {spoken.ledger_id}"
    )


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the WAV and the picture.")] = Path("demo"),
) -> None:
    """Speak with the bundled model, find both marks, and be refused."""
    from sayso.demo import run

    run(out)


@train.command("codec")
def train_codec(config: Annotated[Path, typer.Option(help="Recipe, such as configs/tiny.yaml.")]):
    """Fit the codec of a recipe."""
    raise NotImplementedError(config)


def main() -> NoReturn:
    """Entry point: known errors become one line on stderr and an exit code."""
    try:
        app()
    except RefusedError as error:
        print(f"sayso: refused: {error}", file=sys.stderr)
        sys.exit(3)
    except SaysoError as error:
        print(f"sayso: error: {error}", file=sys.stderr)
        sys.exit(1)
    sys.exit(0)


if __name__ == "__main__":
    main()
