"""The service: who may do what, what bad input gets, and OpenAI's own client."""

import asyncio
import base64
import io
import json
import platform
import shutil
import struct
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")

import httpx2
import openai
from starlette.testclient import TestClient

from sayso.cli import app as cli
from sayso.inference.detection.detector import detect
from sayso.inference.errors import GoneError
from sayso.inference.gate import Gate
from sayso.inference.nameless import held
from sayso.inference.store.checking import verify
from sayso.inference.store.store import Store
from sayso.inference.synthesizer import MOST_CHARACTERS
from sayso.model import decoding
from sayso.model.audio import read_audio
from sayso.model.bundle import BUNDLED
from sayso.model.errors import CheckpointError, InputError
from sayso.service import tokens as tokens_module
from sayso.service.app import create_app
from sayso.service.door import HEADERS, MAY, OPEN
from sayso.service.house import Settings, prepare
from sayso.service.lines import FullError, Line
from sayso.service.serve import check_place, serve
from sayso.service.tokens import ROLES, SpentError, TokenError, Tokens, service_folder
from sayso.service.uploads import decoded
from served import Served, enrol, served

if not (BUNDLED / "codec" / "config.json").is_file():
    pytest.skip(f"no bundled model: {BUNDLED} is missing", allow_module_level=True)
KINDS = ("own", "other", "revoked", "expired")
SAY = {"model": "sayso-mini", "input": "Good morning.", "response_format": "wav"}
GONE = {"own": 200, "other": "token-voice", "revoked": 200, "expired": 200}
ALL = dict.fromkeys(KINDS, 200)
NO = dict.fromkeys(KINDS, "token-role")
SPEAKS = {"own": 200, "revoked": "voice-revoked", "expired": "receipt-expired"}
ROWS: dict[str, dict[str, Any]] = {
    "POST /v1/audio/speech": {
        "admin": SPEAKS | {"other": 200},
        "reviewer": SPEAKS | {"other": "token-voice"},
        "speaker": NO,
    },
    "GET /v1/voices/{voice}/receipt": {"admin": ALL, "reviewer": GONE, "speaker": GONE},
    "DELETE /v1/voices/{voice}": {
        "admin": ALL,
        "reviewer": dict.fromkeys(KINDS, "token-voice"),
        "speaker": GONE,
    },
    "GET /v1/voices": dict.fromkeys(ROLES, 200),
    "GET /v1/models": dict.fromkeys(ROLES, 200),
    "GET /v1/models/{model}": dict.fromkeys(ROLES, 200),
    "GET /v1/me": dict.fromkeys(ROLES, 200),
    "POST /v1/consents": dict.fromkeys(ROLES, 201),
    "POST /v1/consents/{session}/recording": dict.fromkeys(ROLES, "session-unknown"),
    "POST /v1/detect": dict.fromkeys(ROLES, 200),
    "GET /v1/manifests/{ledger_id}": dict.fromkeys(ROLES, "manifest-unknown"),
    "GET /v1/keys": dict.fromkeys(ROLES, 200),
    "GET /v1/root": dict.fromkeys(ROLES, 200),
    "GET /v1/ledger/head": dict.fromkeys(ROLES, 200),
    "POST /v1/ledger/check": dict.fromkeys(ROLES, "ledger-wrong"),
    "GET /v1/ledger": {"admin": 200, "reviewer": 200, "speaker": "token-role"},
    "GET /v1/ledger/verify": {"admin": 200, "reviewer": 200, "speaker": "token-role"},
    "GET /metrics": dict.fromkeys(ROLES, 200),
}
"""Of each route and role what becomes of a voice of each kind, or of the call: status or code."""
CELLS = [
    (route, role, kind, wanted)
    for route, row in ROWS.items()
    for role, cell in row.items()
    for kind, wanted in (cell.items() if isinstance(cell, dict) else [("", cell)])
]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory):
    with served(tmp_path_factory.mktemp("served"), requests=10_000, upload_seconds=60) as running:
        yield running


def wav(seconds: float = 0.5) -> bytes:
    out = io.BytesIO()
    sound = 0.1 * np.sin(np.arange(int(seconds * 16_000)) / 9)
    soundfile.write(out, sound, 16_000, format="WAV")
    return out.getvalue()


