"""The store: flipped bytes are found, a killed process leaves all or nothing, keys are kept."""

import os
import random
import shutil
import signal
import stat
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sayso.inference.consent.receipt import Scope, kantara, verify_receipt
from sayso.inference.errors import RefusedError, StoreError
from sayso.inference.gate import Gate
from sayso.inference.provenance.certificates import ensure_ca
from sayso.inference.store import keys
from sayso.inference.store.checking import verify, vouch
from sayso.inference.store.export import export, verify_export
from sayso.inference.store.recovery import recover
from sayso.inference.store.store import Store
from sayso.inference.watermark.keyed import load_keyed
from sayso.model.errors import SaysoError
from test_gate import register, release

pytestmark = pytest.mark.usefixtures("no_bundled_voice")

SCOPE = Scope(purposes=("research",), users=("ada",))
TABLES = ("ledger", "details", "sealed", "journal")


def speak(store: Store, voice: str, folder: Path, name: str, suffix: str = ".wav") -> str:
    """One real grant and release of a small file."""
    gate = Gate(store)
    grant = gate.authorise(voice, "research", "ada", "Hello.")
    return release(gate, grant, folder / f"{name}{suffix}", b"RIFF" + name.encode() * 500)


def in_child(work: Callable[[], None]) -> int:
    """Run `work` in a forked child that never returns to pytest; its process id."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return child


def dump(store: Store) -> dict[str, list]:
    return {name: store._database.execute(f"SELECT * FROM {name}").fetchall() for name in TABLES}


def build(home: Path) -> None:
    """A store in use: two voices, one of them revoked, an output, a refusal, a rotated key."""
    with Store.open(home) as store:
        register(store, "vera", SCOPE)
        register(store, "zoe", SCOPE)
        load_keyed(home)
        ensure_ca(home / "ca")
        vouch(store)
        speak(store, "vera", home.parent, "out")
        store.rotate_key()
        Gate(store).revoke("zoe")
        with pytest.raises(RefusedError):
            Gate(store).authorise("zoe", "research", "ada", "Hello.")


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed store in use."""
    home = tmp_path_factory.mktemp("used") / "home"
    build(home)
    return home


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store whose last process was killed: its last rows are in the write-ahead log only."""
    home = tmp_path_factory.mktemp("crashed") / "home"

    def work() -> None:
        Store.open(home).close()
        store = Store.open(home)
        register(store, "vera", SCOPE)
        speak(store, "vera", home.parent, "out")
        os.kill(os.getpid(), signal.SIGKILL)

    os.waitpid(in_child(work), 0)
    assert (home / "sayso.db-wal").stat().st_size > 0
    return home


# --- a flipped byte ---


def flip(home: Path, copy: Path, name: str, place: int, bit: int) -> str:
    """Flip one bit of one file in a copy; what the store says of it, "" if it finds nothing."""
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(home, copy)
    path = copy / name
    data = bytearray(path.read_bytes())
    data[place % len(data)] ^= 1 << bit
    path.write_bytes(data)
    try:
        with Store.open(copy) as store:
            verify(store)
            with Store.open(home) as whole:
                # SQLite leaves room inside its pages, and counters in its header: a bit there
                # changes no row. Then, and only then, there is nothing to find.
                assert path.name.startswith("sayso.db") and dump(store) == dump(whole)
    except StoreError as error:
        return str(error)
    return ""


def files(home: Path) -> list[str]:
    found = [path for path in home.rglob("*") if path.is_file() and path.stat().st_size]
    return sorted(str(path.relative_to(home)) for path in found if path.suffix != ".db-shm")


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_flipped_bit_in_any_file_is_found_and_named(used: Path, tmp_path_factory, data):
    names = files(used)
    kinds = {name.split("/")[0] if "/" not in name else name.rsplit("/", 1)[0] for name in names}
    assert kinds == {"sayso.db", "ledger.head", "keys", "keys/voices", "ca", "marks", "manifests"}
    name = data.draw(st.sampled_from(names))
    size = (used / name).stat().st_size
    place = data.draw(st.integers(0, size - 1))
    said = flip(
        used, tmp_path_factory.getbasetemp() / "flip", name, place, data.draw(st.integers(0, 7))
    )
    if not name.startswith("sayso.db"):
        assert Path(name).name in said
    elif said:
        assert "sayso.db" in said or "ledger.head" in said


@settings(max_examples=60, deadline=None)
@given(place=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_a_flipped_bit_in_the_log_of_a_crash_is_found(
    crashed: Path, tmp_path_factory, place: int, bit: int
):
    copy = tmp_path_factory.getbasetemp() / "flip-wal"
    said = flip_wal(crashed, copy, place, bit)
    assert said == "" or "sayso.db" in said or "ledger.head" in said


def flip_wal(home: Path, copy: Path, place: int, bit: int) -> str:
    whole = copy.with_name("whole")
    for target in (copy, whole):
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(home, target)
    path = copy / "sayso.db-wal"
    data = bytearray(path.read_bytes())
    data[place % len(data)] ^= 1 << bit
    path.write_bytes(data)
    try:
        with Store.open(copy) as store, Store.open(whole) as sound:
            recover(store)
            verify(store)
            assert dump(store) == dump(sound)
    except StoreError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("UPDATE ledger SET event = 'refused' WHERE event = 'revoked'", "row 6 was changed"),
        ("UPDATE details SET content = replace(content, 'zoe', 'eve')", "changed"),
        ("DELETE FROM ledger WHERE seq = 4", "missing"),
        ("DELETE FROM details WHERE seq = 4", "lost its details"),
        ("UPDATE ledger SET seq = seq + 100 WHERE seq = 4", "missing"),
        ("DELETE FROM ledger WHERE seq = 8; DELETE FROM details WHERE seq = 8", "from the end"),
        ("UPDATE ledger SET seq = -seq WHERE seq IN (4, 5)", "row 4 is missing"),
        ("UPDATE sealed SET data = zeroblob(length(data))", "codes of the voice vera was changed"),
        ("DELETE FROM sealed", "codes of the voice vera is missing"),
        ("INSERT INTO sealed VALUES ('c-x', 'codes', x'00')", "of no voice"),
        ("INSERT INTO journal VALUES ('g-x', '/etc/passwd')", "journal of releases was changed"),
        ("UPDATE details SET salt = upper(salt) WHERE seq = 3", "details were changed"),
        ("INSERT INTO details VALUES (99, '', '', '{}')", "details of no row"),
    ],
)
def test_edited_rows_are_found(used: Path, tmp_path: Path, change: str, said: str):
    home = tmp_path / "home"
    shutil.copytree(used, home)
    with Store.open(home) as store:
        if "seq = 8" in change:
            assert len(store.entries()) >= 8
            last = store.entries()[-1].seq
            change = change.replace("8", str(last))
        if "row 6" in said:
            revoked = store.entries("revoked")[0].seq
            said = said.replace("6", str(revoked))
        triggers = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"
        kept = store._database.execute(triggers).fetchall()
        store._database.execute("PRAGMA foreign_keys = OFF")
        for name, _ in kept:
            store._database.execute(f"DROP TRIGGER {name}")
        store._database.executescript(change)
        for _, sql in kept:  # a careful forger puts them back
            store._database.execute(sql)
        with pytest.raises(StoreError, match=said):
            verify(store)


def test_the_tables_themselves_refuse_to_forget(used: Path, tmp_path: Path):
    home = tmp_path / "home"
    shutil.copytree(used, home)
    with Store.open(home) as store:
        for change in ("DELETE FROM ledger", "UPDATE details SET voice = ''"):
            with pytest.raises(StoreError, match="append-only"), store._readable():
                store._database.execute(change)
        store._database.execute("DROP TRIGGER ledger_no_DELETE")
        with pytest.raises(StoreError, match="not a store of version"):
            store.check()


def test_the_gate_asks_nothing_of_a_changed_store(used: Path, tmp_path: Path):
    home = tmp_path / "home"
    shutil.copytree(used, home)
    with Store.open(home) as store, Store.open(home) as other:
        gate = Gate(store)
        other._database.execute("DROP TRIGGER details_no_UPDATE")
        other._database.execute("UPDATE details SET content = replace(content, 'zoe', 'eve')")
        with pytest.raises(StoreError):
            gate.authorise("vera", "research", "ada", "Hello.")


@settings(max_examples=60, deadline=None)
@given(place=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_a_flipped_bit_in_receipt_export_or_public_key_is_found(
    used: Path, tmp_path_factory, place: int, bit: int
):
    folder = tmp_path_factory.getbasetemp()
    with Store.open(used) as store:
        voice = store.voice("vera")
        assert voice is not None
        public = store.public_keys()[keys.key_id(voice.token)]
        receipt, exported = folder / "r.jws", folder / "ledger.jsonl"
        receipt.write_text(voice.token + "\n")
        export(store, exported)
    assert verify_receipt(receipt, public).voice == "vera"
    assert verify_export(exported, public).head.size > 5
    for path in (receipt, exported):
        data = bytearray(path.read_bytes())
        data[place % len(data)] ^= 1 << bit
        path.write_bytes(data)
    with pytest.raises(SaysoError):
        verify_receipt(receipt, public)
    with pytest.raises(StoreError, match=r"ledger\.jsonl"):
        verify_export(exported, public)
    pem = bytearray(public.encode())
    pem[place % len(pem)] ^= 1 << bit
    try:  # a flip inside the 32 bytes is another key, which has signed nothing here
        assert keys.thumbprint(keys.load_public(pem.decode("latin-1"))) != keys.key_id(voice.token)
    except StoreError as error:
        assert "public key" in str(error)


# --- proofs for others ---


def test_an_old_head_proves_growth_and_a_foreign_one_nothing(tmp_path: Path):
    with Store.open(tmp_path / "a") as store, Store.open(tmp_path / "b") as other:
        old = store.head()
        register(store, "vera", SCOPE)
        assert verify(store, old).size == 2
        export(store, tmp_path / "now.jsonl")
        assert verify_export(tmp_path / "now.jsonl", old=old).head.size == 2
        with pytest.raises(StoreError, match="not one of this ledger's"):
            verify(store, other.head())
        with pytest.raises(StoreError, match="not signed by the given public key"):
            verify_export(tmp_path / "now.jsonl", next(iter(other.public_keys().values())))
        lines = (tmp_path / "now.jsonl").read_bytes().splitlines(keepends=True)
        (tmp_path / "now.jsonl").write_bytes(b"".join(lines[:-1]))
        with pytest.raises(StoreError, match="removed from the end"):
            verify_export(tmp_path / "now.jsonl", old=store.head())


def test_a_receipt_names_the_standards_fields(used: Path):
    with Store.open(used) as store:
        receipt = Gate(store).receipt("vera")
    payload = receipt.payload()
    assert payload["event"]["event_type"] == "explicit consent"
    assert payload["processing"]["withdrawal_method"] == "sayso revoke vera"
    view = kantara(receipt)
    assert view["version"] == "KI-CR-v1.1.0" and view["consentReceiptID"] == receipt.record_id


# --- killed ---


def test_kill_at_fifty_moments_leaves_all_or_nothing(tmp_path: Path):
    """Enrol, speak and revoke in a child that dies at a random moment; then the store is whole."""
    home, out = tmp_path / "home", tmp_path / "out"
    out.mkdir()
    rng = random.Random(5)

    def work(turn: int) -> None:
        store = Store.open(home)
        register(store, f"v{turn}", SCOPE)
        for number in range(2):
            speak(store, f"v{turn}", out, f"{turn}-{number}", (".wav", ".opus")[number])
        Gate(store).revoke(f"v{turn}")
        store.close()

    started = time.perf_counter()
    os.waitpid(in_child(lambda: work(0)), 0)
    whole_time = time.perf_counter() - started
    seen = set()
    for turn in range(1, 51):
        child = in_child(lambda turn=turn: work(turn))
        time.sleep(rng.uniform(0, whole_time))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with Store.open(home) as store:
            recover(store)
            assert store.journal() == []
            if turn % 5 == 0:
                verify(store)
            released = {entry.content["path"] for entry in store.entries("released")}
            beside = {f"{path}.c2pa" for path in released if path.endswith(".opus")}
            assert {str(path) for path in out.iterdir()} == released | beside
            kept = {path.name for path in (home / "manifests").glob("*")}
            rows = store.entries("released")
            assert kept == {f"{row.id}.c2pa" for row in rows}
            assert not list((home / "work").iterdir())
            assert not list(home.glob(".*"))
            voices = store.voices()
            kept = {f"{voice.record_id}.key" for voice in voices if not voice.revoked}
            assert {path.name for path in (home / "keys" / "voices").iterdir()} == kept
            assert len(list((home / "keys").glob("*.pem"))) == 1
            last = next((voice for voice in voices if voice.voice == f"v{turn}"), None)
            seen.add((last is not None, last is not None and bool(last.revoked)))
    assert len(seen) > 1  # it died before and after the enrolment
    with Store.open(home) as store:
        verify(store)


def test_killed_at_first_use(tmp_path: Path):
    rng = random.Random(6)
    for turn in range(10):
        home = tmp_path / str(turn)
        child = in_child(lambda home=home: Store.open(home).close())
        time.sleep(rng.uniform(0, 0.06))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with Store.open(home) as store:
            recover(store)
            assert verify(store).size == 1
            assert len(list((home / "keys").glob("*.pem"))) == 1


def test_two_processes_at_once_lose_nothing(tmp_path: Path):
    home, out = tmp_path / "home", tmp_path / "out"
    out.mkdir()

    def work(name: str) -> None:
        with Store.open(home) as store:
            for turn in range(4):
                register(store, f"{name}{turn}", SCOPE)
                speak(store, f"{name}{turn}", out, f"{name}{turn}")

    children = [in_child(lambda name=name: work(name)) for name in ("a", "b", "c")]
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
    with Store.open(home) as store:
        verify(store)
        own = [voice for voice in store.voices() if voice.voice[0] in "abc"]
        assert len(own) == 12 and len(list(out.iterdir())) == 12
        assert len(store.entries("released")) == 12


def go_together(home: Path, work: Callable[[Gate, int], None], count: int) -> list[int]:
    """Processes that do `work`, each with a gate of its own, from one moment on; their ids."""
    ready, go = os.pipe(), os.pipe()

    def begun(number: int) -> None:
        with Store.open(home) as store:
            gate = Gate(store)
            os.write(ready[1], b"x")
            os.read(go[0], 1)
            work(gate, number)

    children = [in_child(lambda number=number: begun(number)) for number in range(count)]
    os.close(ready[1])
    for _ in children:
        assert os.read(ready[0], 1)
    os.write(go[1], b"x" * count)
    return children


def test_what_another_process_writes_is_seen_by_one_with_two_stores_open(tmp_path: Path):
    """As a service has: one for each thread. SQLite's locks end where its file is closed."""
    home, ready, go = tmp_path / "home", os.pipe(), os.pipe()
    with Store.open(home) as store:
        register(store, "vera", SCOPE)

    def work() -> None:
        with Store.open(home) as store, Store.open(home) as second:
            second.check()
            os.write(ready[1], b"x")
            os.read(go[0], 1)
            with pytest.raises(RefusedError, match="voice-revoked"):
                Gate(store).authorise("vera", "research", "ada", "Hello.")
            register(second, "zoe", SCOPE)

    child = in_child(work)
    os.close(ready[1])
    assert os.read(ready[0], 1)
    Store.open(home).close()
    with Store.open(home) as store:
        Gate(store).revoke("vera")
    os.write(go[1], b"x")
    assert os.waitpid(child, 0)[1] == 0
    with Store.open(home) as store:
        assert store.voice("zoe") is not None
        verify(store)


