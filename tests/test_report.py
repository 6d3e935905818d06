"""`sayso detect` over files and folders: table, JSON, exit codes, pictures, stripped manifests."""

import io
import json
import sqlite3
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from rich.console import Console

from sayso.inference import report
from sayso.inference.audio import read_audio, write_audio
from sayso.inference.detect import Detection, Detector
from sayso.inference.marks import load_marks
from sayso.inference.provenance import ensure_ca, keep_manifest, sign
from sayso.inference.weave import payload_of
from sayso.model.errors import InputError

CLIPS = Path(__file__).parents[1].parent / "shared/corpora/librispeech-clips/audio"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one released file: home/, files/ours.wav and files/heard/real.flac."""
    if not CLIPS.is_dir():
        pytest.skip("the shared corpora are missing: no real speech to mark")
    torch.set_num_threads(1)
    base = tmp_path_factory.mktemp("report")
    home, files = base / "home", base / "files"
    (files / "heard").mkdir(parents=True)
    clips = sorted(CLIPS.glob("*.flac"))
    speech = read_audio(clips[11], 24_000)[0, : 8 * 24_000]
    marks = load_marks(home)
    assert marks.keyed is not None
    write_audio(base / "draft.wav", marks.embed(speech, 24_000, "row-7"), 24_000)
    payload = payload_of(marks.keyed.key, "row-7")
    ca = ensure_ca(home / "ca")
    manifest = sign(base / "draft.wav", files / "ours.wav", ca, "row-7", "0" * 64, "t", payload)
    keep_manifest(home, "row-7", manifest)
    with sqlite3.connect(home / "sayso.db") as database:  # only what the look-up reads
        database.execute("CREATE TABLE ledger (seq, event, id)")
        rows = [(i, "released", f"row-{i}") for i in range(20)]
        database.executemany("INSERT INTO ledger VALUES (?, ?, ?)", rows)
    real = read_audio(clips[12], 16_000)[0, : 6 * 16_000]
    write_audio(files / "heard/real.flac", real, 16_000)
    return base


def test_a_folder_as_table_and_exit_code(store: Path):
    files = report.audio_files([store / "files"])
    assert [f.name for f in files] == ["real.flac", "ours.wav"]
    detector = Detector(store / "home")
    results = [report.look(f, detector) for f in files]
    assert report.exit_code(results) == 4 and report.exit_code(results[1:]) == 0
    out = io.StringIO()
    Console(file=out, width=200).print(report.table(results))
    rows = {line.split()[1].split("/")[-1]: line for line in out.getvalue().splitlines()[4:6]}
    assert "trusted" in rows["ours.wav"] and "row-7" in rows["ours.wav"]
    assert "yes" in rows["ours.wav"] and "yes" not in rows["real.flac"]


def test_a_stripped_manifest_is_found_by_the_keyed_mark(store: Path, tmp_path: Path):
    write_audio(tmp_path / "sent.mp3", read_audio(store / "files/ours.wav", 24_000), 24_000)
    found = Detector(store / "home").detect(tmp_path / "sent.mp3")
    assert found.manifest.state == "none" and found.ours
    assert found.ledger_ids == ("row-7",)
    assert found.recalled is not None and found.recalled.state == "trusted"
    assert found.recalled.ledger_id == "row-7"
    assert found.to_json()["c2pa"]["recalled"] == {"state": "trusted", "ledger_id": "row-7"}
    assert "manifest recalled" in report.ledger_row(found)
    # a stranger with nothing but our root sees PerTh's mark, and no row
    elsewhere = Detector(store / "home/ca/root.pem").detect(tmp_path / "sent.mp3")
    assert elsewhere.present and elsewhere.found.keyed is None and not elsewhere.ledger_ids


def test_json_lines_and_pictures(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("matplotlib", reason="matplotlib is absent")
    (tmp_path / "bad.wav").write_text("no sound")
    paths = [store / "files/ours.wav", tmp_path / "bad.wav"]
    code = report.run(paths, store / "home", as_json=True, pictures=tmp_path / "png")
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert code == 5
    assert lines[0]["watermark"]["present"] and lines[0]["c2pa"]["state"] == "trusted"
    assert lines[0]["watermark"]["marks"]["keyed"]["where"]
    assert "not audio" in lines[1]["error"] or "ffmpeg" in lines[1]["error"]
    pictures = list((tmp_path / "png").iterdir())
    assert [p.name for p in pictures] == ["ours.wav.png"]
    assert pictures[0].read_bytes().startswith(b"\x89PNG") and pictures[0].stat().st_size > 20_000


def test_silence_is_told_apart_from_marks(store: Path, tmp_path: Path):
    soundfile.write(tmp_path / "silent.wav", np.zeros(24_000, np.float32), 24_000)
    result = report.look(tmp_path / "silent.wav", Detector(store / "home"))
    assert isinstance(result, Detection) and result.score == 0
    assert report.exit_code([result]) == 4


def test_paths_that_cannot_be_looked_at(tmp_path: Path):
    with pytest.raises(InputError, match="no file or folder"):
        report.audio_files([tmp_path / "absent"])
    with pytest.raises(InputError, match="no audio file"):
        report.audio_files([tmp_path])