def code(answer: httpx2.Response) -> str:
    """The reason code of a refusal, which has the shape of OpenAI's errors."""
    error = answer.json()["error"]
    assert {"message", "type", "param", "code"} <= set(error) and error["message"]
    return error["code"]


# --- who may do what ---


def test_every_route_has_its_row(tmp_path: Path):
    app = create_app(Settings(home=tmp_path / "home"))
    paths = app.openapi()["paths"]
    found = {f"{method.upper()} {path}" for path, each in paths.items() for method in each}
    assert found - {f"GET {path}" for path in OPEN} == set(ROWS)
    assert {" ".join(route) for route in MAY} == set(ROWS)


@pytest.mark.parametrize(("route", "role", "kind", "wanted"), CELLS)
def test_roles(service: Served, route: str, role: str, kind: str, wanted: int | str):
    method, path = route.split()
    voice = kind
    if method == "DELETE" and wanted == 200:
        voice = f"{kind}-{role}"  # of its own: it is gone afterwards
        with Store.open(service.home) as store:
            enrol(store, voice, days=1e-6 if kind == "expired" else 30)
        if role == "speaker":
            service.house.tokens.give("Cyril", voice)
        if kind == "revoked":
            assert service.call(role, method, path.format(voice=voice)).status_code == 200
    more: dict = {}
    if route == "POST /v1/audio/speech":
        more["json"] = SAY | {"voice": voice}
    if route == "POST /v1/consents":
        more["json"] = {"speaker": "Vera", "purposes": ["research"]}
    if path.endswith(("recording", "detect", "check")):
        more["files"] = {"file": ("x", wav())}
    ids = {"session": "s-1", "ledger_id": "g-" + "0" * 32, "model": "sayso-mini"}
    answer = service.call(role, method, path.format(voice=voice, **ids), **more)
    if isinstance(wanted, int):
        assert answer.status_code == wanted, answer.text
    else:
        assert 400 <= answer.status_code < 500 and code(answer) == wanted
    for name, value in HEADERS.items():
        assert answer.headers[name] == value


def test_a_route_without_a_row_is_closed(service: Served):
    app = create_app(service.house.settings)
    app.add_api_route("/v1/new", lambda: {}, methods=["GET"])

    answer = TestClient(app).get(
        "/v1/new", headers={"Authorization": f"Bearer {service.sent['admin']}"}
    )
    assert answer.status_code == 403 and code(answer) == "token-role"


def test_nothing_is_open_without_a_token(service: Served):
    for route in ROWS:
        method, path = route.split()
        answer = service.client.request(method, path)
        assert answer.status_code == 401 and code(answer) == "token-missing", route
        answer = service.call("admin", method, path, headers={"Authorization": "Bearer sayso-0"})
        assert code(answer) == "token-unknown"
    for path in ("/", "/healthz", "/readyz", "/openapi.json"):
        assert service.client.get(path).status_code == 200, path


def test_voices_are_told_to_those_who_may_see_them(service: Served):
    seen = {each["id"] for each in service.call("speaker", "GET", "/v1/voices").json()["data"]}
    assert "own" in seen and not seen & {"other", "nobody"}
    assert code(service.call("reviewer", "GET", "/v1/voices/made-up/receipt")) == "token-voice"


# --- tokens ---


def test_a_token_is_kept_as_a_hash_and_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    tokens = Tokens(tmp_path / "service")
    shown = tokens.create("Ada", "reviewer", ("nobody",), days=2)
    assert len(shown[15:]) == 43  # 256 bits in base64
    raw = b"".join(path.read_bytes() for path in (tmp_path / "service").iterdir())
    assert shown[15:].encode() not in raw and b"Ada" in raw
    found = tokens.check(shown)
    assert (found.name, found.role, found.voices) == ("Ada", "reviewer", {"nobody"})
    for bad in ("", shown[:-1], shown + "A", shown.swapcase(), "sayso-00000000-" + shown[15:]):
        with pytest.raises(TokenError) as caught:
            tokens.check(bad)
        assert caught.value.code == "token-unknown"
    with pytest.raises(InputError, match="has a token"):
        tokens.create("ada", "admin")
    now = time.time()
    monkeypatch.setattr(tokens_module.time, "time", lambda: now + 3 * 86400)
    with pytest.raises(TokenError, match="over"):
        tokens.check(shown)
    monkeypatch.undo()
    tokens.revoke(found.id)
    with pytest.raises(TokenError, match="revoked"):
        Tokens(tmp_path / "service").check(shown)
    with pytest.raises(InputError):
        tokens.revoke("x")
    for name, role, days in (("a\nb", "admin", 1), ("*", "admin", 1), ("Ed", "root", 1)):
        with pytest.raises(InputError):
            tokens.create(name, role, (), days)  # type: ignore[arg-type]
    with pytest.raises(InputError):
        tokens.create("Ed", "speaker", ("*",))
    (tmp_path / "service").chmod(0o755)
    with pytest.raises(InputError, match="chmod 700"):
        Tokens(tmp_path / "service")


