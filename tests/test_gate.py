"""The gate: what it grants, what it refuses and why, and that release and revoke hold."""

import hashlib
import inspect
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from conftest import Clock
from sayso.inference import gate as gate_module
from sayso.inference.consent import other_voices
from sayso.inference.consent.other_voices import pack_codes
from sayso.inference.consent.receipt import Receipt, Scope, codes_digest, issue
from sayso.inference.errors import RefusedError, StoreError
from sayso.inference.finishing import Marked
from sayso.inference.gate import Gate, Grant
from sayso.inference.permission import GRANT_SECONDS
from sayso.inference.store import keys, ledger
from sayso.inference.store.checking import verify
from sayso.inference.store.export import export
from sayso.inference.store.store import MOST_REFUSALS, Store
from sayso.model.errors import CorpusError, InputError
from sayso.model.files import ASSETS

CODES = torch.arange(8 * 30).reshape(8, 30) % 1024
pytestmark = pytest.mark.usefixtures("no_bundled_voice")
SCOPE = Scope(purposes=("research",), users=("ada",), max_characters=100, max_uses=3)


def register(store: Store, voice: str = "vera", scope: Scope = SCOPE, **changes) -> Receipt:
    """Enrol a voice as `finish_enrolment` does, without its audio checks."""
    key, now = store.signing_key(), store.now()
    receipt = Receipt(
        record_id=f"c-{voice}",
        voice=voice,
        basis="consent",
        principal="Vera",
        controller="Lab",
        statement="I say so.",
        transcript="I say so. apple",
        scope=scope,
        issued=ledger.stamp(now),
        expires=ledger.stamp(now + 86400),
        codes_sha256=codes_digest(CODES),
        codec="codec",
        kid=keys.thumbprint(key.public_key()),
    )
    receipt = replace(receipt, **changes)
    store.enrol(voice, receipt.record_id, issue(receipt, key), {"codes": pack_codes(CODES)})
    return receipt


@pytest.fixture
def store(tmp_path: Path, clock: Clock):
    with Store.open(tmp_path / "home") as store:
        yield store


@pytest.fixture
def gate(store: Store) -> Gate:
    register(store)
    return Gate(store)


def refused(gate: Gate, voice="vera", purpose="research", user="ada", text="Hello.", **more) -> str:
    with pytest.raises(RefusedError) as caught:
        gate.authorise(voice, purpose, user, text, **more)
    row = gate.store.entries()[-1]
    assert row.event == "refused" and row.content["code"] == caught.value.code
    return caught.value.code


def release(gate: Gate, grant: Grant, out: Path, audio: bytes = b"RIFF-some-audio") -> str:
    """As `Gate.mark` and then `Gate.release`, without the networks that mark."""
    made = Marked(grant.id, audio, b"manifest of " + audio, b"sound", 1.0)
    if grant.id in gate._marked:
        gate._marked[grant.id] = gate_module._digest(made)
    return gate.release(grant, made, out)


def test_grant_then_release(gate: Gate, tmp_path: Path):
    grant = gate.authorise("vera", "research", "ada", "Hello.")
    assert torch.equal(grant.codes, CODES) and grant.transcript == "I say so. apple"
    assert (grant.codec, grant.may_alter, grant.receipt_id) == ("codec", False, "c-vera")
    out, digest = tmp_path / "out.wav", hashlib.sha256(b"RIFF-some-audio").hexdigest()
    assert release(gate, grant, out) == grant.id
    assert out.read_bytes() == b"RIFF-some-audio"
    assert [(o.ledger_id, o.sha256, o.path) for o in gate.outputs("vera")] == [
        (grant.id, digest, str(out))
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "out.wav"]
    verify(gate.store)


def test_every_refusal_has_its_code_and_its_row(gate: Gate, clock: Clock):
    assert refused(gate, voice="eve") == "voice-unknown"
    assert refused(gate, altered=True) == "scope-alter"
    assert refused(gate, voice="") == "voice-unknown"
    assert refused(gate, purpose="advertising") == "scope-purpose"
    assert refused(gate, user="bob") == "scope-user"
    assert refused(gate, language="de") == "scope-language"
    assert refused(gate, text="  ") == "text-unusable"
    assert refused(gate, text="H\udcffi") == "text-unusable"
    assert refused(gate, codec="another") == "codec-mismatch"
    assert refused(gate, text="x" * 101) == "quota-characters"
    assert refused(gate, voice="\udcff" * 300, user="\udcff") == "voice-unknown"
    clock.now += 86400
    assert refused(gate) == "receipt-expired"
    verify(gate.store)


