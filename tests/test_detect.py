"""The detector as a whole: both layers, on real speech in the formats people send."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from sayso.inference.detection.detector import detect
from sayso.inference.errors import MarkError
from sayso.inference.provenance.certificates import ensure_ca
from sayso.inference.watermark.perth import Perth, load_watermarker
from sayso.model.audio import read_audio, write_audio
from sayso.model.errors import InputError
from signing import sign
from speech import reader_clips


@pytest.fixture(scope="module")
def marker() -> Perth:
    torch.set_num_threads(1)
    return load_watermarker()


@pytest.fixture(scope="module")
def clip() -> Path:
    return reader_clips()[5]


def test_both_layers_of_our_own_file(tmp_path: Path, marker: Perth, clip: Path):
    speech = read_audio(clip, 24_000)[0, : 4 * 24_000]
    write_audio(tmp_path / "draft.wav", marker.embed(speech, 24_000), 24_000)
    ca = ensure_ca(tmp_path / "home/ca")
    sign(tmp_path / "draft.wav", tmp_path / "ours.wav", ca, "ledger-1", "0" * 64, "t")

    found = detect(tmp_path / "ours.wav", tmp_path / "home", watermarker=marker)
    assert found.ours
    report = found.to_json()
    assert report["watermark"]["present"] is True and report["watermark"]["score"] > 0.6
    assert report["c2pa"]["state"] == "trusted" and report["c2pa"]["ledger_id"] == "ledger-1"

    # without our root the signature is only valid; as MP3 by another program, only the watermark
    assert detect(tmp_path / "ours.wav", watermarker=marker).manifest.state == "valid"
    write_audio(tmp_path / "sent.mp3", read_audio(tmp_path / "ours.wav", 24_000), 24_000)
    sent = detect(tmp_path / "sent.mp3", tmp_path / "home", watermarker=marker)
    assert sent.present and sent.verdict == "unsure" and not sent.marked and not sent.ours
    assert sent.manifest.state == "none" and sent.to_json()["verdict"] == "unsure"


def test_real_speech_carries_nothing(clip: Path, marker: Perth):
    found = detect(clip, watermarker=marker)
    assert not found.ours and not found.present and found.manifest.state == "none"


def test_silence_is_a_result_and_rubbish_an_error(tmp_path: Path, marker: Perth):
    soundfile.write(tmp_path / "silent.wav", np.zeros(24_000, np.float32), 24_000)
    found = detect(tmp_path / "silent.wav", watermarker=marker)
    assert not found.ours and found.score == 0
    (tmp_path / "a.wav").write_text("no audio here")
    with pytest.raises(InputError):
        detect(tmp_path / "a.wav", watermarker=marker)


def test_an_unreadable_root_is_an_error(tmp_path: Path, marker: Perth, clip: Path):
    (tmp_path / "ca").mkdir()
    (tmp_path / "ca/root.pem").write_text("-----BEGIN CERTIFICATE-----\nMIIB")
    with pytest.raises(MarkError, match="not a readable PEM"):
        detect(clip, tmp_path, watermarker=marker)
