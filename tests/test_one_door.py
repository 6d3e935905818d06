"""One door: whatever can make sound in a voice asks the gate, and makes none without a grant.

A new verb, public name or caller fails these tests until somebody has looked at it and put it into
the lists below. What a person who patches the code can do is no business of a test: see ETHICS.md.
"""

import ast
import inspect
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

import sayso
from sayso.cli import app
from sayso.inference.gate import Gate
from sayso.inference.store import Store
from sayso.inference.synthesizer import Synthesizer
from sayso.model.errors import RefusedError

ROOT = Path(__file__).resolve().parents[1]
SOUND = {"speak", "demo"}  # verbs that make audio in a voice
SILENT = {
    *("detect", "voices", "revoke", "prepare"),
    *("enrol start", "enrol finish", "enrol record", "receipt verify", "receipt key"),
    *("ledger verify", "ledger head", "ledger export", "ledger check", "keys rotate"),
    *("ca export", "corpora list", "corpora show", "corpora check"),
    *("train codec", "train text", "train ar", "train nar"),
}
MAKERS = {  # call -> the only files that may make it
    "Grant": {"inference/gate.py"},
    "open_sealed": {"inference/gate.py", "inference/upkeep.py"},
    "bundle.generate": {"inference/synthesizer.py", "src/sayso/release.py"},
    "codec.decode": {"inference/synthesizer.py"},
    "synthesise": {"inference/synthesizer.py"},
    "authorise": {"inference/synthesizer.py"},
    "release": {"inference/synthesizer.py"},
}


@pytest.fixture
def revoked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store in which even nobody's voice was withdrawn; the current folder is empty."""
    monkeypatch.setenv("SAYSO_HOME", str(tmp_path / "home"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with Store.open() as store:
        gate = Gate(store)
        if store.voice("nobody") is None:
            pytest.skip("no bundled voice")
        gate.revoke("nobody")
    return tmp_path / "here"


def verbs(command: Any, name: str = "") -> set[str]:
    """Full names of a command's verbs (typer has a click of its own, so no isinstance)."""
    if not hasattr(command, "commands"):
        return {name}
    parts = command.commands.items()
    return {verb for part, inner in parts for verb in verbs(inner, f"{name} {part}".strip())}


def recordings(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.suffix in {".wav", ".flac", ".mp3", ".part"}]


def test_every_verb_is_known():
    found = verbs(typer.main.get_command(app))
    assert found >= SOUND
    assert found - SILENT == SOUND


@pytest.mark.parametrize("voice", ["nobody", "a-stranger"])
def test_no_verb_speaks_without_a_grant(revoked: Path, voice: str):
    calls = {"speak": ["speak", "--voice", voice, "--text", "Hi.", "--out", "a.wav"]}
    calls["demo"] = ["demo"]
    assert set(calls) == SOUND
    for arguments in calls.values():
        result = CliRunner().invoke(app, arguments)
        assert isinstance(result.exception, RefusedError), (arguments, result)
        assert not recordings(revoked)
    with Store.open() as store:
        assert not list((store.home / "work").iterdir())


def test_every_public_name_is_known():
    names = {"RefusedError", "Sampling", "SaysoError", "Store", "Synthesizer", "detect"}
    assert set(sayso.__all__) == names
    own = {name for name, _ in inspect.getmembers(Synthesizer, inspect.isfunction)}
    assert {name for name in own if not name.startswith("_")} == {"speak"}


def test_speaking_in_python_asks_the_gate(revoked: Path):
    synthesizer = Synthesizer()
    for voice in ("nobody", "a-stranger"):
        with pytest.raises(RefusedError):
            synthesizer.speak("Hi.", voice, revoked / "a.wav")
    assert not recordings(revoked)


def test_nothing_else_in_the_code_opens_a_voice_or_makes_sound():
    files = [
        *ROOT.glob("inference/*.py"),
        *ROOT.glob("training/*.py"),
        *ROOT.glob("src/sayso/*.py"),
    ]
    assert len(files) > 20
    callers: dict[str, set[str]] = {name: set() for name in MAKERS}
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                call = f".{ast.unparse(node.func)}"
                for name in MAKERS:
                    if call.endswith(f".{name}") and "lock.release" not in call:
                        callers[name].add(str(path.relative_to(ROOT)))
    assert callers == MAKERS
