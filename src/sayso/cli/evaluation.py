"""`sayso evaluate`: how well models speak, as VALL-E 2 measures it."""

from pathlib import Path
from typing import Annotated

import typer

from .files import say, say_json
from .options import Device, Precision
from .training import parse_pairs

app = typer.Typer()
evaluate = typer.Typer(help="Speak a protocol, judge it, and write tables and a page.")
app.add_typer(evaluate, name="evaluate")


@evaluate.callback(invoke_without_command=True)
def run(
    context: typer.Context,
    protocol: Annotated[
        str, typer.Option(help="librispeech-prefix, -reference, vctk-3, -5, -10, folder or hard.")
    ] = "hard",
    out: Annotated[Path, typer.Option(help="Folder to fill; one that was stopped goes on.")] = Path(
        "evaluation"
    ),
    model: Annotated[
        list[str] | None,
        typer.Option(help="NAME=FOLDER, repeatable; the bundled model by default."),
    ] = None,
    files: Annotated[
        list[str] | None, typer.Option(help="NAME=FOLDER of another system's speech, ID.wav each.")
    ] = None,
    root: Annotated[Path | None, typer.Option(help="The unpacked corpus.")] = None,
    trials: Annotated[
        Path | None, typer.Option("--list", help="For folder: a TSV, or F5-TTS's .lst.")
    ] = None,
    corpus: Annotated[
        str, typer.Option(help="For folder: whose recordings the prompts are, such as LibriSpeech.")
    ] = "",
    voice: Annotated[
        list[str] | None, typer.Option(help="For hard: voices of the store; nobody by default.")
    ] = None,
    purpose: Annotated[str, typer.Option(help="What enrolled voices' receipts must allow.")] = (
        "benchmark"
    ),
    takes: Annotated[
        int, typer.Option(help="Samples of each sentence; the paper has 1 and 5.")
    ] = 1,
    baseline: Annotated[
        bool, typer.Option(help="A row with VALL-E's random sampling, too.")
    ] = False,
    ablations: Annotated[
        bool,
        typer.Option(help="Rows without AR prompt, NAR prompt, NAR text (Table 3)."),
    ] = False,
    most: Annotated[int | None, typer.Option(help="Only so many trials, evenly chosen.")] = None,
    seed: Annotated[int, typer.Option(help="Of the random draws.")] = 0,
    whisper: Annotated[
        str, typer.Option(help="Recogniser: tiny.en, or a size or folder for faster-whisper.")
    ] = "tiny.en",
    speakers: Annotated[
        Path | None,
        typer.Option(
            help="Folder of a WavLM with x-vectors, or UniSpeech's file; else Resemblyzer."
        ),
    ] = None,
    judge: Annotated[
        list[Path] | None,
        typer.Option(help="A Python file with a judge of your own; runs it. docs/evaluation.md."),
    ] = None,
    bar: Annotated[
        float | None, typer.Option(help="SIM from which Eq. 23 asks for words; .65, WavLM .3.")
    ] = None,
    shard: Annotated[str, typer.Option(help="i/n: this process's part; torchrun's is known.")] = "",
    device: Device = "auto",
    precision: Precision = "fp32",
) -> None:
    """Speak a protocol through the gate, judge it, and write the figures into a folder."""
    if context.invoked_subcommand is not None:
        return
    from sayso.evaluation.metrics import Panel, judge_of, replaced, usual_metrics
    from sayso.evaluation.protocols import make_list
    from sayso.evaluation.report import write_report
    from sayso.evaluation.run import Plan, Run, shard_of, take_own_gpu
    from sayso.evaluation.speakers import speaker_encoder
    from sayso.inference.ranking import ENOUGH
    from sayso.inference.recognisers import load_ears
    from sayso.inference.store.store import Store
    from sayso.model.bundle import BUNDLED

    part, of = shard_of(shard)
    take_own_gpu()
    chosen = make_list(protocol, root, trials, voice or ["nobody"], most)
    known = {"librispeech": "LibriSpeech", "vctk": "VCTK"}
    plan = Plan(
        protocol=protocol,
        trials=chosen,
        root=(root / "test-clean" if root and (root / "test-clean").is_dir() else root) or Path(),
        models={n: Path(p) for n, p in parse_pairs("--model", model).items()}
        if model
        else {}
        if files
        else {"mini": BUNDLED},
        files={name: Path(path) for name, path in parse_pairs("--files", files or []).items()},
        corpus=known.get(protocol.split("-")[0], corpus),
        purpose=purpose,
        takes=takes,
        seed=seed,
        baseline=baseline,
        ablations=ablations,
        bar=bar if bar is not None else ENOUGH if speakers is None else 0.3,
        device=device,
        precision=precision,
    )
    with Store.open() as store:
        likeness = None if speakers is None else speaker_encoder(speakers)
        usual = usual_metrics(load_ears(), whisper, likeness)
        panel = Panel(replaced(usual, [judge_of(file) for file in judge or []]), out / "cache")
        going = Run(plan, out, panel, store)
        for line in going.work(part, of):
            say(line)
        found = going.results()
    if found is not None:
        write_report(found, out, plan.root)
        say(f"{out / 'index.html'}: {len(found['trials'])} trials of {protocol}; report.md beside")
    else:
        say(f"{out}: this part is done, others are missing: run it again when they are there")


@evaluate.command()
def kit(
    run: Annotated[Path, typer.Argument(help="Folder of a run that is done.")],
    out: Annotated[Path, typer.Option(help="Folder to hand out; OUT.key.json stays at home.")],
    rows: Annotated[
        tuple[str, str], typer.Option(help="Two rows: the second is compared with the first.")
    ],
    root: Annotated[Path, typer.Option(help="The corpus of the run's recordings.")] = Path(),
    most: Annotated[int, typer.Option(help="Pairs of each kind.")] = 20,
) -> None:
    """Make a listening test, CMOS and SMOS, that opens from the disk."""
    from sayso.evaluation.kit import make_kit

    key = make_kit(run, rows, out, root, most)
    say(f"{out / 'index.html'}: hand out the folder, and each rater a number from 0; key: {key}")


@evaluate.command()
def answers(
    key: Annotated[Path, typer.Argument(help="The kit's key.")],
    files: Annotated[list[Path], typer.Argument(help="What raters sent.", metavar="FILES...")],
) -> None:
    """Say what raters' answers to a kit mean, with intervals over raters and items."""
    from sayso.evaluation.kit import analyse, read_answers

    say_json(analyse(read_answers(key), [read_answers(each) for each in files]))
