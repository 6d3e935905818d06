"""The command line: `sayso VERB`. Each verb is one typed function that calls one of the library.

A refusal prints one line and exits 3, any other known error 1, wrong usage 2.
"""

import json
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from sayso.inference.errors import RefusedError
from sayso.model.errors import SaysoError

app = typer.Typer(help="VALL-E 2 that speaks only on the speaker's say-so.", no_args_is_help=True)
enrol = typer.Typer(help="Ask a person for their consent, and check it.", no_args_is_help=True)
receipt = typer.Typer(help="Receipts of consent.", no_args_is_help=True)
ledger = typer.Typer(
    help="The log of all that was allowed, refused and made.", no_args_is_help=True
)
ca = typer.Typer(help="The authority that signs our files.", no_args_is_help=True)
keys = typer.Typer(help="The keys that sign receipts and ledger.", no_args_is_help=True)
corpora = typer.Typer(help="The corpora that may be trained on.", no_args_is_help=True)
train = typer.Typer(help="Train a part of a model from a recipe.", no_args_is_help=True)
for name, group in (
    ("enrol", enrol),
    ("receipt", receipt),
    ("ledger", ledger),
    ("ca", ca),
    ("keys", keys),
    ("corpora", corpora),
    ("train", train),
):
    app.add_typer(group, name=name)

# Each verb imports what it needs: `sayso --help` must not wait for torch.


@app.command()
def speak(
    voice: Annotated[str, typer.Option(help="Id of an enrolled voice; `nobody` is bundled.")],
    text: Annotated[str, typer.Option(help="What to say.")],
    out: Annotated[Path, typer.Option(help="File to write: .wav, .flac, .mp3, .ogg or .opus.")],
    purpose: Annotated[str, typer.Option(help="What for; the receipt must allow it.")] = "research",
    user: Annotated[str | None, typer.Option(help="Who asks; the login name by default.")] = None,
    seed: Annotated[int, typer.Option(help="Of the random draws.")] = 0,
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
    model: Annotated[Path | None, typer.Option(help="Model folder; bundled by default.")] = None,
) -> None:
    """Say a text in an enrolled voice, into a marked file."""
    from sayso.inference.synthesizer import Synthesizer
    from sayso.model.bundle import BUNDLED
    from sayso.model.codecs.voice_edit import Alteration
    from sayso.model.errors import InputError
    from sayso.model.sampling import Sampling

    try:
        sampling = None if top_p is None else Sampling(top_p=top_p)
    except ValueError as error:
        raise InputError(f"--top-p: {error}") from None
    alteration = Alteration(speed, pitch, formant)
    synthesizer = Synthesizer(model or BUNDLED)
    spoken = synthesizer.speak(text, voice, out, purpose, user, seed, sampling, alteration, samples)
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
    """Say what marks files carry. Exits 0: all marked, 4: one is not, 5: one is unreadable."""
    from sayso.inference.detection import report
    from sayso.inference.store.store import default_home

    home = default_home()
    store = root if root is not None else home if home.is_dir() else None
    raise typer.Exit(report.run(paths, store, as_json, pictures))


@app.command()
def voices() -> None:
    """List the voices of this store."""
    from sayso.inference.gate import Gate
    from sayso.inference.store.store import Store

    with Store.open() as store:
        gate = Gate(store)  # which brings in the voices that ship
        for voice in store.voices():
            if voice.revoked:
                print(f"{voice.voice}: withdrawn")
                continue
            held = gate.receipt(voice.voice)
            print(
                f"{voice.voice}: {held.basis}, {held.issued} to {held.expires}, "
                f"for {', '.join(held.scope.purposes)}"
            )