def test_processes_at_once_take_no_more_than_a_quota_leaves(tmp_path: Path):
    home, out, most = tmp_path / "home", tmp_path / "out", 4
    out.mkdir()
    with Store.open(home) as store:
        register(store, "vera", replace(SCOPE, max_uses=most))

    def work(gate: Gate, number: int) -> None:
        for turn in range(5):
            try:
                grant = gate.authorise("vera", "research", "ada", "Hello.")
            except RefusedError as refusal:
                assert refusal.code == "quota-uses"
                continue
            if turn % 2:
                gate.give_back(grant)  # as where no speech was made of it
            else:
                release(gate, grant, out / f"{number}-{turn}.wav", b"RIFF" * 500)

    children = go_together(home, work, 3)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 3
    with Store.open(home) as store:
        verify(store)
        change = {"granted": 1, "given-back": -1}
        taken = np.cumsum([change.get(entry.event, 0) for entry in store.entries()])
        assert taken.max() == most and store.used("c-vera")[0] == taken[-1] == most
        assert len(store.entries("released")) == len(list(out.iterdir())) == most


def test_nothing_leaves_once_a_revocation_in_another_process_is_done(tmp_path: Path):
    """And it lists whatever has left."""
    home, out = tmp_path / "home", tmp_path / "out"
    out.mkdir()
    for turn in range(2):
        voice = f"v{turn}"

        def work(gate: Gate, number: int, voice: str = voice) -> None:
            with pytest.raises(RefusedError, match="voice-revoked"):
                for n in range(10_000):
                    grant = gate.authorise(voice, "research", "ada", "Hello.")
                    release(gate, grant, out / f"{voice}-{number}-{n}.wav", b"RIFF" * 500)

        with Store.open(home) as store:
            register(store, voice, SCOPE)
            children = go_together(home, work, 2)
            time.sleep(0.3 * turn)
            made = {Path(output.path) for output in Gate(store).revoke(voice)}
            left = set(out.glob(f"{voice}-*"))
            assert [os.waitpid(child, 0)[1] for child in children] == [0] * 2
            assert left == made == set(out.glob(f"{voice}-*"))
            assert not list((home / "work").iterdir())
    with Store.open(home) as store:
        verify(store)


