"""The keyed mark and all marks together, on real speech; the errors that keep speech back."""

import json
import stat
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from sayso.inference.errors import MarkError, StoreError
from sayso.inference.store.released import released_ids
from sayso.inference.watermark import keyed as keyed_module
from sayso.inference.watermark import spread_spectrum
from sayso.inference.watermark.base import THRESHOLD, Stretch, Trace
from sayso.inference.watermark.ensemble import (
    KEYED_GROWTH,
    MARGIN,
    PERTH_GROWTH,
    Found,
    Marks,
    joined,
    load_marks,
)
from sayso.inference.watermark.keyed import Keyed, KeyedTrace, load_keyed
from sayso.inference.watermark.perth import Perth, PerthTrace, load_watermarker
from sayso.model.audio import read_audio
from speech import reader_clips

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `pytest` without `python -m`
from benchmarks.attacks import ATTACKS, RATE

KEY = bytes(range(32))


@pytest.fixture(scope="module")
def clips() -> list[torch.Tensor]:
    torch.set_num_threads(1)
    return [read_audio(p, RATE)[0, : 8 * RATE] for p in reader_clips()[5::8]]


@pytest.fixture(scope="module")
def perth() -> Perth:
    return load_watermarker()


def attacked(name: str, audio: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(ATTACKS[name](audio.numpy(), np.random.default_rng(3)))


def test_only_the_key_finds_it(clips: list[torch.Tensor]):
    ours, other = Keyed(KEY), Keyed(bytes(32))
    for clip in clips:
        marked = ours.embed(clip, RATE, "row-1")
        assert marked.shape == clip.shape
        found = ours.search(marked, RATE)
        assert found.present and found.payload == spread_spectrum.payload_of(KEY, "row-1")
        assert found.speed == 1.0
        assert not other.search(marked, RATE).present
        assert not ours.search(clip, RATE).present


@pytest.mark.parametrize(
    "name", ["WORLD resynthesis", "speed +5 %", "tempo -5 %", "polarity", "telephone"]
)
def test_it_outlives(clips: list[torch.Tensor], name: str):
    ours = Keyed(KEY)
    marked = attacked(name, ours.embed(clips[0], RATE, "row-1"))
    found = ours.search(marked, RATE)
    assert found.present
    if name.startswith("speed"):
        assert abs(found.speed - 1.05) < 0.01
    right = spread_spectrum.payload_of(
        KEY, "row-1"
    )  # after hard ones the bits may be unsure, never wrong
    assert found.payload in ((right,) if name in ("polarity", "telephone") else (right, None))


def test_the_bits_name_the_row(clips: list[torch.Tensor]):
    ours = Keyed(KEY)
    ids = [f"row-{i}" for i in range(1000)]
    found = ours.search(ours.embed(clips[1], 24_000, "row-437"), 24_000)
    assert found.payload is not None and ours.rows(found.payload, ids) == ["row-437"]


def test_where_it_is(clips: list[torch.Tensor], perth: Perth):
    """Marked speech between two stretches of recorded speech of the same length."""
    marks = Marks(perth, Keyed(KEY))
    clip = torch.cat([clips[0], marks.embed(clips[1], RATE, "row"), clips[2]])
    found = marks.search(clip, RATE)
    for trace in (found.perth, found.keyed):
        assert trace is not None and trace.present
        stretches = trace.where()
        assert stretches and stretches[0][0] > 3 and stretches[-1][1] < 21
        assert sum(b - a for a, b in stretches) > 4


def test_a_long_file_is_looked_at_in_pieces(clips: list[torch.Tensor], perth: Perth):
    """More than a minute: the mark is found where it is, across a border of pieces, too."""
    marks, quiet = Marks(perth, Keyed(KEY)), clips[0]
    before = torch.cat([quiet] * 7)[: 56 * RATE]
    marked = marks.embed(clips[1], RATE, "row")
    found = marks.search(torch.cat([before, marked, clips[2]]), RATE)
    assert found.present and found.keyed is not None and found.keyed.present
    assert found.keyed.payload == spread_spectrum.payload_of(KEY, "row")
    for trace in (found.perth, found.keyed):
        assert [w.start for w in trace.windows] == sorted(w.start for w in trace.windows)
        assert trace.windows[-1].stop > 60 + 2
    first, *_ = found.keyed.where()
    assert 50 < first[0] < 60 and first[1] < 56 + len(marked) / RATE + 5


def test_longer_files_need_more():
    """The highest of many scores is higher by chance alone, so it counts for less."""
    pieces = [PerthTrace(0.52), PerthTrace(0.3)]
    short = joined([PerthTrace(0.52)], [0.0], 10.0, PERTH_GROWTH)
    long = joined(pieces, [0.0, 54.0], 100.0, PERTH_GROWTH)
    assert short.present and not long.present and long.windows[0].stop == 60.0
    sure = joined([PerthTrace(1.0), PerthTrace(0.3)], [0.0, 54.0], 3600.0, PERTH_GROWTH)
    assert sure.present and sure.windows[0].score == 1.0 and sure.windows[1].score < 0.3
    unsure = joined([KeyedTrace(0.51, payload=7)], [0.0], 60.0, KEYED_GROWTH)
    assert unsure.payload is None and not unsure.present


def test_windows_that_touch_are_joined():
    windows = [Stretch(i, i + 2, score) for i, score in enumerate((0.6, 0.7, 0.1, 0.1, 0.9))]
    assert Trace(0.9, 1.0, tuple(windows)).where() == [(0, 3), (4, 6)]


def test_every_mark_holds_even_in_a_short_sentence(clips: list[torch.Tensor], perth: Perth):
    marks = Marks(perth, Keyed(KEY))
    for seconds in (1.2, 4):
        short = clips[0][RATE : RATE + int(seconds * RATE)]
        marked = marks.embed(short, RATE, "row")
        found = marks.demand(marked, RATE)
        assert all(trace.score >= MARGIN - 0.1 for trace in found.traces)
        noise = marked - short
        assert 10 * torch.log10(short.square().mean() / noise.square().mean()) > 5  # dB


def test_two_weak_marks_are_one_strong():
    found = Found(PerthTrace(0.48), KeyedTrace(0.48))
    assert found.present and not found.perth.present
    assert not Found(PerthTrace(0.3), KeyedTrace(0.42)).present
    assert not Found(PerthTrace(0.48), None).present
    assert Found(PerthTrace(0.0), KeyedTrace(0.6)).present


def test_nothing_passes_unmarked(clips: list[torch.Tensor], perth: Perth):
    ours, clip = Keyed(KEY), clips[0]
    marks = Marks(perth, ours)
    for half, name in ((ours.embed(clip, RATE), "perth"), (perth.embed(clip, RATE), "keyed")):
        with pytest.raises(MarkError, match=f"The {name} watermark was not found"):
            marks.demand(half, RATE)
    unkeyed = Marks(perth, None)
    with pytest.raises(MarkError, match="no key"):
        unkeyed.embed(clip, RATE, "row")
    with pytest.raises(MarkError, match="no key"):
        unkeyed.demand(perth.embed(clip, RATE), RATE)
    with pytest.raises(MarkError, match="does not hold"):
        marks.embed(1e-3 * torch.randn(2400), RATE, "row")  # a tenth of a second of noise
    with pytest.raises(MarkError, match="silent"):
        marks.embed(torch.zeros(RATE), RATE, "row")


def test_silence_and_nan():
    ours = Keyed(KEY)
    assert ours.search(torch.zeros(RATE), RATE).score == 0
    assert not ours.search(torch.zeros(5), RATE).present
    for call in (ours.search, ours.embed):
        with pytest.raises(MarkError, match="not numbers"):
            call(torch.full((RATE,), float("nan")), RATE)


def test_the_key_is_private_and_made_once(tmp_path: Path):
    assert load_keyed(tmp_path, create=False) is None
    first = load_keyed(tmp_path)
    assert first is not None
    file = tmp_path / keyed_module.KEY_FILE
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [p.name for p in file.parent.iterdir()] == [file.name]
    again = load_keyed(tmp_path, create=False)
    assert again is not None and again.key == first.key


@pytest.mark.parametrize("content", ["", "{", '{"kind": "weave"}', "half", "open", "short"])
def test_an_unreadable_key_is_an_error(tmp_path: Path, content: str):
    load_marks(tmp_path)
    file = tmp_path / keyed_module.KEY_FILE
    whole = file.read_text()
    if content == "open":
        file.chmod(0o644)
    elif content == "half":
        file.write_text(whole[: len(whole) // 2])
    elif content == "short":
        file.write_text(json.dumps({"kind": "weave", "version": 1, "key": "00ff"}))
    else:
        file.write_text(content)
    before = file.read_text()
    with pytest.raises(MarkError, match="key of the keyed mark"):
        load_marks(tmp_path)
    assert file.read_text() == before  # never replaced silently


def test_the_ledger_is_only_read(tmp_path: Path):
    assert released_ids(tmp_path) == []
    (tmp_path / "sayso.db").write_text("not a database, but long enough to be looked at" * 50)
    with pytest.raises(StoreError, match="cannot be read"):
        released_ids(tmp_path)


def test_payloads_differ_and_need_the_key():
    rows = {spread_spectrum.payload_of(KEY, f"row-{i}") for i in range(1000)}
    assert len(rows) > 995 and max(rows) < 2**spread_spectrum.BITS
    assert spread_spectrum.payload_of(KEY, "a") != spread_spectrum.payload_of(bytes(32), "a")
    chips = spread_spectrum.Pattern.of(KEY).chips
    assert (
        chips.shape == (spread_spectrum.PERIOD, spread_spectrum.BANDS) and chips.abs().eq(1).all()
    )
    assert abs(float(chips.mean())) < 0.1
    assert THRESHOLD == 0.5