@app.command()
def revoke(
    voice: Annotated[str, typer.Argument(help="Id of the voice to withdraw.")],
    reason: Annotated[str, typer.Option(help="Kept in the ledger.")] = "",
) -> None:
    """Withdraw a voice: it is silent from the next call on, and its data are destroyed."""
    from sayso.inference.gate import Gate
    from sayso.inference.store.store import Store

    with Store.open() as store:
        if store.voice(voice) is None:
            raise RefusedError("voice-unknown", f"No voice {voice!r} is enrolled here.")
        made = Gate(store).revoke(voice, reason)
    print(f"{voice} is withdrawn. {len(made)} recordings were made in this voice:")
    for output in made:
        print(
            f"  {output.time} {output.path} for {output.purpose} by {output.user} "
            f"[{output.ledger_id}] sha256 {output.sha256}"
        )


@enrol.command("start")
def enrol_start(
    speaker: Annotated[str, typer.Option(help="Name of the person who will speak.")],
    purpose: Annotated[list[str], typer.Option(help="What the voice may be used for; repeatable.")],
    days: Annotated[int, typer.Option(help="How long the consent holds, 1 to 366.")] = 30,
    user: Annotated[
        list[str] | None, typer.Option(help="Who may use it; the login name by default.")
    ] = None,
    controller: Annotated[str | None, typer.Option(help="Who is responsible.")] = None,
    characters: Annotated[int | None, typer.Option(help="Most characters ever spoken.")] = None,
    uses: Annotated[int | None, typer.Option(help="Most recordings ever made.")] = None,
    may_alter: Annotated[bool, typer.Option("--may-alter", help="Pitch may be changed.")] = False,
) -> None:
    """Show what the speaker is to read aloud, within two minutes."""
    from sayso.inference.consent.enrolment import start_enrolment
    from sayso.inference.store.store import Store

    users = tuple(user) if user else None
    with Store.open() as store:
        session = start_enrolment(
            store, speaker, tuple(purpose), days, users, controller, characters, uses, may_alter
        )
    print(f"session {session.id}\nrecord before {session.expires}, aloud:\n\n  {session.text}\n")
    print(f"then: sayso enrol finish --session {session.id} --consent RECORDING.wav")


@enrol.command("record")
def enrol_record(
    out: Annotated[Path, typer.Argument(help="WAV file to write.")],
    seconds: Annotated[float, typer.Option(help="How long to listen.")] = 40.0,
) -> None:
    """Record with this machine's microphone (needs the `mic` extra)."""
    from sayso.inference.consent.microphone import record

    print(f"listening for {seconds:g} s: read aloud what `sayso enrol start` showed")
    record(out, seconds)
    print(out)


@enrol.command("finish")
def enrol_finish(
    session: Annotated[str, typer.Option(help="From `sayso enrol start`.")],
    consent: Annotated[Path, typer.Option(help="The recording of what was shown.")],
    prompt: Annotated[Path | None, typer.Option(help="A better recording, 3 to 30 s.")] = None,
    prompt_text: Annotated[str | None, typer.Option(help="What is said in the prompt.")] = None,
    receipt_to: Annotated[Path | None, typer.Option(help="File for the signed receipt.")] = None,
    model: Annotated[Path | None, typer.Option(help="Model folder; bundled by default.")] = None,
) -> None:
    """Check the recording; take the voice in and issue the receipt, or say why not."""
    from sayso.inference.consent.enrolment import finish_enrolment
    from sayso.inference.store.store import Store
    from sayso.model.bundle import BUNDLED
    from sayso.model.codecs.load import load_codec

    if receipt_to is not None:
        check_folder(receipt_to)
    codec = load_codec((model or BUNDLED) / "codec")
    with Store.open() as store:
        taken = finish_enrolment(store, session, consent, codec, prompt, prompt_text)
    for check in taken.receipt.checks:
        print(f"  {check.name}: {check.score} (limit {check.limit}) {check.note}")
    if receipt_to is not None:
        receipt_to.write_text(taken.token)
        print(f"receipt: {receipt_to}")
    print(f"voice {taken.voice}, until {taken.receipt.expires}")


