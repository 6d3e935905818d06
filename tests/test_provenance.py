"""Content credentials: trusted, valid, invalid and none told apart; the authority fails closed."""

import datetime
import io
import stat
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from sayso.inference.errors import MarkError
from sayso.inference.provenance import c2pa, certificates
from sayso.inference.provenance.c2pa import (
    keep_manifest,
    read_manifest,
    recall_manifest,
    sidecar_of,
)
from sayso.inference.provenance.certificates import ensure_ca, export_ca, load_anchor
from sayso.model.audio import write_audio
from sayso.model.errors import InputError
from signing import sign

LEDGER, CARD = "01JD-ledger-7", "ab" * 32


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> c2pa.CA:
    return ensure_ca(tmp_path_factory.mktemp("store") / "ca")


@pytest.fixture(params=[".wav", ".flac", ".mp3"])
def signed(request: pytest.FixtureRequest, tmp_path: Path, ca: c2pa.CA) -> Path:
    noise = torch.randn(24_000, generator=torch.Generator().manual_seed(1)) * 0.1
    plain, out = tmp_path / f"plain{request.param}", tmp_path / f"signed{request.param}"
    write_audio(plain, noise, 24_000)
    sign(plain, out, ca, LEDGER, CARD, "a sentence")
    assert sorted(p.name for p in tmp_path.iterdir()) == [plain.name, out.name]
    return out


def test_the_four_states(signed: Path, ca: c2pa.CA, tmp_path: Path):
    ours = read_manifest(signed, ca)
    assert ours.state == "trusted" and not ours.reasons
    assert (ours.ledger_id, ours.card_hash, ours.title) == (LEDGER, CARD, "a sentence")
    assert ours.generator == "Sayso"
    made = datetime.datetime.fromisoformat(ours.when or "")
    assert abs(made - datetime.datetime.now(datetime.UTC)) < datetime.timedelta(minutes=5)

    unknown = read_manifest(signed, None)
    assert unknown.state == "valid" and unknown.ledger_id == LEDGER
    stranger = ensure_ca(tmp_path / "stranger")
    assert read_manifest(signed, stranger).state == "valid"

    assert read_manifest(signed.with_stem("plain"), ca).state == "none"
    with pytest.raises(InputError, match="no file"):
        read_manifest(tmp_path / "absent.wav", ca)


def test_any_change_is_seen(signed: Path, ca: c2pa.CA):
    data = bytearray(signed.read_bytes())
    manifest = data.find(b"jumb")
    places = {
        "audio": len(data) - 600 if signed.suffix != ".wav" else 2000,
        "claim": manifest + 900,
    }
    for place, at in places.items():
        changed = bytearray(data)
        changed[at] ^= 1
        signed.write_bytes(changed)
        found = read_manifest(signed, ca)
        assert found.state == "invalid", place
        assert found.reasons, place


def test_the_audio_is_the_same_bit_for_bit(signed: Path):
    before, _ = soundfile.read(signed.with_stem("plain"), dtype="int16")
    after, _ = soundfile.read(signed, dtype="int16")
    assert np.array_equal(before, after)


def test_a_broken_container_is_not_a_traceback(tmp_path: Path, ca: c2pa.CA):
    (tmp_path / "a.wav").write_bytes(b"RIFF\xff\xff\xff\xffWAVEfmt ")
    assert read_manifest(tmp_path / "a.wav", ca).state in ("none", "invalid")
    (tmp_path / "a.mp3").write_bytes(b"")
    assert read_manifest(tmp_path / "a.mp3", ca).state in ("none", "invalid")


def test_sign_refuses_other_formats(tmp_path: Path, ca: c2pa.CA):
    write_audio(tmp_path / "a.ogg", torch.full((24_000,), 0.1), 24_000)
    for name in ("b.aiff", "b.wav"):
        with pytest.raises(MarkError, match="Cannot sign"):
            sign(tmp_path / "a.ogg", tmp_path / name, ca, LEDGER, CARD, "t")
    (tmp_path / "text.wav").write_text("not audio")
    with pytest.raises(MarkError, match="could not be signed"):
        sign(tmp_path / "text.wav", tmp_path / "b.wav", ca, LEDGER, CARD, "t")
    assert not list(tmp_path.glob("b.*")) and not list(tmp_path.glob(".signing*"))


def test_the_authority_is_kept_private_and_made_once(tmp_path: Path):
    folder = tmp_path / "deep/ca"
    first = ensure_ca(folder)
    for name in certificates.FILES:
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert ensure_ca(folder) == first
    assert [p.name for p in folder.parent.iterdir()] == ["ca"]

    fingerprint = export_ca(folder, tmp_path / "root.pem")
    assert len(fingerprint) == 64
    assert load_anchor(tmp_path / "root.pem").root == first.root
    assert b"PRIVATE" not in (tmp_path / "root.pem").read_bytes()


