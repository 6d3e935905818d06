"""`sayso serve` as a process: told to stop under load, with TLS, several over one store."""

import datetime
import ipaddress
import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")

import httpx2

from benchmarks.serve import SAY, Server, whole
from sayso.inference.gate import Gate
from sayso.inference.store.store import Store
from sayso.model.bundle import BUNDLED
from sayso.service.tokens import Tokens

if not (BUNDLED / "codec" / "config.json").is_file():
    pytest.skip(f"no bundled model: {BUNDLED} is missing", allow_module_level=True)


@contextmanager
def process(folder: Path, *flags: str, trust: Path | None = None) -> Iterator[Server]:
    """A process that serves a fresh store, until it or the test ends."""
    with Store.open(folder / "home") as store:
        Gate(store)
    token = Tokens(folder / "home-service").create("Ann", "admin")
    server = Server(folder, token, *flags, trust=trust)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.stop()
    assert "Traceback" not in (folder / "log").read_text()


def ask(server: Server, seed: int, times: int = 1) -> httpx2.Response:
    """A short sentence, so many times, over a connection of its own."""
    with server.caller() as client:
        text = SAY | {"input": "Good morning. " * times, "seed": seed}
        return client.post("/v1/audio/speech", json=text)


def unread(server: Server) -> HTTPResponse:
    """A stream whose client reads nothing yet, and of which little fits between the two."""
    line = socket.socket()
    line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1000)
    line.connect(("127.0.0.1", server.port))
    client = HTTPConnection("127.0.0.1")
    client.sock = line
    text = json.dumps(SAY | {"input": "Good morning. " * 7, "stream_format": "sse"})
    headers = {"Authorization": f"Bearer {server.token}", "Content-Type": "application/json"}
    client.request("POST", "/v1/audio/speech", text, headers)
    return client.getresponse()


def waiting(server: Server) -> int:
    """Requests to speak that wait or are worked on."""
    text = server.client.get("/metrics").text
    found = re.search(r'^sayso_line_length\{line="speak"\} (\d+)', text, re.MULTILINE)
    assert found is not None
    return int(found[1])


def test_told_to_stop_it_finishes_what_has_begun_and_refuses_the_rest(tmp_path: Path):
    with process(tmp_path) as server, ThreadPoolExecutor(20) as pool:
        # Long enough that none has ended before the last has come.
        answers = [pool.submit(ask, server, seed, 5) for seed in range(20)]
        until = time.monotonic() + 60
        while waiting(server) < 20 and time.monotonic() < until:
            time.sleep(0.01)
        server.process.send_signal(signal.SIGTERM)
        found = [answer.result() for answer in answers]
        server.process.wait()
    good = [answer for answer in found if answer.status_code == 200]
    refused = [answer for answer in found if answer.status_code != 200]
    assert len(good) == 16 and len(refused) == 4
    for answer in refused:
        assert answer.status_code == 503 and int(answer.headers["Retry-After"]) > 0
        assert answer.json()["error"]["code"] == "stopping"
    whole(server.home, [answer.headers["X-Sayso-Ledger-Id"] for answer in good])
    with Store.open(server.home) as store:
        assert len(store.entries("released")) == len(store.entries("granted")) == len(good)


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that vouches for itself, and its key; PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - day)
        .not_valid_after(now + day)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .sign(key, hashes.SHA256())
    )
    shown, kept = folder / "certificate.pem", folder / "key.pem"
    shown.write_bytes(made.public_bytes(Encoding.PEM))
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    kept.write_bytes(secret)
    return shown, kept


def test_it_is_reached_by_tls_alone(tmp_path: Path):
    shown, kept = certificate(tmp_path)
    flags = ("--host", "0.0.0.0", "--certificate", str(shown), "--key", str(kept))
    with process(tmp_path, *flags, trust=shown) as server:
        answer = server.client.get("/v1/me")
        assert answer.status_code == 200 and "Strict-Transport-Security" in answer.headers
        for url in (server.url.replace("https", "http"), server.url):  # no TLS; not trusted
            with pytest.raises(httpx2.TransportError):
                httpx2.get(f"{url}/healthz")


@pytest.mark.parametrize("place", ["0.0.0.0", "::"])
def test_it_does_not_start_where_others_could_listen_in(tmp_path: Path, place: str, monkeypatch):
    monkeypatch.setenv("SAYSO_HOME", str(tmp_path / "home"))
    command = [sys.executable, "-m", "sayso", "serve", "--host", place, "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0 and "--behind-proxy" in done.stderr
    assert not list(tmp_path.iterdir())


def test_two_processes_serve_one_store(tmp_path: Path):
    with process(tmp_path, "--workers", "2") as server:
        counts = []
        for _ in range(100):  # each process counts for itself: with two, a number comes twice
            with server.caller() as client:
                text = client.get("/metrics").text
            found = re.findall(r'^sayso_requests_total\{route="/metrics".* (\S+)', text, re.M)
            counts.append(float(found[0]) if found else 0.0)
            if len(set(counts)) < len(counts):
                break
        assert len(set(counts)) < len(counts)
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda seed: ask(server, seed), range(4)))
        assert [answer.status_code for answer in answers] == [200] * 4
        streams = [unread(server) for _ in range(2)]
        with Store.open(server.home) as store:  # all is said, and waits for who does not read
            until = time.monotonic() + 120
            while len(store.entries("released")) < 6 and time.monotonic() < until:
                time.sleep(0.1)
        assert server.client.delete("/v1/voices/nobody").status_code == 200
        codes = [ask(server, seed).json()["error"]["code"] for seed in range(6)]
        assert codes == ["voice-revoked"] * 6
        for stream in streams:
            last = stream.read().split(b"data: ")[-1]
            assert json.loads(last)["error"]["code"] == "voice-revoked"
        server.stop()
    whole(server.home, [answer.headers["X-Sayso-Ledger-Id"] for answer in answers])
