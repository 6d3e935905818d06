"""The keyed mark and all marks together, on real speech; the errors that keep speech back."""

import hashlib
import hmac
import json
import math
import shutil
import stat
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.attacks import ATTACKS, RATE, speed
from sayso.inference.errors import MarkError, StoreError
from sayso.inference.finishing import finish
from sayso.inference.provenance.certificates import ensure_ca
from sayso.inference.store.released import released
from sayso.inference.store.store import Store
from sayso.inference.watermark import fixed_pattern, sound, spread_spectrum
from sayso.inference.watermark import keyed as keyed_module
from sayso.inference.watermark.base import THRESHOLD, Stretch, Trace
from sayso.inference.watermark.ensemble import (
    MARGIN,
    PERTH_GROWTH,
    Marks,
    joined,
    load_marks,
)
from sayso.inference.watermark.fixed_pattern import FixedPattern, FixedTrace
from sayso.inference.watermark.keyed import Keyed, load_keyed
from sayso.inference.watermark.perth import Perth, PerthTrace, load_watermarker
from sayso.model.audio import decode_audio, read_audio
from sayso.model.loudness import loudness
from speech import reader_clips

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


def output(
    mark: Keyed, audio: torch.Tensor, row: str
) -> tuple[torch.Tensor, tuple[str, bytes, str]]:
    """Marked (samples,) at `RATE`, and what the ledger keeps of it."""
    marked = mark.embed(audio, RATE, row)
    return marked, (row, mark.fingerprint([marked], RATE), row)


@pytest.fixture(scope="module")
def store(clips: list[torch.Tensor]) -> tuple[Keyed, list[torch.Tensor]]:
    """Two outputs, row-0 and row-1, and a mark that knows their rows; clips[2] is no output."""
    made = [output(Keyed(KEY), clip, f"row-{i}") for i, clip in enumerate(clips[:2])]
    return Keyed(KEY, [row for _, row in made]), [marked for marked, _ in made]


def test_an_output_is_found_by_its_sound_and_its_mark_by_the_key(
    store: tuple[Keyed, list[torch.Tensor]], clips: list[torch.Tensor]
):
    ours, outputs = store
    for number, marked in enumerate(outputs):
        found = ours.search(marked, RATE)
        assert found.rows == (f"row-{number}",) and found.present and found.speed == 1.0
    nothing = ours.search(clips[2], RATE)
    assert not nothing.present and not nothing.rows and not nothing.copied
    assert nothing.likeness < 0.5
    rows = [
        (row, ours.fingerprint([each], RATE), row)
        for row, each in zip(ours.rows, outputs, strict=True)
    ]
    another = Keyed(bytes(32), rows).search(outputs[0], RATE)
    assert another.alike == ("row-0",) and not another.present and not another.rows


@pytest.mark.parametrize(
    "name", ["WORLD resynthesis", "Opus 16 kbit/s", "tempo -5 %", "telephone", "noise 10 dB"]
)
def test_it_outlives(store: tuple[Keyed, list[torch.Tensor]], name: str):
    if any(part in name for part in ("Opus", "tempo")) and not shutil.which("ffmpeg"):
        pytest.skip("the ffmpeg program is absent: install it")
    found = store[0].search(attacked(name, store[1][0]), RATE)
    assert found.rows == ("row-0",) or (name, found.alike) == ("noise 10 dB", ("row-0",))
    assert found.present == bool(found.rows)  # noise hides the mark, not the words


@pytest.mark.parametrize("factor", [0.8, 0.85, 1.15, 1.2, 1.25])
def test_it_outlives_resampling(store: tuple[Keyed, list[torch.Tensor]], factor: float):
    changed = torch.from_numpy(speed(factor)(store[1][1].numpy(), np.random.default_rng(1)))
    found = store[0].search(changed, RATE)
    assert found.rows == ("row-1",) and found.present
    assert found.speed == pytest.approx(factor, abs=0.01)


