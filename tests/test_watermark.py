"""The watermark on real speech, and every way in which it must refuse instead of going on."""

import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from sayso.inference.errors import MarkError
from sayso.inference.watermark import perth as watermark_module
from sayso.inference.watermark.base import THRESHOLD
from sayso.inference.watermark.perth import Perth, load_watermarker, read_weights
from sayso.model.audio import read_audio
from speech import reader_clips


@pytest.fixture(scope="module")
def marker() -> Perth:
    torch.set_num_threads(1)
    return load_watermarker()


@pytest.fixture(scope="module")
def speech() -> torch.Tensor:
    return read_audio(reader_clips()[3], 24_000)[0, : 4 * 24_000]


def test_found_where_it_was_put_and_only_there(marker: Perth, speech: torch.Tensor):
    marked = marker.embed(speech, 24_000)
    assert marked.shape == speech.shape and marked.dtype == torch.float32
    assert marker.score(marked, 24_000) > 0.6
    assert marker.score(speech, 24_000) < 0.4
    assert marker.search(marked, 24_000).network > 0.9  # PerTh's own detector agrees
    assert marker.search(speech, 24_000).network < 0.1
    residual = marked - speech
    assert 10 * torch.log10(speech.square().mean() / residual.square().mean()) > 10  # dB


@pytest.mark.parametrize("rate", [8000, 16_000, 22_050, 44_100, 48_000])
def test_any_rate(marker: Perth, speech: torch.Tensor, rate: int):
    host = torch.from_numpy(watermark_module.resample(speech.numpy(), 24_000, rate))
    marked = marker.embed(host, rate)
    assert marked.shape == host.shape
    assert marker.score(marked, rate) > 0.6


def test_polarity_and_gain_do_not_hide_it(marker: Perth, speech: torch.Tensor):
    marked = marker.embed(speech, 24_000)
    for change in (-1.0, 0.1, 0.9):
        assert marker.score(marked * change, 24_000) > THRESHOLD


def test_the_band_above_the_mark_is_untouched(marker: Perth, speech: torch.Tensor):
    difference = torch.fft.rfft(marker.embed(speech, 24_000) - speech).abs().square()
    edge = int(3000 / 12_000 * len(difference))
    assert difference[edge:].sum() < 1e-4 * difference.sum()


def test_silence_and_nan(marker: Perth, speech: torch.Tensor):
    assert marker.score(torch.zeros(24_000), 24_000) == 0.0
    assert marker.score(torch.zeros(10), 24_000) == 0.0
    with pytest.raises(MarkError, match="silent"):
        marker.embed(torch.zeros(24_000), 24_000)
    spoiled = speech.clone()
    spoiled[7] = float("nan")
    for call in (marker.embed, marker.score):
        with pytest.raises(MarkError, match="not numbers"):
            call(spoiled, 24_000)
        with pytest.raises(MarkError, match="shape"):
            call(speech[None], 24_000)
    # a stretch of digital silence within speech is no reason to fail
    gap = torch.cat([speech[:24_000], torch.zeros(24_000), speech[24_000:48_000]])
    assert marker.score(marker.embed(gap, 24_000), 24_000) > 0.6


def test_refuses_without_the_package(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "perth", None)  # what `import` finds when it is not installed
    with pytest.raises(MarkError, match="resemble-perth is missing"):
        load_watermarker()


def test_refuses_perths_silent_none(monkeypatch: pytest.MonkeyPatch):
    """Without pkg_resources (setuptools 81) perth imports, and its class is None."""
    monkeypatch.setitem(sys.modules, "perth", SimpleNamespace(PerthImplicitWatermarker=None))
    with pytest.raises(MarkError, match="setuptools<81"):
        load_watermarker()


def test_refuses_damaged_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import perth

    real = Path(perth.__file__).parent / "perth_net/pretrained/implicit"
    folder = tmp_path / "perth/perth_net/pretrained/implicit"
    folder.mkdir(parents=True)
    monkeypatch.setattr(perth, "__file__", str(tmp_path / "perth/__init__.py"))
    with pytest.raises(MarkError, match="missing"):
        load_watermarker()
    whole = (real / watermark_module.PERTH_FILE).read_bytes()
    changed = bytearray(whole)
    changed[len(whole) // 2] ^= 1
    for damaged in (whole[: len(whole) // 2], b"", bytes(changed)):
        (folder / watermark_module.PERTH_FILE).write_bytes(damaged)
        with pytest.raises(MarkError, match="damaged"):
            load_watermarker()
    assert len(read_weights(real / watermark_module.PERTH_FILE)) == 59


def test_only_the_weights_that_were_hashed_are_loaded(tmp_path: Path):
    """A pickle with a higher number beside them: PerTh's own loader would run it."""
    import perth

    shutil.copytree(Path(perth.__file__).parent, tmp_path / "perth")
    ran = tmp_path / "ran"
    pickle = f"cos\nmkdir\n(V{ran}\ntR."
    beside = tmp_path / "perth/perth_net/pretrained/implicit/perth_net_999999.pth.tar"
    beside.write_text(pickle)
    program = "import sayso.inference.watermark.perth as p; p.load_watermarker(); import perth; "
    program += "print(perth.__file__)"
    env = {"PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join([str(tmp_path), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-c", program], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and str(tmp_path) in done.stdout, done.stderr
    assert not ran.exists()
