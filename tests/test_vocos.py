"""Vocos: its package bit for bit, with a code table of its own; its config is only data."""

import copy
import hashlib
import json
import sys
from pathlib import Path

import pytest
import torch
from encodec.model import EncodecModel
from vocos import Vocos

from sayso.model.codecs.encodec import EncodecCodec, EncodecConfig, published_codec
from sayso.model.codecs.load import load_codec
from sayso.model.codecs.vocos import VocosDecoder
from sayso.model.errors import CheckpointError

CONFIG = {  # as published, but for its size
    "feature_extractor": {
        "class_path": "vocos.feature_extractors.EncodecFeatures",
        "init_args": {"encodec_model": "encodec_24khz", "bandwidths": [1.5, 3.0, 6.0, 12.0]},
    },
    "backbone": {
        "class_path": "vocos.models.VocosBackbone",
        "init_args": {
            "input_channels": 128,
            "dim": 16,
            "intermediate_dim": 24,
            "num_layers": 2,
            "adanorm_num_embeddings": 4,
        },
    },
    "head": {
        "class_path": "vocos.heads.ISTFTHead",
        "init_args": {"dim": 16, "n_fft": 1280, "hop_length": 320, "padding": "same"},
    },
}


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Vocos:
    """The package's own model; EnCodec and everything else of it random."""
    torch.manual_seed(0)
    create = EncodecModel.encodec_model_24khz
    config = tmp_path_factory.mktemp("vocos") / "config.yaml"
    config.write_text(json.dumps(CONFIG))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EncodecModel, "encodec_model_24khz", lambda pretrained: create(False))
        model = Vocos.from_hparams(str(config))
    with torch.no_grad():
        for weights in model.parameters():
            weights.normal_(std=0.1)
    return model.eval()


def write(folder: Path, package: Vocos, config: object = CONFIG, without: str = "none") -> str:
    """The two published files; the sha256 of the weights."""
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(json.dumps(config))
    kept = {k: v for k, v in package.state_dict().items() if "extractor.encodec." not in k}
    kept.pop(without, None)
    torch.save(kept, folder / "pytorch_model.bin")
    return hash_of(folder)


def hash_of(folder: Path) -> str:
    return hashlib.sha256((folder / "pytorch_model.bin").read_bytes()).hexdigest()


@pytest.mark.parametrize("codebooks", [2, 4, 8, 16])
def test_it_is_the_package_bit_for_bit(package: Vocos, tmp_path: Path, codebooks: int):
    ours = VocosDecoder.load(tmp_path, write(tmp_path, package), codebooks, 1024)
    codes = torch.randint(1024, (codebooks, 2, 30), generator=torch.Generator().manual_seed(1))
    bandwidth = torch.tensor([(2, 4, 8, 16).index(codebooks)])
    theirs = package.decode(package.codes_to_features(codes), bandwidth_id=bandwidth)
    with torch.no_grad():
        assert torch.equal(ours(codes), theirs)
    assert theirs.shape == (2, 30 * 320) and theirs.std() > 0


def encodec_with(vocos: VocosDecoder | None) -> EncodecCodec:
    torch.manual_seed(0)
    codec = EncodecCodec(EncodecConfig(filters=2, lstm=0))
    codec.vocos = vocos
    return codec


