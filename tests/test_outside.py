"""What comes in and goes out as files and lines: escaped, bounded, canonical, and dated."""

import json
import os
import random
import re
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from conftest import Clock
from sayso.cli import app
from sayso.inference.consent.receipt import Scope, issue, verify_receipt
from sayso.inference.errors import RefusedError, StoreError
from sayso.inference.gate import Gate
from sayso.inference.store import clock as clocks
from sayso.inference.store import keys
from sayso.inference.store.export import export, verify_export, write_export
from sayso.inference.store.ledger import KEY_EVENTS, START, Head, Row, commit_to, sign_head, stamp
from sayso.inference.store.store import Store
from sayso.model import corpora
from sayso.model.bundle import load_bundle
from sayso.model.card import read_card
from sayso.model.checkpoint import WEIGHTS
from sayso.model.errors import CheckpointError, CorpusError, InputError, SaysoError
from sayso.model.files import ASSETS, file_hash, read_regular, write_json
from sayso.model.printable import printable
from test_gate import register, release

ROOT = Path(__file__).resolve().parents[1]
SCOPE = Scope(purposes=("research",), users=("ada",))
pytestmark = pytest.mark.usefixtures("no_bundled_voice")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SAYSO_HOME", str(tmp_path / "home"))
    with Store.open() as store:
        register(store, "vera", SCOPE)
    return tmp_path / "home"


def run(*arguments: object):
    return CliRunner().invoke(app, [str(each) for each in arguments])


def dated(store: Store) -> str:
    spans = store.key_spans()
    return "".join(keys.dated_pem(pem, spans[kid]) for kid, pem in store.public_keys().items())


# --- printed ---


@pytest.mark.parametrize("name", ["\x1b[2K\x1b[1A", "a\nb 0 rows", "\u202egnp.", "\u2028", "\r"])
def test_a_name_from_outside_is_one_line_that_moves_nothing(home: Path, tmp_path: Path, name: str):
    out = tmp_path / f"x{name}.wav"
    with Store.open(home) as store:
        gate = Gate(store)
        release(gate, gate.authorise("vera", "research", "ada", "Hello."), out)
    said = run("revoke", "vera").output
    assert name not in said and printable(name) in said
    assert len(said.splitlines()) == 2 and "1 recordings" in said


def test_ordinary_names_are_printed_as_they_are():
    for text in ("Zoë's résumé, 日本語 🎙.wav", "a\\b"):
        assert printable(text) == text


def test_nothing_of_the_command_line_prints_past_the_escape():
    for path in (ROOT / "src/sayso/cli").glob("*.py"):
        text = path.read_text().replace("file.write(", "")  # a stream's sound, in bytes
        found = re.findall(r"\b(?:print|echo|secho|write)\(", text)
        assert len(found) == (path.name == "files.py"), path


# --- read ---


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no devices here")
def test_what_has_no_end_is_not_read(home: Path, tmp_path: Path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "large").write_bytes(bytes(2000))
    for path in ("/dev/zero", tmp_path / "fifo", tmp_path, tmp_path / "none", tmp_path / "a\0"):
        with pytest.raises(InputError):
            read_regular(Path(path), 1000)
    with pytest.raises(InputError, match="larger"):
        read_regular(tmp_path / "large", 1000)
    assert len(read_regular(tmp_path / "large", 2000)) == 2000
    key = tmp_path / "keys.pem"
    key.write_text(run("receipt", "key").output)
    for arguments in (
        ("receipt", "verify", "/dev/zero", "--key", key),
        ("receipt", "verify", key, "--key", "/dev/zero"),
        ("ledger", "check", "/dev/zero", "--key", key),
        ("ledger", "verify", "--head", "/dev/zero"),
    ):
        assert isinstance(run(*arguments).exception, InputError), arguments


@pytest.mark.parametrize(
    "card",
    [
        "[" * 100_000,
        "[]",
        '"x"',
        '{"sampling": []}',
        '{"sampling": {"top_p": [1]}}',
        '{"models": 1}',
        '{"models": {"nar": []}}',
        '{"codec": "x"}',
        '{"a": ' * 100_000,
    ],
)
def test_a_card_that_is_none_is_an_error_of_one_line(tmp_path: Path, card: str):
    shutil.copytree(ASSETS / "mini", tmp_path / "mini", ignore=shutil.ignore_patterns("ar", "nar"))
    (tmp_path / "mini" / "card.json").write_text(card)
    with pytest.raises(CheckpointError) as caught:
        load_bundle(tmp_path / "mini")
    assert "card.json" in str(caught.value) and "\n" not in str(caught.value)


