"""Nothing leaves unmarked: whatever is wrong with a mark, `speak` refuses and there is no file.

The package that is absent is tested in test_speak.py, in a process of its own.
"""

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from sayso.inference.errors import MarkError, StoreError
from sayso.inference.store.store import Store
from sayso.inference.synthesizer import Synthesizer
from sayso.inference.watermark import perth_filter
from sayso.inference.watermark.keyed import KEY_FILE
from sayso.inference.watermark.perth import PERTH_FILE

TEXT = "The cat sat on the mat."


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with its key, its authority and nobody's voice."""
    torch.set_num_threads(1)
    home = tmp_path_factory.mktemp("store") / "home"
    with Store.open(home) as store:
        Synthesizer(store=store)
    return home


def refused(home: Path, out: Path, match: str) -> None:
    """`speak` refuses, and nothing stands where the file would, nor half of it."""
    out.parent.mkdir(exist_ok=True)
    with pytest.raises((MarkError, StoreError), match=match), Store.open(home) as store:
        Synthesizer(store=store).speak(TEXT, "nobody", out)
    assert list(out.parent.iterdir()) == []
    assert [p for p in (home / "work").rglob("*") if p.suffix not in ("", ".lock")] == []


def test_truncated_watermark_weights(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    spec = find_spec("perth")
    assert spec is not None and spec.origin is not None
    half = tmp_path / "perth" / PERTH_FILE
    half.parent.mkdir(parents=True)
    half.write_bytes((Path(spec.origin).parent / PERTH_FILE).read_bytes()[:-1000])
    (tmp_path / "perth/__init__.py").touch()
    monkeypatch.delitem(sys.modules, "perth", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    refused(home, tmp_path / "out/no.wav", "damaged")


def test_a_damaged_detector_of_the_watermark(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    half = tmp_path / "perth_filter.safetensors"
    half.write_bytes(perth_filter.FITTED.read_bytes()[:-500])
    monkeypatch.setattr(perth_filter, "FITTED", half)
    perth_filter.load_filter.cache_clear()
    try:
        refused(home, tmp_path / "out/no.wav", "perth_filter.safetensors cannot be read")
    finally:
        perth_filter.load_filter.cache_clear()


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("ca/leaf.pem", "authority|leaf.pem was changed"),
        ("ca/root.key", "authority|root.key was changed"),
        (KEY_FILE, "keyed mark|weave.key was changed"),
    ],
)
def test_unreadable_keys(home: Path, tmp_path: Path, name: str, match: str):
    whole = (home / name).read_bytes()
    try:
        for content in (b"", whole[: len(whole) // 2], b"rubbish"):
            (home / name).write_bytes(content)
            refused(home, tmp_path / "out/no.wav", match)
            assert (home / name).read_bytes() == content  # never replaced silently
    finally:
        (home / name).write_bytes(whole)


@pytest.mark.parametrize("suffix", [".wav", ".opus"])
def test_a_detector_that_fails_on_the_result(home: Path, tmp_path: Path, suffix: str):
    """It does not say no: it breaks, after the marks were put in and the file was signed."""
    out = tmp_path / "out" / f"no{suffix}"
    out.parent.mkdir()
    with Store.open(home) as store:
        speaker = Synthesizer(store=store)

        def breaks(*_: object) -> None:
            raise MarkError("The detector broke.")

        speaker.marks.demand = breaks  # type: ignore[method-assign,assignment]
        with pytest.raises(MarkError, match="broke"):
            speaker.speak(TEXT, "nobody", out)
    assert list(out.parent.iterdir()) == []
    assert [p for p in (home / "work").rglob("*") if p.suffix not in ("", ".lock")] == []
