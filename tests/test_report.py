"""`sayso detect` over files and folders: table, JSON, exit codes, pictures, stripped manifests."""

import base64
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from rich.console import Console
from rich.text import Text

from sayso.inference.detection import report
from sayso.inference.detection.detector import Detection, Detector
from sayso.inference.provenance.c2pa import keep_manifest
from sayso.inference.provenance.certificates import ensure_ca
from sayso.inference.store.store import Store
from sayso.inference.watermark.ensemble import load_marks
from sayso.model.audio import read_audio, write_audio
from sayso.model.errors import InputError
from signing import sign
from speech import reader_clips


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one released file: home/, files/ours.wav and files/heard/real.flac."""
    torch.set_num_threads(1)
    base = tmp_path_factory.mktemp("report")
    home, files = base / "home", base / "files"
    (files / "heard").mkdir(parents=True)
    clips = reader_clips()
    speech = read_audio(clips[11], 24_000)[0, : 8 * 24_000]
    marks = load_marks(home)
    marked = marks.embed(speech, 24_000, "row-7")
    sound = marks.fingerprint([marked], 24_000)
    write_audio(base / "draft.wav", marked, 24_000)
    ca = ensure_ca(home / "ca")
    manifest = sign(base / "draft.wav", files / "ours.wav", ca, "row-7", "0" * 64, "t", sound)
    keep_manifest(home, "row-7", manifest)
    with Store.open(home) as store, store.transaction():
        for row in range(20):
            details = {"sound": base64.b64encode(sound).decode()} if row == 7 else {"sound": "AAH/"}
            store.append("released", f"row-{row}", details)
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


def test_a_stripped_manifest_is_found_by_its_sound(store: Path, tmp_path: Path):
    write_audio(tmp_path / "sent.mp3", read_audio(store / "files/ours.wav", 24_000), 24_000)
    found = Detector(store / "home").detect(tmp_path / "sent.mp3")
    assert found.manifest.state == "none" and found.ours
    assert found.ledger_ids == ("row-7",)
    assert found.recalled is not None and found.recalled.state == "trusted"
    assert found.recalled.ledger_id == "row-7"
    assert found.to_json()["c2pa"]["recalled"] == {"state": "trusted", "ledger_id": "row-7"}
    assert report.ledger_row(found) == "row-7 (by sound and mark, manifest recalled)"
    # a stranger with nothing but our root sees PerTh's mark, and no row
    elsewhere = Detector(store / "home/ca/root.pem").detect(tmp_path / "sent.mp3")
    assert elsewhere.present and elsewhere.found.keyed is None and not elsewhere.ledger_ids
    assert elsewhere.verdict == "unsure" and report.exit_code([elsewhere]) == 4
    # signed by a store that is unknown here, and PerTh's mark: two that agree
    assert Detector().detect(store / "files/ours.wav").verdict == "marked"


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


def test_a_folder_of_junk(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Names that a terminal trips over, links to nothing, files that only look right."""
    for name in ("[red]odd[bold].wav", "empty.flac", "text.mp3", "picture.png", "a.ogg.c2pa"):
        (tmp_path / name).write_bytes(b"" if name.startswith("empty") else b"RIFF no sound")
    (tmp_path / "nowhere.wav").symlink_to(tmp_path / "absent")
    (tmp_path / "round").symlink_to(tmp_path)
    sound = np.random.default_rng(1).standard_normal(12_000).astype(np.float32)
    whole = io.BytesIO()
    soundfile.write(whole, 0.1 * sound, 24_000, format="WAV")
    with open(os.fsencode(tmp_path) + b"/latin\xe9.wav", "wb") as file:
        file.write(whole.getvalue())
    spoiled = {"nan": np.nan, "infinite": np.inf, "integers": 3e4}
    for name, value in spoiled.items():
        soundfile.write(tmp_path / f"{name}.wav", value * np.abs(sound), 24_000, subtype="FLOAT")
    assert report.run([tmp_path], store / "home") == 5
    assert capsys.readouterr().out.count("not read") == 7
    assert Text.from_markup(report.shown(Path("[red]odd[bold].wav"))).plain == "[red]odd[bold].wav"
    assert report.run([tmp_path], store / "home", as_json=True) == 5
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == 7 and all(line["error"] for line in lines)
    os.mkfifo(tmp_path / "pipe.wav")
    assert report.run([tmp_path / "pipe.wav"], store / "home", as_json=True) == 5


def test_pictures_of_one_name_from_two_folders(store: Path, tmp_path: Path):
    pytest.importorskip("matplotlib", reason="matplotlib is absent")
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        audio = read_audio(store / "files/heard/real.flac", 16_000)[:, :16_000]
        write_audio(tmp_path / folder / "same.wav", audio, 16_000)
    report.run([tmp_path / "a", tmp_path / "b"], None, as_json=True, pictures=tmp_path / "png")
    names = sorted(p.name for p in (tmp_path / "png").iterdir())
    assert names == ["same.wav.2.png", "same.wav.png"]


