"""The WORLD codec: round trips on real speech, refusals, storage, and its k-means fit."""

import json
import math

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sayso.model.codecs.base import check_codes
from sayso.model.codecs.load import load_codec
from sayso.model.codecs.world import (
    Features,
    WorldCodec,
    WorldConfig,
    analyse,
    bridge,
    from_rows,
    interpolate,
    synthesise,
    to_rows,
)
from sayso.model.errors import CheckpointError, InputError
from sayso.training.fitting.residual import kmeans, nearest
from sayso.training.fitting.world import fit_world
from sayso.training.held_out import held_out
from speech import KATHLEEN

SMALL = WorldConfig(codebooks=3, codebook_size=64)


def speech(count: int) -> list[np.ndarray]:
    paths = sorted((KATHLEEN / "audio").iterdir())[:count]
    return [soundfile.read(path, dtype="float32")[0] for path in paths]


@pytest.fixture(scope="module")
def analysed() -> list[Features]:
    return [analyse(audio, SMALL) for audio in speech(6)]


@pytest.fixture(scope="module")
def codec(analysed) -> WorldCodec:
    return fit_world(analysed, SMALL, iterations=4)


def random_codec() -> WorldCodec:
    torch.manual_seed(0)
    return WorldCodec(SMALL)


def envelope_error(a: Features, b: Features) -> float:
    """Root mean square over frames, nepers."""
    return float(np.sqrt(((a.envelope - b.envelope) ** 2).sum(1).mean()))


def test_resynthesis_keeps_pitch_envelope_and_length(analysed):
    for before in analysed[:2]:
        audio = synthesise(before, SMALL)
        assert len(audio) == len(before.f0) * SMALL.hop and audio.dtype == np.float32
        after = analyse(audio, SMALL)
        both = (before.f0 > 0) & (after.f0 > 0)
        assert both.sum() > 0.85 * (before.f0 > 0).sum()
        assert np.median(np.abs(np.log2(after.f0[both] / before.f0[both]))) < 1 / 24
        shuffled = Features(np.roll(after.envelope, 25, axis=0), after.f0, after.aperiodicity)
        assert envelope_error(before, after) < 0.4 * envelope_error(before, shuffled)


def test_each_codebook_brings_the_speech_closer(codec, analysed):
    codes = codec.quantize(analysed[0])
    errors = [envelope_error(codec.features(codes[:k]), analysed[0]) for k in (1, 2, 3)]
    assert errors[0] > errors[1] > errors[2]


def test_round_trip_of_a_batch_equals_each_alone(codec):
    clips = [torch.from_numpy(clip[:24000]) for clip in speech(2)]
    batch = codec.encode(torch.stack(clips))
    assert batch.shape == (2, 3, 50) and batch.dtype == torch.int64
    for row, clip in zip(batch, clips, strict=True):
        assert torch.equal(codec.encode(clip[None])[0], row)
    audio = codec.decode(batch)
    assert audio.shape == (2, 24000) and audio.dtype == torch.float32
    assert torch.equal(codec.decode(batch[1:])[0], audio[1])
    assert audio.abs().max() <= 1 and audio.std() > 0.3 * torch.stack(clips).std()


@pytest.mark.parametrize("samples", [1, 100, 479, 480, 481, 4801])
def test_any_length_gives_whole_frames(samples):
    codec = random_codec()
    codes = codec.encode(torch.randn(1, samples) * 0.1)
    assert codes.shape == (1, 3, math.ceil(samples / 480))
    assert codec.decode(codes).shape == (1, codes.shape[2] * 480)


def test_silence_stays_finite_and_silent(codec):
    audio = codec.decode(codec.encode(torch.zeros(1, 12000)))
    assert torch.isfinite(audio).all() and audio.abs().max() < 0.05


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.lists(st.integers(0, 63), min_size=3, max_size=3), min_size=1, max_size=12))
def test_any_valid_codes_decode_to_finite_audio(codes):
    audio = random_codec().decode(torch.tensor(codes).t()[None])
    assert audio.shape == (1, 480 * len(codes)) and torch.isfinite(audio).all()


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(0, 4), min_size=0, max_size=4),
    st.integers(-3, 70),
    st.sampled_from([torch.int64, torch.int32, torch.float32]),
)
def test_codes_are_taken_or_refused_never_a_crash(shape, value, dtype):
    codes = torch.full(shape, value).to(dtype)
    fits = len(shape) == 3 and 0 not in shape and shape[1] <= 3
    if fits and dtype == torch.int64 and 0 <= value < 64:
        check_codes(codes, 3, 64)
    else:
        with pytest.raises(InputError, match="codes"):
            check_codes(codes, 3, 64)


@pytest.mark.parametrize(
    "audio",
    [
        torch.zeros(100),
        torch.zeros(1, 0),
        torch.zeros(0, 100),
        torch.zeros(1, 100, dtype=torch.int16),
        torch.tensor([[0.0, float("nan")]]),
        torch.tensor([[0.0, float("inf")]]),
    ],
)
def test_audio_that_cannot_be_encoded_is_refused(audio):
    with pytest.raises(InputError, match="audio"):
        random_codec().encode(audio)


