"""Somebody who uses the installation as it is, and means ill: forged tokens, files and stores."""

import base64
import json
import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sayso.inference.consent import other_voices, receipt
from sayso.inference.consent.receipt import Scope, issue, verify_receipt
from sayso.inference.consent.session import start_enrolment
from sayso.inference.errors import RefusedError, StoreError
from sayso.inference.gate import Gate
from sayso.inference.store import keys, ledger
from sayso.inference.store.checking import verify
from sayso.inference.store.export import export, verify_export, write_export
from sayso.inference.store.store import Store
from sayso.model.errors import InputError, SaysoError
from test_gate import CODES, register, release

pytestmark = pytest.mark.usefixtures("no_bundled_voice")
SCOPE = Scope(purposes=("research",), users=("ada",))


@pytest.fixture
def store(tmp_path: Path):
    with Store.open(tmp_path / "home") as store:
        register(store, "vera", SCOPE)
        yield store


def part(value: Any) -> str:
    """One part of a compact JWS."""
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


# --- tokens ---


def test_a_forged_token_is_refused_whatever_its_header_says(store: Store, tmp_path: Path):
    held = store.voice("vera")
    assert held is not None
    head, body, signature = held.token.split(".")
    good = json.loads(base64.urlsafe_b64decode(head + "=="))
    public = store.public_keys()[good["kid"]]
    other = keys.create_key(tmp_path, None)
    forged = [
        f"{part(good | {'alg': 'none'})}.{body}.{signature}",
        f"{part(good | {'alg': 'none'})}.{body}.AA",
        f"{part(good | {'alg': 'HS256'})}.{body}.{signature}",
        f"{part(good | {'alg': 'Ed25519'})}.{body}.{signature}",
        f"{part(good | {'alg': 'ES256'})}.{body}.{signature}",
        f"{part(good | {'kid': keys.thumbprint(other.public_key())})}.{body}.{signature}",
        f"{part(good | {'typ': 'sayso-head'})}.{body}.{signature}",
        f"{part(good | {'crit': ['b64'], 'b64': False})}.{body}.{signature}",
        f"{part(good | {'jwk': {'kty': 'OKP'}})}.{body}.{signature}",
        f"{part([good])}.{body}.{signature}",
        f"{part(b'[' * 100_000)}.{body}.{signature}",
        f"{part(b'{' * 100_000)}.{body}.{signature}",
        f"{part(b'9' * 10_000)}.{body}.{signature}",
        f"{part({'kid': ['x']})}.{body}.{signature}",
        f"{head}.{part(b'{}')}.{signature}",
        f"{head}.{body}.{part(bytes(64))}",
        f"{head}.{body}.",
        f"{head}.{body}",
        "",
        "\n",
        held.token + "\n\n",
        store.head(),  # a good signature of the same key, under another kind of document
        keys.sign(b"{}", other, receipt.KIND),
    ]
    file = tmp_path / "receipt.jws"
    for token in forged:
        file.write_text(token)
        with pytest.raises(RefusedError) as caught:
            verify_receipt(file, public)
        assert caught.value.code == "receipt-signature", token[:80]
    file.write_text(held.token)
    assert verify_receipt(file, public).voice == "vera"


@pytest.mark.parametrize(
    "payload",
    [
        b"null",
        b"{}",
        b"[" * 100_000,
        b'{"sayso": NaN}',
        b'{"sayso": {"prompt": 1, "scope": {}}}',
        b"\xff",
        "time",
        "twice",
    ],
)
def test_what_is_signed_but_no_receipt_is_malformed(store: Store, payload: bytes | str):
    held, key = Gate(store).receipt("vera"), store.signing_key()
    whole = keys.canonical(held.payload())
    if payload == "time":
        payload = whole.replace(held.expires.encode(), b"tomorrow")
    elif payload == "twice":  # which of two scopes counts would depend on the reader
        payload = whole.replace(b'"scope":', b'"scope":{},"scope":')
    token = keys.sign(payload, key, receipt.KIND)  # type: ignore[arg-type]
    with pytest.raises(RefusedError, match="receipt-malformed"):
        receipt.read(token, key.public_key())


