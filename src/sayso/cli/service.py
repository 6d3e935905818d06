"""`sayso serve | token`: the library's verbs over HTTP, and who may call them."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from .files import say
from .options import Compiled, Device, Model, Precision

app = typer.Typer()
token = typer.Typer(help="Who may ask the service, and for what.", no_args_is_help=True)
app.add_typer(token, name="token")
DAY = Annotated[int, typer.Option(help="How long it holds, 1 to 366.")]


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 8080,
    certificate: Annotated[Path | None, typer.Option(help="PEM, for TLS.")] = None,
    key: Annotated[Path | None, typer.Option(help="Its key, PEM.")] = None,
    behind_proxy: Annotated[
        bool, typer.Option("--behind-proxy", help="A proxy does TLS for us.")
    ] = False,
    workers: Annotated[int, typer.Option(help="Processes, each with its own model.")] = 1,
    model: Model = None,
    device: Device = "auto",
    precision: Precision = "fp32",
    compiled: Compiled = False,
    controller: Annotated[str | None, typer.Option(help="Who is responsible, in consents.")] = None,
    admin: Annotated[
        str | None,
        typer.Option(help="Make and print an admin's token of this name, for a day."),
    ] = None,
    most_body: Annotated[int, typer.Option(help="Bytes of an upload.")] = 32 * 2**20,
    most_json: Annotated[int, typer.Option(help="Bytes of any other request.")] = 2**18,
    most_text: Annotated[int, typer.Option(help="Characters of a text.")] = 4096,
    most_requests: Annotated[int, typer.Option(help="A minute, of a token.")] = 120,
    most_seconds: Annotated[float, typer.Option(help="Of audio a day, of a token.")] = 3600.0,
    most_upload: Annotated[float, typer.Option(help="Seconds of audio in an upload.")] = 600.0,
    queue: Annotated[int, typer.Option(help="Requests that may wait.")] = 16,
) -> None:
    """Serve OpenAI's audio API, consent and the page (extra: serve)."""
    from sayso.model.bundle import BUNDLED
    from sayso.service.house import Settings
    from sayso.service.serve import serve

    settings = Settings(
        model=model or BUNDLED,
        device=device,
        precision=precision,
        compiled=compiled,
        controller=controller,
        body=most_body,
        json=most_json,
        text=most_text,
        requests=most_requests,
        seconds=most_seconds,
        upload_seconds=most_upload,
        queue=queue,
    )
    serve(settings, host, port, certificate, key, behind_proxy, workers, admin, say)


@token.command("create")
def token_create(
    name: Annotated[str, typer.Argument(help="Whose: the `user` that receipts name.")],
    role: Annotated[Literal["admin", "reviewer", "speaker"], typer.Option(help="What it may do.")],
    voices: Annotated[
        list[str] | None, typer.Option(help="Voices it may use; repeatable, `*` is all.")
    ] = None,
    days: DAY = 30,
) -> None:
    """Make a token; it is shown this once. Without --voices a reviewer's is for `nobody`."""
    from sayso.service.tokens import Tokens, service_folder

    given = tuple(voices or (("nobody",) if role == "reviewer" else ()))
    say(Tokens(service_folder()).create(name, role, given, days))


@token.command("list")
def token_list() -> None:
    """List the tokens, without their secrets."""
    from sayso.inference.store.ledger import stamp
    from sayso.service.tokens import SESSION, Tokens, service_folder

    for each in Tokens(service_folder()).all():
        state = "revoked" if each.revoked else f"until {stamp(each.expires)}"
        own = {thing for thing in each.own if not thing.startswith(SESSION)}
        voices = ", ".join(sorted(each.voices | own)) or "none"
        say(f"{each.id}: {each.name}, {each.role}, {state}, for {voices}")


@token.command("revoke")
def token_revoke(
    id: Annotated[str, typer.Argument(help="From `sayso token list`.")],
) -> None:
    """End a token: it is refused from the next request on."""
    from sayso.service.tokens import Tokens, service_folder

    Tokens(service_folder()).revoke(id)
    say(f"{id} is revoked")
