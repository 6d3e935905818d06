"""What leaves: nothing is on the disk before it is released, and no destination stops a verb."""

import os
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from conftest import Clock
from sayso.cli import app
from sayso.inference.consent.receipt import Scope
from sayso.inference.errors import RefusedError, StoreError
from sayso.inference.gate import Gate
from sayso.inference.store import releases
from sayso.inference.store.checking import verify
from sayso.inference.store.recovery import recover
from sayso.inference.store.store import Store
from sayso.model.errors import InputError
from test_gate import register, release
from test_store import in_child

pytestmark = pytest.mark.usefixtures("no_bundled_voice")
SCOPE = Scope(purposes=("research",), users=("ada",))
SOUND = b"RIFF" + b"what nobody may hear yet" * 200


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SAYSO_HOME", str(tmp_path / "home"))
    with Store.open() as store:
        register(store, "vera", SCOPE)
    return tmp_path / "home"


def plain_copies(folder: Path) -> list[Path]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return [path for path in files if SOUND[:48] in path.read_bytes()]


def speak(home: Path, out: Path) -> None:
    with Store.open(home) as store:
        gate = Gate(store)
        release(gate, gate.authorise("vera", "research", "ada", "Hello."), out, SOUND)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def dead_at(home: Path, out: Path, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Release in a child that is killed when it comes to a step."""

    def work() -> None:
        owner = Store if hasattr(Store, step) else releases
        monkeypatch.setattr(owner, step, lambda *_: die())
        speak(home, out)

    assert os.waitpid(in_child(work), 0)[1] == signal.SIGKILL


@pytest.mark.parametrize("step", ["begin", "release_with"])
def test_killed_before_it_is_released_nothing_was_ever_on_the_disk(
    home: Path, tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
):
    out = tmp_path / "said.opus"
    dead_at(home, out, step, monkeypatch)
    assert plain_copies(tmp_path) == []
    with Store.open(home) as store:
        verify(store)
        gate = Gate(store)
        assert gate.notes == [] and gate.outputs("vera") == [] and store.journal() == []
        assert not list((home / "work").iterdir()) and not out.exists()
        verify(store)


@pytest.mark.parametrize("step", ["deliver", "close_release"])
def test_killed_after_it_was_released_it_arrives(
    home: Path, tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
):
    out = tmp_path / "said.opus"
    dead_at(home, out, step, monkeypatch)
    assert out.exists() == (step == "close_release")
    with Store.open(home) as store:
        verify(store)
        assert recover(store) == []
        assert out.read_bytes() == SOUND and releases.sidecar_of(out).is_file()
        assert not list((home / "work").iterdir()) and store.journal() == []
        verify(store)


def test_what_waits_when_the_voice_is_revoked_never_arrives(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out = tmp_path / "said.wav"
    dead_at(home, out, "deliver", monkeypatch)
    with Store.open(home) as store:
        store.forget("vera", {})
    with Store.open(home) as store:
        assert recover(store) == [] and not out.exists() and plain_copies(tmp_path) == []
        assert [entry.event for entry in store.entries()][-2:] == ["revoked", "release-dropped"]
        verify(store)


def test_what_was_sealed_and_changed_is_not_delivered(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out = tmp_path / "said.wav"
    dead_at(home, out, "deliver", monkeypatch)
    (waiting,) = (home / "work").glob("*.sealed")
    data = bytearray(waiting.read_bytes())
    data[-1] ^= 1
    waiting.write_bytes(data)
    with Store.open(home) as store:
        (note,) = recover(store)
        assert "was changed" in note and not out.exists()


def test_a_voice_for_one_sentence_ends_with_its_process(home: Path):
    """As of `sayso evaluate` and `train --listen`: nobody is left to revoke it after a kill."""

    def work() -> None:
        with Store.open(home) as store, store.passing("evaluation-1"):
            register(store, "evaluation-1", SCOPE)
            die()

    with Store.open(home) as store, store.passing("evaluation-2"):
        register(store, "evaluation-2", SCOPE)
        assert os.waitpid(in_child(work), 0)[1] == signal.SIGKILL
        with Store.open(home) as other:
            assert recover(other) == []
            ended = {voice.voice: bool(voice.revoked) for voice in other.voices()}
            assert ended == {"vera": False, "evaluation-1": True, "evaluation-2": False}
    with Store.open(home) as store:
        assert [v.voice for v in store.voices() if not v.revoked] == ["vera"]
        assert not list((home / "work").iterdir())
        verify(store)


def test_a_voice_that_cannot_be_ended_stops_no_verb(home: Path, monkeypatch: pytest.MonkeyPatch):
    def work() -> None:
        with Store.open(home) as store, store.passing("evaluation-1"):
            register(store, "evaluation-1", SCOPE)
            die()

    os.waitpid(in_child(work), 0)
    with Store.open(home) as store, monkeypatch.context() as patch:
        patch.setattr(Store, "forget", lambda *_: (_ for _ in ()).throw(StoreError("locked")))
        (note,) = recover(store)
        assert "cannot be ended: locked" in note
    with Store.open(home) as store:
        assert recover(store) == []
        assert [v.voice for v in store.voices() if not v.revoked] == ["vera"]


# --- destinations that go wrong between grant and release, and after it ---


def folder_at_sidecar(out: Path) -> None:
    releases.sidecar_of(out).mkdir()


def folder_at_file(out: Path) -> None:
    out.mkdir()


def folder_is_gone(out: Path) -> None:
    out.parent.rmdir()


def folder_is_a_file(out: Path) -> None:
    out.parent.rmdir()
    out.parent.write_text("")


def folder_is_a_loop(out: Path) -> None:
    out.parent.rmdir()
    out.parent.symlink_to(out.parent)


WRONG = [folder_at_sidecar, folder_at_file, folder_is_gone, folder_is_a_file, folder_is_a_loop]
VERBS = {
    "voices": "vera",
    "ledger verify": "good",
    "ledger head": "ey",
    "receipt key": "BEGIN PUBLIC KEY",
    "keys rotate": "signing with",
    "enrol start --speaker Vera --controller Gregson --purpose research": "session s-",
    "revoke vera": "1 recordings",
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_destination_gone_wrong_after_the_release_stops_no_verb(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: Callable[[Path], None]
):
    out = tmp_path / "out" / "said.opus"
    out.parent.mkdir()
    dead_at(home, out, "deliver", monkeypatch)
    wrong(out)
    told = []
    for verb, said in VERBS.items():
        result = CliRunner().invoke(app, verb.split())
        assert result.exit_code == 0 and said in result.output, (verb, result.output)
        told += [verb for _ in range(result.output.count("kept sealed"))]
    assert told == ["voices"]  # once


@pytest.mark.parametrize("wrong", WRONG)
def test_it_arrives_when_its_place_is_mended(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: Callable[[Path], None]
):
    out = tmp_path / "out" / "said.opus"
    out.parent.mkdir()
    dead_at(home, out, "deliver", monkeypatch)
    wrong(out)
    with Store.open(home) as store:
        assert len(recover(store)) == 1 and recover(store) == []
        verify(store)
        if out.parent.is_symlink() or out.parent.is_file():
            out.parent.unlink()
        elif out.parent.is_dir():
            (out if out.is_dir() else releases.sidecar_of(out)).rmdir()
        out.parent.mkdir(exist_ok=True)
        assert recover(store) == [] and out.read_bytes() == SOUND
        verify(store)


@pytest.mark.parametrize("wrong", WRONG)
def test_a_destination_gone_wrong_after_the_grant_releases_nothing(
    home: Path, tmp_path: Path, wrong: Callable[[Path], None]
):
    out = tmp_path / "out" / "said.opus"
    out.parent.mkdir()
    with Store.open(home) as store:
        gate = Gate(store)
        grant = gate.authorise("vera", "research", "ada", "Hello.")
        wrong(out)
        with pytest.raises(InputError):
            release(gate, grant, out, SOUND)
        assert gate.outputs("vera") == [] and store.journal() == []
        assert release(gate, grant, tmp_path / "other.opus", SOUND) == grant.id


def test_a_destination_gone_wrong_at_the_last_moment_is_said_and_kept(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out = tmp_path / "said.opus"
    real = releases.deliver

    def late(store: Store, grant_id: str) -> None:
        if not releases.sidecar_of(out).exists():
            folder_at_sidecar(out)
        real(store, grant_id)

    monkeypatch.setattr(releases, "deliver", late)
    with pytest.raises(InputError, match="kept sealed"):
        speak(home, out)
    releases.sidecar_of(out).rmdir()
    monkeypatch.undo()
    with Store.open(home) as store:
        assert recover(store) == [] and out.read_bytes() == SOUND


@pytest.mark.parametrize("name", ["n" * 250 + ".opus", "n" * 252 + ".opus", "n" * 300 + ".wav"])
def test_a_name_too_long_for_what_stands_beside_it_is_refused_first(tmp_path: Path, name: str):
    with pytest.raises(InputError, match="cannot be written"):
        releases.check_place(tmp_path / name)
    releases.check_place(tmp_path / ("n" * 245 + ".opus"))
    releases.check_place(tmp_path / ("n" * 250 + ".wav"))
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="needs root to be another user")
def test_a_store_that_can_only_be_read_still_tells_what_it_holds(clock: Clock):
    with tempfile.TemporaryDirectory() as place:
        home = Path(place) / "home"
        with Store.open(home) as store:
            register(store, "vera", SCOPE)
        for path in (Path(place), home, *home.rglob("*")):
            os.chown(path, 65534, 65534)
            path.chmod(0o500 if path.is_dir() else 0o400)

        def work() -> None:
            os.setuid(65534)
            with Store.open(home) as store:
                verify(store)
                gate = Gate(store)
                assert gate.receipt("vera").principal == "Vera"
                with pytest.raises(StoreError, match="can only be read"):
                    gate.authorise("vera", "research", "ada", "Hello.")
                with pytest.raises(StoreError, match="can only be read"):
                    gate.revoke("vera")

        assert os.waitpid(in_child(work), 0)[1] == 0


def test_an_unread_lock_of_a_voice_revoked_meanwhile(home: Path, tmp_path: Path):
    with Store.open(home) as store, Store.open(home) as other:
        gate = Gate(store)
        grant = gate.authorise("vera", "research", "ada", "Hello.")
        Gate(other).revoke("vera")
        with pytest.raises(RefusedError, match="voice-revoked"):
            release(gate, grant, tmp_path / "a.wav", SOUND)
        assert plain_copies(tmp_path) == []
