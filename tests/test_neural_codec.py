"""Training an EnCodec of one's own: balance, distances, a dry run, resumption, what is saved."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sayso.model.codecs.encodec import PRETRAINED_FILE, EncodecCodec, EncodecConfig, published_codec
from sayso.model.codecs.load import load_codec
from sayso.model.errors import CheckpointError, CorpusError, InputError
from sayso.training.fitting.encodec import (
    CodecRecipe,
    examples,
    read_codec_recipe,
    train_codec,
)
from sayso.training.fitting.losses import Balancer, MelDistance, quantize
from sayso.training.readers import read_corpus

CONFIGS = Path(__file__).parents[1] / "configs"
SMALL = EncodecConfig(
    codebooks=4, codebook_size=16, filters=4, dimension=8, ratios=(8, 5, 4, 2), lstm=0
)


@pytest.fixture
def recipe() -> CodecRecipe:
    given = read_codec_recipe(CONFIGS / "codec-mini.yaml")
    return dataclasses.replace(
        given,
        codec=SMALL,
        discriminator_filters=2,
        segment_seconds=0.125,
        batch=2,
        steps=6,
        adversarial_from=3,
        rate=3e-3,
        accelerator="cpu",
        save_every=3,
    )


def test_balanced_gradients_have_the_shares_of_their_weights_whatever_the_losses_size():
    output = torch.randn(2, 1, 50, requires_grad=True)
    balancer = Balancer({"a": 1.0, "b": 3.0})
    losses = {"a": 1000 * output[..., :25].sum(), "b": 0.001 * output[..., 25:].sum()}
    gradient = balancer.gradient(losses, output)
    first, second = gradient[..., :25].norm(dim=2), gradient[..., 25:].norm(dim=2)
    torch.testing.assert_close(second / first, torch.full((2, 1), 3.0))
    torch.testing.assert_close(first + second, torch.ones(2, 1))


def test_the_mel_distance_is_none_to_itself_and_grows():
    distance = MelDistance(24_000)
    audio = torch.randn(1, 1, 6000, generator=torch.Generator().manual_seed(0))
    near, far = audio + 0.01 * audio.flip(2), audio.flip(2)
    assert distance(audio, audio) == 0
    assert 0 < distance(audio, near) < distance(audio, far)


def test_residuals_are_cut_from_the_gradient_and_outputs_pass_it_through():
    codec = EncodecCodec(SMALL).train()
    embedding = torch.randn(2, 8, 10, requires_grad=True)
    out, loss = quantize(codec, embedding, 3)
    (straight,) = torch.autograd.grad(out.sum(), embedding, retain_graph=True)
    assert straight.abs().sum() > 0
    assert loss > 0
    codec.eval()
    assert torch.equal(
        quantize(codec, embedding, 4)[0],
        codec.quantizer.decode(codec.quantizer.vq.encode(embedding)),
    )


def test_a_dry_run_learns_resumes_and_saves_a_codec(recipe, kathleen, tmp_path):
    lines: list[str] = []
    roots = {"kathleen": kathleen}
    whole = train_codec(recipe, roots, tmp_path / "whole", lines.append)
    assert len(lines) == 2 and "adversarial" in lines[1] and "adversarial" not in lines[0]
    half = dataclasses.replace(recipe, steps=3)
    train_codec(half, roots, tmp_path / "parts", lines.append)
    train_codec(recipe, roots, tmp_path / "parts", lines.append)
    one, two = (load_file(tmp_path / each / "model.safetensors") for each in ("whole", "parts"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    loaded = load_codec(tmp_path / "whole")
    assert loaded.identity == whole.identity
    audio = examples(read_corpus("kathleen", kathleen), recipe, 0)[:, 0]
    codes = loaded.encode(audio)
    assert codes.shape == (2, 4, 10)
    assert loaded.decode(codes).shape == (2, 10 * 320)
    fitted = json.loads((tmp_path / "whole" / "corpora.json").read_text())
    assert [entry["name"] for entry in fitted["corpora"]] == ["kathleen"]
    with pytest.raises(InputError, match="other settings"):
        train_codec(dataclasses.replace(recipe, batch=3), roots, tmp_path / "whole")


def test_thirty_steps_bring_unheard_sound_nearer(recipe, kathleen, tmp_path):
    """The distance of a fixed batch, as training batches differ more than steps do."""
    unheard = examples(read_corpus("kathleen", kathleen)[:20], recipe, 1000)[:, 0]

    def distance(steps: int) -> float:
        more = dataclasses.replace(recipe, steps=steps, save_every=30, adversarial_from=1000)
        codec = train_codec(more, {"kathleen": kathleen}, tmp_path / f"{steps}", lambda line: None)
        with torch.inference_mode():
            made = torch.cat([codec.decode(codec.encode(row[None])) for row in unheard])
        size = min(made.shape[1], unheard.shape[1])
        mel = MelDistance(24_000)
        return float(mel(unheard[:, None, :size], made[:, None, :size]))

    assert distance(30) < 0.8 * distance(1)


def test_published_weights_that_are_not_them_leave_no_codec(tmp_path):
    (tmp_path / PRETRAINED_FILE).write_bytes(b"something else")
    with pytest.raises(CheckpointError, match=r"not d7cc33bc.*: fetch it anew"):
        published_codec(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [PRETRAINED_FILE]
    with pytest.raises(InputError, match="must be encodec or vocos"):
        published_codec(tmp_path, "hifigan")
    EncodecCodec(SMALL).save(tmp_path)
    with pytest.raises(InputError, match="holds a codec already"):
        published_codec(tmp_path)


def test_unlisted_corpora_and_bad_recipes_are_refused(recipe, tmp_path):
    with pytest.raises(CorpusError, match="emilia"):
        train_codec(recipe, {"emilia": tmp_path}, tmp_path / "run")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="no GPU here: set it to cpu"):
            train_codec(dataclasses.replace(recipe, accelerator="cuda"), {}, tmp_path / "run")
    text = (CONFIGS / "codec-mini.yaml").read_text()
    for old, new, word in (
        ("batch: 32 ", "batch: 0 ", "batch"),
        ("steps: 300000", "stepps: 3", "stepps"),
        ("source: folder", "source: encodec_24khz", "source|sizes"),
    ):
        path = tmp_path / "bad.yaml"
        path.write_text(text.replace(old, new))
        with pytest.raises(InputError, match=word):
            read_codec_recipe(path)
    with pytest.raises(InputError, match="does not exist"):
        read_codec_recipe(tmp_path / "none.yaml")
