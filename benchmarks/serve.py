"""The service under load, and under input that was made to break it.

python -m benchmarks.serve load --clients 50 --seconds 120
python -m benchmarks.serve hostile --count 5000 --seed 1
python -m benchmarks.serve killed --times 10

Each starts `sayso serve` on a store of its own. Afterwards the store is verified, every answer that
was a file is in it once, and nothing lies in the spool.
"""

import argparse
import io
import json
import os
import random
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx2
import numpy as np
import soundfile

from sayso.inference.detection.detector import Detector
from sayso.inference.gate import Gate
from sayso.inference.store.checking import verify
from sayso.inference.store.store import Store
from sayso.service.tokens import Tokens

TEXTS = (
    "Good morning.",
    "The bus was late again today.",
    "Could you bring me a glass of water, please?",
    "She has never been to the sea, and he has never been anywhere else.",
)
SAY = {"model": "sayso-mini", "voice": "nobody", "response_format": "wav"}
MANY = 10**9


class Server:
    """One `sayso serve`, in a process of its own.

    Args:
        flags: Further ones.
        trust: The certificate it shows, of those that are served by TLS.
    """

    def __init__(self, folder: Path, token: str, *flags: str, trust: Path | None = None):
        self.home, self.token, self.flags, self.trust = folder / "home", token, flags, trust
        self.start()

    def start(self) -> None:
        """Start it, and wait until it speaks."""
        folder = self.home.parent
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http{'s' if self.trust else ''}://127.0.0.1:{self.port}"
        limits = ("--most-requests", str(MANY), "--most-seconds", str(MANY))
        command = [sys.executable, "-m", "sayso", "serve", "--port", str(self.port)]
        environment = os.environ | {"SAYSO_HOME": str(self.home)}
        self.log = (folder / "log").open("ab")
        self.process = subprocess.Popen(
            [*command, "--controller", "Example Lab", *limits, *self.flags],
            env=environment,
            stdout=self.log,
            stderr=self.log,
        )
        self.client = self.caller()
        while True:
            assert self.process.poll() is None, (folder / "log").read_text()[-2000:]
            try:
                if self.client.get("/readyz").status_code == 200:
                    return
            except httpx2.TransportError:
                time.sleep(0.2)

    def caller(self) -> httpx2.Client:
        """A client with connections and the token of its own."""
        trust = ssl.create_default_context(cafile=self.trust) if self.trust else True
        headers = {"Authorization": f"Bearer {self.token}"}
        return httpx2.Client(base_url=self.url, timeout=300, verify=trust, headers=headers)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it, and wait until it has ended."""
        self.client.close()  # of an idle one's TLS asyncio waits 30 s for the end
        self.process.send_signal(how)
        self.process.wait()
        self.log.close()

    def memory(self) -> str:
        """MiB that it holds now, and that it held at most."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        now, most = (int(status.partition(f"{name}:")[2].split()[0]) for name in ("VmRSS", "VmHWM"))
        return f"{now / 1024:.0f} MiB (at most {most / 1024:.0f})"