def test_outputs_do_not_add_up(clips: list[torch.Tensor]):
    """15 outputs, their originals known: what they have in common finds no mark and makes none."""
    mark, clip = Keyed(KEY), clips[0]
    chips = torch.stack([mark.chips(f"row-{i}") for i in range(16)])
    learnt = chips[:15].mean(0).sign()
    agreement = float((learnt == chips[15]).float().mean())
    assert 0.45 < agreement < 0.55
    _, row = output(mark, clip, "row-15")
    host = torch.from_numpy(keyed_module.resample(clip.numpy(), RATE, spread_spectrum.RATE))
    forged = spread_spectrum.embed(host, learnt, 0, 4.0)
    assert not Keyed(KEY, [row]).search(forged, spread_spectrum.RATE).present


def test_a_copied_mark_is_told_and_never_named(
    store: tuple[Keyed, list[torch.Tensor]], clips: list[torch.Tensor]
):
    """One output and its original give its pattern: on another recording it is no row's."""
    ours, _ = store
    forged = ours.embed(clips[2], RATE, "row-0")
    found = ours.search(forged, RATE)
    assert found.copied == ("row-0",) and not found.rows and not found.present


def test_a_washed_output_is_known_by_its_sound(
    store: tuple[Keyed, list[torch.Tensor]], clips: list[torch.Tensor]
):
    found = store[0].search(clips[0], RATE)  # the original itself: no mark was ever on it
    assert found.alike == ("row-0",) and not found.rows and not found.present


def test_of_two_outputs_that_sound_the_same_the_mark_names_one(clips: list[torch.Tensor]):
    made = [output(Keyed(KEY), clips[0], f"row-{i}") for i in range(2)]
    ours = Keyed(KEY, [row for _, row in made])
    for number, (marked, _) in enumerate(made):
        assert ours.search(marked, RATE).rows == (f"row-{number}",)


def test_the_same_sound_has_the_same_pattern_again_and_no_other_sound_has_it(clips):
    mark, clip = Keyed(KEY), clips[0]
    name = mark.again(clip, RATE)
    assert name == Keyed(KEY).again(clip.clone(), RATE) != Keyed(bytes(32)).again(clip, RATE)
    other = clip.clone()
    other[100] = torch.nextafter(other[100], torch.tensor(1.0))
    assert len({name, mark.again(other, RATE), mark.again(clip, RATE + 1)}) == 3
    marked = mark.embed(clip, RATE, name)
    rows = [("g-1", mark.fingerprint([marked], RATE), name), ("g-2", None, "g-2")]
    rows.insert(0, output(mark, clip, "g-0")[1])
    assert Keyed(KEY, rows).search(marked, RATE).rows == ("g-1",)


def old_output(audio: torch.Tensor, row: str) -> torch.Tensor:
    """As stores made it that had one pattern for all."""
    chips, payload = FixedPattern(KEY).chips, fixed_pattern.payload_of(KEY, row)
    for group in range(1, fixed_pattern.GROUPS + 1):
        bands = fixed_pattern.group_of() == group
        chips[:, bands] = chips[:, bands].roll(payload >> (7 * (group - 1)) & 127, 0)
    digest = hmac.new(KEY, b"sayso weave start" + row.encode(), hashlib.sha256).digest()
    start = int.from_bytes(digest[:4], "big") % fixed_pattern.FRAMES
    return spread_spectrum.embed(audio, chips, start)


def test_files_of_older_stores_are_still_found(clips: list[torch.Tensor], perth: Perth):
    rows = [(f"old-{i}", None, f"old-{i}") for i in range(100)]
    marks = Marks(perth, Keyed(KEY, rows))
    assert marks.keyed is not None
    found = marks.search(old_output(clips[1], "old-43"), RATE)
    assert found.fixed is not None and found.fixed.present and found.present
    assert found.fixed.payload is not None
    assert marks.keyed.fixed.rows(found.fixed.payload, marks.keyed.older) == ["old-43"]
    assert found.keyed is not None and not found.keyed.rows  # but never named as ours
    plain = marks.search(clips[1], RATE).fixed
    assert plain is not None and not plain.present
    assert Marks(perth, Keyed(KEY)).search(clips[1], RATE).fixed is None  # no older rows: not asked


