"""`sayso corpora | prepare | train | codec | export`: from corpora to a model folder."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sayso.inference.errors import RefusedError
from sayso.model.errors import InputError

from .files import check_out, meant, say, say_json

if TYPE_CHECKING:
    from sayso.training.held_out import HeldOut

app = typer.Typer()
corpora = typer.Typer(help="The corpora that may be trained on.", no_args_is_help=True)
train = typer.Typer(help="Train a part of a model from a recipe.", no_args_is_help=True)
codec = typer.Typer(help="Codecs that others trained.", no_args_is_help=True)
for name, group in (("corpora", corpora), ("train", train), ("codec", codec)):
    app.add_typer(group, name=name)
Roots = Annotated[list[str], typer.Option(help="NAME=FOLDER of a listed corpus; repeatable.")]
RecipeFile = Annotated[Path, typer.Option(help="Such as configs/tiny.yaml.")]
Resume = Annotated[bool, typer.Option(help="Go on from the newest checkpoint.")]
Listen = Annotated[
    bool, typer.Option("--listen", help="Marked samples of held-out prompts to TensorBoard.")
]
EvaluateEvery = Annotated[
    int | None,
    typer.Option(help="Steps between figures (WER, SIM) of 20 held-out sentences, spoken."),
]
Changes = Annotated[
    str, typer.Option("--set", help="Other settings for this run: '{ar.train.steps: 1000}'.")
]
HeldOutUtterances = Annotated[
    list[str] | None, typer.Option(help="NAME=N: one utterance in N is kept out; else 47.")
]
HeldOutSpeakers = Annotated[
    list[str] | None,
    typer.Option(help="NAME=N: one speaker in N is kept out, as in the recipe."),
]


@corpora.command("list")
def corpora_list() -> None:
    """List the corpora that may be used, and those that were refused."""
    from sayso.model.corpora import read_list

    allowed, refused = read_list()
    for corpus in allowed.values():
        say(f"{corpus.name}: {corpus.licence}; {', '.join(corpus.uses)}; {corpus.url}")
    for name, entry in refused.items():
        say(f"{name}: refused: {entry.reason}")


@corpora.command("show")
def corpora_show(corpus: Annotated[str, typer.Argument(help="Name of a corpus.")]) -> None:
    """Show one corpus: licence, basis, attribution and uses."""
    from dataclasses import asdict

    from sayso.model.corpora import read_list

    allowed, refused = read_list()
    found = allowed.get(corpus) or refused.get(corpus)
    if found is None:
        near = meant(corpus, [*allowed, *refused])
        raise RefusedError("corpus-unknown", f"{corpus!r} is not on the list of corpora.{near}")
    say_json(asdict(found))


@corpora.command("check")
def corpora_check(
    folder: Annotated[
        Path, typer.Argument(help="A token folder, a run with a card, or a corpus as published.")
    ],
    corpus: Annotated[
        str | None, typer.Option(help="The folder holds this corpus: its archives, or unpacked.")
    ] = None,
) -> None:
    """Check token files, weights or a corpus against the list of corpora and their hashes."""
    from sayso.training import commands

    commands.check(folder, corpus)


@app.command()
def prepare(
    corpus: Annotated[str, typer.Option(help="Name of the corpus, as on the list.")],
    root: Annotated[Path, typer.Option(help="The unpacked corpus.")],
    recipe: Annotated[
        Path | None, typer.Option(help="Such as configs/tiny.yaml; else configs/CORPUS.yaml.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Token folder; the recipe's.")] = None,
    limit: Annotated[int | None, typer.Option(help="Only so many, of whole speakers.")] = None,
    processes: Annotated[int, typer.Option(help="Processes on this machine.")] = 1,
    device: Annotated[str, typer.Option(help="Where the codec runs: cpu, cuda or auto.")] = "auto",
) -> None:
    """Make the token files of one corpus."""
    from sayso.training import commands

    if out is not None:
        check_out(out)
    commands.prepare(corpus, root, recipe, out, limit, processes, device)


@train.command("codec")
def train_codec(
    out: Annotated[Path, typer.Option(help="Folder for the codec.")],
    root: Annotated[
        list[str] | None, typer.Option(help="NAME=FOLDER of a listed corpus; repeatable.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="Train an EnCodec: configs/codec-mini.yaml.")
    ] = None,
    kind: Annotated[
        str, typer.Option(help="What is fitted without a config: world or fargan.")
    ] = "world",
    codebooks: Annotated[int, typer.Option(help="K, of a fitted codec.")] = 8,
    held_out: HeldOutUtterances = None,
    held_out_speakers: HeldOutSpeakers = None,
) -> None:
    """Make a codec from corpora, without their held-out utterances: WORLD, FARGAN, an EnCodec."""
    from sayso.training.fitting.codec import fit_codec

    check_out(out)
    if not root:
        raise InputError(
            "a codec is made from corpora: give --root NAME=FOLDER (or see: sayso codec published)"
        )
    if config is not None:
        from sayso.training.fitting.encodec import read_codec_recipe, train_codec

        made = train_codec(read_codec_recipe(config), parse_roots(root), out)
        say(f"{out}: {made.codebooks} x {made.codebook_size}, identity {made.identity}")
        return
    roots = parse_roots(root)
    rule = parse_rule(roots, held_out, held_out_speakers)
    codec = fit_codec(kind, roots, out, rule, codebooks, say)
    say(f"{out}: {codec.codebooks} x {codec.codebook_size}, identity {codec.identity}")


@codec.command("published")
def codec_published(
    out: Annotated[Path, typer.Option(help="Folder for the codec.")],
    decoder: Annotated[str, typer.Option(help="What makes sound of codes: encodec or vocos.")],
) -> None:
    """Load Meta's EnCodec (24 kHz, 6 kbit/s) from where it is published, as the paper uses it."""
    from sayso.model.codecs.encodec import published_codec

    check_out(out)
    made = published_codec(out, decoder)
    say(f"{out}: {made.codebooks} x {made.codebook_size}, identity {made.identity}")