def test_uses_run_out_and_only_grants_given_back_come_back(gate: Gate, clock, tmp_path: Path):
    release(gate, gate.authorise("vera", "research", "ada", "a"), tmp_path / "1.wav")
    second = gate.authorise("vera", "research", "ada", "b")
    gate.authorise("vera", "research", "ada", "c")
    assert refused(gate) == "quota-uses"
    clock.now += GRANT_SECONDS  # whoever has a grant may have the audio: time gives nothing back
    assert refused(gate) == "quota-uses"
    gate.give_back(second)
    gate.give_back(second)  # once
    gate.authorise("vera", "research", "ada", "d")
    assert refused(gate) == "quota-uses"
    with pytest.raises(RefusedError, match="grant-used"):
        release(gate, second, tmp_path / "2.wav")


def test_characters_add_up(gate: Gate):
    gate.authorise("vera", "research", "ada", "x" * 60)
    assert refused(gate, text="x" * 41) == "quota-characters"
    gate.authorise("vera", "research", "ada", "x" * 40)


@pytest.mark.parametrize("text", ["777777777, 777777777", "777777777 [pause 1s] 777777777"])
def test_characters_count_as_they_are_spoken(gate: Gate, text: str):
    """Twenty characters in writing, 13 s of speech."""
    assert len(text) < 100 and refused(gate, text=text) == "quota-characters"
    gate.authorise("vera", "research", "ada", "777")  # seven hundred and ...
    assert gate.store.used("c-vera")[1] == len("seven hundred and seventy seven")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"id": "g-made-up"}, "grant-unknown"),
        ({"id": ""}, "grant-unknown"),
        ({"voice": "nobody"}, "grant-unknown"),
        ({"purpose": "advertising"}, "grant-unknown"),
        ({"text": "Something else."}, "grant-unknown"),
        ({"receipt_id": "c-eve"}, "grant-unknown"),
    ],
)
def test_a_forged_grant_is_refused(gate: Gate, tmp_path: Path, change: dict, code: str):
    grant = replace(gate.authorise("vera", "research", "ada", "Hello."), **change)
    with pytest.raises(RefusedError) as caught:
        release(gate, grant, tmp_path / "out.wav")
    assert caught.value.code == code and not (tmp_path / "out.wav").exists()
    assert gate.store.entries()[-1].event == "refused"


def test_a_grant_works_once_and_not_for_long(gate: Gate, clock: Clock, tmp_path: Path):
    grant = gate.authorise("vera", "research", "ada", "Hello.")
    release(gate, grant, tmp_path / "1.wav")
    with pytest.raises(RefusedError, match="grant-used"):
        release(gate, grant, tmp_path / "2.wav")
    late = gate.authorise("vera", "research", "ada", "Hello.")
    clock.now += GRANT_SECONDS
    with pytest.raises(RefusedError, match="grant-expired"):
        release(gate, late, tmp_path / "2.wav")
    assert not (tmp_path / "2.wav").exists()


def test_release_to_a_missing_folder_leaves_nothing_and_can_be_repeated(gate: Gate, tmp_path: Path):
    grant = gate.authorise("vera", "research", "ada", "Hello.")
    with pytest.raises(InputError, match="choose a folder"):
        release(gate, grant, tmp_path / "nowhere" / "out.wav")
    assert not gate.outputs("vera") and not list((gate.store.home / "work").iterdir())
    assert release(gate, grant, tmp_path / "out.wav") == grant.id


def test_revocation_holds_at_once_in_another_open_store(gate: Gate, clock: Clock, tmp_path: Path):
    home = gate.store.home
    with Store.open(home) as second:
        other = Gate(second)
        grant = other.authorise("vera", "research", "ada", "Hello.")
        release(other, grant, tmp_path / "1.wav")
        pending = other.authorise("vera", "research", "ada", "Hello.")
        key_file = home / "keys" / "voices" / "c-vera.key"
        assert key_file.exists()
        outputs = gate.revoke("vera", "no longer")
        assert [output.ledger_id for output in outputs] == [grant.id]
        assert not key_file.exists()
        assert second._database.execute("SELECT count(*) FROM sealed").fetchone() == (0,)
        assert refused(other) == "voice-revoked"
        with pytest.raises(RefusedError, match="voice-revoked"):
            release(other, pending, tmp_path / "2.wav")
        assert not (tmp_path / "2.wav").exists()
    assert gate.revoke("vera") == outputs  # twice is no error, and adds no row
    assert len(gate.store.entries("revoked")) == 1
    assert gate.receipt("vera").principal == "Vera"  # the proof stays
    verify(gate.store)