@receipt.command("verify")
def receipt_verify(
    path: Annotated[Path, typer.Argument(help="A receipt.")],
    key: Annotated[Path, typer.Option(help="The issuer's public keys, PEM.")],
    as_kantara: Annotated[
        bool, typer.Option("--kantara", help="Show it as a Kantara Consent Receipt 1.1.")
    ] = False,
) -> None:
    """Check a receipt offline, with the public key alone; no file says if it was withdrawn."""
    import time

    from sayso.inference.consent.receipt import kantara, verify_receipt

    found = verify_receipt(path, read_text(key))
    shown = kantara(found) if as_kantara else found.payload()
    print(json.dumps(shown, indent=2, ensure_ascii=False))
    now = "not valid at this time" if found.expired(time.time()) else "valid at this time"
    print(
        f"signature good; {now} ({found.issued} to {found.expires}); whether it was withdrawn, "
        "only its store knows",
        file=sys.stderr,
    )


@receipt.command("export")
def receipt_export(
    voice: Annotated[str, typer.Argument(help="Id of a voice.")],
    out: Annotated[Path, typer.Argument(help="File to write.")],
) -> None:
    """Write a voice's signed receipt, for its speaker; `verify` checks it anywhere."""
    from sayso.inference.gate import Gate
    from sayso.inference.store.store import Store

    check_folder(out)
    with Store.open() as store:
        Gate(store).receipt(voice)
        found = store.voice(voice)
    assert found is not None
    out.write_text(found.token)
    print(f"{out}: receipt {found.record_id} of {voice}")


@receipt.command("key")
def receipt_key() -> None:
    """Print this store's public keys, for others to check receipts and ledger with."""
    from sayso.inference.store.store import Store

    with Store.open() as store:
        for pem in store.public_keys().values():
            print(pem, end="")


@ledger.command("verify")
def ledger_verify(
    head: Annotated[
        Path | None, typer.Option(help="An older head: rows may only be added.")
    ] = None,
) -> None:
    """Check every byte of the store that matters."""
    from sayso.inference.store.store import Store

    with Store.open() as store:
        found = store.verify(None if head is None else read_text(head).strip())
    print(f"good: {found.size} rows, last {found.hash}")


@ledger.command("head")
def ledger_head() -> None:
    """Print a signed head; kept elsewhere, it proves later that rows were only added."""
    from sayso.inference.store.store import Store

    with Store.open() as store:
        print(store.head())


@ledger.command("export")
def ledger_export(out: Annotated[Path, typer.Argument(help="File to write.")]) -> None:
    """Write the public half of the ledger, for a third party to check."""
    from sayso.inference.store.store import Store

    with Store.open() as store:
        print(f"{out}: {store.export(out)} rows")


@ledger.command("check")
def ledger_check(
    path: Annotated[Path, typer.Argument(help="An exported ledger.")],
    key: Annotated[Path | None, typer.Option(help="A public key it must name, PEM.")] = None,
    head: Annotated[
        Path | None, typer.Option(help="An older head it must have grown from.")
    ] = None,
) -> None:
    """Check an exported ledger; needs no store."""
    from sayso.inference.store.ledger import verify_export

    public, old = (None if file is None else read_text(file) for file in (key, head))
    found = verify_export(path, public, old.strip() if old else None)
    print(f"good: {found.size} rows, last {found.hash}")


@ca.command("export")
def ca_export(out: Annotated[Path, typer.Argument(help="PEM file to write.")]) -> None:
    """Write the root certificate that reviewers need to call our files trusted."""
    from sayso.inference.provenance.c2pa import export_ca
    from sayso.inference.store.store import Store

    with Store.open() as store:
        print(f"{out}: sha256 {export_ca(store.home / 'ca', out)}")


@keys.command("rotate")
def keys_rotate() -> None:
    """Sign with a new key from now on; what the old one signed stays verifiable.

    SAYSO_NEW_PASSPHRASE, if set, locks the new key; empty, it leaves it unlocked.
    """
    from sayso.inference.store.store import Store

    with Store.open() as store:
        print(f"signing with {store.rotate_key()}")


@corpora.command("list")
def corpora_list() -> None:
    """List the corpora that may be used, and those that were refused."""
    from sayso.model.corpora import read_list

    allowed, refused = read_list()
    for corpus in allowed.values():
        print(f"{corpus.name}: {corpus.licence}; {', '.join(corpus.uses)}; {corpus.url}")
    for name, entry in refused.items():
        print(f"{name}: refused: {entry.reason}")


