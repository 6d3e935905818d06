"""`sayso enrol | voices | revoke | receipt`: who may be spoken as, and until when."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sayso.inference.errors import RefusedError

from .files import check_folder, meant, read_text, say, say_json
from .options import Model

if TYPE_CHECKING:
    from sayso.inference.store.store import Store

app = typer.Typer()
enrol = typer.Typer(help="Ask a person for their consent, and check it.", no_args_is_help=True)
receipt = typer.Typer(help="Receipts of consent.", no_args_is_help=True)
app.add_typer(enrol, name="enrol")
app.add_typer(receipt, name="receipt")


@app.command()
def voices() -> None:
    """List the voices of this store."""
    from sayso.inference.gate import Gate
    from sayso.inference.store.store import Store

    with Store.open() as store:
        gate = Gate(store)  # which brings in the voices that ship
        for note in gate.notes:
            say(note, error=True)
        for voice in store.voices():
            if voice.revoked:
                say(f"{voice.voice}: withdrawn")
                continue
            held = gate.receipt(voice.voice)
            say(
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
        gate = Gate(store)
        if store.voice(voice) is None:
            raise _unknown(store, voice)
        made = gate.revoke(voice, reason)
    for note in gate.notes:
        say(note, error=True)
    say(f"{voice} is withdrawn. {len(made)} recordings were made in this voice:")
    for output in made:
        say(
            f"  {output.time} {output.path} for {output.purpose} by {output.user} "
            f"[{output.ledger_id}] sha256 {output.sha256}"
        )


def _unknown(store: "Store", voice: str) -> RefusedError:
    near = meant(voice, (each.voice for each in store.voices()))
    return RefusedError("voice-unknown", f"No voice {voice!r} is enrolled here.{near}")


@enrol.command("start")
def enrol_start(
    speaker: Annotated[str, typer.Option(help="Name of the person who will speak.")],
    controller: Annotated[
        str, typer.Option(help="Who answers for what becomes of the voice: a person, lab, project.")
    ],
    purpose: Annotated[list[str], typer.Option(help="What the voice may be used for; repeatable.")],
    days: Annotated[int, typer.Option(help="How long the consent holds, 1 to 366.")] = 30,
    user: Annotated[
        list[str] | None, typer.Option(help="Who may use it; the login name by default.")
    ] = None,
    characters: Annotated[int | None, typer.Option(help="Most characters ever spoken.")] = None,
    uses: Annotated[int | None, typer.Option(help="Most recordings ever made.")] = None,
    may_alter: Annotated[bool, typer.Option("--may-alter", help="Pitch may be changed.")] = False,
) -> None:
    """Show what the speaker is to read aloud, within two minutes."""
    from sayso.inference.consent.session import start_enrolment
    from sayso.inference.store.store import Store

    users = tuple(user) if user else None
    with Store.open() as store:
        session = start_enrolment(
            store, speaker, controller, tuple(purpose), days, users, characters, uses, may_alter
        )
    for line in (
        f"session {session.id}",
        f"read this aloud, and finish, before {session.expires[11:19]} UTC:",
        "",
    ):
        say(line)
    say(f"  {session.text}")
    say()
    say(f"then: sayso enrol finish --session {session.id} --consent RECORDING.wav")
    say("For the speaker: a good imitation of your voice would pass, too. Keep the receipt.")


@enrol.command("record")
def enrol_record(
    out: Annotated[Path, typer.Argument(help="WAV file to write.")],
    seconds: Annotated[float, typer.Option(help="How long to listen.")] = 40.0,
) -> None:
    """Record with this machine's microphone (needs the `mic` extra)."""
    from sayso.inference.consent.microphone import record

    check_folder(out)
    say(f"listening for {seconds:g} s: read aloud what `sayso enrol start` showed")
    record(out, seconds)
    say(out)


@enrol.command("finish")
def enrol_finish(
    session: Annotated[str, typer.Option(help="From `sayso enrol start`.")],
    consent: Annotated[Path, typer.Option(help="The recording of what was shown.")],
    prompt: Annotated[
        Path | None, typer.Option(help="Another recording, 3 to 30 s; best left out.")
    ] = None,
    prompt_text: Annotated[str | None, typer.Option(help="What is said in the prompt.")] = None,
    receipt_to: Annotated[Path | None, typer.Option(help="File for the signed receipt.")] = None,
    model: Model = None,
) -> None:
    """Check the recording; take the voice in and issue the receipt, or say why not."""
    from sayso.inference.consent.enrolment import finish_enrolment
    from sayso.inference.store.store import Store
    from sayso.model.bundle import BUNDLED
    from sayso.model.codecs.load import load_codec
    from sayso.model.files import check_outside, hand_out

    if receipt_to is not None:
        check_folder(receipt_to)
    codec = load_codec((model or BUNDLED) / "codec")
    with Store.open() as store:
        if receipt_to is not None:
            check_outside(store.home, receipt_to)
        taken = finish_enrolment(store, session, consent, codec, prompt, prompt_text)
    for check in taken.receipt.checks:
        say(f"  {check.name}: {check.score} (limit {check.limit}) {check.note}")
    if receipt_to is not None:
        hand_out(store.home, receipt_to, taken.token.encode())
        say(f"receipt: {receipt_to}")
    assert taken.receipt.source is not None
    say(f"the voice came from {taken.receipt.source['consent']}")
    say(f"voice {taken.voice}, until {taken.receipt.expires}")


@receipt.command("verify")
def receipt_verify(
    path: Annotated[Path, typer.Argument(help="A receipt.")],
    key: Annotated[Path, typer.Option(help="The issuer's public keys, PEM.")],
    as_kantara: Annotated[
        bool, typer.Option("--kantara", help="Show it as a Kantara Consent Receipt 1.1.")
    ] = False,
) -> None:
    """Check a receipt offline, with the public keys alone; no file says if it was withdrawn.

    Exits 6 for a good receipt that is not valid now.
    """
    import time

    from sayso.inference.consent.receipt import kantara, verify_receipt

    found = verify_receipt(path, read_text(key))
    say_json(kantara(found) if as_kantara else found.payload())
    over = found.expired(time.time())
    say(
        f"signature good; {'not ' if over else ''}valid at this time ({found.issued} to "
        f"{found.expires}); whether it was withdrawn, only its store knows",
        error=True,
    )
    if over:
        raise typer.Exit(6)


@receipt.command("export")
def receipt_export(
    voice: Annotated[str, typer.Argument(help="Id of a voice.")],
    out: Annotated[Path, typer.Argument(help="File to write.")],
) -> None:
    """Write a voice's signed receipt, for its speaker; `verify` checks it anywhere."""
    from sayso.inference.gate import Gate
    from sayso.inference.store.store import Store
    from sayso.model.files import check_outside, hand_out

    check_folder(out)
    with Store.open() as store:
        check_outside(store.home, out)
        gate = Gate(store)
        found = store.voice(voice)
        if found is None:
            raise _unknown(store, voice)
        gate.receipt(voice)
    hand_out(store.home, out, found.token.encode())
    say(f"{out}: receipt {found.record_id} of {voice}")


@receipt.command("key")
def receipt_key() -> None:
    """Print this store's public keys, for others to check receipts and ledger with."""
    from sayso.inference.store.keys import dated_pem
    from sayso.inference.store.store import Store

    with Store.open() as store:
        spans = store.key_spans()
        for kid, pem in store.public_keys().items():
            for line in dated_pem(pem, spans[kid]).splitlines():
                say(line)
