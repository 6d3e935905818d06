"""`sayso ledger | keys | ca`: what was allowed, refused and made, and who signed for it."""

from pathlib import Path
from typing import Annotated

import typer

from .files import read_text, say

app = typer.Typer()
ledger = typer.Typer(
    help="The log of all that was allowed, refused and made.", no_args_is_help=True
)
ca = typer.Typer(help="The authority that signs our files.", no_args_is_help=True)
keys = typer.Typer(help="The keys that sign receipts and ledger.", no_args_is_help=True)
for name, group in (("ledger", ledger), ("ca", ca), ("keys", keys)):
    app.add_typer(group, name=name)


@ledger.command("verify")
def ledger_verify(
    head: Annotated[
        Path | None, typer.Option(help="An older head: rows may only be added.")
    ] = None,
) -> None:
    """Check every byte of the store that matters."""
    from sayso.inference.store.checking import verify
    from sayso.inference.store.store import Store

    with Store.open() as store:
        found = verify(store, None if head is None else read_text(head).strip())
    say(f"good: {found.size} rows, last {found.hash}")


@ledger.command("head")
def ledger_head() -> None:
    """Print a signed head; kept elsewhere, it proves later that rows were only added."""
    from sayso.inference.store.store import Store

    with Store.open() as store:
        say(store.head())


@ledger.command("export")
def ledger_export(out: Annotated[Path, typer.Argument(help="File to write.")]) -> None:
    """Write the public half of the ledger, for a third party to check."""
    from sayso.inference.store.export import export
    from sayso.inference.store.store import Store

    with Store.open() as store:
        say(f"{out}: {export(store, out)} rows")


@ledger.command("check")
def ledger_check(
    path: Annotated[Path, typer.Argument(help="An exported ledger.")],
    key: Annotated[Path | None, typer.Option(help="A public key it must name, PEM.")] = None,
    head: Annotated[
        Path | None, typer.Option(help="An older head it must have grown from.")
    ] = None,
) -> None:
    """Check an exported ledger; needs no store. Exits 7 if no key says whose it is."""
    from sayso.inference.store.export import verify_export

    public, old = (None if file is None else read_text(file) for file in (key, head))
    found = verify_export(path, public, old.strip() if old else None)
    rows = f"{found.head.size} rows, last {found.head.hash}"
    if public is None:
        say(f"whole in itself, but anybody may have made it: give --key. {rows}")
        raise typer.Exit(7)
    say(f"good: {rows}, signed by {', '.join(sorted(found.signers))}")


@ca.command("export")
def ca_export(out: Annotated[Path, typer.Argument(help="PEM file to write.")]) -> None:
    """Write the root certificate that reviewers need to call our files trusted."""
    from sayso.inference.provenance.certificates import export_ca
    from sayso.inference.store.store import Store

    with Store.open() as store:
        say(f"{out}: sha256 {export_ca(store.home / 'ca', out)}")


@keys.command("rotate")
def keys_rotate() -> None:
    """Sign with a new key from now on; what the old one signed stays verifiable.

    SAYSO_NEW_PASSPHRASE, if set, locks the new key; empty, it leaves it unlocked.
    """
    from sayso.inference.store.store import Store

    with Store.open() as store:
        say(f"signing with {store.rotate_key()}")
