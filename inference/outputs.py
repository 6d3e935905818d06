"""What ever left in a voice, as the ledger has it."""

from dataclasses import dataclass

from .store.store import Store


@dataclass(frozen=True)
class Output:
    """One recording ever released in a voice."""

    ledger_id: str
    time: str
    path: str
    sha256: str
    purpose: str
    user: str


def outputs_of(store: Store, voice: str) -> list[Output]:
    """Every output that ever left in a voice, oldest first; a cut stream has no path."""
    left = [*store.entries("streamed", voice=voice), *store.entries("released", voice=voice)]
    last = {e.id: e for e in left}.values()  # of a stream that ended its second row
    return [
        Output(e.id, e.time, *(e.content.get(k, "") for k in ("path", "sha256", "purpose", "user")))
        for e in sorted(last, key=lambda entry: entry.seq)
    ]