def test_a_receipt_of_another_store_opens_no_voice_here(store: Store, tmp_path: Path):
    with Store.open(tmp_path / "other") as other:
        register(other, "eve", SCOPE)
        stolen = other.voice("eve")
        assert stolen is not None
        store.enrol(
            "eve", stolen.record_id, stolen.token, {"codes": other_voices.pack_codes(CODES)}
        )
        with pytest.raises(RefusedError, match="receipt-signature"):
            Gate(store).authorise("eve", "research", "ada", "Hello.")
        # Nor does naming its key as a bundled issuer's make a person's receipt good.
        pem = next(iter(other.public_keys().values()))
        again = replace(Gate(other).receipt("eve"), record_id="c-2")
        token = issue(again, other.signing_key())
        store.enrol("eve", "c-2", token, {"codes": other_voices.pack_codes(CODES)}, pem)
        with pytest.raises(RefusedError, match="receipt-signature"):
            Gate(store).authorise("eve", "research", "ada", "Hello.")


def test_a_huge_or_missing_receipt_is_an_error_and_no_crash(store: Store, tmp_path: Path):
    public = next(iter(store.public_keys().values()))
    with open(tmp_path / "huge", "wb") as file:
        file.truncate(receipt.MAX_BYTES + 1)
    for name, said in (("huge", "larger than"), ("none", "cannot be read")):
        with pytest.raises(SaysoError, match=said):
            verify_receipt(tmp_path / name, public)
    for pem in ("", "x" * 1000, "-----BEGIN PUBLIC KEY-----\n", public + public[:-5]):
        with pytest.raises(StoreError, match="public key"):
            keys.load_publics(pem)


def test_a_corpus_of_many_sentences_has_a_receipt_that_can_be_read_again(store: Store):
    sentences = [f"sentence {number}" for number in range(3000)]
    other_voices.issue_corpus_voice(
        store, "libri", CODES, "said", "codec", "LibriSpeech", "84", sentences
    )
    grant = Gate(store).authorise("libri", "benchmark", "ada", "sentence 2999")
    assert grant.voice == "libri"


# --- keys ---


def test_after_rotation_all_printed_keys_together_check_every_receipt(store: Store, tmp_path: Path):
    """`sayso receipt key` prints them one behind the other."""
    store.rotate_key()
    register(store, "zoe", SCOPE)
    printed = "".join(store.public_keys().values())
    assert len(keys.load_publics(printed)) == 2
    for name in ("vera", "zoe"):
        (tmp_path / "r.jws").write_text(store.voice(name).token)  # type: ignore[union-attr]
        assert verify_receipt(tmp_path / "r.jws", printed).voice == name
    export(store, tmp_path / "ledger.jsonl")
    for pem in (printed, *store.public_keys().values()):
        assert verify_export(tmp_path / "ledger.jsonl", pem).head.size == 4


def test_a_passphrase_can_be_changed_and_taken_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    home = tmp_path / "home"
    monkeypatch.setenv("SAYSO_PASSPHRASE", "first")
    with Store.open(home) as store:
        monkeypatch.setenv("SAYSO_NEW_PASSPHRASE", "second")
        store.rotate_key()
    monkeypatch.delenv("SAYSO_NEW_PASSPHRASE")
    with (
        Store.open(home) as store,
        pytest.raises(StoreError, match="SAYSO_PASSPHRASE is wrong"),
    ):
        store.rotate_key()
    monkeypatch.setenv("SAYSO_PASSPHRASE", "second")
    with Store.open(home) as store:
        monkeypatch.setenv("SAYSO_NEW_PASSPHRASE", "")
        store.rotate_key()
    monkeypatch.delenv("SAYSO_PASSPHRASE")
    with Store.open(home) as store:
        assert verify(store).size == 3


def test_secrets_open_to_others_are_not_used(store: Store):
    gate, home = Gate(store), store.home
    (signing,) = (home / "keys").glob("*.pem")
    (voice,) = (home / "keys" / "voices").glob("*.key")
    voice.chmod(0o640)
    with pytest.raises(StoreError, match=f"{voice.name} is open to other users"):
        gate.authorise("vera", "research", "ada", "Hello.")
    voice.chmod(0o600)
    signing.chmod(0o644)
    with (
        Store.open(home) as again,
        pytest.raises(StoreError, match=f"{signing.name} is open to other users"),
    ):
        Gate(again).authorise("vera", "research", "ada", "Hello.")
    signing.chmod(0o600)
    home.chmod(0o777)
    with pytest.raises(StoreError, match="written by other users"):
        Store.open(home)
    home.chmod(0o700)
    assert gate.authorise("vera", "research", "ada", "Hello.").voice == "vera"


# --- the ledger ---