def test_saved_and_loaded_it_is_the_same(codec, analysed, tmp_path):
    codec.save(tmp_path)
    loaded = load_codec(tmp_path)
    assert isinstance(loaded, WorldCodec)
    assert loaded.identity == codec.identity != random_codec().identity
    assert torch.equal(loaded.quantize(analysed[1]), codec.quantize(analysed[1]))
    assert (loaded.sample_rate, loaded.frame_rate) == (24000, 50.0)
    assert (loaded.codebooks, loaded.codebook_size) == (3, 64)


@pytest.mark.parametrize("damage", ["missing", "truncated", "empty", "other sizes"])
def test_damaged_weights_are_refused(damage, tmp_path):
    random_codec().save(tmp_path)
    weights = tmp_path / "model.safetensors"
    whole = weights.read_bytes()
    if damage == "missing":
        weights.unlink()
    elif damage == "other sizes":
        config = json.loads((tmp_path / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps({**config, "codebooks": 4}))
    else:
        weights.write_bytes(whole[: len(whole) // 2] if damage == "truncated" else b"")
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        load_codec(tmp_path)


@pytest.mark.parametrize(
    "config",
    [
        "",
        "[]",
        "{}",
        '{"kind": "opus"}',
        '{"kind": "world", "frame_ms": 3}',
        '{"kind": "world", "frame_ms": "long"}',
        '{"kind": "world", "colour": "blue"}',
        '{"kind": "world", "codebook_size": 0}',
    ],
)
def test_a_config_that_cannot_be_is_refused(config, tmp_path):
    with pytest.raises(CheckpointError, match=r"config\.json is missing"):
        load_codec(tmp_path)
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(CheckpointError):
        load_codec(tmp_path)


def test_rows_and_features_are_each_others_inverse(analysed):
    before = analysed[0]
    after = from_rows(to_rows(before), SMALL)
    np.testing.assert_allclose(after.envelope, before.envelope)
    np.testing.assert_allclose(after.f0, before.f0)
    np.testing.assert_allclose(after.aperiodicity, before.aperiodicity, atol=1e-6)


def test_bridge_and_interpolate():
    np.testing.assert_allclose(np.exp(bridge(np.array([0, 100.0, 0, 0, 100, 0]))), 100)
    assert np.ptp(bridge(np.zeros(4))) == 0
    rows = np.array([[0.0], [4.0]])
    position = np.array([0, 0.25, 1, 1.75])
    np.testing.assert_allclose(interpolate(rows, position)[:, 0], [0, 1, 4, 4])


def test_fit_is_reproducible_and_scales_as_the_config_says(codec, analysed):
    assert fit_world(analysed, SMALL, iterations=4).identity == codec.identity
    assert fit_world(analysed, SMALL, iterations=4, seed=1).identity != codec.identity
    rows = torch.from_numpy(np.concatenate([to_rows(f) for f in analysed])).float()
    spread = ((rows - codec.mean) * codec.scale).std(0)
    voiced = rows[:, 33] > 0.5
    assert (rows[voiced, 32] * codec.scale[32]).std() == pytest.approx(0.35, rel=1e-3)
    assert spread[33:].tolist() == pytest.approx([0.5, 0.15, 0.15, 0.15], rel=1e-3)
    own = rows[:, :32].std(0)
    torch.testing.assert_close(spread[:32] / own.sqrt(), (spread[0] / own[0].sqrt()).expand(32))
    torch.testing.assert_close(spread[:32].norm(), own.norm())


def test_too_little_speech_cannot_be_fitted(analysed):
    with pytest.raises(InputError, match="frames"):
        fit_world([analysed[0]], WorldConfig())


def test_kmeans_settles_on_means_and_beats_random_points():
    points = torch.randn(600, 3, generator=torch.Generator().manual_seed(1))

    def fit(iterations: int) -> torch.Tensor:
        return kmeans(points, 20, iterations, torch.Generator().manual_seed(0))

    def error(entries: torch.Tensor) -> float:
        return float((points - entries[nearest(points, entries)]).pow(2).sum())

    exact = torch.cdist(points, fit(0)).argmin(1)
    assert torch.equal(nearest(points, fit(0)), exact)
    assert error(fit(60)) < error(fit(2)) < 0.9 * error(fit(0))
    entries = fit(60)
    index = nearest(points, entries)
    means = torch.stack([points[index == k].mean(0) for k in range(20)])
    torch.testing.assert_close(entries, means, atol=1e-4, rtol=1e-4)


def test_kmeans_moves_an_entry_that_lost_its_points():
    points = torch.tensor([[0.0], [0.0], [0.0], [5.0]])
    entries = kmeans(points, 2, 20, torch.Generator().manual_seed(0))
    assert sorted(entries.flatten().tolist()) == [0.0, 5.0]


def test_held_out_is_a_fixed_share():
    names = [f"arctic_a{n:04}" for n in range(4700)]
    kept = [name for name in names if held_out(name)]
    assert 60 < len(kept) < 140 and kept == [name for name in names if held_out(name)]
    assert all(held_out(name, 1) for name in names)
    assert [n for n in names[:200] if held_out(n)] == ["arctic_a0016", "arctic_a0086"]