@contextmanager
def started() -> Iterator[Server]:
    """A server over a fresh store, and that all is whole when it has ended."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with Store.open(folder / "home") as store:
            Gate(store)
        token = Tokens(folder / "home-service").create("Bench", "admin")
        server = Server(folder, token)
        try:
            yield server
        finally:
            if server.process.poll() is None:
                server.stop()
        assert "Traceback" not in (folder / "log").read_text(), (folder / "log").read_text()[-3000:]


def whole(folder: Path, got: list[str]) -> None:
    """Assert that the store verifies and that each answer has its one row."""
    with Store.open(folder) as store:
        verify(store)
        rows = Counter(entry.id for entry in store.entries("released"))
    assert set(rows.values()) <= {1} and set(got) <= set(rows), "a row is lost or doubled"
    assert not list(folder.with_name("home-service").glob("spool/*")), "the spool is not empty"
    print(f"store: whole; {len(got)} files answered, {len(rows)} released")


def load(clients: int, seconds: float) -> None:
    """So many clients that ask one after the other, and one alone before them."""
    with started() as server:
        for count in (1, clients):
            found, until = [], time.monotonic() + (seconds if count > 1 else min(seconds, 30))

            def one(number: int, until: float, found: list) -> None:
                draw = random.Random(number)
                with server.caller() as client:
                    while time.monotonic() < until:
                        began = time.monotonic()
                        text = " ".join(draw.sample(TEXTS, draw.randrange(1, 4)))
                        asked = SAY | {"input": text, "response_format": "pcm"}
                        with client.stream("POST", "/v1/audio/speech", json=asked) as answer:
                            first, size = 0.0, 0
                            for data in answer.iter_bytes():
                                first, size = first or time.monotonic() - began, size + len(data)
                        took = time.monotonic() - began
                        found.append((answer.status_code, first, took, dict(answer.headers), size))
                        if answer.status_code == 429:
                            time.sleep(min(float(answer.headers["retry-after"]), 5.0))

            threads = [
                threading.Thread(target=one, args=(number, until, found)) for number in range(count)
            ]
            began = time.monotonic()
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            spent = time.monotonic() - began
            good = [each for each in found if each[0] == 200]
            spoken = sum(each[4] / 2 / int(each[3]["x-sayso-sample-rate"]) for each in good)
            print(f"{count} clients, {spent:.0f} s: {Counter(each[0] for each in found)}")
            assert {each[0] for each in found} <= {200, 429}
            for name, place in (("first audio", 1), ("whole", 2)):
                times = sorted(each[place] for each in good)
                p95 = times[int(0.95 * (len(times) - 1))]
                print(f"  {name}: p50 {statistics.median(times):.2f} s, p95 {p95:.2f} s")
            print(f"  {spoken / spent:.2f} s of audio a second; {server.memory()}")
            got = [each[3]["x-sayso-ledger-id"] for each in good]
        server.stop()
        whole(server.home, got)


def killed(times: int) -> None:
    """`kill -9` while it speaks: the store verifies, the next start serves, nothing is unmarked."""
    with started() as server:
        for number in range(times):
            asked = SAY | {"input": TEXTS[number % len(TEXTS)]}

            def ask(asked: dict = asked) -> None:
                headers = {"Authorization": f"Bearer {server.token}"}
                with suppress(httpx2.TransportError):
                    httpx2.post(f"{server.url}/v1/audio/speech", json=asked, headers=headers)

            threads = [threading.Thread(target=ask) for _ in range(4)]
            for thread in threads:
                thread.start()
            time.sleep(random.Random(number).uniform(0.2, 4.0))
            server.stop(signal.SIGKILL)
            for thread in threads:
                thread.join()
            detector = Detector(server.home)
            for path in server.home.with_name("home-service").glob("spool/*"):
                assert detector.detect(path).ours, path
            server.start()
            print(f"kill {number + 1}: serves again")
        answer = server.client.post("/v1/audio/speech", json=SAY | {"input": TEXTS[0]})
        assert answer.status_code == 200
        server.stop()
        whole(server.home, [answer.headers["x-sayso-ledger-id"]])


def bad_text(draw: random.Random) -> dict:
    """A request to speak that is wrong in one way or several, or only odd."""
    odd = "".join(chr(draw.choice([draw.randrange(1, 0xD800), draw.randrange(0x1F000, 0x20000)]))
                  for _ in range(draw.randrange(40)))  # fmt: skip
    values = [None, 5, -1, 1e308, True, [], {}, odd, "x" * draw.randrange(5000), "../" * 9, "\x00"]
    asked = SAY | {"input": draw.choice([odd, "", " ", "!" * 99, "1" * 400, "[pause 9s]" * 99])}
    for name in draw.sample([*asked, "speed", "seed", "samples", "stream_format"], 2):
        asked[name] = draw.choice(values)
    body = json.dumps(asked).encode()
    kind = draw.randrange(4)
    if kind == 0:
        body = body[: draw.randrange(len(body))]
    if kind == 1:
        place = draw.randrange(len(body))
        body = body[:place] + draw.randbytes(3) + body[place:]
    if kind == 2:
        body = draw.choice([b"[" * 9999, b"{}", b"null", b'"', draw.randbytes(200)])
    return {"content": body, "headers": {"Content-Type": "application/json"}}


def bad_file(draw: random.Random) -> dict:
    """An upload that is cut, flipped, lying, or nothing."""
    out = io.BytesIO()
    sound = 0.1 * np.sin(np.arange(draw.randrange(400, 8000)) / 9)
    format = draw.choice(["WAV", "FLAC", "OGG", "MP3", "AIFF"])
    soundfile.write(out, sound, 16_000, format=format)
    data = bytearray(out.getvalue())
    for _ in range(draw.randrange(9)):
        data[draw.randrange(min(len(data), draw.choice([64, len(data)])))] = draw.randrange(256)
    data = bytes(data[: draw.choice([len(data), draw.randrange(len(data)), 0])])
    data = draw.choice([data, data, draw.randbytes(500), b"#EXTM3U\nfile:///etc/passwd"])
    return {
        "files": {draw.choice(["file", "file", "other"]): (draw.choice(["a", "../a.wav"]), data)}
    }


def hostile(count: int, seed: int) -> None:
    """Malformed texts and uploads: no 5xx, no traceback, memory as that of a quiet server."""
    draw = random.Random(seed)
    with started() as server:
        statuses: Counter = Counter()
        files = ("/v1/detect", "/v1/ledger/check", "/v1/consents/s-1/recording")
        for number in range(count + 200):
            upload = draw.random() < 0.5
            path = draw.choice(files) if upload else "/v1/audio/speech"
            answer = server.client.post(path, **(bad_file(draw) if upload else bad_text(draw)))
            statuses[answer.status_code] += 1
            assert answer.status_code < 500, (path, answer.text)
            if number in (0, 200) or number % 500 == 0:
                print(f"after {number}: {server.memory()}", flush=True)
        print(f"{count} more: {server.memory()}; {dict(statuses)}")
        server.stop()
        whole(server.home, [])


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("load", "hostile", "killed"))
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--times", type=int, default=10)
    asked = parser.parse_args()
    if asked.what == "load":
        load(asked.clients, asked.seconds)
    elif asked.what == "hostile":
        hostile(asked.count, asked.seed)
    else:
        killed(asked.times)


if __name__ == "__main__":
    main()