def test_what_a_token_may_have_for_now(tmp_path: Path):
    tokens = Tokens(tmp_path / "service")
    token = tokens.check(tokens.create("Ada", "admin"))
    tokens.spend_seconds(token, 50.0, 60.0)
    with pytest.raises(SpentError) as caught:
        tokens.spend_seconds(token, 20.0, 60.0)
    assert caught.value.code == "limit-seconds" and 0 < caught.value.wait <= 86400
    tokens.spend_seconds(token, -45.0, 60.0)
    tokens.spend_seconds(token, 20.0, 60.0)
    with pytest.raises(SpentError, match="40 s of audio"):
        tokens.spend_seconds(token, 8.0, 60.0, 5)
    tokens.spend_seconds(token, 7.0, 60.0, 5)
    tokens.spend_seconds(token, -7.0, 60.0, 5)
    tokens.spend_seconds(token, 35.0, 60.0)
    with pytest.raises(SpentError, match="requests"):
        for _ in range(4):  # a minute may end meanwhile
            tokens.count_request(token, 1)


def test_tokens_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SAYSO_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SAYSO_SERVICE", raising=False)
    made = CliRunner().invoke(cli, ["token", "create", "Ada", "--role", "speaker", "--days", "3"])
    shown = made.output.strip()
    tokens = Tokens(service_folder())
    assert tokens.check(shown).name == "Ada"
    listed = CliRunner().invoke(cli, ["token", "list"]).output
    assert "Ada, speaker, until" in listed and shown[15:] not in listed
    CliRunner().invoke(cli, ["token", "revoke", shown[6:14]])
    with pytest.raises(TokenError, match="revoked"):
        tokens.check(shown)


# --- bad input ---


def lying() -> bytes:
    return wav()[:40] + struct.pack("<I", 2**31 - 9) + wav()[44:]


def bomb() -> bytes:
    """An hour of silence in a few kilobytes."""
    out = io.BytesIO()
    soundfile.write(out, np.zeros(3600 * 8000, np.int16), 8000, format="FLAC")
    return out.getvalue()


BAD_SPEECH = {
    "malformed": ({"content": b'{"model": '}, "field"),
    "no object": ({"content": b"[" * 5000}, "http-400"),
    "not UTF-8": ({"content": b'{"input": "\xff"}'}, "http-400"),
    "wrong type": ({"json": SAY | {"voice": "own", "speed": "fast"}}, "field"),
    "a number as text": ({"json": SAY | {"voice": "own", "input": 5}}, "field"),
    "missing": ({"json": {"model": "sayso-mini"}}, "field"),
    "unknown field": ({"json": SAY | {"voice": "own", "gate": "off"}}, "unknown-field"),
    "instructions": ({"json": SAY | {"voice": "own", "instructions": "Shout."}}, "field-refused"),
    "unknown model": ({"json": SAY | {"voice": "own", "model": "tts-1"}}, "model-unknown"),
    "unknown voice": ({"json": SAY | {"voice": "alloy"}}, "voice-unknown"),
    "a path as a voice": ({"json": SAY | {"voice": "../../etc/passwd"}}, "voice-unknown"),
    "a turned name": ({"json": SAY | {"voice": "own\u202e"}}, "voice-unknown"),
    "half a character": ({"content": json.dumps(SAY | {"voice": "own\ud800"})}, "field"),
    "revoked": ({"json": SAY | {"voice": "revoked"}}, "voice-revoked"),
    "expired": ({"json": SAY | {"voice": "expired"}}, "receipt-expired"),
    "another purpose": ({"json": SAY | {"voice": "own", "purpose": "fraud"}}, "scope-purpose"),
    "too long": ({"json": SAY | {"voice": "own", "input": "a " * 2049}}, "text-too-long"),
    "empty": ({"json": SAY | {"voice": "own", "input": ""}}, "input"),
    "unspeakable": ({"json": SAY | {"voice": "own", "input": "\u3042\u3044"}}, "input"),
    "a zero byte": ({"json": SAY | {"voice": "own", "input": "\x00"}}, "input"),
    "another format": ({"json": SAY | {"voice": "own", "response_format": "aac"}}, "field"),
    "seed": ({"json": SAY | {"voice": "own", "seed": 2**63}}, "field"),
    "too large": ({"content": b" " * (2**18 + 1)}, "body-too-large"),
    "too large, in pieces": ({"content": (b" " * 2**17 for _ in range(3))}, "body-too-large"),
}