def test_where_it_is(store: tuple[Keyed, list[torch.Tensor]], clips, perth: Perth):
    """Marked speech between two stretches of recorded speech of the same length."""
    marked = perth.embed(store[1][1], RATE)
    found = Marks(perth, store[0]).search(torch.cat([clips[2], marked, clips[2]]), RATE)
    begin, end = len(clips[2]) / RATE, (len(clips[2]) + len(marked)) / RATE
    for trace in (found.perth, found.keyed):
        assert trace is not None and trace.present
        stretches = trace.where()
        assert stretches and stretches[0][0] > begin - 3 and stretches[-1][1] < end + 3
        assert sum(b - a for a, b in stretches) > 4


def test_a_long_file_is_looked_at_in_pieces(store: tuple[Keyed, list[torch.Tensor]], clips, perth):
    """More than a minute: the mark is found where it is, across a border of pieces, too."""
    before = torch.cat([clips[2]] * 8)[: 56 * RATE]
    clip = torch.cat([before, perth.embed(store[1][1], RATE), clips[2], store[1][0]])
    found = Marks(perth, store[0]).search(clip, RATE)
    assert found.present and found.keyed is not None and found.keyed.present
    assert sorted(found.keyed.rows) == ["row-0", "row-1"]
    for trace in (found.perth, found.keyed):
        assert [w.start for w in trace.windows] == sorted(w.start for w in trace.windows)
        assert trace.windows[-1].stop > 60 + 2
    first, *_ = found.keyed.where()
    assert 53 < first[0] < 60


def test_longer_files_need_more():
    """The highest of many scores is higher by chance alone, so it counts for less."""
    pieces = [PerthTrace(0.52), PerthTrace(0.3)]
    short = joined([PerthTrace(0.52)], [0.0], 10.0, PERTH_GROWTH)
    long = joined(pieces, [0.0, 54.0], 100.0, PERTH_GROWTH)
    assert short.present and not long.present and long.windows[0].stop == 60.0
    sure = joined([PerthTrace(1.0), PerthTrace(0.3)], [0.0, 54.0], 3600.0, PERTH_GROWTH)
    assert sure.present and sure.windows[0].score == 1.0 and sure.windows[1].score < 0.3
    unsure = joined([FixedTrace(0.51, payload=7)], [0.0], 60.0, PERTH_GROWTH)
    assert unsure.payload is None and not unsure.present


def test_windows_that_touch_are_joined():
    windows = [Stretch(i, i + 2, score) for i, score in enumerate((0.6, 0.7, 0.1, 0.1, 0.9))]
    assert Trace(0.9, 1.0, tuple(windows)).where() == [(0, 3), (4, 6)]


def test_every_mark_holds_even_in_a_short_sentence(clips: list[torch.Tensor], perth: Perth):
    marks = Marks(perth, Keyed(KEY))
    for seconds in (1.2, 4):
        short = clips[0][RATE : RATE + int(seconds * RATE)]
        marked = marks.embed(short, RATE, "row")
        assert marks.demand(marked, RATE, "row") >= MARGIN
        noise = marked - short
        assert 10 * torch.log10(short.square().mean() / noise.square().mean()) > 5  # dB


def test_a_file_is_as_loud_as_what_is_marked(
    clips: list[torch.Tensor], perth: Perth, tmp_path: Path
):
    """In the frames that loudness is measured in; by themselves marks move it by up to 1 dB."""
    marks, ca = Marks(perth, Keyed(KEY)), ensure_ca(tmp_path / "ca")
    for number, clip in enumerate(clips[:2]):
        quiet = clip * (0.5 / clip.abs().max())
        made = finish(quiet, RATE, f"g-{number:032x}", ".wav", "a.wav", "0" * 64, marks, ca)
        marked = decode_audio(made.audio, RATE, "a.wav")[0]
        assert loudness(marked) == pytest.approx(loudness(quiet), rel=2e-3)