def test_all_codebooks_are_heard_by_its_own_table_and_fewer_by_encodec(package, tmp_path):
    sha256 = write(tmp_path, package)
    vocos = VocosDecoder.load(tmp_path, sha256, 8, 1024)
    codec, plain = encodec_with(vocos), encodec_with(None)
    codes = torch.randint(1024, (2, 8, 10), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(codec.decode(codes), vocos(codes.transpose(0, 1)))
    assert torch.equal(codec.decode(codes[:, :4]), plain.decode(codes[:, :4]))
    before, heard = codec.identity, codec.decode(codes)
    vocos.table *= 1.1
    assert codec.identity != before
    assert not torch.allclose(codec.decode(codes), heard)


def test_weights_that_are_not_whole_or_not_those_are_refused(package, tmp_path):
    for part in ("feature_extractor.codebook_weights", "head.out.bias", "backbone.embed.weight"):
        sha256 = write(tmp_path, package, without=part)
        with pytest.raises(CheckpointError, match="no Vocos that fits"):
            VocosDecoder.load(tmp_path, sha256, 8, 1024)
    sha256 = write(tmp_path, package)
    with pytest.raises(CheckpointError, match="codebook_weights"):
        VocosDecoder.load(tmp_path, sha256, 16, 2048)
    weights = tmp_path / "pytorch_model.bin"
    for damaged in (weights.read_bytes()[:1000], b"", b"no pickle"):
        weights.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="sha256"):
            VocosDecoder.load(tmp_path, sha256, 8, 1024)
        with pytest.raises(CheckpointError, match="holds no weights"):
            VocosDecoder.load(tmp_path, hash_of(tmp_path), 8, 1024)


def changed(section: str, **values: object) -> dict:
    config = copy.deepcopy(CONFIG)
    config[section] |= values
    return config


def argument(section: str, name: str, value: object) -> dict:
    return changed(section, init_args={**CONFIG[section]["init_args"], name: value})


@pytest.mark.parametrize(
    "config",
    [
        changed("backbone", class_path="subprocess.Popen", init_args={"args": "touch ran"}),
        changed("backbone", class_path="vocos.models.VocosResNetBackbone"),
        changed("head", class_path=["vocos.heads.ISTFTHead"]),
        changed("feature_extractor", class_path="vocos.feature_extractors.MelSpectrogramFeatures"),
        changed("head", more=1),
        changed("head", init_args=None),
        argument("backbone", "shell", True),
        argument("backbone", "dim", 10**9),
        argument("backbone", "dim", "16"),
        argument("backbone", "num_layers", True),
        argument("head", "padding", "center"),
        argument("feature_extractor", "encodec_model", "encodec_48khz"),
        argument("feature_extractor", "bandwidths", [6.0]),
        {**CONFIG, "after": {"class_path": "subprocess.Popen", "init_args": {}}},
        {"backbone": CONFIG["backbone"]},
        [],
        "!!python/object/apply:os.system ['touch ran']",
    ],
)
def test_its_config_is_data_and_any_other_is_refused(config, package, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sha256 = write(tmp_path, package, config)
    if isinstance(config, str):
        (tmp_path / "config.yaml").write_text(config)
    with pytest.raises(CheckpointError, match=r"config\.yaml"):
        VocosDecoder.load(tmp_path, sha256, 8, 1024)
    assert not (tmp_path / "ran").exists()


def test_missing_or_out_of_reach_is_said_so(tmp_path, monkeypatch):
    from huggingface_hub.errors import LocalEntryNotFoundError

    def closed(*_, **__):
        raise LocalEntryNotFoundError("no network")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", closed)
    with pytest.raises(CheckpointError, match=r"set decoder to 'encodec'"):
        VocosDecoder.load(tmp_path, "0" * 64, 8, 1024)
    monkeypatch.setitem(sys.modules, "vocos.models", None)
    with pytest.raises(CheckpointError, match=r"pip install 'sayso\[vocos\]'"):
        VocosDecoder.load(tmp_path, "0" * 64, 8, 1024)


def test_the_weights_found_first_are_the_only_ones_ever_read(package, tmp_path, monkeypatch):
    real = EncodecModel.encodec_model_24khz(pretrained=False)
    monkeypatch.setattr("sayso.model.codecs.encodec.pretrained_encodec", lambda folder: real)
    sha256 = write(tmp_path / "vocos", package)
    made = published_codec(tmp_path, "vocos")
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["vocos_sha256"] == sha256
    assert load_codec(tmp_path).identity == made.identity
    write(tmp_path / "vocos", package, without="head.out.bias")
    with pytest.raises(CheckpointError, match="fetch it anew"):
        load_codec(tmp_path)
    # One made by an earlier version names Vocos, but not which.
    del config["vocos_sha256"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="sayso codec published"):
        load_codec(tmp_path)