def test_a_file_name_that_cannot_be_logged_is_refused(gate: Gate, tmp_path: Path):
    grant = gate.authorise("vera", "research", "ada", "Hello.")
    with pytest.raises(InputError, match="not UTF-8"):
        release(gate, grant, tmp_path / "\udcff.wav")
    assert release(gate, grant, tmp_path / "é.wav") == grant.id


def test_revoking_a_stranger_is_an_error(gate: Gate):
    with pytest.raises(StoreError, match="No voice 'eve'"):
        gate.revoke("eve")


def test_receipt_of_a_foreign_key_is_refused(gate: Gate, monkeypatch):
    other = keys.create_key(gate.store.home / "keys" / "voices", None)
    receipt = replace(gate.receipt("vera"), voice="eve", kid=keys.thumbprint(other.public_key()))
    gate.store.enrol("eve", "c-eve", issue(receipt, other), {"codes": pack_codes(CODES)})
    assert refused(gate, voice="eve") == "receipt-signature"
    issuer = keys.public_pem(other)  # a bundled issuer cannot vouch for a person either
    digest = hashlib.sha256(issuer.encode()).hexdigest()
    monkeypatch.setattr(other_voices, "ISSUERS", {digest})
    gate.store.enrol("mia", "c-mia", issue(receipt, other), {"codes": pack_codes(CODES)}, issuer)
    assert refused(gate, voice="mia") == "receipt-mismatch"
    person = replace(receipt, voice="mia", record_id="c-mia2")
    gate.store.enrol("mia", "c-mia2", issue(person, other), {"codes": pack_codes(CODES)}, issuer)
    assert refused(gate, voice="mia") == "receipt-signature"


def test_receipt_of_another_voice_or_prompt_is_refused(gate: Gate):
    token = gate.store.voice("vera").token  # type: ignore[union-attr]
    gate.store.enrol("eve", "c-eve", token, {"codes": pack_codes(CODES)})
    assert refused(gate, voice="eve") == "receipt-mismatch"
    register(gate.store, "zoe", codes_sha256=codes_digest(CODES + 1))
    assert refused(gate, voice="zoe") == "prompt-changed"


def test_after_rotation_old_receipts_hold_and_the_old_key_is_gone(gate: Gate):
    old = keys.thumbprint(gate.store.signing_key().public_key())
    new = gate.store.rotate_key()
    assert old != new and [path.stem for path in (gate.store.home / "keys").glob("*.pem")] == [new]
    assert gate.authorise("vera", "research", "ada", "Hello.").voice == "vera"
    register(gate.store, "zoe")
    assert gate.receipt("zoe").kid == new and gate.receipt("vera").kid == old
    verify(gate.store)


def test_the_clock_may_not_run_back_but_revoking_never_asks_it(gate: Gate, clock: Clock):
    clock.now += 3 * 3600
    register(gate.store, "zoe")
    clock.now -= 3 * 3600
    with pytest.raises(StoreError, match="set the clock right"):
        gate.authorise("vera", "research", "ada", "Hello.")
    Gate(gate.store).revoke("vera")
    assert gate.store.voice("vera").revoked  # type: ignore[union-attr]
    clock.now += 3 * 3600
    assert refused(gate) == "voice-revoked"
    times = [entry.time for entry in gate.store.entries()]
    assert times == sorted(times)


def test_nothing_public_sets_the_clock():
    assert list(inspect.signature(Store.open).parameters) == ["home"]