def test_a_model_begun_with_anothers_weights_names_the_corpora_of_both(tmp_path: Path):
    (tmp_path / "ar").mkdir()
    (tmp_path / "ar" / WEIGHTS).write_bytes(b"weights")
    digest = file_hash(tmp_path / "ar" / WEIGHTS)
    before = {"trained_on": ["kathleen", "vctk"], "weights_sha256": "0"}
    ar = {"trained_on": ["vctk"], "weights_sha256": digest, "started_from": before}
    card = {"corpora": [corpora.get(name).to_json() for name in ("kathleen", "vctk")]}
    write_json(tmp_path / "card.json", card | {"models": {"ar": ar}})
    assert read_card(tmp_path)["models"]["ar"]["started_from"] == before
    del ar["started_from"]
    write_json(tmp_path / "card.json", card | {"models": {"ar": ar}})
    with pytest.raises(CorpusError, match="edited"):
        read_card(tmp_path)


# --- canonical ---


def test_an_export_has_one_spelling(home: Path, tmp_path: Path):
    exported, rng = tmp_path / "ledger.jsonl", random.Random(7)
    with Store.open(home) as store:
        store.rotate_key()
        export(store, exported)
        public = dated(store)
    whole = exported.read_bytes()
    salts = [match.span(1) for match in re.finditer(rb'"salt":"([0-9a-f]+)"', whole)]
    changes = [whole[:a] + whole[a:b].upper() + whole[b:] for a, b in salts]
    first = whole.splitlines(keepends=True)
    opened = json.loads(first[1])
    changes.append(whole.replace(b'"salt":', b'"sale":1,"salt":', 1))
    changes.append(whole.replace(b'{"commitment"', b'{"Commitment":0,"commitment"', 1))
    assert opened["opening"] and len(salts) == 2
    fields = json.loads(first[2]) | {"opening": None}  # of a row that shows nothing
    changes.append(b"".join([*first[:2], keys.canonical(fields) + b"\n", *first[3:]]))
    for _ in range(400):  # a bit, or a letter's case
        place = rng.randrange(len(whole))
        changed = bytearray(whole)
        changed[place] ^= rng.choice([1, 2, 4, 8, 16, 32, 32, 64, 128])
        changes.append(bytes(changed))
    for changed in changes:
        exported.write_bytes(changed)
        with pytest.raises(SaysoError):
            verify_export(exported, public)
    exported.write_bytes(whole)
    assert len(verify_export(exported, public).signers) == 1  # the fresh key has signed no row yet


def test_an_export_without_a_key_is_never_called_good(home: Path, tmp_path: Path):
    with Store.open(home) as store:
        export(store, tmp_path / "ledger.jsonl")
        kid = store.last_key()
        (tmp_path / "keys.pem").write_text(dated(store))
    alone = run("ledger", "check", tmp_path / "ledger.jsonl")
    assert alone.exit_code == 7 and "good" not in alone.output
    checked = run("ledger", "check", tmp_path / "ledger.jsonl", "--key", tmp_path / "keys.pem")
    assert checked.exit_code == 0 and f"signed by {kid}" in checked.output


# --- dated ---


def test_a_key_that_was_rotated_out_signs_nothing_any_more(
    home: Path, tmp_path: Path, clock: Clock
):
    """A thief has the old key; the receipt is dated after it left."""
    with Store.open(home) as store:
        stolen = store.signing_key()
        held = Gate(store).receipt("vera")
        clock.now += 3600
        store.rotate_key()
        clock.now += 3600
        public = dated(store)
        issued = stamp(clock.now - 60)
        later = replace(held, record_id="c-eve", voice="eve", issued=issued)
        (tmp_path / "r.jws").write_text(issue(later, stolen))
        with pytest.raises(RefusedError, match="may have stolen"):
            verify_receipt(tmp_path / "r.jws", public)
        store.enrol("eve", "c-eve", issue(later, stolen), {"codes": b""})
        with pytest.raises(RefusedError, match="not in use then"):
            Gate(store).receipt("eve")
        (tmp_path / "r.jws").write_text(store.voice("vera").token)  # type: ignore[union-attr]
        assert verify_receipt(tmp_path / "r.jws", public).voice == "vera"


def test_a_ledger_that_goes_on_with_a_key_that_left_is_not_good(
    home: Path, tmp_path: Path, clock: Clock
):
    """The thief cuts it before the rotation and writes on."""
    shutil.copytree(home, tmp_path / "forged")
    with Store.open(home) as store:
        clock.now += 60
        store.rotate_key()
        public = dated(store)
    clock.now += 60
    with Store.open(tmp_path / "forged") as forged:
        register(forged, "eve", SCOPE)
        export(forged, tmp_path / "forged.jsonl")
    with pytest.raises(StoreError, match="not in use then"):
        verify_export(tmp_path / "forged.jsonl", public)


