"""A service for tests: the real app under uvicorn, on a real store, with the bundled model."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx2
import uvicorn

from sayso.inference.consent.other_voices import pack_codes
from sayso.inference.consent.receipt import Receipt, Scope, codes_digest, issue
from sayso.inference.gate import Gate
from sayso.inference.store import keys, ledger
from sayso.inference.store.store import Store
from sayso.service.app import create_app
from sayso.service.house import House, Settings
from sayso.service.tokens import Role

DAY = 86400.0
NAMES: dict[Role, str] = {"admin": "Ann", "reviewer": "Bob", "speaker": "Cyril"}


@dataclass
class Served:
    """A running service.

    Attributes:
        sent: A token of each role; all but an admin's for `own`, `revoked` and `expired`.
    """

    url: str
    house: House
    sent: dict[str, str]
    client: httpx2.Client

    @property
    def home(self) -> Path:
        """The store's folder."""
        assert self.house.settings.home is not None
        return self.house.settings.home

    def call(self, role: str, method: str, path: str, **more) -> httpx2.Response:
        """One request with a role's token."""
        headers = {"Authorization": f"Bearer {self.sent[role]}"} | more.pop("headers", {})
        return self.client.request(method, path, headers=headers, **more)


def enrol(
    store: Store, voice: str, days: float = 30, age: float = 0.0, max_uses: int | None = None
) -> None:
    """A voice as `finish_enrolment` makes it, but with nobody's codes and without a recording."""
    gate, now, key = Gate(store), store.now() - age, store.signing_key()
    asked = gate.authorise("nobody", "research", "Ann", "Hello.")
    gate.give_back(asked)
    receipt = Receipt(
        record_id=f"c-{voice}",
        voice=voice,
        basis="consent",
        principal="Vera",
        controller="Example Lab",
        statement="I say so.",
        transcript=asked.transcript,
        scope=Scope(purposes=("research",), users=tuple(NAMES.values()), max_uses=max_uses),
        issued=ledger.stamp(now),
        expires=ledger.stamp(now + days * DAY),
        codes_sha256=codes_digest(asked.codes),
        codec=asked.codec,
        kid=keys.thumbprint(key.public_key()),
    )
    secret = {"codes": pack_codes(asked.codes)}
    store.enrol(voice, receipt.record_id, issue(receipt, key), secret)


@contextmanager
def serving(settings: Settings) -> Iterator[tuple[str, House]]:
    """The address of a service while it runs, and its house."""
    app = create_app(settings)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", server_header=False))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.05)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}", app.state.house
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def served(folder: Path, **limits) -> Iterator[Served]:
    """A service over a fresh store with the voices own, other, revoked and expired."""
    settings = replace(Settings(home=folder / "home", controller="Example Lab"), **limits)
    with Store.open(settings.home) as store:
        for voice in ("own", "other", "revoked"):
            enrol(store, voice)
        enrol(store, "expired", days=1e-6)
        Gate(store).revoke("revoked")
    with serving(settings) as (url, house):
        given = ("own", "revoked", "expired")
        sent = {
            role: house.tokens.create(name, role, () if role == "admin" else given)
            for role, name in NAMES.items()
        }
        with httpx2.Client(base_url=url, timeout=120) as client:
            yield Served(url, house, sent, client)