def test_a_strangers_manifest_and_a_forged_ledger_id(store: Path, tmp_path: Path):
    """Anybody can make an authority and claim our row: that is "valid", never "trusted"."""
    stranger = ensure_ca(tmp_path / "stranger/ca")
    real = read_audio(store / "files/heard/real.flac", 24_000)
    write_audio(tmp_path / "draft.wav", real, 24_000)
    sign(tmp_path / "draft.wav", tmp_path / "forged.wav", stranger, "row-7", "0" * 64, "t")
    detector = Detector(store / "home")
    forged = detector.detect(tmp_path / "forged.wav")
    assert forged.manifest.state == "valid" and forged.manifest.ledger_id == "row-7"
    assert not forged.ours and not forged.ledger_ids and report.ledger_row(forged) == ""
    assert report.exit_code([forged]) == 4
    # our own recording, with their manifest in place of ours: its sound still leads home
    write_audio(tmp_path / "ours.wav", read_audio(store / "files/ours.wav", 24_000), 24_000)
    sign(tmp_path / "ours.wav", tmp_path / "taken.wav", stranger, "row-3", "0" * 64, "t")
    taken = detector.detect(tmp_path / "taken.wav")
    assert taken.manifest.state == "valid" and taken.ledger_ids == ("row-7",)
    assert taken.recalled is not None and taken.recalled.ledger_id == "row-7"
    assert "row-7" in report.ledger_row(taken) and "row-3" not in report.ledger_row(taken)


def test_a_mark_copied_from_an_output_is_never_ours(store: Path, tmp_path: Path):
    """Both our marks on a stranger's recording: marked, told as copied, nothing recalled."""
    marks = load_marks(store / "home")
    real = read_audio(store / "files/heard/real.flac", 24_000)[0]
    write_audio(tmp_path / "forged.wav", marks.embed(real, 24_000, "row-7"), 24_000)
    forged = Detector(store / "home").detect(tmp_path / "forged.wav")
    assert forged.verdict == "marked" and not forged.ledger_ids and forged.recalled is None
    assert (
        forged.to_json()["watermark"]["copied_from"] == ["row-7"] and not forged.to_json()["ours"]
    )
    assert report.ledger_row(forged) == "not ours: mark copied from row-7"


def test_an_ogg_without_its_sidecar_or_with_anothers(store: Path, tmp_path: Path):
    detector = Detector(store / "home")
    ours = read_audio(store / "files/ours.wav", 24_000)
    write_audio(tmp_path / "draft.ogg", ours, 24_000)
    sign(tmp_path / "draft.ogg", tmp_path / "said.ogg", ensure_ca(store / "home/ca"), "r", "0", "t")
    assert detector.detect(tmp_path / "said.ogg").manifest.state == "trusted"
    sidecar = tmp_path / "said.ogg.c2pa"
    write_audio(tmp_path / "other.ogg", read_audio(store / "files/heard/real.flac", 24_000), 24_000)
    sidecar.rename(tmp_path / "other.ogg.c2pa")
    bare = detector.detect(tmp_path / "said.ogg")
    assert bare.manifest.state == "none" and "no said.ogg.c2pa" in bare.manifest.reasons[0]
    assert bare.ours and bare.present  # by sound and marks alone
    other = detector.detect(tmp_path / "other.ogg")
    assert other.manifest.state == "invalid" and not other.ours


def test_marks_survive_8_bits_and_turned_over_channels(store: Path, tmp_path: Path):
    """A stereo file whose channels cancel is not silent: one of them is looked at."""
    ours = read_audio(store / "files/ours.wav", 24_000)[0].numpy()
    soundfile.write(tmp_path / "8-bit.wav", ours, 24_000, subtype="PCM_U8")
    soundfile.write(tmp_path / "stereo.wav", np.stack([ours, ours], 1), 24_000)
    soundfile.write(tmp_path / "turned.wav", np.stack([ours, -ours], 1), 24_000)
    detector = Detector(store / "home")
    for name in ("8-bit", "stereo", "turned"):
        assert detector.detect(tmp_path / f"{name}.wav").present, name


def test_three_hours_are_refused_before_they_are_decoded(store: Path, tmp_path: Path):
    """By the header: the file is a hole of 1 GB, and a minute of it would be too much to read."""
    soundfile.write(tmp_path / "long.wav", np.zeros(1), 48_000, subtype="PCM_16")
    raw = bytearray((tmp_path / "long.wav").read_bytes()[:44])
    size = 3 * 3600 * 48_000 * 2
    raw[4:8], raw[40:44] = (size + 36).to_bytes(4, "little"), size.to_bytes(4, "little")
    (tmp_path / "long.wav").write_bytes(raw)
    os.truncate(tmp_path / "long.wav", size + 44)
    found = report.look(tmp_path / "long.wav", Detector(store / "home"))
    assert isinstance(found, report.Unread)
    assert "10800.0 s long; at most 3600 s are taken. Cut it." in found.reason