# --- keys ---


def test_secrets_are_their_owners_alone(used: Path):
    for path in [used, *used.rglob("*")]:
        if path.is_dir() or path.name != "lock":
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_a_passphrase_locks_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SAYSO_PASSPHRASE", "correct horse")
    home = tmp_path / "home"
    with Store.open(home) as store:
        register(store, "vera", SCOPE)
        store.rotate_key()
        verify(store)
    (path,) = (home / "keys").glob("*.pem")
    assert b"ENCRYPTED" in path.read_bytes()
    monkeypatch.setenv("SAYSO_PASSPHRASE", "wrong")
    with Store.open(home) as store:  # what needs no signature needs no key
        assert store.voice("vera")
        with pytest.raises(StoreError, match=f"{path.name}.*SAYSO_PASSPHRASE is wrong"):
            store.head()
        monkeypatch.delenv("SAYSO_PASSPHRASE")
        with pytest.raises(StoreError, match="is locked: set SAYSO_PASSPHRASE"):
            Gate(store).revoke("vera")
        monkeypatch.setenv("SAYSO_PASSPHRASE", "correct horse")
        store.head()
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n", 1))
    with Store.open(home) as store, pytest.raises(StoreError, match=path.name):
        verify(store)


@pytest.mark.parametrize(
    ("lose", "said"),
    [
        ("sayso.db", "sayso.db is missing"),
        ("ledger.head", "ledger.head is missing"),
        ("keys/*.pem", r"signing key .*\.pem cannot be read"),
    ],
)
def test_a_lost_file_is_named(used: Path, tmp_path: Path, lose: str, said: str):
    home = tmp_path / "home"
    shutil.copytree(used, home)
    for path in home.glob(lose):
        path.unlink()
    for _ in range(2):  # it is not made up for on a second try
        with pytest.raises(StoreError, match=said), Store.open(home) as store:
            verify(store)


@pytest.mark.parametrize("junk", [b"", b"not a database", os.urandom(5000)])
def test_a_database_that_is_none_is_named(used: Path, tmp_path: Path, junk: bytes):
    home = tmp_path / "home"
    shutil.copytree(used, home)
    (home / "sayso.db").write_bytes(junk)
    with pytest.raises(StoreError, match=r"sayso\.db"):
        Store.open(home)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="set SAYSO_HOME"):
        Store.open(tmp_path / "file" / "home")
