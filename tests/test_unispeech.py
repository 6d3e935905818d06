"""UniSpeech's encoder: the answer of the original with random weights, by their own names."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sayso.evaluation.speakers import speaker_encoder
from sayso.evaluation.unispeech import load_encoder
from sayso.model.errors import CheckpointError

pytest.importorskip("transformers")
SIZE, FEED, HEADS, CONV, CHANNELS, WIDE, OUT = 16, 24, 2, 8, 64, 1536, 8
KERNELS = (10, 3, 3, 3, 3, 2, 2)


def shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of a small one, as UniSpeech's file has them."""
    at = "feature_extract.model."
    found: dict[str, tuple[int, ...]] = {"feature_weight": (3,), f"{at}mask_emb": (SIZE,)}

    def pair(name: str, *shape: int) -> None:
        found[f"{name}.weight"], found[f"{name}.bias"] = shape, shape[:1]

    def unit(name: str, before: int, after: int, width: int = 1) -> None:
        pair(f"{name}.conv", after, before, width)
        norm(f"{name}.bn", after)

    def norm(name: str, size: int) -> None:
        pair(name, size)
        found[f"{name}.running_mean"] = found[f"{name}.running_var"] = (size,)
        found[f"{name}.num_batches_tracked"] = ()

    for i, kernel in enumerate(KERNELS):
        found[f"{at}feature_extractor.conv_layers.{i}.0.weight"] = (CONV, CONV if i else 1, kernel)
        pair(f"{at}feature_extractor.conv_layers.{i}.2.1", CONV)
    pair(f"{at}post_extract_proj", SIZE, CONV)
    pair(f"{at}layer_norm", CONV)
    pair(f"{at}encoder.layer_norm", SIZE)
    found[f"{at}encoder.pos_conv.0.bias"] = (SIZE,)
    found[f"{at}encoder.pos_conv.0.weight_g"] = (1, 1, 128)
    found[f"{at}encoder.pos_conv.0.weight_v"] = (SIZE, 1, 128)
    found[f"{at}encoder.layers.0.self_attn.relative_attention_bias.weight"] = (320, HEADS)
    for layer in (f"{at}encoder.layers.{i}" for i in range(2)):
        found[f"{layer}.self_attn.grep_a"] = (1, HEADS, 1, 1)
        pair(f"{layer}.self_attn.grep_linear", 8, SIZE // HEADS)
        for part in ("k_proj", "v_proj", "q_proj", "out_proj"):
            pair(f"{layer}.self_attn.{part}", SIZE, SIZE)
        pair(f"{layer}.self_attn_layer_norm", SIZE)
        pair(f"{layer}.final_layer_norm", SIZE)
        pair(f"{layer}.fc1", FEED, SIZE)
        pair(f"{layer}.fc2", SIZE, FEED)
    unit("layer1", SIZE, CHANNELS, 5)
    for layer in ("layer2", "layer3", "layer4"):
        for part in ("Conv1dReluBn1", "Conv1dReluBn2"):
            unit(f"{layer}.{part}", CHANNELS, CHANNELS)
        for i in range(7):
            pair(f"{layer}.Res2Conv1dReluBn.convs.{i}", CHANNELS // 8, CHANNELS // 8, 3)
            norm(f"{layer}.Res2Conv1dReluBn.bns.{i}", CHANNELS // 8)
        pair(f"{layer}.SE_Connect.linear1", 128, CHANNELS)
        pair(f"{layer}.SE_Connect.linear2", CHANNELS, 128)
    pair("conv", WIDE, 3 * CHANNELS, 1)
    pair("pooling.linear1", 128, WIDE, 1)
    pair("pooling.linear2", WIDE, 128, 1)
    norm("bn", 2 * WIDE)
    pair("linear", OUT, 2 * WIDE)
    return found


def weights() -> dict[str, torch.Tensor]:
    """Random, the same each time."""
    draw, found = np.random.default_rng(0), {}
    for name, shape in sorted(shapes().items()):
        drawn = torch.from_numpy(np.asarray(0.3 * draw.standard_normal(shape, np.float32)))
        found[name] = drawn.abs() + 0.5 if name.endswith("var") else drawn
    return {n: w.long() if n.endswith("tracked") else w for n, w in found.items()}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("unispeech") / "wavlm_large_finetune.safetensors"
    of_training = {"loss_calculator.projection.weight": torch.zeros(2)}
    save_file(weights() | of_training, path)
    return path


def sound() -> np.ndarray:
    return np.random.default_rng(1).standard_normal(24_000).astype(np.float32)


def test_it_answers_as_the_original(file):
    """Of s3prl 2026.5's WavLM and the ECAPA-TDNN that UniSpeech and f5-tts 1.1.22 share."""
    with torch.inference_mode():
        found = load_encoder(file)(torch.from_numpy(sound())[None])[0]
    original = [-0.602101, 0.194382, 0.514356, 0.005395, -0.15153, -0.044281, 0.459543, 0.314638]

    assert found.tolist() == pytest.approx(original, abs=1e-5)


def test_as_a_judge_it_names_its_weights(file):
    metric = speaker_encoder(file)
    own = metric.embed(sound())
    assert own is not None and float(own @ own) == pytest.approx(1, abs=1e-5)
    assert (
        metric.model == "WavLM, ECAPA-TDNN wavlm_large_finetune.safetensors"
        and len(metric.hash) == 64
    )
    assert metric.embed(np.zeros(24_000, np.float32)) is None


@pytest.mark.parametrize("part", ["layer3.SE_Connect.linear1.bias", "odd", "linear.bias", ""])
def test_other_weights_are_refused(file, part, tmp_path):
    states = weights()
    if part in states:
        del states[part]
    else:
        states[part] = torch.zeros(2)
    if part:
        save_file(states, tmp_path / "odd.safetensors")
    with pytest.raises(
        CheckpointError, match=r"odd.safetensors holds no speaker encoder of UniSpeech"
    ):
        load_encoder(tmp_path / "odd.safetensors")
