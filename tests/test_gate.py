"""The gate: what it grants, what it refuses and why, and that release and revoke hold."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from conftest import Clock
from sayso.inference.consent import other_voices
from sayso.inference.consent.other_voices import pack_codes
from sayso.inference.consent.receipt import Receipt, Scope, codes_digest, issue
from sayso.inference.errors import RefusedError, StoreError
from sayso.inference.gate import GRANT_SECONDS, Gate
from sayso.inference.store import keys, ledger
from sayso.inference.store.checking import verify
from sayso.inference.store.export import export
from sayso.inference.store.store import Store
from sayso.model.errors import CorpusError, InputError

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


def wav(folder: Path, data: bytes = b"RIFF-some-audio") -> Path:
    path = folder / "produced.wav"
    path.write_bytes(data)
    return path


def test_grant_then_release(gate: Gate, tmp_path: Path):
    grant = gate.authorise("vera", "research", "ada", "Hello.")
    assert torch.equal(grant.codes, CODES) and grant.transcript == "I say so. apple"
    assert (grant.codec, grant.may_alter, grant.receipt_id) == ("codec", False, "c-vera")
    produced, out = wav(tmp_path), tmp_path / "out.wav"
    digest = hashlib.sha256(produced.read_bytes()).hexdigest()
    assert gate.release(grant, produced, out) == grant.id
    assert hashlib.sha256(out.read_bytes()).hexdigest() == digest and not produced.exists()
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


def test_uses_run_out_but_unused_grants_come_back(gate: Gate, clock: Clock, tmp_path: Path):
    gate.release(gate.authorise("vera", "research", "ada", "a"), wav(tmp_path), tmp_path / "1.wav")
    gate.authorise("vera", "research", "ada", "b")
    gate.authorise("vera", "research", "ada", "c")
    assert refused(gate) == "quota-uses"
    clock.now += GRANT_SECONDS
    gate.authorise("vera", "research", "ada", "d")
    gate.authorise("vera", "research", "ada", "e")
    assert refused(gate) == "quota-uses"


def test_characters_add_up(gate: Gate):
    gate.authorise("vera", "research", "ada", "x" * 60)
    assert refused(gate, text="x" * 41) == "quota-characters"
    gate.authorise("vera", "research", "ada", "x" * 40)


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
        gate.release(grant, wav(tmp_path), tmp_path / "out.wav")
    assert caught.value.code == code and not (tmp_path / "out.wav").exists()
    assert gate.store.entries()[-1].event == "refused"


def test_a_grant_works_once_and_not_for_long(gate: Gate, clock: Clock, tmp_path: Path):
    grant = gate.authorise("vera", "research", "ada", "Hello.")
    gate.release(grant, wav(tmp_path), tmp_path / "1.wav")
    with pytest.raises(RefusedError, match="grant-used"):
        gate.release(grant, wav(tmp_path), tmp_path / "2.wav")
    late = gate.authorise("vera", "research", "ada", "Hello.")
    clock.now += GRANT_SECONDS
    with pytest.raises(RefusedError, match="grant-expired"):
        gate.release(late, wav(tmp_path), tmp_path / "2.wav")
    assert not (tmp_path / "2.wav").exists()


def test_release_to_a_missing_folder_leaves_nothing_and_can_be_repeated(gate: Gate, tmp_path: Path):
    grant = gate.authorise("vera", "research", "ada", "Hello.")
    produced = wav(tmp_path)
    with pytest.raises(InputError, match="choose a folder"):
        gate.release(grant, produced, tmp_path / "nowhere" / "out.wav")
    assert produced.exists() and not gate.outputs("vera")
    assert gate.release(grant, produced, tmp_path / "out.wav") == grant.id


def test_revocation_holds_at_once_in_another_open_store(gate: Gate, clock: Clock, tmp_path: Path):
    home = gate.store.home
    with Store.open(home) as second:
        other = Gate(second)
        grant = other.authorise("vera", "research", "ada", "Hello.")
        other.release(grant, wav(tmp_path), tmp_path / "1.wav")
        pending = other.authorise("vera", "research", "ada", "Hello.")
        key_file = home / "keys" / "voices" / "c-vera.key"
        assert key_file.exists()
        outputs = gate.revoke("vera", "no longer")
        assert [output.ledger_id for output in outputs] == [grant.id]
        assert not key_file.exists()
        assert second._database.execute("SELECT count(*) FROM sealed").fetchone() == (0,)
        assert refused(other) == "voice-revoked"
        with pytest.raises(RefusedError, match="voice-revoked"):
            other.release(pending, wav(tmp_path), tmp_path / "2.wav")
        assert not (tmp_path / "2.wav").exists()
    assert gate.revoke("vera") == outputs  # twice is no error, and adds no row
    assert len(gate.store.entries("revoked")) == 1
    assert gate.receipt("vera").principal == "Vera"  # the proof stays
    verify(gate.store)


def test_a_file_name_that_cannot_be_logged_is_refused(gate: Gate, tmp_path: Path):
    grant = gate.authorise("vera", "research", "ada", "Hello.")
    with pytest.raises(InputError, match="not UTF-8"):
        gate.release(grant, wav(tmp_path), tmp_path / "\udcff.wav")
    assert gate.release(grant, wav(tmp_path), tmp_path / "é.wav") == grant.id


def test_revoking_a_stranger_is_an_error(gate: Gate):
    with pytest.raises(StoreError, match="No voice 'eve'"):
        gate.revoke("eve")


def test_receipt_of_a_foreign_key_is_refused(gate: Gate):
    other = keys.create_key(gate.store.home / "keys" / "voices", None)
    receipt = replace(gate.receipt("vera"), voice="eve", kid=keys.thumbprint(other.public_key()))
    gate.store.enrol("eve", "c-eve", issue(receipt, other), {"codes": pack_codes(CODES)})
    assert refused(gate, voice="eve") == "receipt-signature"
    issuer = keys.public_pem(other)  # a bundled issuer cannot vouch for a person either
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


def test_the_clock_may_not_run_back(gate: Gate, clock: Clock):
    clock.now -= 86400
    with pytest.raises(StoreError, match="set the clock right"):
        gate.authorise("vera", "research", "ada", "Hello.")


def test_the_bundled_voice_installs_once_and_stays_revoked(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = tmp_path / "assets" / "mini" / "voices" / "nobody"
    other_voices.issue_bundled_voice(folder, CODES, "Made up.", "codec")
    with pytest.raises(RefusedError, match="issuer-unknown"):
        other_voices.install_bundled_voice(store, folder)  # not the package's own
    monkeypatch.setattr(other_voices, "ASSETS", tmp_path / "assets")
    for _ in range(2):
        assert other_voices.install_bundled_voice(store, folder) == "nobody"
    assert len(store.entries("enrolled", voice="nobody")) == 1
    gate = Gate(store)
    grant = gate.authorise("nobody", "anything", "anyone", "Hello.")
    assert grant.may_alter and torch.equal(grant.codes, CODES)
    other_voices.issue_bundled_voice(
        folder, CODES, "Made up anew.", "codec"
    )  # a new release of Sayso
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
