"""FARGAN and its features against what upstream's own program made of the same speech; its codec.

`fargan_golden.safetensors`: the first 1.2 s of Kathleen's arctic_a0001 (CC0), its features by
opus 1.6.1 and the speech that opus made of them.
"""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from sayso.model.codecs.fargan import CEPSTRA, DEEMPHASIS, HOP, FarganVocoder
from sayso.model.codecs.fargan_codec import (
    FarganCodec,
    FarganConfig,
    alter,
    from_rows,
    to_rows,
)
from sayso.model.codecs.fargan_features import FarganFeatures
from sayso.model.codecs.fargan_weights import WEIGHTS, load_arrays
from sayso.model.codecs.load import load_codec
from sayso.model.codecs.voice_edit import Alteration
from sayso.model.errors import CheckpointError, InputError
from sayso.training.fitting.fargan import fit_fargan

GOLDEN = load_file(Path(__file__).with_name("fargan_golden.safetensors"))
FEATURES = GOLDEN["features"][None]  # (1, 120, 20)
RECORDED, SAID = (GOLDEN[f"{side}_pcm16"][None] / 32768 for side in ("input", "output"))


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """A step of 40 samples is too small to share, and threads that wait for it take the machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def vocoder() -> FarganVocoder:
    return FarganVocoder()


@pytest.fixture(scope="module")
def measure() -> FarganFeatures:
    return FarganFeatures()


def ratio(found: Tensor, wanted: Tensor) -> float:
    """Signal to difference in dB."""
    return float(10 * (wanted.square().sum() / (found - wanted).square().sum()).log10())


def test_features_are_upstreams(measure):
    away = (measure(RECORDED) - FEATURES).abs()[0]
    assert away[:, :18].max() < 1e-4
    # Upstream rounds to 8 bits inside the pitch network: in few frames it decides otherwise.
    assert away[:, 18].median() < 1e-3 and away[:, 19].median() < 1e-4
    assert (away[:, 18] > 0.02).float().mean() < 0.02


def test_each_subframe_is_upstreams_given_the_same_past(vocoder):
    flat = SAID.clone()
    flat[:, 1:] -= DEEMPHASIS * SAID[:, :-1]
    heard = slice(0, -2 * HOP)  # the last frames depend on features that were cut off
    assert ratio(vocoder.predict(FEATURES, SAID)[:, heard], flat[:, heard]) > 24


def test_on_its_own_it_starts_as_upstream_and_stays_as_loud(vocoder):
    audio = vocoder(FEATURES)
    assert audio.shape == SAID.shape
    assert ratio(audio[:, :4000], SAID[:, :4000]) > 15
    assert abs(float(20 * (audio.std() / SAID.std()).log10())) < 1


def test_rows_of_a_batch_do_not_hear_each_other(vocoder, measure):
    pair = torch.cat([FEATURES, FEATURES.flip(1)])[:, :40]
    torch.testing.assert_close(vocoder(pair)[1:], vocoder(pair[1:]), atol=1e-4, rtol=0)
    speech = torch.cat([RECORDED, RECORDED.flip(1)])
    torch.testing.assert_close(measure(speech)[1:], measure(speech[1:]), atol=1e-4, rtol=0)


@pytest.mark.parametrize("samples", [1, 159, 160, 161])
def test_any_length_of_speech(vocoder, measure, samples):
    features = measure(RECORDED[:, 8000 : 8000 + samples])
    assert features.shape == (1, -(-samples // HOP), 20)
    assert vocoder(features).shape == (1, features.shape[1] * HOP)


def test_silence_stays_silent(vocoder, measure):
    audio = vocoder(measure(torch.zeros(1, 8000)))
    assert audio.abs().max() < 0.001


def test_refusals(vocoder, measure):
    for features in (FEATURES[0], FEATURES[..., :18], FEATURES[:, :0]):
        with pytest.raises(InputError, match="takes"):
            vocoder(features)
    with pytest.raises(InputError, match="NaN"):
        vocoder(FEATURES / 0)
    with pytest.raises(InputError, match="NaN"):
        measure(RECORDED / 0)


def test_other_weights_are_refused(tmp_path):
    content = bytearray(WEIGHTS.read_bytes())
    content[-1] ^= 1
    (tmp_path / "fargan.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match="sha256"):
        load_arrays(tmp_path / "fargan.safetensors")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_arrays(tmp_path / "none.safetensors")


@pytest.fixture(scope="module")
def codec() -> FarganCodec:
    return fit_fargan([FEATURES[0]], FarganConfig(codebooks=3, codebook_size=16), iterations=5)


def test_rows_keep_all_but_the_pitch_of_what_is_unvoiced():
    features = FEATURES[0]
    back = from_rows(to_rows(features))
    others = [column for column in range(20) if column != CEPSTRA]
    torch.testing.assert_close(back[:, others], features[:, others], atol=1e-5, rtol=0)
    voiced = features[:, CEPSTRA + 1] > 0.2
    assert (back[voiced, CEPSTRA] - features[voiced, CEPSTRA]).abs().median() < 1 / 48  # octave
    jumps = [each[:, CEPSTRA].diff().abs().max() for each in (back, features)]
    assert jumps[0] < jumps[1] / 2


def test_the_codec_says_the_features_better_with_more_codebooks(codec):
    assert (codec.sample_rate, codec.frame_rate) == (16000, 50.0)
    codes = codec.encode(RECORDED)
    assert codes.shape == (1, 3, 60) and codes.dtype == torch.int64
    wanted = to_rows(FEATURES[0])
    away = [float(((codec.rows(codes[0, :k]) - wanted) * codec.scale).std()) for k in (1, 2, 3)]
    assert away == sorted(away, reverse=True)
    summed = sum(codec.entries()[level, codes[0, level]] for level in range(3))
    torch.testing.assert_close(summed / codec.scale + codec.mean, codec.rows(codes[0]))
    assert codec.decode(codes[:, :2]).shape == (1, 60 * 320)
    assert codec.encode(RECORDED[:, :321]).shape == (1, 3, 2)
    with pytest.raises(InputError, match="codes"):
        codec.decode(codes + 16)


def test_the_codec_is_saved_without_the_vocoder_and_named_with_it(codec, tmp_path):
    codec.save(tmp_path)
    again = load_codec(tmp_path)
    assert again.identity == codec.identity
    assert torch.equal(again.encode(RECORDED), codec.encode(RECORDED))
    assert (tmp_path / "model.safetensors").stat().st_size < 20_000
    other = FarganCodec(codec.config)
    assert other.identity != codec.identity


def test_too_little_speech_fits_no_codec():
    with pytest.raises(InputError, match="cannot fit"):
        fit_fargan([FEATURES[0]], FarganConfig(codebooks=1, codebook_size=64))


def test_pitch_formants_and_speed_are_changed_in_the_features(vocoder, measure):
    features = FEATURES[0]
    voiced = features[:, CEPSTRA + 1] > 0.2
    slow = alter(features, Alteration(speed=0.5))
    assert len(slow) == 240
    torch.testing.assert_close(slow[::2][voiced], features[voiced])

    higher = measure(vocoder(alter(features, Alteration(pitch=3.0))[None]))[0]
    steps = (higher - features)[voiced, CEPSTRA] * 12
    assert 2.5 < float(steps.median()) < 3.5

    def centre(rows: Tensor) -> float:
        power = 10 ** (rows[voiced, :CEPSTRA] @ measure.cosines.t()).double()
        return float((power @ torch.arange(18.0).double() / power.sum(1)).mean())

    small = alter(features, Alteration(formant=1.2))
    large = alter(features, Alteration(formant=0.8))
    assert centre(large) < centre(features) < centre(small)
    torch.testing.assert_close(small[:, CEPSTRA + 1], features[:, CEPSTRA + 1])


def test_the_codec_hears_and_learns_edits(codec):
    codes = codec.encode(RECORDED)[0]
    assert codec.hear(codes, Alteration(speed=2.0)).shape == (60 * 320 // 2,)
    edits = [Alteration(speed=1.1), Alteration(pitch=4.0)]
    same, faster, higher = codec.model_codes(RECORDED, edits=edits)
    assert torch.equal(same, codes)
    assert faster.shape == (3, 55) and higher.shape == codes.shape
    assert not torch.equal(higher, codes)
