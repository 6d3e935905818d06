"""The EnCodec kind of codec, with tiny random weights: no download."""

import json
import sys
from pathlib import Path

import pytest
import torch

from sayso.model.checkpoint import save_module
from sayso.model.codecs.encodec import (
    PRETRAINED,
    PRETRAINED_FILE,
    EncodecCodec,
    EncodecConfig,
    VocosDecoder,
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


def test_a_file_with_another_checksum_is_refused(tmp_path):
    folder = published(tmp_path)
    (folder / PRETRAINED_FILE).write_bytes(b"not these")
    with pytest.raises(CheckpointError, match="d7cc33bc"):
        load_codec(folder)


VOCOS = {
    "backbone": {
        "class_path": "vocos.models.VocosBackbone",
        "init_args": {
            "input_channels": 8,
            "dim": 16,
            "intermediate_dim": 16,
            "num_layers": 1,
            "adanorm_num_embeddings": 4,
        },
    },
    "head": {
        "class_path": "vocos.heads.ISTFTHead",
        "init_args": {"dim": 16, "n_fft": 32, "hop_length": 8, "padding": "same"},
    },
}


def save_vocos(folder: Path) -> Path:
    from vocos.pretrained import instantiate_class  # pyright: ignore[reportMissingImports]

    torch.manual_seed(0)
    (folder / "vocos").mkdir()
    (folder / "vocos" / "config.yaml").write_text(json.dumps(VOCOS))
    parts = {name: instantiate_class((), VOCOS[name]) for name in VOCOS}
    weights = {f"{name}.{k}": v for name in parts for k, v in parts[name].state_dict().items()}
    torch.save(weights, folder / "vocos" / "pytorch_model.bin")
    return folder


def test_vocos_decodes_all_codebooks_and_encodec_fewer(codec, tmp_path):
    pytest.importorskip("vocos", reason="the vocos extra is not installed")
    codec.vocos = VocosDecoder.load(save_vocos(tmp_path), codebooks=8)
    codes = codec.encode(torch.randn(2, 800))
    embedding = codec.quantizer.decode(codes.transpose(0, 1))
    assert codec.decode(codes).shape == (2, 800)
    assert torch.equal(codec.decode(codes), codec.vocos(embedding))
    coarse = codec.quantizer.decode(codes[:, :2].transpose(0, 1))
    assert torch.equal(codec.decode(codes[:, :2]), codec.decoder(coarse)[:, 0])


def test_damaged_vocos_is_refused(tmp_path):
    pytest.importorskip("vocos", reason="the vocos extra is not installed")
    weights = save_vocos(tmp_path) / "vocos" / "pytorch_model.bin"
    whole = weights.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"no pickle"):
        weights.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"pytorch_model|Vocos"):
            VocosDecoder.load(tmp_path, codebooks=8)


def test_vocos_missing_or_out_of_reach_is_said_so(tmp_path, monkeypatch):
    pytest.importorskip("vocos", reason="the vocos extra is not installed")
    from huggingface_hub.errors import LocalEntryNotFoundError

    def closed(*_, **__):
        raise LocalEntryNotFoundError("no network")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", closed)
    with pytest.raises(CheckpointError, match=r"set decoder to 'encodec'"):
        VocosDecoder.load(tmp_path, codebooks=8)
    monkeypatch.setitem(sys.modules, "vocos.pretrained", None)
    with pytest.raises(CheckpointError, match=r"pip install 'sayso\[vocos\]'"):
        VocosDecoder.load(tmp_path, codebooks=8)
