"""AudioSeal's wiring, with random weights in its own file layout."""

from pathlib import Path

import pytest
import torch

pytest.importorskip("audioseal", reason="the audioseal package is absent")

from sayso.inference.errors import MarkError
from sayso.inference.watermark import audioseal
from sayso.inference.watermark.ensemble import load_audioseal_if_there


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("cache") / "audioseal"
    folder.mkdir()
    for role, url in audioseal.URLS.items():
        weights = audioseal.build(role).state_dict()
        # the published files were written before a layer was put around each convolution
        weights = {name.replace("inner_conv.", ""): value for name, value in weights.items()}
        torch.save({"model": weights}, folder / Path(url).name)
    return folder


def test_it_marks_and_looks_at_any_rate(folder: Path):
    mark = audioseal.load_audioseal(folder)
    audio = torch.randn(24_000, generator=torch.Generator().manual_seed(2)) * 0.1
    marked = mark.embed(audio, 24_000, message=0xBEEF)
    assert marked.shape == audio.shape and not torch.equal(marked, audio)
    assert not torch.equal(marked, mark.embed(audio, 24_000, message=0xBEEE))
    found = mark.search(marked, 24_000)
    assert 0 <= found.score <= 1
    # both polarities are looked at, so that turning a file over changes nothing
    assert mark.search(-marked, 24_000).score == pytest.approx(found.score, abs=1e-5)
    assert mark.score(torch.zeros(16_000), 16_000) == 0


def test_it_is_stacked_only_where_it_is(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AUDIOSEAL_CACHE_DIR", str(tmp_path))
    assert load_audioseal_if_there() is None
    monkeypatch.setenv("AUDIOSEAL_CACHE_DIR", str(folder.parent))
    assert load_audioseal_if_there() is not None


def test_missing_or_damaged_weights_are_named(folder: Path, tmp_path: Path):
    with pytest.raises(MarkError, match="not on this machine"):
        audioseal.load_audioseal(tmp_path)
    for name in ("generator_base.pth", "detector_base.pth"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    whole = (folder / "detector_base.pth").read_bytes()
    for content in (b"", whole[: len(whole) // 2], b"cos\nsystem\n(S'true'\ntR."):
        (tmp_path / "detector_base.pth").write_bytes(content)
        with pytest.raises(MarkError, match="AudioSeal's detector"):
            audioseal.load_audioseal(tmp_path)