@pytest.mark.parametrize("name", BAD_SPEECH)
def test_bad_requests(service: Served, name: str):
    request, wanted = BAD_SPEECH[name]
    rows = len(service.call("admin", "GET", "/v1/ledger").json()["data"])
    json_type = {"Content-Type": "application/json"}
    answer = service.call("admin", "POST", "/v1/audio/speech", headers=json_type, **request)
    assert 400 <= answer.status_code < 500 and code(answer) == wanted, answer.text
    assert not list(service.house.spool.iterdir()) and "Traceback" not in answer.text
    assert str(service.home) not in answer.text
    after = service.call("admin", "GET", "/v1/ledger").json()["data"][rows:]
    assert {row["event"] for row in after} <= {"refused"}


BAD_FILES = {
    "text": (b"no audio at all", "input"),
    "nothing": (b"", "input"),
    "a lying header": (lying(), "input"),
    "a bomb of silence": (bomb(), "input"),
    "a playlist": (b"#EXTM3U\nfile:///etc/passwd\n", "input"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files(service: Served, name: str):
    data, wanted = BAD_FILES[name]
    asked = {"speaker": "Vera", "purposes": ["research"]}
    begun = service.call("speaker", "POST", "/v1/consents", json=asked).json()
    for path in ("/v1/detect", f"/v1/consents/{begun['id']}/recording"):
        for filename in ("../../x.wav", "x\u202egnp.exe"):
            answer = service.call("speaker", "POST", path, files={"file": (filename, data)})
            if name == "a lying header" and answer.status_code in (200, 410, 422):
                continue  # what is there is read
            assert answer.status_code == 400 and code(answer) == wanted, answer.text
            assert str(service.home) not in answer.text and "spool" not in answer.text
    assert not list(service.house.spool.iterdir())


def refuse_to_decode(*_: object) -> None:
    raise AssertionError("an upload was decoded in the service's process")


@pytest.mark.parametrize("format", ["WAV", "FLAC", "MP3", "OGG", "M4A"])
def test_uploads_are_decoded_elsewhere(
    service: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str
):
    out = tmp_path / "sent"
    sound = np.stack([np.sin(np.arange(6 * 44_100) / 9), np.zeros(6 * 44_100)], 1) / 4
    if format == "M4A":
        if not shutil.which("ffmpeg"):
            pytest.skip("the ffmpeg program is absent: install it")
        soundfile.write(tmp_path / "a.wav", sound, 44_100)
        command = ["ffmpeg", "-v", "error", "-i", tmp_path / "a.wav", "-f", "ipod", out]
        subprocess.run(command, check=True)
    else:
        soundfile.write(out, sound, 44_100, format=format)
    data, places = out.read_bytes(), asyncio.Semaphore(1)
    (tmp_path / "spool").mkdir()
    wanted = {rate: read_audio(out, rate)[0].numpy() for rate in (16_000, 24_000)}
    spool = tmp_path / "spool"
    found = asyncio.run(decoded(held(spool, data), spool, (16_000, 24_000), 0.0, 60.0, places))
    assert found.suffix == f".{format.lower()}" and not list(spool.iterdir())
    for rate, heard in found.sounds.items():
        assert np.array_equal(heard, wanted[rate])
    for kind in (decoding.Sound, decoding.FfmpegSound):
        monkeypatch.setattr(kind, "__init__", refuse_to_decode)
    file = {"file": ("x", data)}
    told = service.call("speaker", "POST", "/v1/detect", files=file).json()
    assert told["seconds"] == pytest.approx(6.0, abs=0.1) and not told["ours"]
    asked = {"speaker": "Vera", "purposes": ["research"]}
    begun = service.call("speaker", "POST", "/v1/consents", json=asked).json()
    place = f"/v1/consents/{begun['id']}/recording"
    assert code(service.call("speaker", "POST", place, files=file)) == "not-speech"


def test_sizes_tokens_and_sessions(service: Served):
    large = service.call("admin", "POST", "/v1/detect", files={"file": ("x", bytes(33 * 2**20))})
    assert code(large) == "body-too-large"
    asked = {"speaker": "Vera", "purposes": ["research"]}
    begun = service.call("speaker", "POST", "/v1/consents", json=asked).json()
    place = f"/v1/consents/{begun['id']}/recording"
    file = {"file": ("x", wav(6.0))}
    assert code(service.call("reviewer", "POST", place, files=file)) == "session-unknown"
    assert code(service.call("admin", "POST", place, files=file)) == "session-unknown"
    seen = set[Path]()
    with ThreadPoolExecutor(1) as pool:
        asked_for = pool.submit(service.call, "speaker", "POST", place, files=file)
        while not asked_for.done():
            seen |= {*service.house.spool.iterdir(), *(service.home / "work").iterdir()}
            time.sleep(0.005)
    first = asked_for.result()
    assert not seen  # a person's voice has no name on the disk, in case the process is killed
    assert first.status_code == 422 and code(first) == "not-speech"
    checks = first.json()["error"]["checks"]
    assert [each["passed"] for each in checks] == [True, True, True, False]
    assert code(service.call("speaker", "POST", place, files=file)) == "session-used"
    for change in ({"users": ["everyone"]}, {"speaker": "No"}, {"purposes": ["a"]}):
        answer = service.call("speaker", "POST", "/v1/consents", json=asked | change)
        assert code(answer) == "input"


# --- OpenAI's own client ---


@pytest.mark.parametrize("kind", ["wav", "flac", "mp3", "opus", "pcm"])
def test_openais_client_makes_a_file_that_is_ours(service: Served, tmp_path: Path, kind):
    client = openai.OpenAI(api_key=service.sent["reviewer"], base_url=f"{service.url}/v1")
    assert [model.id for model in client.models.list()] == ["sayso-mini"]
    out = tmp_path / f"said.{kind}"
    text = "The cat sat on the mat."
    asked: Any = SAY | {"voice": "own", "input": text, "response_format": kind}
    with client.audio.speech.with_streaming_response.create(**asked) as answer:
        answer.stream_to_file(out)
        row = answer.headers["X-Sayso-Ledger-Id"]
        rate = int(answer.headers["X-Sayso-Sample-Rate"])
    if kind == "pcm":  # it has the mark, and no place for a manifest
        samples = np.frombuffer(out.read_bytes(), "<i2")
        out = tmp_path / "said.wav"
        soundfile.write(out, samples, rate, subtype="PCM_16")
    manifest = service.call("reviewer", "GET", f"/v1/manifests/{row}").content
    if kind == "opus":
        (tmp_path / "said.opus.c2pa").write_bytes(manifest)
    found = detect(out, service.home)
    assert found.ours and found.present and row in found.ledger_ids
    assert found.manifest.state == ("none" if kind == "pcm" else "trusted")
    if kind == "pcm":
        assert found.recalled is not None and found.recalled.ledger_id == row
    other = service.call("speaker", "GET", f"/v1/manifests/{row}")
    assert code(other) == "manifest-unknown"
    files = {"file": ("x", out.read_bytes()), "manifest": ("m", manifest)}
    told = service.call("reviewer", "POST", "/v1/detect", files=files).json()
    assert told["ours"] and told["rows"][0]["user"] == "Bob" and told["rows"][0]["voice"] == "own"
    assert service.call("speaker", "POST", "/v1/detect", files=files).json()["rows"]


@pytest.mark.parametrize("kind", ["wav", "mp3"])
def test_openais_client_hears_events(service: Served, tmp_path: Path, kind: str):
    client = openai.OpenAI(api_key=service.sent["reviewer"], base_url=f"{service.url}/v1")
    text = "The bus was late again today. Could you bring me a glass of water?"
    asked: Any = SAY | {"input": text, "response_format": kind, "stream_format": "sse"}
    with client.audio.speech.with_streaming_response.create(voice="own", **asked) as answer:
        row = answer.headers["X-Sayso-Ledger-Id"]
        events = [json.loads(line[6:]) for line in answer.iter_lines() if line]
    assert {each["type"] for each in events[:-1]} == {"speech.audio.delta"}
    assert events[-1]["type"] == "speech.audio.done" and events[-1]["usage"]["input_tokens"]
    assert kind == "mp3" or len(events) == 3  # one of each sentence, and the end
    out = tmp_path / f"said.{kind}"
    out.write_bytes(b"".join(base64.b64decode(each["audio"]) for each in events[:-1]))
    found = detect(out, service.home)
    assert found.ours and row in found.ledger_ids
    assert service.call("reviewer", "GET", f"/v1/manifests/{row}").status_code == 200


def test_openais_client_is_told_the_reason(service: Served):
    client = openai.OpenAI(api_key=service.sent["reviewer"], base_url=f"{service.url}/v1")
    for kind in ("wav", "pcm"):  # a stream is refused before it begins
        asked: Any = SAY | {"response_format": kind}
        for voice, reason in (("other", "token-voice"), ("revoked", "voice-revoked")):
            with pytest.raises(openai.PermissionDeniedError) as caught:
                client.audio.speech.create(voice=voice, **asked)
            assert caught.value.code == reason
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(api_key="x", base_url=f"{service.url}/v1").models.list()


def assert_cut(service: Served, row: str) -> None:
    """Wait until the ledger says that a stream was cut short, and nothing else behind its start."""
    with Store.open(service.home) as store:
        until = time.monotonic() + 120
        while not (ends := store.entries(id=row)[2:]) and time.monotonic() < until:
            time.sleep(0.2)
        assert [entry.event for entry in ends] == ["stream-cut"]
        verify(store)


def test_a_stream_ends_with_who_hears_it(service: Served):
    headers = {"Authorization": f"Bearer {service.sent['reviewer']}"}
    asked = SAY | {"voice": "own", "input": "Good morning. " * 40, "response_format": "pcm"}
    with service.client.stream("POST", "/v1/audio/speech", json=asked, headers=headers) as answer:
        row = answer.headers["X-Sayso-Ledger-Id"]
        assert next(answer.iter_bytes())
    assert_cut(service, row)


@pytest.mark.parametrize("kind", ["pcm", "events"])
def test_a_stream_ends_with_its_token(service: Served, kind: str):
    shown = service.house.tokens.create("Dora", "admin")
    asked = SAY | {"voice": "nobody", "input": "Good morning. " * 20}
    asked |= {"response_format": "pcm"} if kind == "pcm" else {"stream_format": "sse"}
    headers = {"Authorization": f"Bearer {shown}"}
    with service.client.stream("POST", "/v1/audio/speech", json=asked, headers=headers) as answer:
        row, heard = answer.headers["X-Sayso-Ledger-Id"], answer.iter_bytes()
        assert next(heard)
        Tokens(service_folder(service.home)).revoke(shown[6:14])  # as another process does
        if kind == "pcm":
            with pytest.raises(httpx2.RemoteProtocolError):
                list(heard)
        else:
            rest = b"".join(heard)
            assert b'"code": "token-revoked"' in rest and b"speech.audio.done" not in rest
    assert_cut(service, row)


# --- limits and places ---
def test_limits_are_answered_with_a_time(tmp_path: Path):
    with served(tmp_path, requests=9, seconds=3.0, queue=1) as service:
        said = SAY | {"voice": "own"}
        more = service.call("admin", "POST", "/v1/audio/speech", json=said | {"samples": 3})
        assert code(more) == "limit-seconds" and "3 samples, each counts" in more.text
        with ThreadPoolExecutor(4) as pool:
            asked = [
                pool.submit(service.call, role, "POST", "/v1/audio/speech", json=said)
                for role in ("reviewer", "reviewer", "admin", "admin")
            ]
        refused = [each.result() for each in asked if each.result().status_code != 200]
        assert {code(each) for each in refused} <= {"queue-full", "limit-seconds"} and refused
        assert all(each.status_code == 429 and int(each.headers["Retry-After"]) for each in refused)
        for _ in range(10):
            last = service.call("speaker", "GET", "/v1/me")
        assert last.status_code == 429 and code(last) == "limit-requests"
        assert 0 < int(last.headers["Retry-After"]) <= 60
        service.house.stopping = True
        stopped = service.call("admin", "GET", "/v1/me")
        assert stopped.status_code == 503 and code(stopped) == "stopping"
        metrics = service.house.metrics.registry
        assert metrics.get_sample_value("sayso_refusals_total", {"code": "limit-requests"})
        with Store.open(service.home) as store:
            verify(store)


class Client:
    """All that a line asks of a request: whether its client is still there."""

    def __init__(self, gone: bool):
        self.gone = gone

    async def is_disconnected(self) -> bool:
        return self.gone


def test_who_leaves_frees_their_place():
    begun, end = threading.Event(), threading.Event()
    line: Line[str] = Line("test", lambda: "made", 1)
    done: list[str] = []

    def first(made: str) -> str:
        begun.set()
        end.wait(60)
        return made

    async def ask() -> None:
        here: Any = Client(gone=False)
        left: Any = Client(gone=True)
        waits = asyncio.ensure_future(line.ask(here, first))
        await asyncio.to_thread(begun.wait, 60)
        with pytest.raises(GoneError):
            await line.ask(left, done.append)
        assert len(line) == 1
        second = asyncio.ensure_future(line.ask(here, done.append))
        await asyncio.sleep(0)
        with pytest.raises(FullError):
            await line.ask(here, done.append)
        end.set()
        assert await waits == "made"
        await second

    asyncio.run(ask())
    line.close()
    assert done == ["made"] and len(line) == 0


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_nobody_listens_in(host: str):
    with pytest.raises(InputError, match="behind-proxy"):
        check_place(host, tls=False, behind_proxy=False)
    check_place(host, tls=True, behind_proxy=False)
    check_place(host, tls=False, behind_proxy=True)
    for own in ("127.0.0.1", "::1", "localhost"):
        check_place(own, tls=False, behind_proxy=False)


@pytest.mark.parametrize("most", [0, MOST_CHARACTERS + 1])
def test_a_limit_beyond_the_librarys_own_does_not_start(tmp_path: Path, most: int):
    with pytest.raises(InputError, match=f"--most-text {most}: give 1 to {MOST_CHARACTERS}"):
        serve(Settings(home=tmp_path / "home", text=most))
    assert not (tmp_path / "home").exists()


HEAPS = """
import ctypes, sys, threading
from sayso.inference.memory import hold_little
hold_little()
libc, together = ctypes.CDLL(None), threading.Barrier(12)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
libc.fopen.restype, libc.fclose.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
libc.malloc_info.argtypes = [ctypes.c_int, ctypes.c_void_p]
def use():
    held = libc.malloc(4096)
    together.wait()
    libc.free(held)
threads = [threading.Thread(target=use) for _ in range(12)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
out = libc.fopen(sys.argv[1].encode(), b"w")
libc.malloc_info(0, out)
libc.fclose(out)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_threads_share_their_heaps(tmp_path: Path):
    subprocess.run([sys.executable, "-c", HEAPS, str(tmp_path / "heaps")], check=True)
    assert (tmp_path / "heaps").read_text().count("<heap nr=") <= 2


def test_two_processes_use_a_fresh_store_at_once(tmp_path: Path):
    with Store.open(tmp_path / "home"):
        pass
    together = threading.Barrier(4)

    def use(_: int) -> list[str]:
        with Store.open(tmp_path / "home") as store:
            together.wait()
            return Gate(store).notes

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(use, range(4))) == [[]] * 4


def test_nothing_of_a_killed_process_stays_in_the_spool(tmp_path: Path):
    settings = Settings(home=tmp_path / "home")
    left = settings.folder / "spool" / "speech-1.wav"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"RIFF")
    prepare(settings)
    assert not left.exists()
    with pytest.raises(CheckpointError):
        prepare(replace(settings, model=tmp_path / "none"))


def test_the_service_is_loaded_by_its_verbs_alone():
    code = "import sys, sayso.cli; assert not {'fastapi', 'uvicorn', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    root = Path(__file__).resolve().parents[1]
    users = {
        str(path.relative_to(root))
        for folder in ("inference", "training", "model", "src/sayso", "benchmarks", "tools")
        for path in (root / folder).rglob("*.py")
        if "sayso.service" in path.read_text()
    }
    assert {user for user in users if "/service/" not in user} <= {
        "src/sayso/cli/service.py",
        "benchmarks/serve.py",
    }