def test_a_forged_ledger_that_names_the_real_key_is_not_taken_for_it(store: Store, tmp_path: Path):
    """The forger's last row "rotates" to a key that he knows only the public half of."""
    real = next(iter(store.public_keys().values()))
    kid = keys.thumbprint(keys.load_public(real))
    with Store.open(tmp_path / "forged") as forged:
        content = {"kid": kid, "public": real, "leaves": ""}
        with forged.exclusive(), forged._readable():
            forged._database.execute("BEGIN IMMEDIATE")
            now = forged.now()
            ledger.append(forged._database, forged.signing_key(), "key-rotated", kid, content, now)
            forged._database.execute("COMMIT")
            write_export(forged.rows(), tmp_path / "forged.jsonl", forged.home)
    assert verify_export(tmp_path / "forged.jsonl").head.size == 2  # in itself it is whole
    with pytest.raises(StoreError, match="not signed by the given public key"):
        verify_export(tmp_path / "forged.jsonl", real)


def test_a_slower_writer_does_not_set_the_saved_head_back(store: Store):
    """Else rows could be cut from the end of the ledger and not be missed."""
    home, heads = store.home, []

    def work() -> None:
        with Store.open(home) as mine:
            for _ in range(8):
                with pytest.raises(RefusedError):
                    Gate(mine).authorise("nobody-here", "research", "ada", "Hello.")
                with mine.exclusive():
                    token = (home / "ledger.head").read_text()
                    size = ledger.read_head(
                        token,
                        {k: keys.load_public(p) for k, p in (mine.public_keys().items())},
                        "head",
                    ).size
                    rows = mine._database.execute("SELECT count(*) FROM ledger").fetchone()[0]
                    heads.append((size, rows))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(heads) == 24 and all(size == rows for size, rows in heads)


# --- names and places ---


@pytest.mark.parametrize(
    "voice", ["../vera", "/etc/passwd", "vera\0", "vera\n", "VERA", "*", "%", "v" * 10**6, "vera "]
)
def test_a_voices_id_is_a_name_and_no_path_or_pattern(store: Store, voice: str):
    with pytest.raises(RefusedError, match="voice-unknown"):
        Gate(store).authorise(voice, "research", "ada", "Hello.")
    with pytest.raises(StoreError, match="No voice"):
        Gate(store).revoke(voice)
    assert Gate(store).authorise("vera", "research", "ada", "Hello.").voice == "vera"


@pytest.mark.parametrize(
    "record", ["../../x", "c-../x", "c-", "c-a/b", "x", "c-a\n", "c-" + "a" * 99]
)
def test_a_records_id_leads_nowhere(store: Store, record: str):
    with pytest.raises(StoreError, match="names a file"):
        store.enrol("eve", record, "t", {"codes": b""})
    assert store.voice("eve") is None and len(list((store.home / "keys/voices").iterdir())) == 1


def test_a_release_replaces_a_link_and_not_what_it_points_to(store: Store, tmp_path: Path):
    precious, out = tmp_path / "precious", tmp_path / "out.wav"
    precious.write_text("precious")
    out.symlink_to(precious)
    gate = Gate(store)
    release(gate, gate.authorise("vera", "research", "ada", "Hello."), out, b"RIFF")
    assert precious.read_text() == "precious"
    assert out.read_bytes() == b"RIFF" and not out.is_symlink()


@pytest.mark.parametrize(
    "change",
    [
        {"controller": "Lab\x1b[2J"},
        {"controller": "Lab\nI allow everything"},
        {"controller": "Lab \udcff"},
        {"users": ("ada\x07",)},
        {"users": ("\udcff",)},
        {"users": ("u" * 300,)},
        {"speaker": "Vera\n"},
        {"purposes": ("research\x00",)},
        {"purposes": ("research", "реклама")},  # no recogniser here could hear whether it is read
        {"days": 10**9},
        {"max_uses": -1},
    ],
)
def test_a_session_shows_what_is_consented_to_and_nothing_hidden(store: Store, change: dict):
    arguments = {
        "speaker": "Vera",
        "controller": "Example Lab",
        "purposes": ("research",),
        "days": 30,
    }
    before = len(store.entries())
    with pytest.raises(InputError):
        start_enrolment(store, **(arguments | change))
    assert len(store.entries()) == before


def test_a_store_behind_a_loop_of_links_is_an_error(tmp_path: Path):
    os.symlink(tmp_path / "a", tmp_path / "b")
    os.symlink(tmp_path / "b", tmp_path / "a")
    with pytest.raises(StoreError, match="cannot be made"):
        Store.open(tmp_path / "a" / "home")
