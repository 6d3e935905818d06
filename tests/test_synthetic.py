"""The network that knows our model's speech: loaded strictly, of use, and never called a mark."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from sayso.inference.detection import classifier as synthetic_module
from sayso.inference.detection import report
from sayso.inference.detection.classifier import (
    FOLDER,
    HOP,
    RATE,
    WINDOW,
    Synthetic,
    SyntheticConfig,
    listen,
    load_synthetic,
    log_odds,
    model_identity,
)
from sayso.inference.detection.detector import Detection, Detector
from sayso.model.audio import read_audio, resample
from sayso.model.bundle import BUNDLED
from sayso.model.codecs.load import load_codec
from sayso.model.errors import CheckpointError
from speech import reader_clips


@pytest.fixture(scope="module")
def network() -> Synthetic:
    torch.set_num_threads(1)
    return load_synthetic()


@pytest.fixture(scope="module")
def clips() -> list[Path]:
    return reader_clips()[4::5]


def noise(seconds: float) -> torch.Tensor:
    return 0.1 * torch.randn(int(seconds * RATE), generator=torch.Generator().manual_seed(3))


def test_the_three_kinds_are_told_apart(network: Synthetic, clips: list[Path]):
    """Real, the same through the codec, and a prompt that the model made up (nobody's)."""
    codec = load_codec(BUNDLED / "codec")
    codes = load_file(BUNDLED / "voices/nobody/prompt.safetensors")["codes"].long()

    def heard(audio: torch.Tensor) -> float:
        low = resample(audio.numpy(), codec.sample_rate, RATE)
        return log_odds(network, torch.from_numpy(low))

    real = [read_audio(path, codec.sample_rate)[:, : 5 * codec.sample_rate] for path in clips]
    with torch.inference_mode():
        ours = heard(codec.decode(codes[None])[0])
        coded = [heard(codec.decode(codec.encode(audio))[0]) for audio in real]
    recorded = [heard(audio[0]) for audio in real]
    assert ours > np.mean(coded) + 1 and ours > np.mean(recorded) + 1
    assert np.mean(recorded) < network.config.threshold


def test_any_length_and_level(network: Synthetic):
    for silence in (torch.zeros(0), torch.zeros(5), torch.zeros(10 * RATE)):
        assert math.isnan(log_odds(network, silence))
    sound = noise(6.0)
    assert log_odds(network, sound * 0.3) == pytest.approx(log_odds(network, sound), abs=0.2)
    pieces = [sound[i : i + WINDOW] for i in range(0, len(sound) - WINDOW + 1, HOP)]
    mean = np.mean([log_odds(network, piece) for piece in pieces])
    assert log_odds(network, sound) == pytest.approx(mean, abs=1e-3)
    gap = torch.cat([sound[:WINDOW], torch.zeros(20 * RATE)])  # silence counts for nothing
    assert math.isfinite(log_odds(network, gap))
    assert math.isfinite(log_odds(network, sound[:100]))


def test_missing_or_damaged_weights_are_named(tmp_path: Path):
    folder = tmp_path / "synthetic"
    shutil.copytree(FOLDER, folder)
    weights, config = folder / "model.safetensors", folder / "config.json"
    whole, words = weights.read_bytes(), config.read_text()
    for damaged in (whole[:-1000], whole[: len(whole) // 2], b"", b"cos\nsystem\n(S'x'\ntR."):
        weights.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="damaged"):
            load_synthetic(folder)
    weights.unlink()
    with pytest.raises(CheckpointError, match="missing"):
        load_synthetic(folder)
    weights.write_bytes(whole)
    for wrong in ({"width": 16}, {"channels": [12, 24]}, {"widths": 3}, {"width": 0}):
        config.write_text(json.dumps(json.loads(words) | wrong))
        with pytest.raises(CheckpointError):
            load_synthetic(folder)
    config.unlink()
    with pytest.raises(CheckpointError, match="missing"):
        load_synthetic(folder)


def test_without_it_the_detector_does_not_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """It would otherwise be silent about what it was not asked."""
    monkeypatch.setattr(synthetic_module.load_synthetic, "__defaults__", (tmp_path,))
    with pytest.raises(CheckpointError, match="missing"):
        Detector()


def test_it_says_when_it_learnt_an_older_model(tmp_path: Path):
    with torch.no_grad():
        older = Synthetic(SyntheticConfig(model="0" * 12)).eval()
        same = Synthetic(SyntheticConfig(model=model_identity())).eval()
    assert not listen(older, noise(3.0)).current and listen(same, noise(3.0)).current
    with pytest.raises(CheckpointError, match="cannot be read"):
        model_identity(tmp_path)


def test_it_is_a_hint_and_no_mark(clips: list[Path], monkeypatch: pytest.MonkeyPatch):
    """Whatever it says, a recording without marks stays one, for people and for scripts."""
    detector = Detector()
    eager = Synthetic(SyntheticConfig(threshold=-1000.0)).eval()
    monkeypatch.setattr(detector, "synthetic", eager)
    found = report.look(clips[0], detector)
    assert isinstance(found, Detection) and found.likeness.like_ours
    assert not found.present and not found.ours and report.exit_code([found]) == 4
    said = found.to_json()
    assert said["sounds_like_ours"]["hint"] is True and said["watermark"]["present"] is False
    assert not said["sounds_like_ours"]["knows_bundled_model"]
    assert "no mark" in said["sounds_like_ours"]["note"]
    assert "hint" in str(report.caption([found])) and "older" in str(report.caption([found]))
    assert report.likeness_in_words(found.likeness).startswith("maybe (log-odds ")
    silent = listen(eager, torch.zeros(RATE))
    assert report.likeness_in_words(silent) == "silent" and not silent.like_ours