@corpora.command("show")
def corpora_show(corpus: Annotated[str, typer.Argument(help="Name of a corpus.")]) -> None:
    """Show one corpus: licence, basis, attribution and uses."""
    from dataclasses import asdict

    from sayso.model.corpora import read_list

    allowed, refused = read_list()
    found = allowed.get(corpus) or refused.get(corpus)
    if found is None:
        raise RefusedError("corpus-unknown", f"{corpus!r} is not on the list of corpora.")
    print(json.dumps(asdict(found), indent=2, ensure_ascii=False))


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
    limit: Annotated[int | None, typer.Option(help="Only so many utterances.")] = None,
    processes: Annotated[int, typer.Option(help="Processes on this machine.")] = 1,
) -> None:
    """Make the token files of one corpus."""
    from sayso.training import commands

    commands.prepare(corpus, root, recipe, out, limit, processes)


@train.command("codec")
def train_codec(
    out: Annotated[Path, typer.Option(help="Folder for the codec.")],
    root: Annotated[
        list[str] | None, typer.Option(help="NAME=FOLDER of a listed corpus; repeatable.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="Train an EnCodec: configs/codec-mini.yaml. Else WORLD.")
    ] = None,
    codebooks: Annotated[int, typer.Option(help="K, of a WORLD codec.")] = 8,
    held_out: Annotated[
        list[str] | None,
        typer.Option(help="NAME=N: one utterance in N is kept out of a WORLD codec; else 47."),
    ] = None,
    published: Annotated[
        str | None,
        typer.Option(help="Train nothing: Meta's EnCodec, decoded by `encodec` or by `vocos`."),
    ] = None,
) -> None:
    """Make a codec from corpora, without their held-out utterances: WORLD, or an EnCodec."""
    from sayso.model.errors import InputError
    from sayso.training.fitting.world import fit_codec

    if published is not None:
        from sayso.model.codecs.encodec import published_codec

        made = published_codec(out, published)
        print(f"{out}: {made.codebooks} x {made.codebook_size}, identity {made.identity}")
        return
    if not root:
        raise InputError("a codec is made from corpora: give --root NAME=FOLDER, or --published")
    if config is not None:
        from sayso.training.fitting.encodec import read_codec_recipe, train_codec

        made = train_codec(read_codec_recipe(config), parse_roots(root), out)
        print(f"{out}: {made.codebooks} x {made.codebook_size}, identity {made.identity}")
        return
    numbers = parse_numbers("--held-out", held_out or [])
    codec = fit_codec(parse_roots(root), out, numbers, codebooks, print)
    print(f"{out}: {codec.codebooks} x {codec.codebook_size}, identity {codec.identity}")


@train.command("timbre")
def train_timbre(
    out: Annotated[Path, typer.Option(help="Folder for it.")],
    root: Annotated[list[str], typer.Option(help="NAME=FOLDER of a listed corpus; repeatable.")],
    pivot: Annotated[str, typer.Option(help="NAME of one, of one speaker the model knows well.")],
    share: Annotated[float, typer.Option(help="Of that voice in how the model speaks.")] = 0.5,
    codebooks: Annotated[int, typer.Option(help="K, of the model's codec.")] = 4,
    held_out: Annotated[
        list[str] | None, typer.Option(help="NAME=N: one utterance in N is kept out; else 47.")
    ] = None,
) -> None:
    """Fit what takes a prompt's timbre off for the model, and puts it on its speech (WORLD); and
    the codec of speech without it."""
    from sayso.training.fitting.world import fit_timbres

    model = fit_timbres(
        parse_roots(root),
        out,
        pivot,
        share,
        parse_numbers("--held-out", held_out or []),
        codebooks=codebooks,
        report=print,
    )
    print(f"{out}: 2 x {model.config.classes} classes of sounds; {codebooks} codebooks")


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
    from sayso.training.fitting.world import fit_text

    tokenizer = fit_text(parse_roots(root), size) if root else Phonemes()
    tokenizer.save(out)
    print(f"{out}: {tokenizer.kind}, {tokenizer.size} entries, identity {tokenizer.identity}")


RecipeFile = Annotated[Path, typer.Option(help="Such as configs/tiny.yaml.")]
Resume = Annotated[bool, typer.Option(help="Go on from the newest checkpoint.")]
Listen = Annotated[
    bool, typer.Option("--listen", help="Marked samples of held-out prompts to TensorBoard.")
]

Changes = Annotated[
    str, typer.Option("--set", help="Other settings for this run: '{ar.train.steps: 1000}'.")
]


@train.command("ar")
def train_ar(
    recipe: RecipeFile,
    resume: Resume = True,
    listen: Listen = False,
    changes: Changes = "{}",
) -> None:
    """Train the AR model of a recipe."""
    from sayso.listen import listener
    from sayso.training.recipe import parse_overrides, read_recipe
    from sayso.training.train import train_ar

    settings = read_recipe(recipe, parse_overrides(changes))
    train_ar(settings, resume, hear=listener(settings) if listen else None)


@train.command("nar")
def train_nar(
    recipe: RecipeFile,
    resume: Resume = True,
    listen: Listen = False,
    changes: Changes = "{}",
) -> None:
    """Train the NAR model of a recipe."""
    from sayso.listen import listener
    from sayso.training.recipe import parse_overrides, read_recipe
    from sayso.training.train import train_nar

    settings = read_recipe(recipe, parse_overrides(changes))
    train_nar(settings, resume, hear=listener(settings) if listen else None)


@train.command("share")
def train_share(
    run: Annotated[Path, typer.Option(help="Run whose NAR is missing.")],
    nar_of: Annotated[Path, typer.Option(help="Run that trained one.")],
) -> None:
    """Give a run the NAR of another: one NAR serves an AR of any group size."""
    from sayso.training.card import share

    share(run, nar_of)
    print(f"{run / 'nar'}: from {nar_of}")


def parse_roots(pairs: list[str]) -> dict[str, Path]:
    """Corpus names and folders out of NAME=FOLDER."""
    return {name: Path(folder) for name, folder in parse_pairs("--root", pairs).items()}


def parse_numbers(option: str, pairs: list[str]) -> dict[str, int]:
    """NAME=N, with whole numbers from 1; InputError."""
    from sayso.model.errors import InputError

    every = parse_pairs(option, pairs)
    bad = [f"{name}={n}" for name, n in every.items() if not n.isdigit() or int(n) < 1]
    if bad:
        raise InputError(f"{option} {bad[0]!r}: one utterance in N, such as kathleen=47")
    return {name: int(n) for name, n in every.items()}


def parse_pairs(option: str, pairs: list[str]) -> dict[str, str]:
    """Names and values out of NAME=VALUE."""
    from sayso.model.errors import InputError

    bad = [pair for pair in pairs if "=" not in pair]
    if bad:
        example = "kathleen=47" if option == "--held-out" else "kathleen=/data/kathleen"
        raise InputError(f"{option} {bad[0]!r}: write NAME=VALUE, such as {example}")
    return dict(pair.split("=", 1) for pair in pairs)


def check_folder(path: Path) -> None:
    """InputError unless `path` names a file in a folder that is there."""
    from sayso.model.errors import InputError

    if path.is_dir() or not path.resolve().parent.is_dir():
        raise InputError(f"{path} cannot be written: give a file in a folder that exists")


def read_text(path: Path) -> str:
    """A small text file; InputError if it cannot be read."""
    from sayso.model.errors import InputError

    try:
        return path.read_text("ascii")
    except (OSError, UnicodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from None


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
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in ("lightning", "pyarrow"):
            raise
        print(f"sayso: error: {error.name} is missing: pip install 'sayso[train]'", file=sys.stderr)
        sys.exit(1)
    sys.exit(0)


if __name__ == "__main__":
    main()