@train.command("timbre")
def train_timbre(
    out: Annotated[Path, typer.Option(help="Folder for it.")],
    root: Roots,
    pivot: Annotated[str, typer.Option(help="NAME of one, of one speaker the model knows well.")],
    share: Annotated[float, typer.Option(help="Of that voice in how the model speaks.")] = 0.5,
    codebooks: Annotated[int, typer.Option(help="K, of the model's codec.")] = 4,
    held_out: HeldOutUtterances = None,
    held_out_speakers: HeldOutSpeakers = None,
) -> None:
    """Fit what takes a prompt's timbre off for the model, and puts it on its speech (WORLD); and
    the codec of speech without it."""
    from sayso.training.fitting.timbre import fit_timbres

    check_out(out)
    roots = parse_roots(root)
    rule = parse_rule(roots, held_out, held_out_speakers)
    model = fit_timbres(roots, out, pivot, share, rule, codebooks=codebooks, report=say)
    say(f"{out}: 2 x {model.config.classes} classes of sounds; {codebooks} codebooks")


@train.command("decoder")
def train_decoder(
    out: Annotated[Path, typer.Option(help="Folder for it: decoder/ in the timbre's.")],
    model: Annotated[Path, typer.Option(help="A run with its timbre, or a model folder.")],
    root: Roots,
    config: Annotated[Path, typer.Option(help="Such as configs/mini/decoder.yaml.")],
    held_out: HeldOutUtterances = None,
    held_out_speakers: HeldOutSpeakers = None,
) -> None:
    """Learn to make sound of a model's codes (FARGAN), for a model that has a timbre."""
    from sayso.training.fitting.decoder import fit_decoder
    from sayso.training.fitting.decoder_recipe import read_decoder_recipe

    roots = parse_roots(root)
    rule = parse_rule(roots, held_out, held_out_speakers)
    made = fit_decoder(read_decoder_recipe(config), model, roots, out, rule, say)
    say(f"{out}: identity {made.identity}")


@train.command("text")
def train_text(
    out: Annotated[Path, typer.Option(help="Folder for the tokenizer.")],
    root: Annotated[
        list[str] | None, typer.Option(help="NAME=FOLDER to fit BPE to; none for phonemes.")
    ] = None,
    size: Annotated[int, typer.Option(help="BPE vocabulary.")] = 2000,
) -> None:
    """Make a tokenizer: phonemes, or BPE fitted to the transcripts of corpora."""
    from sayso.model.text.tokenizers import Phonemes
    from sayso.training.fitting.bpe import fit_text

    check_out(out)
    tokenizer = fit_text(parse_roots(root), size) if root else Phonemes()
    tokenizer.save(out)
    say(f"{out}: {tokenizer.kind}, {tokenizer.size} entries, identity {tokenizer.identity}")


@train.command("ar", help="Train the AR model of a recipe.")
@train.command("nar", help="Train the NAR model of a recipe.")
def train_model(
    context: typer.Context,
    recipe: RecipeFile,
    resume: Resume = True,
    listen: Listen = False,
    evaluate_every: EvaluateEvery = None,
    changes: Changes = "{}",
) -> None:
    """Train a model of a recipe with its changes, heard and judged if that was asked for."""
    from sayso.listen import judger, listener
    from sayso.training.recipe import parse_overrides, read_recipe
    from sayso.training.train import Watch, train_ar, train_nar

    if evaluate_every is not None and evaluate_every < 1:
        raise InputError(f"--evaluate-every {evaluate_every}: give at least 1 step")
    settings, part = read_recipe(recipe, parse_overrides(changes)), context.info_name or ""
    judge = judger(settings, part) if evaluate_every is not None else None
    watch = Watch(listener(settings) if listen else None, judge, evaluate_every or 1)
    {"ar": train_ar, "nar": train_nar}[part](settings, resume, watch=watch)


