"""Files and names that were made to break: no store is lost, nothing is read without end."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from sayso.cli import app
from sayso.inference.detection import report
from sayso.inference.errors import MarkError, RefusedError, StoreError
from sayso.inference.provenance.c2pa import read_manifest
from sayso.inference.provenance.certificates import ensure_ca
from sayso.inference.store import keys
from sayso.inference.store.export import FORMAT, export, verify_export
from sayso.inference.store.ledger import KEY_EVENTS, START, Row, commit_to
from sayso.inference.store.store import Store
from sayso.inference.watermark.keyed import KEY_FILE, ensure_key, load_key
from sayso.model.ar import AR, ARConfig
from sayso.model.audio import cut_off, read_audio, seconds_of
from sayso.model.bundle import load_bundle
from sayso.model.card import read_card
from sayso.model.checkpoint import load_module, load_pickle
from sayso.model.codecs.fargan_weights import load_arrays
from sayso.model.errors import CheckpointError, CorpusError, InputError
from sayso.model.files import hand_out, read_bounded
from sayso.model.text.markup import read_lexicon
from sayso.model.text.tokenizers import load_tokenizer
from sayso.training.readers import read_corpus
from sayso.training.tokens import read_manifest as read_token_manifest

pytestmark = pytest.mark.usefixtures("no_bundled_voice")


def tone(path: Path) -> Path:
    sound = 0.1 * np.sin(np.arange(16_000) / 9)
    soundfile.write(path, sound, 16_000, format="OGG" if path.suffix == ".opus" else "WAV")
    return path


def test_no_verb_writes_into_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    home = tmp_path / "home"
    monkeypatch.setenv("SAYSO_HOME", str(home))
    assert CliRunner().invoke(app, ["ca", "export", str(tmp_path / "root.pem")]).exit_code == 0
    link, lost = tmp_path / "link.wav", home / "ca" / "root.key"
    link.symlink_to(lost)
    before = lost.read_bytes()
    said = ["speak", "--voice", "nobody", "--text", "Hello.", "--out"]
    for verb in (["ledger", "export"], ["ca", "export"], ["receipt", "export", "nobody"], said):
        for out in (lost, link, home / "new.wav"):
            done = CliRunner().invoke(app, [*verb, str(out)])
            assert isinstance(done.exception, InputError | SystemExit) and done.exit_code, verb
            assert lost.read_bytes() == before and not (home / "new.wav").exists(), verb
    with Store.open(home) as store, pytest.raises(InputError, match="lies in the store"):
        export(store, home / "sayso.db")


def test_what_is_handed_out_is_whole_or_named(tmp_path: Path):
    home, out = tmp_path / "home", tmp_path / "out"
    home.mkdir()
    out.write_bytes(b"old")
    (tmp_path / "link").symlink_to(out)
    os.mkfifo(tmp_path / "pipe")
    names = ["/dev/full", tmp_path / "link", tmp_path / "pipe", tmp_path / ("n" * 300), tmp_path]
    for name in [*names, tmp_path / "none" / "out"]:
        with pytest.raises(InputError, match=r"give another file name|cannot be written"):
            hand_out(home, Path(name), b"new")
    assert out.read_bytes() == b"old"
    hand_out(home, out, b"new")
    assert out.read_bytes() == b"new" and not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("kind", ["/dev/zero", "pipe", "large"])
def test_nothing_without_an_end_is_read(tmp_path: Path, kind: str):
    source = Path(kind)
    if kind == "pipe":
        source = tmp_path / "pipe"
        os.mkfifo(source)
    if kind == "large":
        source = tmp_path / "large"
        with source.open("wb") as file:
            file.truncate(2**40)
    with pytest.raises(InputError, match=r"not a regular file|larger than|longer than"):
        read_lexicon(source)
    with pytest.raises(CheckpointError, match=r"not a regular file|larger than|longer than"):
        load_pickle(source, "0" * 64)
    with pytest.raises(CheckpointError, match=r"not a regular file|larger than|longer than"):
        load_arrays(source)
    with pytest.raises(OSError):
        read_bounded(source, 2**20)
    for name in ("card.json", "config.json", "tokenizer.json"):
        (tmp_path / name).symlink_to(source)
    for read in (load_bundle, read_card, load_tokenizer):
        with pytest.raises(CheckpointError, match=r"not a regular file|larger than|longer than"):
            read(tmp_path)


@pytest.mark.parametrize("kind", ["/dev/zero", "pipe", "large"])
def test_a_corpus_without_an_end_is_not_read(tmp_path: Path, kind: str):
    """Tables and texts that are links to devices, pipes, or 1 TB with nothing in it."""
    (tmp_path / "audio").mkdir()
    tone(tmp_path / "audio" / "one.wav")
    made = Path(kind) if kind == "/dev/zero" else tmp_path / kind
    if kind == "pipe":
        os.mkfifo(made)
    if kind == "large":
        made.touch()
        os.truncate(made, 2**40)
    for name in ("metadata.tsv", "manifest.json"):
        (tmp_path / name).symlink_to(made)
    with pytest.raises(CorpusError, match=r"not a regular file|larger than|longer than"):
        read_corpus("kathleen", tmp_path)
    with pytest.raises(InputError, match=r"is missing|larger than"):
        read_token_manifest(tmp_path, ["kathleen"])


@pytest.mark.parametrize("text", ["[]", "[" * 100_000, "7"])
def test_a_token_manifest_of_another_form_is_named(tmp_path: Path, text: str):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(InputError, match=r"manifest.json (holds|is) no"):
        read_token_manifest(tmp_path, ["kathleen"])


@pytest.mark.parametrize("name", ["ledger.head", "keys", "ca/root.pem", KEY_FILE])
def test_a_store_whose_file_has_no_end_is_an_error(tmp_path: Path, name: str):
    home = tmp_path / "home"
    with Store.open(home):
        ensure_ca(home / "ca")
        ensure_key(home / KEY_FILE)
    file = home / name if name != "keys" else next((home / name).glob("*.pem"))
    file.unlink()
    os.mkfifo(file, 0o600)
    with (
        pytest.raises((StoreError, MarkError), match=r"not a regular file|is missing"),
        Store.open(home) as store,
    ):
        ensure_ca(home / "ca")
        load_key(home / KEY_FILE)
        store.head()


def test_a_sidecar_too_large_is_an_invalid_manifest(tmp_path: Path):
    path = tone(tmp_path / "x.opus")
    with (tmp_path / "x.opus.c2pa").open("wb") as file:
        file.truncate(9 * 2**30)
    found = read_manifest(path, None)
    assert found.state == "invalid" and "larger than 16 MiB" in found.reasons[0]


def test_a_name_that_ends_in_raw(tmp_path: Path):
    path = tone(tmp_path / "x.raw")
    assert read_audio(path, 16_000).shape == (1, 16_000) and seconds_of(path) == 1.0
    assert not cut_off(path, 16_000)
    path.write_bytes(bytes(range(256)) * 100)
    for read in (lambda: read_audio(path, 16_000), lambda: seconds_of(path)):
        with pytest.raises(InputError):
            read()


@pytest.mark.parametrize("content", ["{}", "[", "[]", "5", '{"public": 5}', "[" * 10**5])
def test_a_forged_first_row(tmp_path: Path, content: str):
    salt = "00" * 32
    fields = ("2026-01-01T00:00:00.000Z", KEY_EVENTS[0], "x", commit_to(salt, content), START)
    row = Row(1, *fields, "", "head")
    shown = vars(row) | {"hash": row.digest(), "opening": {"salt": salt, "content": content}}
    for each in (shown, shown | {"opening": {"salt": salt, "content": 5}}, shown | {"time": 5}):
        lines = [keys.canonical(FORMAT), keys.canonical(each), b""]
        (tmp_path / "ledger.jsonl").write_bytes(b"\n".join(lines))
        with pytest.raises(StoreError, match="row 1"):
            verify_export(tmp_path / "ledger.jsonl")


def test_configs_that_cannot_be_built(tmp_path: Path):
    small = {"layers": 1, "heads": 1, "width": 8, "feed_forward": 8, "dropout": 0.0}
    config = {"text_size": 9, "codebook_size": 9, "size": small}
    huge = [small | {"width": 3 * 10**9}, small | {"layers": 2**24, "width": 2**20}]
    bad = [json.dumps(config | {"size": size}) for size in (5, [], *huge, small | {"width": 8.0})]
    for text in ("[" * 200_000, *bad, json.dumps(config | {"text_size": "9"})):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(CheckpointError, match=r"config\.json"):
            load_module(tmp_path, AR, ARConfig)


@pytest.mark.parametrize("seed", [-1, 2**63, 10**22])
def test_a_seed_out_of_range_is_refused_before_the_grant(tmp_path: Path, monkeypatch, seed: int):
    monkeypatch.setenv("SAYSO_HOME", str(tmp_path / "home"))
    out = ["--out", str(tmp_path / "x.wav"), "--seed", str(seed)]
    done = CliRunner().invoke(app, ["speak", "--voice", "nobody", "--text", "Hello.", *out])
    assert isinstance(done.exception, InputError) and "seed" in str(done.exception)


def test_no_picture_costs_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("matplotlib", reason="matplotlib is absent")
    odd, long = tone(tmp_path / "a$_{$.wav"), tone(tmp_path / f"{'b' * 250}.wav")
    assert report.run([odd, long], pictures=tmp_path / "png") == 4
    said = capsys.readouterr()
    assert "no picture of" in said.err and "2 files" in said.out
    assert [path.name for path in (tmp_path / "png").iterdir()] == ["a$_{$.wav.png"]
    with pytest.raises(InputError, match="--pictures"):
        report.run([odd], pictures=odd)


def test_a_slip_in_a_name_is_met_with_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SAYSO_HOME", str(tmp_path / "home"))
    with Store.open() as store:
        store.enrol("vera-1f2e3d", "c-1", "token", {"codes": b""})
    receipt = ["receipt", "export", "vera-1f2e3", str(tmp_path / "out")]
    for verb in (["revoke", "vera-1fe3d"], receipt):
        done = CliRunner().invoke(app, verb)
        assert "Did you mean 'vera-1f2e3d'?" in str(done.exception)
    said = ["--text", "Hello.", "--out", str(tmp_path / "x.wav")]
    done = CliRunner().invoke(app, ["speak", "--voice", "vera-1f2e3", *said])
    assert isinstance(done.exception, RefusedError) and "vera-1f2e3d" not in str(done.exception)


def test_a_root_that_is_none_is_named(tmp_path: Path):
    path = tone(tmp_path / "a.wav")
    for root in (tmp_path / "none", tmp_path):
        done = CliRunner().invoke(app, ["detect", str(path), "--root", str(root)])
        assert isinstance(done.exception, InputError) and "--root" in str(done.exception)


def test_who_has_no_home_may_look_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def unknown(uid: int):
        raise KeyError(uid)

    monkeypatch.setattr("pwd.getpwuid", unknown)
    for name in ("HOME", "SAYSO_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    done = CliRunner().invoke(app, ["detect", "--json", str(tone(tmp_path / "a.wav"))])
    assert done.exit_code == 4 and not json.loads(done.output)["watermark"]["present"]
    done = CliRunner().invoke(app, ["voices"])
    assert isinstance(done.exception, StoreError) and "SAYSO_HOME" in str(done.exception)
