"""PerTh's network, as resemble-perth 1.0.1 (Resemble AI, MIT) builds it: of that package only the
weights are used. Importing it takes librosa, whose numba wants to write caches, and pkg_resources,
which setuptools 81 dropped: then its class is silently None.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, softmax

N_FFT, HOP = 2048, 320
BINS = 128  # of 1025: below 2 kHz at 32 kHz
WIDTH = 256
LOUD = 0.05  # of the loudest frame: softer ones carry no mark
FLOOR, SCALE = -180.0, 195.0  # dB that are 0, and how many are 1


class Conv(nn.Module):
    """A convolution over time that keeps its length, and perhaps a leaky ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int, act: bool = True):
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, kernel, padding=(kernel - 1) // 2)
        self.act = nn.LeakyReLU() if act else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, T) to (B, outputs, T)."""
        return self.act(self.conv(x))


def _layers(outputs: int) -> nn.Sequential:
    middle = [Conv(WIDTH, WIDTH, 7) for _ in range(5)]
    return nn.Sequential(Conv(BINS, WIDTH, 1), *middle, Conv(WIDTH, outputs, 1, act=False))


def _loud(magnitude: Tensor) -> Tensor:
    """Which frames are loud enough: (B, F, T) to (B, 1, T), 0 or 1."""
    total = magnitude.sum(dim=1)
    return (total > total.max(dim=1).values[:, None] * LOUD).float()[:, None]


class Encoder(nn.Module):
    """Adds the mark to magnitudes."""

    def __init__(self):
        super().__init__()
        self.layers = _layers(BINS)

    def forward(self, magnitude: Tensor) -> Tensor:
        """(B, 1025, T) to the same."""
        marked = magnitude.clone()
        marked[:, :BINS] += self.layers(magnitude[:, :BINS]) * _loud(magnitude)
        return marked


class Decoder(nn.Module):
    """Looks for the mark in magnitudes, at three speeds."""

    def __init__(self):
        super().__init__()
        self.slow_layers, self.normal_layers, self.fast_layers = (_layers(2) for _ in range(3))

    def forward(self, magnitude: Tensor) -> Tensor:
        """(B, F, T) with F of `BINS` or more to (B,): about 1 with the mark, 0 without."""
        band, loud, found = magnitude[:, :BINS], _loud(magnitude), []
        branches = (1.25, self.slow_layers), (1.0, self.normal_layers), (0.75, self.fast_layers)
        for speed, layers in branches:
            at, mask = band, loud
            if speed != 1.0:
                size = int(band.shape[2] * speed)
                at = interpolate(band, size=size, mode="linear", align_corners=True)
                mask = interpolate(loud, size=size, mode="nearest")
            found.append((layers(at) * mask).sum(2) / mask.sum(2))  # (B, 2)
        weight, mark = torch.stack(found, dim=2).unbind(1)  # (B, 3) each
        return (mark * softmax(weight, dim=1)).sum(1)


class PerthNet(nn.Module):
    """Encoder, decoder, and the spectra that they work on."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = Encoder(), Decoder()

    def load(self, weights: dict[str, Tensor]) -> "PerthNet":
        """Take the published weights, strictly; the windows that lie beside them are Hann's."""
        self.load_state_dict({k: v for k, v in weights.items() if not k.startswith("ap.")})
        return self.eval()

    def split(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        """(samples,) at 32 kHz to magnitude in units of `SCALE` dB, and phase: (1025, T) each."""
        window = torch.hann_window(N_FFT)
        spectrum = torch.stft(audio, N_FFT, HOP, window=window, return_complex=True)
        level = 20 * torch.log10(spectrum.abs().clip(10 ** (FLOOR / 20)))
        return (level - FLOOR) / SCALE, torch.angle(spectrum)

    def join(self, magnitude: Tensor, phase: Tensor) -> Tensor:
        """The way back: (1025, T) twice to (samples,)."""
        level = 10.0 ** ((magnitude * SCALE + FLOOR) / 20).clip(max=10)
        return torch.istft(
            level * torch.exp(1j * phase), N_FFT, HOP, window=torch.hann_window(N_FFT)
        )