def test_nothing_passes_unmarked(clips: list[torch.Tensor], perth: Perth):
    ours, clip = Keyed(KEY), clips[0]
    marks = Marks(perth, ours)
    both = marks.embed(clip, RATE, "row")
    with pytest.raises(MarkError, match="The keyed watermark was not found"):
        marks.demand(both, RATE, "another-row")
    halves = {"perth": ours.embed(clip, RATE, "row"), "keyed": perth.embed(clip, RATE)}
    for name, half in halves.items():
        with pytest.raises(MarkError, match=f"The {name} watermark was not found"):
            marks.demand(half, RATE, "row")
    unkeyed = Marks(perth, None)
    for call in (unkeyed.embed, unkeyed.demand):
        with pytest.raises(MarkError, match="no key"):
            call(both, RATE, "row")
    with pytest.raises(MarkError, match="no key"):
        unkeyed.fingerprint([both], RATE)
    with pytest.raises(MarkError, match="does not hold"):
        marks.embed(1e-3 * torch.randn(2400), RATE, "row")  # a tenth of a second of noise
    with pytest.raises(MarkError, match="silent"):
        marks.embed(torch.zeros(RATE), RATE, "row")


def test_silence_and_nan(store: tuple[Keyed, list[torch.Tensor]]):
    ours = store[0]
    for length in (1, 5, 300, RATE):
        assert not ours.search(torch.zeros(length), RATE).rows
        assert not ours.search(torch.full((length,), 0.1), RATE).rows
    with pytest.raises(MarkError, match="silent"):
        ours.fingerprint([torch.zeros(RATE)], RATE)
    spoiled = torch.full((RATE,), float("nan"))
    for call in (ours.search, lambda audio, rate: ours.embed(audio, rate, "row")):
        with pytest.raises(MarkError, match="not numbers"):
            call(spoiled, RATE)


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
    assert released(tmp_path) == []
    with Store.open(tmp_path / "home") as store, store.transaction():
        store.append("released", "g-1", {"voice": "ada"})
        store.append("released", "g-2", {"voice": "ada", "sound": "AAH/", "pattern": "a-5"})
        store.append("refused", "g-3", {"voice": "ada"})
    assert released(tmp_path / "home") == [("g-1", None, "g-1"), ("g-2", b"\0\1\xff", "a-5")]
    (tmp_path / "sayso.db").write_text("not a database, but long enough to be looked at" * 50)
    with pytest.raises(StoreError, match="cannot be read"):
        released(tmp_path)


def test_patterns_need_the_key():
    chips = Keyed(KEY).chips("a")
    assert chips.shape == (keyed_module.CELLS, spread_spectrum.BANDS) and chips.abs().eq(1).all()
    assert abs(float(chips.mean())) < 0.1
    for other in (Keyed(KEY).chips("b"), Keyed(bytes(32)).chips("a")):
        assert abs(float((chips * other).mean())) < 0.1
    assert THRESHOLD == 0.5


def test_a_fingerprint_in_blocks_is_that_of_the_whole(clips: list[torch.Tensor]):
    audio = torch.cat(clips[:3])
    for size in (700, 5000, RATE):
        assert Keyed(KEY).fingerprint(audio.split(size), RATE) == Keyed(KEY).fingerprint(
            [audio], RATE
        )
    for other in (16_000, 44_100):
        kept = Keyed(KEY).fingerprint(audio.split(5000), other)
        assert kept == Keyed(KEY).fingerprint([audio], other)
    with pytest.raises(MarkError):
        Keyed(KEY).fingerprint([clips[0], torch.full((9,), math.nan)], RATE)


def test_a_fingerprint_is_small_and_reads_back(clips: list[torch.Tensor]):
    levels = spread_spectrum.loudness(spread_spectrum.spectrum_of(clips[0]), 1.0)
    kept = sound.fingerprint(levels)
    assert len(kept) < 19 * len(clips[0]) / RATE
    assert len(sound.signs_of(kept)) == -(-len(levels) // sound.STEP)
