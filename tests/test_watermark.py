"""The watermark on real speech, and every way in which it must refuse instead of going on."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from sayso.inference.errors import MarkError
from sayso.inference.watermark.base import THRESHOLD
from sayso.inference.watermark.perth import (
    PERTH_FILE,
    Perth,
    load_watermarker,
    read_weights,
)
from sayso.inference.watermark.perth_net import PerthNet
from sayso.model.audio import read_audio, resample
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
    host = torch.from_numpy(resample(speech.numpy(), 24_000, rate))
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
    monkeypatch.setitem(sys.modules, "perth", None)  # what is found when it is not installed
    with pytest.raises(MarkError, match="resemble-perth is missing"):
        load_watermarker()


def published() -> Path:
    spec = find_spec("perth")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent


def test_refuses_damaged_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    whole = (published() / PERTH_FILE).read_bytes()
    file = tmp_path / "perth" / PERTH_FILE
    file.parent.mkdir(parents=True)
    monkeypatch.delitem(sys.modules, "perth", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    # A pickle with a higher number beside them: PerTh's own loader would run it.
    ran = tmp_path / "ran"
    file.with_name("perth_net_999999.pth.tar").write_text(f"cos\nmkdir\n(V{ran}\ntR.")
    (tmp_path / "perth/__init__.py").touch()
    with pytest.raises(MarkError, match="missing"):
        load_watermarker()
    changed = bytearray(whole)
    changed[len(whole) // 2] ^= 1
    for damaged in (whole[: len(whole) // 2], b"", bytes(changed)):
        file.write_bytes(damaged)
        with pytest.raises(MarkError, match="damaged"):
            load_watermarker()
    file.write_bytes(whole)
    assert load_watermarker() is not None and not ran.exists()
    assert len(read_weights(file)) == 59


def test_the_network_is_the_published_one():
    """Bit for bit, where the package can be imported."""
    pytest.importorskip("pkg_resources")
    from perth.perth_net.perth_net_implicit.config import default_hp
    from perth.perth_net.perth_net_implicit.model.perth_net import PerthNet as Published

    weights = read_weights(published() / PERTH_FILE)
    theirs, ours = Published(default_hp).eval(), PerthNet().load(weights)
    theirs.load_state_dict(weights)
    sound = torch.randn(9_000, generator=torch.Generator().manual_seed(0)) * 0.1
    with torch.inference_mode():
        magnitude, phase = theirs.ap.signal_to_magphase(sound)
        assert all(map(torch.equal, ours.split(sound), (magnitude, phase)))
        marked = theirs.encoder(magnitude[None])[0]
        assert torch.equal(ours.encoder(magnitude[None]), marked)
        assert torch.equal(ours.decoder(marked), theirs.decoder(marked))
        assert torch.equal(
            ours.join(marked[0], phase), theirs.ap.magphase_to_signal(marked[0], phase)
        )


def test_speaking_imports_nothing_that_writes_caches():
    """numba (of librosa) fails to import where neither the packages nor HOME can be written."""
    program = "import sys, sayso.inference.synthesizer, sayso.inference.watermark.perth as p; "
    program += "p.load_watermarker(); "
    program += "print(sorted({'librosa', 'numba', 'perth'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
