"""`sayso serve`: where it listens, and that nobody listens in."""

import dataclasses
import ipaddress
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI

from sayso.inference.memory import hold_little
from sayso.inference.synthesizer import MOST_CHARACTERS
from sayso.model.errors import InputError

from .app import create_app
from .house import House, Settings, prepare
from .tokens import Tokens

PASSED = "SAYSO_SERVE"
"""The settings, from the process that starts the others."""
STOP_SECONDS = 60  # for what has begun, before it is broken off


def serve(
    settings: Settings,
    host: str = "127.0.0.1",
    port: int = 8080,
    certificate: Path | None = None,
    key: Path | None = None,
    behind_proxy: bool = False,
    workers: int = 1,
    admin: str | None = None,
    tell: Callable[[str], None] = print,
) -> None:
    """Serve until told to stop.

    Args:
        admin: A name to make a fresh admin's token for, for a day; its former one ends.
        tell: Shows that token, this once, and the address.
        certificate, key: PEM files, for TLS.
        behind_proxy: A proxy on the way does TLS.
        workers: Processes over the one store, each with its own model.
    Raises:
        InputError: Anybody between could read tokens and voices.
        SaysoError: Model, marks or store cannot be used, as `Synthesizer` says.
    """
    check_place(host, certificate is not None and key is not None, behind_proxy)
    if not 1 <= workers <= 64 or not 0 <= port < 2**16:
        raise InputError(f"{workers} workers at port {port}: give 1 to 64, and 0 to {2**16 - 1}.")
    if not 1 <= settings.text <= MOST_CHARACTERS:
        raise InputError(f"--most-text {settings.text}: give 1 to {MOST_CHARACTERS}.")
    for file in filter(None, (certificate, key)):
        if not file.is_file():
            raise InputError(f"There is no file {file}.")
    settings = dataclasses.replace(settings, secure=certificate is not None or behind_proxy)
    prepare(settings)
    if admin is not None:
        tokens = Tokens(settings.folder)
        for old in tokens.all():
            if (old.name, old.role) == (admin, "admin"):
                tokens.revoke(old.id)
        tell(f"token of {admin}, shown once: {tokens.create(admin, 'admin', days=1)}")
    tell(f"http{'s' if certificate else ''}://{host}:{port}/")
    os.environ[PASSED] = json.dumps(dataclasses.asdict(settings), default=str)
    uvicorn.run(
        "sayso.service.serve:from_environment",
        factory=True,
        host=host,
        port=port,
        workers=workers,
        ssl_certfile=certificate,
        ssl_keyfile=key,
        proxy_headers=behind_proxy,
        server_header=False,
        timeout_graceful_shutdown=STOP_SECONDS,
        h11_max_incomplete_event_size=2**16,
    )


def check_place(host: str, tls: bool, behind_proxy: bool) -> None:
    """InputError unless only this machine, TLS or a proxy can reach what is said here."""
    try:
        local = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = False
    if not (local or tls or behind_proxy):
        raise InputError(
            f"At {host} others could read tokens and voices on the way: give --certificate and "
            "--key, or --behind-proxy if a proxy before it does TLS."
        )


def from_environment() -> FastAPI:
    """The app that `serve` asked for, in one of its processes."""
    hold_little()
    found = json.loads(os.environ[PASSED])
    found["model"] = Path(found["model"])
    found["home"] = Path(found["home"]) if found["home"] else None
    app = create_app(Settings(**found))
    for number in (signal.SIGTERM, signal.SIGINT):  # uvicorn's own are there by now
        signal.signal(number, _refusing(app.state.house, signal.getsignal(number)))
    return app


def _refusing(house: House, before: Any) -> Callable[[int, Any], None]:
    """A signal's handler that refuses what waits, and then does what was done before."""

    def told(number: int, frame: Any) -> None:
        house.refuse()
        before(number, frame)

    return told
