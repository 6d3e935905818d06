"""What an EnCodec is trained by: mel distances, residual quantizers, balanced gradients.

Equations are of High Fidelity Neural Audio Compression (arXiv:2210.13438).
"""

from typing import cast

import torch
from encodec.quantization.core_vq import VectorQuantization
from torch import Tensor, nn
from torchaudio.transforms import MelSpectrogram

from sayso.model.codecs.encodec import EncodecCodec


class Balancer:
    """Losses of any size share the gradient at the decoder's output by their weights (Eq. 6)."""

    def __init__(self, weights: dict[str, float], decay: float = 0.999):
        self.weights, self.decay = weights, decay
        self.norms: dict[str, Tensor] = {}
        """Running mean of each loss's gradient norm, without correction for its start."""
        self.steps = 0

    def gradient(self, losses: dict[str, Tensor], output: Tensor) -> Tensor:
        """The balanced gradient at `output` (B, 1, samples) of the given losses."""
        self.steps += 1
        correction = 1 - self.decay**self.steps
        total = sum(self.weights[name] for name in losses)
        balanced = torch.zeros_like(output)
        for name, loss in losses.items():
            (gradient,) = torch.autograd.grad(loss, output, retain_graph=True)
            norm = gradient.norm(dim=tuple(range(1, gradient.ndim))).mean()
            before = self.norms.get(name, torch.zeros_like(norm))
            self.norms[name] = self.decay * before + (1 - self.decay) * norm
            mean = self.norms[name] / correction
            balanced += self.weights[name] / total * gradient / (mean + 1e-12)
        return balanced


class MelDistance(nn.Module):
    """L1 and L2 distances of mel spectrograms, windows of 2^5 to 2^11 samples (Eq. 2)."""

    def __init__(self, sample_rate: int):
        super().__init__()
        self.scales = nn.ModuleList(
            MelSpectrogram(
                sample_rate, 2**i, hop_length=2**i // 4, n_mels=min(64, 2**i // 8), normalized=True
            )
            for i in range(5, 12)
        )

    def forward(self, audio: Tensor, made: Tensor) -> Tensor:
        total = torch.zeros((), device=audio.device)
        for scale in self.scales:
            a, b = scale(audio), scale(made)
            total = total + (a - b).abs().mean() + (a - b).square().mean()
        return total / len(self.scales)


def quantize(codec: EncodecCodec, embedding: Tensor, books: int) -> tuple[Tensor, Tensor]:
    """The first `books` quantizers on (B, D, T): what they make of it, and the commitment loss.

    Each residual is cut from the gradient, as `encodec`'s own loop does not
    (facebookresearch/encodec, issue 25).
    """
    residual, total, losses = embedding, torch.zeros_like(embedding), []
    for layer in list(codec.quantizer.vq.layers)[:books]:
        quantized, _, loss = cast(VectorQuantization, layer)(residual)
        residual = residual - quantized.detach()
        total = total + quantized
        losses.append(loss.mean())
    return total, torch.stack(losses).mean()
