"""The EnCodec kind of codec, with tiny random weights: no download."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from sayso.model.checkpoint import save_module
from sayso.model.codecs.encodec import (
    PRETRAINED,
    PRETRAINED_FILE,
    PRETRAINED_SHA256,
    EncodecCodec,
    EncodecConfig,
)
from sayso.model.codecs.load import load_codec
from sayso.model.errors import CheckpointError, InputError

TINY = EncodecConfig(
    codebooks=4, codebook_size=16, filters=2, dimension=8, ratios=(4, 2), lstm=0, sample_rate=8000
)


@pytest.fixture
def codec() -> EncodecCodec:
    torch.manual_seed(0)
    return EncodecCodec(TINY)


def test_rates_are_read_from_the_config(codec):
    assert (codec.frame_rate, codec.codebooks, codec.codebook_size) == (1000.0, 4, 16)
    paper = EncodecConfig()
    assert paper.sample_rate / paper.hop == 75 and paper.codebooks == 8


@pytest.mark.parametrize("samples", [1, 7, 8, 9, 800])
def test_shapes(codec, samples):
    codes = codec.encode(torch.randn(2, samples).clamp(-1, 1))
    frames = -(-samples // TINY.hop)
    assert codes.shape == (2, 4, frames) and codes.dtype == torch.int64
    assert codec.decode(codes).shape == (2, frames * TINY.hop)
    assert codec.decode(codes[:, :1]).dtype == torch.float32


def test_the_decoder_sums_the_codebooks(codec):
    codes = codec.encode(torch.randn(1, 400))
    entries = [codec.quantizer.vq.layers[k].codebook[codes[0, k]] for k in range(4)]
    direct = codec.decoder(torch.stack(entries).sum(0).t()[None])[:, 0]
    torch.testing.assert_close(codec.decode(codes), direct)


def test_codes_are_refused_out_of_range(codec):
    for bad in (torch.full((1, 4, 3), 16), torch.full((1, 4, 3), -1), torch.zeros(1, 5, 3).long()):
        with pytest.raises(InputError):
            codec.decode(bad)
    with pytest.raises(InputError, match="NaN"):
        codec.encode(torch.full((1, 100), float("nan")))


def test_saved_and_loaded_it_is_the_same(codec, tmp_path):
    codec.save(tmp_path)
    loaded = load_codec(tmp_path)
    audio = torch.randn(1, 333)
    assert loaded.identity == codec.identity
    assert torch.equal(loaded.encode(audio), codec.encode(audio))
    assert torch.equal(loaded.decode(loaded.encode(audio)), codec.decode(codec.encode(audio)))


def test_truncated_or_foreign_weights_are_refused(codec, tmp_path):
    codec.save(tmp_path)
    weights = tmp_path / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="damaged"):
        load_codec(tmp_path)
    save_module(tmp_path, torch.nn.Linear(2, 2), TINY)
    with pytest.raises(CheckpointError, match="does not fit"):
        load_codec(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"source": "elsewhere"},
        {"decoder": "vocos"},
        {"codebook_size": 1000},
        {"filters": 0},
        {"ratios": 7},
        {"unknown": 1},
        {"source": PRETRAINED, "codebooks": 8, "filters": 2},
    ],
)
def test_a_config_that_cannot_be_is_refused(change, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"kind": "encodec", **change}))
    with pytest.raises(CheckpointError):
        load_codec(tmp_path)


def published(folder: Path, **more) -> Path:
    folder.mkdir(exist_ok=True)
    config = {"kind": "encodec", "source": PRETRAINED, **more}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_without_network_the_remedy_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))

    def closed(*_, **arguments):
        assert arguments["timeout"] <= 30
        raise TimeoutError("timed out")

    monkeypatch.setattr("sayso.model.codecs.encodec.urlopen", closed)
    with pytest.raises(CheckpointError, match=f"put it from https://.* into {tmp_path}"):
        load_codec(published(tmp_path / "codec"))
    assert not list((tmp_path / "empty").rglob("*.part"))


def test_a_file_with_another_hash_is_refused_before_anything_of_it_is_read(tmp_path, monkeypatch):
    """The start of the hash, which the file's name carries, is found in minutes; the whole not."""
    folder = published(tmp_path)
    (folder / PRETRAINED_FILE).write_bytes(b"not these")
    near = PRETRAINED_SHA256[:16] + "0" * 48
    monkeypatch.setattr("torch.load", lambda *_, **__: pytest.fail("it was read"))
    with pytest.raises(CheckpointError, match=f"not {PRETRAINED_SHA256[:16]}"):
        load_codec(folder)
    monkeypatch.setattr("hashlib.sha256", lambda data: SimpleNamespace(hexdigest=lambda: near))
    with pytest.raises(CheckpointError, match="fetch it anew"):
        load_codec(folder)


def test_the_identity_is_what_it_was_before_there_was_a_hash_of_vocos(codec):
    """Enrolled voices are bound to it."""
    for tensor in codec.state_dict().values():
        tensor.copy_(torch.linspace(-1, 1, tensor.numel()).view(tensor.shape).to(tensor.dtype))
    assert codec.identity == "51cfcfd3a7ffa8cb50831b947b8ff3769f328003b054bb21e02c7a88271966f5"
