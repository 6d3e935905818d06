"""The paper's SIM: UniSpeech's speaker encoder, all layers of WavLM-large into an ECAPA-TDNN.

arXiv:2110.13900 (WavLM) and 2005.07143 (ECAPA-TDNN); the weights are "model" of UniSpeech's
`wavlm_large_finetune.pth`, as safetensors. WavLM is transformers', and so are its names for them.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, normalize

from sayso.model.checkpoint import read_tensors
from sayso.model.errors import CheckpointError, InputError

NAMES = (  # of UniSpeech's file, and here; tried in this order, each once
    (r"^feature_extract\.model\.", "wavlm."),
    (r"^wavlm\.mask_emb$", "wavlm.masked_spec_embed"),
    (r"^wavlm\.layer_norm\.", "wavlm.feature_projection.layer_norm."),
    (r"^wavlm\.post_extract_proj\.", "wavlm.feature_projection.projection."),
    (r"(\.conv_layers\.\d+)\.0\.", r"\1.conv."),
    (r"(\.conv_layers\.\d+)\.2\.1\.", r"\1.layer_norm."),
    (r"\.pos_conv\.0\.weight_g$", ".pos_conv_embed.conv.parametrizations.weight.original0"),
    (r"\.pos_conv\.0\.weight_v$", ".pos_conv_embed.conv.parametrizations.weight.original1"),
    (r"\.pos_conv\.0\.", ".pos_conv_embed.conv."),
    (r"\.self_attn_layer_norm\.", ".layer_norm."),
    (r"\.self_attn\.grep_linear\.", ".attention.gru_rel_pos_linear."),
    (r"\.self_attn\.grep_a$", ".attention.gru_rel_pos_const"),
    (r"\.self_attn\.relative_attention_bias\.", ".attention.rel_attn_embed."),
    (r"\.self_attn\.", ".attention."),
    (r"\.fc1\.", ".feed_forward.intermediate_dense."),
    (r"\.fc2\.", ".feed_forward.output_dense."),
    (r"\.Conv1dReluBn1\.", ".enter."),
    (r"\.Res2Conv1dReluBn\.", "."),
    (r"\.Conv1dReluBn2\.", ".leave."),
    (r"\.SE_Connect\.", "."),
    (r"^pooling\.", ""),
    (r"^linear\.", "last."),
)
UNUSED = ("loss_calculator.", "wavlm.final_proj.", "wavlm.label_embs_concat")  # of training alone


class Unit(nn.Module):
    """A convolution, ReLU, and normalisation, on (B, C, T)."""

    def __init__(self, before: int, after: int, width: int = 1):
        super().__init__()
        self.conv = nn.Conv1d(before, after, width, padding=width // 2)
        self.bn = nn.BatchNorm1d(after)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x).relu())


class Block(nn.Module):
    """An SE-Res2Block: parts of the channels one after the other, each told the one before."""

    def __init__(self, channels: int, dilation: int, parts: int, narrow: int):
        super().__init__()
        size = channels // parts
        self.enter, self.leave = Unit(channels, channels), Unit(channels, channels)
        each = [nn.Conv1d(size, size, 3, 1, dilation, dilation) for _ in range(parts - 1)]
        self.convs = nn.ModuleList(each)
        self.bns = nn.ModuleList(nn.BatchNorm1d(size) for _ in range(parts - 1))
        self.linear1, self.linear2 = nn.Linear(channels, narrow), nn.Linear(narrow, channels)

    def forward(self, x: Tensor) -> Tensor:
        *parts, last = self.enter(x).chunk(len(self.convs) + 1, 1)
        done = [torch.zeros_like(last)]
        for conv, bn, part in zip(self.convs, self.bns, parts, strict=True):
            done.append(bn(conv(part + done[-1]).relu()))
        out = self.leave(torch.cat([*done[1:], last], 1))
        gate = self.linear2(self.linear1(out.mean(2)).relu()).sigmoid()
        return x + out * gate[..., None]


class Encoder(nn.Module):
    """Of the sizes that its weights have."""

    def __init__(self, states: Mapping[str, Tensor]):
        from transformers import WavLMConfig, WavLMModel

        super().__init__()
        at = "wavlm.encoder.layers.0."
        convs = [w for n, w in states.items() if re.search(r"conv_layers\.\d+\.conv\.weight", n)]
        position = states["wavlm.encoder.pos_conv_embed.conv.parametrizations.weight.original1"]
        layers, size = len(states["feature_weight"]) - 1, position.shape[0]
        config = WavLMConfig(
            hidden_size=size,
            num_hidden_layers=layers,
            num_attention_heads=states[f"{at}attention.gru_rel_pos_const"].shape[1],
            intermediate_size=len(states[f"{at}feed_forward.intermediate_dense.weight"]),
            conv_dim=[len(weight) for weight in convs],
            conv_kernel=[weight.shape[2] for weight in convs],
            num_conv_pos_embeddings=position.shape[2],
            num_conv_pos_embedding_groups=size // position.shape[1],
            num_buckets=len(states[f"{at}attention.rel_attn_embed.weight"]),
            feat_extract_norm="layer",
            do_stable_layer_norm=True,
            layerdrop=0.0,
        )
        channels, _, width = states["layer1.conv.weight"].shape
        parts, narrow = (
            channels // len(states["layer2.bns.0.weight"]),
            len(states["layer2.linear1.bias"]),
        )
        wide, middle = len(states["conv.weight"]), len(states["linear1.weight"])
        self.wavlm: Any = WavLMModel(config)
        self.feature_weight = nn.Parameter(torch.zeros(layers + 1))
        self.layer1 = Unit(size, channels, width)
        self.layer2, self.layer3, self.layer4 = (
            Block(channels, dilation, parts, narrow) for dilation in (2, 3, 4)
        )
        self.conv = nn.Conv1d(3 * channels, wide, 1)
        self.linear1, self.linear2 = nn.Conv1d(wide, middle, 1), nn.Conv1d(middle, wide, 1)
        self.bn, self.last = nn.BatchNorm1d(2 * wide), nn.Linear(2 * wide, len(states["last.bias"]))

    def forward(self, audio: Tensor) -> Tensor:
        """Unit vectors (B, D) of (B, samples) at 16 kHz, each of a length."""
        told = self.wavlm(layer_norm(audio, audio.shape[1:]), output_hidden_states=True)
        # What the last layer gives counts normalised, which transformers' list may not have.
        heard = torch.stack([*told.hidden_states[:-1], told.last_hidden_state])
        mixed = torch.einsum("l,lbtd->bdt", self.feature_weight.softmax(0), heard)
        first = self.layer1(nn.functional.instance_norm(mixed))
        second = self.layer2(first)
        third = self.layer3(second)
        x = self.conv(torch.cat([second, third, self.layer4(third)], 1)).relu()
        weight = self.linear2(self.linear1(x).tanh()).softmax(2)
        mean = (weight * x).sum(2)
        spread = ((weight * x**2).sum(2) - mean**2).clamp(min=1e-9).sqrt()
        return normalize(self.last(self.bn(torch.cat([mean, spread], 1))), dim=1)


def load_encoder(path: Path) -> Encoder:
    """UniSpeech's encoder out of its weights as safetensors.

    Raises:
        InputError: transformers is missing.
        CheckpointError: The file holds none.
    """
    try:
        states = {renamed(name): weight for name, weight in read_tensors(path).items()}
        states = {n: w for n, w in states.items() if not n.startswith(UNUSED)}
        encoder = Encoder(states)
        encoder.load_state_dict(states)
    except ImportError:
        raise InputError("transformers is missing: pip install 'sayso[bench]'.") from None
    except Exception as error:  # of the file, or a name or a shape that is not there
        raise CheckpointError(f"{path} holds no speaker encoder of UniSpeech ({error})") from error
    return encoder.eval()


def renamed(name: str) -> str:
    """What a weight of UniSpeech's file is called here."""
    for pattern, ours in NAMES:
        name = re.sub(pattern, ours, name)
    return name
