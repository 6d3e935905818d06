"""The service with several callers at once: one batch, no mixing, no place kept by who has left."""

import io
import json
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path

import pytest
import soundfile
import torch

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")

import httpx2

from sayso.inference.gate import Gate
from sayso.inference.store.checking import verify
from sayso.inference.store.store import Store
from sayso.model.bundle import BUNDLED
from sayso.model.codecs.base import Said
from sayso.model.codecs.timbre_codec import TimbreCodec
from sayso.model.engine import Engine
from served import Served, served

if not (BUNDLED / "codec" / "config.json").is_file():
    pytest.skip(f"no bundled model: {BUNDLED} is missing", allow_module_level=True)
SAY = {"model": "sayso-mini", "voice": "own"}
TEXTS = ("The cat sat on the mat. Good morning.", "The bus was late. It rained. We went home.")
SENTENCES = 5
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def service(tmp_path: Path):
    with served(tmp_path) as running:
        yield running


def wait_until_empty(service: Served) -> None:
    until = time.monotonic() + 120
    while len(service.house.speaking) and time.monotonic() < until:
        time.sleep(0.05)
    assert not len(service.house.speaking)


@pytest.mark.parametrize("kinds", [("wav", "wav"), ("wav", "pcm")])
def test_two_at_once_say_in_one_batch_what_each_says_alone(
    service: Served, kinds: tuple[str, str], monkeypatch: pytest.MonkeyPatch
):
    said: list[bytes] = []
    rows = [0]
    speak, step, authorise = TimbreCodec.speak_all, Engine.step, Gate.authorise

    def heard(codec: TimbreCodec, asked: Sequence[Said]) -> list[torch.Tensor]:
        said.extend(one.codes.numpy().tobytes() for one in asked)
        return speak(codec, asked)

    def counted(engine: Engine) -> list:
        ended = step(engine)
        rows.append(len(engine.decoder.tags))
        return ended

    def ask(number: int) -> httpx2.Response:
        text = {"input": TEXTS[number], "response_format": kinds[number], "seed": number}
        return service.call("admin", "POST", "/v1/audio/speech", json=SAY | text)

    monkeypatch.setattr(TimbreCodec, "speak_all", heard)
    monkeypatch.setattr(Engine, "step", counted)
    assert [ask(number).status_code for number in range(2)] == [200, 200]
    alone, most = sorted(said), max(rows)
    assert len(alone) == SENTENCES
    said.clear()
    rows.clear()
    both = threading.Barrier(2)

    def together(*given, **named):  # neither begins before the other was allowed to
        grant = authorise(*given, **named)
        both.wait(60)
        return grant

    monkeypatch.setattr(Gate, "authorise", together)
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(ask, range(2)))
    assert [answer.status_code for answer in answers] == [200, 200]
    assert sorted(said) == alone
    assert max(rows) > most
    ids = {answer.headers["X-Sayso-Ledger-Id"] for answer in answers}
    with Store.open(service.home) as store:
        rows_of = {each: [entry.event for entry in store.entries(id=each)] for each in ids}
        verify(store)
    ends = {"wav": ["granted", "released"], "pcm": ["granted", "streamed", "released"]}
    assert sorted(rows_of.values()) == sorted(ends[kind] for kind in kinds)


@pytest.mark.parametrize("kind", ["wav", "pcm"])
def test_who_leaves_ends_what_was_asked_for_and_nobody_elses(
    service: Served, kind: str, monkeypatch: pytest.MonkeyPatch
):
    begun, step = threading.Event(), Engine.step

    def watched(engine: Engine) -> list:
        ended = step(engine)
        begun.set()
        return ended

    monkeypatch.setattr(Engine, "step", watched)
    long = SAY | {"input": "Good morning, everybody. " * 30, "response_format": kind}
    headers = {"Authorization": f"Bearer {service.sent['admin']}"}
    leaving = HTTPConnection(service.url.removeprefix("http://"), timeout=120)
    leaving.request("POST", "/v1/audio/speech", json.dumps(long), headers | JSON)
    assert begun.wait(60)
    if kind == "pcm":
        assert leaving.getresponse().read(1)
    text = {"input": "The bus was late again today.", "response_format": "wav"}
    with ThreadPoolExecutor(1) as pool:
        stays = pool.submit(service.call, "admin", "POST", "/v1/audio/speech", json=SAY | text)
        leaving.close()
        other = stays.result()
    wait_until_empty(service)
    assert other.status_code == 200 and soundfile.info(io.BytesIO(other.content)).duration > 0.5
    with Store.open(service.home) as store:
        grants = [entry.id for entry in store.entries("granted", voice="own")]
        (cut,) = {*grants} - {other.headers["X-Sayso-Ledger-Id"]}
        events = [entry.event for entry in store.entries(id=cut)]
        verify(store)
    assert events[-1] == ("given-back" if kind == "wav" else "stream-cut")
    assert not list(service.house.spool.iterdir())
