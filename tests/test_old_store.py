"""A store made by the version of 2026-11-25, before the rebuild, opens, speaks and forgets.

tests/data/old-store.tar.xz was made by that version's own enrolment. Its keys are test keys; its
"consent" is put together from Kathleen's CC0 recordings and consents to nothing.
"""

import tarfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from conftest import Clock
from sayso.cli import app
from sayso.inference.consent.receipt import verify_receipt
from sayso.inference.detection.detector import detect
from sayso.inference.errors import RefusedError
from sayso.inference.gate import Gate
from sayso.inference.store import keys, sealed
from sayso.inference.store.checking import verify
from sayso.inference.store.export import verify_export
from sayso.inference.store.ledger import seconds
from sayso.inference.store.sealed import Voice
from sayso.inference.store.store import Store
from sayso.inference.synthesizer import Synthesizer

DATA = Path(__file__).parent / "data"
PURPOSE, USER = "the work", "ada"
ONCE = "kathleen-once"
"""A corpus voice that was withdrawn."""
TEXT = "The old keys still open the old doors."


@pytest.fixture
def old(tmp_path: Path, clock: Clock) -> Path:
    """The unpacked folder: home/ (the store), receipt.jws, keys.pem, head.jws, ledger.jsonl."""
    clock.now = seconds("2026-12-02T12:00:00.000Z")  # the receipt ends on 2027-05-31
    with tarfile.open(DATA / "old-store.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    (tmp_path / "home").chmod(0o700)  # that filter leaves folders to the umask
    return tmp_path


@pytest.fixture
def store(old: Path):
    with Store.open(old / "home") as store:
        yield store


def philip(store: Store) -> Voice:
    return next(each for each in store.voices() if each.voice.startswith("philip-"))


def test_all_of_it_verifies(store: Store, old: Path):
    head = (old / "head.jws").read_text()  # from before the key was rotated
    public = (old / "keys.pem").read_text()
    assert verify(store, head) == verify_export(old / "ledger.jsonl", public, head).head
    assert "".join(store.public_keys().values()) == public
    voice = philip(store)
    receipt = verify_receipt(old / "receipt.jws", public)
    assert receipt == Gate(store).receipt(voice.voice) and receipt.basis == "consent"
    assert receipt.kid == next(iter(store.public_keys()))  # signed by the key that left
    assert set(voice.sealed) == {*("codes", "embedding", "consent-recording", "prompt-recording")}


def test_an_old_receipt_is_good_with_keys_that_are_dated_now(store: Store, old: Path):
    spans = store.key_spans()
    dated = [keys.dated_pem(pem, spans[kid]) for kid, pem in store.public_keys().items()]
    assert verify_receipt(old / "receipt.jws", "".join(dated)).principal == "Philip"
    assert len(verify_export(old / "ledger.jsonl", "".join(dated)).signers) == 2


def test_a_person_of_old_and_nobody_speak(store: Store, tmp_path: Path):
    speaker = Synthesizer(store=store)  # the same marks' key and authority: it vouches for them
    for voice in (philip(store).voice, "nobody"):
        spoken = speaker.speak(TEXT, voice, tmp_path / f"{voice}.wav", PURPOSE, USER)
        assert [each.ledger_id for each in speaker.gate.outputs(voice)][-1] == spoken.ledger_id
    verify(store)


def test_the_scope_of_old_holds(store: Store):
    gate = Gate(store)
    for voice, purpose, user, code in (
        (philip(store).voice, "advertising", USER, "scope-purpose"),
        (philip(store).voice, PURPOSE, "eve", "scope-user"),
        (ONCE, "benchmark", USER, "voice-revoked"),
    ):
        with pytest.raises(RefusedError) as caught:
            gate.authorise(voice, purpose, user, TEXT)
        assert caught.value.code == code


def test_the_receipt_of_old_runs_out(store: Store, clock: Clock):
    clock.now = seconds("2027-06-01T00:00:00.000Z")
    with pytest.raises(RefusedError, match="receipt-expired"):
        Gate(store).authorise(philip(store).voice, PURPOSE, USER, TEXT)


def test_a_revoked_person_of_old_is_silent_and_the_key_gone(store: Store):
    voice, gate = philip(store), Gate(store)
    key = sealed.key_path(store.home, voice.record_id)
    assert key.is_file()
    assert [Path(output.path).name for output in gate.revoke(voice.voice)] == ["said.opus"]
    assert not key.exists()
    with pytest.raises(RefusedError, match="voice-revoked"):
        gate.authorise(voice.voice, PURPOSE, USER, TEXT)
    store.rotate_key()
    verify(store)


def test_every_verb_that_reads_knows_it(old: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SAYSO_HOME", str(old / "home"))
    for verb, said in {
        "voices": "philip-",
        f"ledger verify --head {old}/head.jws": "good",
        f"ledger check {old}/ledger.jsonl --key {old}/keys.pem": "good",
        f"receipt verify {old}/receipt.jws --key {old}/keys.pem": "Philip",
        "receipt key": "Valid: 2026-11-25",
    }.items():
        result = CliRunner().invoke(app, verb.split())
        assert said in result.output, (verb, result.output)


def test_what_it_said_of_old_is_known_again(old: Path):
    found = detect(DATA / "old-said.opus", old / "home")
    assert found.present and found.manifest.state == "trusted"
    # By its fixed pattern, which could be forged: a hint, and never "ours" by itself.
    assert found.ledger_ids == () and found.manifest.ledger_id in found.older_ids