@pytest.mark.parametrize("first", [False, True])
def test_a_key_that_left_vouches_for_no_unknown_key(
    home: Path, tmp_path: Path, clock: Clock, first: bool
):
    """The thief dates a rotation while it was in use, to a key of his own, which writes on.

    Or his own key writes first, and the stolen one signs but the last row, dated back.
    """
    with Store.open(home) as store:
        stolen = store.signing_key()
        clock.now += 60
        store.rotate_key()
        public = dated(store)
        rows = [row for row, _ in store.rows()][:-1]
    mine = keys.Ed25519PrivateKey.generate()
    early = rows[-1].time
    forged: list[tuple[Row, tuple[str, str]]] = []

    def add(event: str, key: keys.Ed25519PrivateKey, time: str, new=None):
        fields = {"public": keys.public_pem(new)} if new else {}
        opening = ("00" * 32, keys.canonical(fields).decode())
        before = forged[-1][0].hash if forged else START
        seq, made = len(forged) + 1, commit_to(*opening)
        digest = Row(seq, time, event, "x", made, before, "", "").digest()
        ledger = forged[0][0].hash if forged else digest
        head = sign_head(Head(ledger, seq, digest, time), key)
        forged.append((Row(seq, time, event, "x", made, before, digest, head), opening))

    begins, goes_on = (mine, stolen) if first else (stolen, mine)
    add(KEY_EVENTS[0], begins, early, begins)
    if first:
        add("revoked", mine, stamp(clock.now + 60))
    add(KEY_EVENTS[1], begins, early, goes_on)
    add("revoked", goes_on, early if first else stamp(clock.now + 60))
    write_export(forged, tmp_path / "forged.jsonl", home)
    with pytest.raises(StoreError, match="not in use then" if first else "has left"):
        verify_export(tmp_path / "forged.jsonl", public)


def test_a_receipt_that_is_over_exits_with_a_code_of_its_own(
    home: Path, tmp_path: Path, clock: Clock
):
    clock.now -= 40 * 86400
    with Store.open(tmp_path / "old") as store:
        register(store, "zoe", SCOPE)
        (tmp_path / "r.jws").write_text(store.voice("zoe").token)  # type: ignore[union-attr]
        (tmp_path / "keys.pem").write_text(dated(store))
    found = run("receipt", "verify", tmp_path / "r.jws", "--key", tmp_path / "keys.pem")
    assert found.exit_code == 6 and "not valid at this time" in found.output


def test_the_page_shows_how_others_verify_a_receipt(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    pytest.importorskip("jwt", reason="PyJWT is in the extra `dev`")
    page = (ROOT / "docs/consent.md").read_text()
    code = next(each for each in re.findall(r"```python\n(.*?)```", page, re.S) if "jwt" in each)
    assert len(code.strip().splitlines()) <= 6
    monkeypatch.chdir(tmp_path)
    with Store.open(home) as store:
        store.rotate_key()
        register(store, "ada", SCOPE)
        Path("ada.jws").write_text(store.voice("ada").token)  # type: ignore[union-attr]
        kid = store.last_key()
        Path("keys.pem").write_text(store.public_keys()[kid])
        Path("other.pem").write_text(store.public_keys()[next(iter(store.public_keys()))])
    names: dict = {}
    exec(code, names)
    assert names["receipt"]["sayso"]["voice"] == "ada"
    import jwt

    Path("keys.pem").write_text(Path("other.pem").read_text())
    with pytest.raises(jwt.InvalidSignatureError):
        exec(code, {})


def test_an_interval_never_spans_two_starts_or_time_namespaces(
    home: Path, monkeypatch: pytest.MonkeyPatch
):
    with Store.open(home) as store:
        before, here = store.steady(), clocks.boot_id()
        assert 0 <= store.steady() - before < 120
        boot, _, space = here.partition(" ")
        for other in (f"other {space}", f"{boot} time:[1]", ""):
            monkeypatch.setattr(clocks, "boot_id", lambda other=other: other)
            assert abs(store.steady() - before) > 120


# --- as many rows as there may be ---


def steps_of(store: Store) -> int:
    """How many steps of SQLite's machine one authorisation takes."""
    gate, count = Gate(store), [0]

    def counted() -> int:
        count[0] += 1
        return 0

    store._database.set_progress_handler(counted, 10)
    gate.authorise("vera", "research", "ada", "Hello.")
    store._database.set_progress_handler(None, 0)
    return count[0]


def test_asking_costs_no_more_in_a_long_ledger(home: Path):
    with Store.open(home) as store:
        few = steps_of(store)
        with store.transaction():
            for number in range(2000):
                store.append("session-started", f"s-{number}", {"words": []})
        assert steps_of(store) > few  # the new rows are read once ...
        assert steps_of(store) < 1.5 * few  # ... and then never again


def test_what_another_process_changed_in_an_old_row_is_not_believed(home: Path):
    with Store.open(home) as store:
        gate = Gate(store)
        gate.authorise("vera", "research", "ada", "Hello.")
        with sqlite3.connect(home / "sayso.db") as other:  # the file itself, past every trigger
            other.execute("PRAGMA writable_schema = ON")
            kept = other.execute("SELECT name, sql FROM sqlite_master WHERE type='trigger'")
            kept = kept.fetchall()
            for name, _ in kept:
                other.execute(f"DROP TRIGGER {name}")
            other.execute("UPDATE details SET content = replace(content, 'vera', 'eve')")
            for _, sql in kept:
                other.execute(sql)
        with pytest.raises(StoreError):
            gate.authorise("vera", "research", "ada", "Hello.")