DAMAGES = [(name, how) for name in ("root.pem", "leaf.pem") for how in ("empty", "half", "foreign")]
DAMAGES += [(name, "absent") for name in certificates.FILES]
DAMAGES += [("root.key", "open"), ("leaf.pem", "open")]


@pytest.mark.parametrize(("name", "damage"), DAMAGES)
def test_an_unreadable_authority_is_an_error(tmp_path: Path, name: str, damage: str):
    folder = tmp_path / "ca"
    ensure_ca(folder)
    file = folder / name
    if damage == "absent":
        file.unlink()
    elif damage == "open":
        file.chmod(0o644)
    elif damage == "foreign":
        ensure_ca(tmp_path / "other")
        file.write_bytes((tmp_path / "other" / name).read_bytes())
    else:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2 if damage == "half" else 0])
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    with pytest.raises(MarkError, match="cannot be read"):
        ensure_ca(folder)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before  # never replaced silently


def test_an_expired_leaf_is_renewed_under_the_same_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    old = ensure_ca(tmp_path / "ca")
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1826)
    monkeypatch.setattr(certificates, "_now", lambda: later)
    new = ensure_ca(tmp_path / "ca")
    assert new.root == old.root and new.chain != old.chain and new.key != old.key


def test_sign_never_leaves_half_a_file(
    tmp_path: Path, ca: c2pa.CA, monkeypatch: pytest.MonkeyPatch
):
    write_audio(tmp_path / "a.wav", torch.full((24_000,), 0.1), 24_000)
    (tmp_path / "out.wav").write_bytes(b"what was there")

    def fails(self: object, signer: object, kind: str, source: object, target: io.BytesIO):
        target.write(b"RIFF half")
        raise c2pa.c2pa.C2paError("the disk is full")

    monkeypatch.setattr(c2pa.c2pa.Builder, "sign", fails)
    with pytest.raises(MarkError, match="disk is full"):
        sign(tmp_path / "a.wav", tmp_path / "out.wav", ca, LEDGER, CARD, "t")
    assert (tmp_path / "out.wav").read_bytes() == b"what was there"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.wav", "out.wav"]


@pytest.mark.parametrize("suffix", [".ogg", ".opus"])
def test_ogg_and_opus_have_their_manifest_beside_them(tmp_path: Path, ca: c2pa.CA, suffix: str):
    plain, out = tmp_path / f"plain{suffix}", tmp_path / f"out{suffix}"
    write_audio(plain, torch.randn(24_000) * 0.1, 24_000)
    sign(plain, out, ca, LEDGER, CARD, "t")
    assert out.read_bytes() == plain.read_bytes()
    found = read_manifest(out, ca)
    assert found.state == "trusted" and found.ledger_id == LEDGER
    assert read_manifest(out, None).state == "valid"
    assert read_manifest(plain, ca).state == "none"
    changed = bytearray(out.read_bytes())
    changed[-9] ^= 1
    out.write_bytes(changed)
    assert read_manifest(out, ca).state == "invalid"
    sidecar_of(out).write_bytes(b"not a manifest")
    assert read_manifest(out, ca).state in ("invalid", "none")


def test_a_stripped_manifest_is_found_again(tmp_path: Path, ca: c2pa.CA):
    write_audio(tmp_path / "a.wav", torch.randn(24_000) * 0.1, 24_000)
    manifest = sign(tmp_path / "a.wav", tmp_path / "b.wav", ca, LEDGER, CARD, "t", sound=b"\1\2")
    assert read_manifest(tmp_path / "b.wav", ca).state == "trusted"
    keep_manifest(tmp_path, LEDGER, manifest)
    write_audio(tmp_path / "sent.mp3", torch.randn(24_000) * 0.1, 24_000)

    again = recall_manifest(tmp_path / "sent.mp3", tmp_path, LEDGER, ca)
    assert again is not None and again.state == "trusted" and again.ledger_id == LEDGER
    unknown = recall_manifest(tmp_path / "sent.mp3", tmp_path, LEDGER, None)
    assert unknown is not None and unknown.state == "valid"
    assert recall_manifest(tmp_path / "sent.mp3", tmp_path, "another", ca) is None
    assert recall_manifest(tmp_path / "sent.mp3", tmp_path, "../../etc/passwd", ca) is None
    kept = next((tmp_path / "manifests").iterdir())
    spoiled = bytearray(kept.read_bytes())
    spoiled[len(spoiled) // 2] ^= 1
    for content in (bytes(spoiled), b"", b"rubbish"):
        kept.write_bytes(content)
        damaged = recall_manifest(tmp_path / "sent.mp3", tmp_path, LEDGER, ca)
        assert damaged is not None and damaged.state == "invalid"