@train.command("doctor")
def train_doctor(
    recipe: Annotated[Path, typer.Argument(help="Such as configs/tiny.yaml.")],
    changes: Changes = "{}",
) -> None:
    """Check a recipe, its files and this machine, and say what training will cost."""
    from sayso.training.doctor import examine
    from sayso.training.recipe import parse_overrides, read_recipe

    found = list(examine(read_recipe(recipe, parse_overrides(changes))))
    for each in found:
        say(f"{'ok     ' if each.good else 'PROBLEM'} {each.text}")
    raise typer.Exit(0 if all(each.good for each in found) else 1)


@train.command("report")
def train_report(
    run: Annotated[Path, typer.Argument(help="A training run, finished or not.")],
) -> None:
    """Make one page of a run, RUN/report.html: curves, figures, and samples to hear."""
    from sayso.evaluation.curves import write_page

    say(f"{write_page(run)}: open it in a browser")


@train.command("share")
def train_share(
    run: Annotated[Path, typer.Option(help="Run whose NAR is missing.")],
    nar_of: Annotated[Path, typer.Option(help="Run that trained one.")],
) -> None:
    """Give a run the NAR of another: one NAR serves an AR of any group size."""
    from sayso.training.card import share

    share(run, nar_of)
    say(f"{run / 'nar'}: from {nar_of}")


def parse_roots(pairs: list[str]) -> dict[str, Path]:
    """Corpus names and folders out of NAME=FOLDER."""
    return {name: Path(folder) for name, folder in parse_pairs("--root", pairs).items()}


def parse_rule(
    roots: dict[str, Path], utterances: list[str] | None, speakers: list[str] | None
) -> "HeldOut":
    """What is kept out of a fit; one utterance in 47 of corpora that neither list names."""
    from sayso.training.fitting.residual import usual_rule
    from sayso.training.held_out import HeldOut

    by_speaker = parse_numbers("--held-out-speakers", speakers or [])
    usual = usual_rule(name for name in roots if name not in by_speaker).utterances
    return HeldOut(by_speaker, usual | parse_numbers("--held-out", utterances or []))


def parse_numbers(option: str, pairs: list[str]) -> dict[str, int]:
    """NAME=N, with whole numbers from 1; InputError."""
    every = parse_pairs(option, pairs)
    bad = [f"{name}={n}" for name, n in every.items() if not n.isdigit() or int(n) < 1]
    if bad:
        raise InputError(f"{option} {bad[0]!r}: one in N, such as kathleen=47")
    return {name: int(n) for name, n in every.items()}


def parse_pairs(option: str, pairs: list[str]) -> dict[str, str]:
    """Names and values out of NAME=VALUE; InputError."""
    bad = [pair for pair in pairs if "=" not in pair]
    if bad:
        example = "kathleen=47" if option.startswith("--held-out") else "kathleen=/data/kathleen"
        raise InputError(f"{option} {bad[0]!r}: write NAME=VALUE, such as {example}")
    return dict(pair.split("=", 1) for pair in pairs)


@app.command("export")
def export_run(
    run: Annotated[Path, typer.Argument(help="A training run: text/, codec/, ar/, nar/, a card.")],
    out: Annotated[Path, typer.Argument(help="Model folder to make.")],
    top_p: Annotated[float, typer.Option(help="Nucleus of its sampling.")] = 0.8,
    threshold: Annotated[float, typer.Option(help="Algorithm 1's t_r.")] = 0.1,
    stay: Annotated[float | None, typer.Option(help="Of models with alignment.")] = None,
    guidance: Annotated[float, typer.Option(help="Of models with alignment.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Of nobody's voice: each gives another.")] = 0,
    nobody_pitch: Annotated[float, typer.Option(help="Semitones, away from the speakers.")] = 0.0,
    nobody_formant: Annotated[float, typer.Option(help="Factor on its resonances.")] = 1.0,
) -> None:
    """Make a model folder for `sayso speak --model` out of a run, with the voice `nobody`."""
    from sayso.export import export
    from sayso.model.codecs.voice_edit import Alteration

    check_out(out.parent)
    nobody = Alteration(pitch=nobody_pitch, formant=nobody_formant)
    export(run, out, top_p, threshold, stay, guidance, seed, None if nobody.neutral else nobody)