def pin(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """As a version that ships the voice in this folder."""
    digest = hashlib.sha256((folder / "issuer.pem").read_bytes()).hexdigest()
    monkeypatch.setattr(other_voices, "ISSUERS", {*other_voices.ISSUERS, digest})


def test_every_voice_that_ships_has_its_issuer_in_the_code():
    """After `sayso export` into the assets: put the hash of issuer.pem into ISSUERS."""
    for issuer in (ASSETS).glob("*/voices/*/issuer.pem"):
        assert other_voices.is_issuer(issuer.read_text()), issuer


def test_a_stranger_is_not_taken_in_as_synthetic(store: Store, tmp_path: Path):
    """With two public functions: a receipt of basis "synthetic", and its own issuer."""
    folder = tmp_path / "eve"
    made = other_voices.issue_bundled_voice(folder, CODES, "I am Eve.", "codec")
    issuer, token = (folder / "issuer.pem").read_text(), (folder / "receipt.jws").read_text()
    store.enrol("eve", made.record_id, token, {"codes": pack_codes(CODES)}, issuer)
    assert refused(Gate(store), "eve", "a", "b") == "receipt-signature"


def test_a_file_that_was_not_marked_here_is_not_released(gate: Gate, tmp_path: Path):
    grant, other = (gate.authorise("vera", "research", "ada", "Hello.") for _ in range(2))
    made = Marked(grant.id, b"somebody's recording", b"", b"", 1.0)
    gate._marked[other.id] = gate_module._digest(replace(made, grant_id=other.id))
    for given in (made, replace(made, grant_id=other.id)):
        with pytest.raises(RefusedError, match="audio-unmarked"):
            gate.release(grant, given, tmp_path / "out.wav")
    with Store.open(gate.store.home) as second, pytest.raises(RefusedError, match="unmarked"):
        release(Gate(second), grant, tmp_path / "out.wav")  # another process's grant
    assert not (tmp_path / "out.wav").exists()


def test_a_refusal_does_not_say_what_would_be_allowed(gate: Gate):
    for asked in (("research", "bob"), ("ads", "ada"), ("ads", "bob")):
        with pytest.raises(RefusedError) as caught:
            gate.authorise("vera", *asked, "Hello.")
        said = str(caught.value)
        assert not any(word in said for word in {"research", "ada"} - set(asked))
    assert caught.value.code == "scope-user"  # who may not use it learns nothing of purposes


def test_refusals_do_not_fill_the_ledger(gate: Gate, clock: Clock):
    rows = len(gate.store.entries())
    for _ in range(MOST_REFUSALS + 20):
        with pytest.raises(RefusedError):
            gate.authorise("eve", "research", "ada", "Hello.")
    assert len(gate.store.entries()) == rows + MOST_REFUSALS
    assert "more" in gate.store.entries()[-1].content
    clock.now += 3601
    assert refused(gate, voice="eve") == "voice-unknown"


def test_the_bundled_voice_installs_once_and_stays_revoked(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = tmp_path / "assets" / "mini" / "voices" / "nobody"
    other_voices.issue_bundled_voice(folder, CODES, "Made up.", "codec")
    with pytest.raises(RefusedError, match="issuer-unknown"):
        other_voices.install_bundled_voice(store, folder)  # not the package's own
    monkeypatch.setattr(other_voices, "ASSETS", tmp_path / "assets")
    with pytest.raises(RefusedError, match="issuer-unknown"):
        other_voices.install_bundled_voice(store, folder)  # there, but not of this version
    pin(monkeypatch, folder)
    for _ in range(2):
        assert other_voices.install_bundled_voice(store, folder) == "nobody"
    assert len(store.entries("enrolled", voice="nobody")) == 1
    gate = Gate(store)
    grant = gate.authorise("nobody", "anything", "anyone", "Hello.")
    assert grant.may_alter and torch.equal(grant.codes, CODES)
    other_voices.issue_bundled_voice(
        folder, CODES, "Made up anew.", "codec"
    )  # a new release of Sayso
    pin(monkeypatch, folder)
    other_voices.install_bundled_voice(store, folder)
    assert gate.authorise("nobody", "a", "b", "Hello.").transcript == "Made up anew."
    verify(store)
    gate.revoke("nobody")
    other_voices.install_bundled_voice(store, folder)
    assert refused(gate, voice="nobody") == "voice-revoked"
    (folder / "prompt.safetensors").write_bytes(pack_codes(CODES + 1))
    with pytest.raises(RefusedError, match="prompt-changed"):
        other_voices.install_bundled_voice(store, folder)


def test_a_corpus_voice_speaks_only_its_corpus(store: Store):
    arguments = ("libri-84", CODES, "as he said", "codec")
    sentences = ["one sentence", "another"]
    with pytest.raises(CorpusError, match="Emilia"):
        other_voices.issue_corpus_voice(store, *arguments, "Emilia", "84", sentences)
    other_voices.issue_corpus_voice(store, *arguments, "LibriSpeech", "84", sentences)
    gate = Gate(store)
    assert gate.authorise("libri-84", "benchmark", "ada", "another").voice == "libri-84"
    assert refused(gate, "libri-84", "benchmark", "ada", "anything else") == "scope-text"
    assert refused(gate, "libri-84", "research", "ada", "another") == "scope-purpose"


def test_the_ledger_half_that_is_public_holds_no_personal_word(gate: Gate, tmp_path: Path):
    register(gate.store, "veronica", record_id="c-1")
    refused(gate, "veronica", user="Mallory")
    gate.authorise("veronica", "research", "ada", "a secret sentence")
    export(gate.store, tmp_path / "ledger.jsonl")
    text = (tmp_path / "ledger.jsonl").read_text()
    for word in ("veronica", "Mallory", "research", "secret", "I say so"):
        assert word not in text
