"""What FARGAN speaks from: 18 Bark-band cepstra, pitch and pitch correlation per 10 ms.

As opus 1.6.1 measures them (dnn/lpcnet_enc.c, dnn/freq.c, dnn/pitchdnn.c). The pitch network is
Subramani et al., "Noise-Robust DSP-Assisted Neural Pitch Estimation with Very Low Complexity"
(arXiv:2309.14507). All levels are those of 16-bit samples. Letters: B batch, T frames of 10 ms.
"""

import math

import numpy as np
import torch
from scipy.signal import lfilter
from torch import Tensor, nn
from torch.nn import functional as F

from .base import check_audio
from .fargan import CEPSTRA, DEEMPHASIS, HOP, LONGEST, SHORTEST, TAPS, pitch_period
from .fargan_weights import bias, gru_rows, load_arrays, matrix

WINDOW = 2 * HOP
PEAKS = (0, 4, 8, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 136, 160)
"""Of the triangular bands, in bins of 50 Hz."""
ORDER = 16  # of the linear prediction
LAGS = LONGEST - SHORTEST  # that are correlated: 256 down to 33 samples
BINS = 30  # whose phase the pitch network sees, up to 1.5 kHz
PITCHES, PER_OCTAVE = 180, 60
LOWPASS = (1.0, -0.84946, 1.0), (1.0, -1.5422, 0.70781)  # elliptic, 1.2 kHz
SIZES = {  # outputs of the pitch network's layers, by upstream's names
    "dense_if_upsampler_1": 64,
    "dense_if_upsampler_2": 64,
    "dense_downsampler": 64,
    "dense_final_upsampler": 192,
}


class FarganFeatures(nn.Module):
    """Audio (B, samples) in [-1, 1] at 16 kHz -> features (B, ceil(samples / 160), 20) float32.

    Frame t is centred on sample 160 t and ends 10 ms later. The weights come with the package and
    are no part of a state dict.
    """

    window: Tensor
    bands: Tensor
    cosines: Tensor
    ringing: Tensor

    def __init__(self):
        super().__init__()
        arrays, kept = load_arrays(), {}
        for name, size in SIZES.items():
            kept[f"{name}_weight"] = matrix(arrays, f"pitchdnn.{name}", size)
            kept[f"{name}_bias"] = bias(arrays, f"pitchdnn.{name}", size)
        for name, shape in (("conv2d_1", (4, 1, 3, 3)), ("conv2d_2", (1, 4, 3, 3))):
            kept[f"{name}_weight"] = arrays[f"pitchdnn.{name}_weight_float"].view(shape)
            kept[f"{name}_bias"] = arrays[f"pitchdnn.{name}_bias"]
        for side in ("input", "recurrent"):
            name = f"gru_1_{side}"
            kept[f"{name}_weight"] = gru_rows(matrix(arrays, f"pitchdnn.{name}", 192))
            kept[f"{name}_bias"] = gru_rows(bias(arrays, f"pitchdnn.{name}", 192))
        phase = (np.arange(WINDOW) + 0.5) * math.pi / WINDOW
        ringing = np.asarray(lfilter(*LOWPASS, np.eye(1, TAPS)[0]))  # below 1e-11 at its end
        for name, values in (
            ("window", np.sin(math.pi / 2 * np.sin(phase) ** 2)),
            ("bands", band_shapes()),
            ("cosines", cosines()),
            ("ringing", ringing[None, None, ::-1].copy()),
        ):
            kept[name] = torch.from_numpy(values).float()
        for name, tensor in kept.items():
            self.register_buffer(name, tensor, persistent=False)

    def forward(self, audio: Tensor) -> Tensor:
        """Raises InputError unless audio is (B, samples), floating point, finite and not empty."""
        check_audio(audio)
        with torch.inference_mode():
            samples = F.pad(audio.float(), (0, -audio.shape[1] % HOP)) * 32768
            flat = samples - DEEMPHASIS * F.pad(samples, (1, -1))
            frames = F.pad(flat, (HOP, 0)).unfold(1, WINDOW, HOP)  # (B, T, 320)
            spectrum = torch.fft.rfft(frames * self.window)[..., :HOP] / WINDOW
            power = spectrum.real**2 + spectrum.imag**2
            cepstra = self.cepstra(power)
            residual = whiten(flat, self.prediction(cepstra))
            pitch = self.pitch(spectrum, power, residual)
            low = F.conv1d(F.pad(residual[:, None], (TAPS - 1, 0)), self.ringing)[:, 0]
            cepstra[..., 0] -= 4
            columns = torch.stack([pitch, correlation(low, pitch_period(pitch))], 2)
            features = torch.cat([cepstra, columns], 2)
        return features.clone()  # no inference tensor, which autograd would refuse

    def cepstra(self, power: Tensor) -> Tensor:
        """Power (B, T, 160 bins) -> cepstra (B, T, 18) of its bands, in decades."""
        energy = power @ self.bands
        energy[..., [0, -1]] *= 2  # half a triangle each
        most = follow = energy.new_full(energy.shape[:2], -2.0)
        rows = []  # no band lies far below those before it
        for row in (0.01 + energy).log10().unbind(2):
            row = torch.maximum(row, torch.maximum(follow - 2.5, most - 8))
            most, follow = torch.maximum(most, row), torch.maximum(follow - 2.5, row)
            rows.append(row)
        return torch.stack(rows, 2) @ self.cosines

    def prediction(self, cepstra: Tensor) -> Tensor:
        """Cepstra (B, T, 18) -> whitening filters (B, T, 17) of the smooth spectrum they mean."""
        width = self.bands.sum(0)
        width[[0, -1]] *= 2
        heights = 10 ** (cepstra @ self.cosines.t()) * 4 / width
        spectrum = F.pad(heights @ self.bands.t(), (0, 1)).double()
        auto = torch.fft.irfft(spectrum)[..., : ORDER + 1] * WINDOW
        lags = torch.arange(ORDER + 1, device=auto.device)
        auto = auto * (1 - 6e-5 * lags**2)
        auto[..., 0] += auto[..., 0] * 1e-4 + 320 / 12 / 38  # a floor of noise
        return levinson(auto).float()

    def pitch(self, spectrum: Tensor, power: Tensor, residual: Tensor) -> Tensor:
        """The pitch network: spectrum and power (B, T, 160), residual (B, T * 160) -> (B, T)."""
        level = ((10 * (1e-15 + power[..., :BINS]).log10() - 6) / 64).clamp(-1, 1)
        some = spectrum[..., :BINS]
        turn = some * torch.cat([torch.zeros_like(some[:, :1]), some[:, :-1]], 1).conj()
        turn = turn / (1e-15 + turn.real**2 + turn.imag**2).sqrt()
        bins = torch.stack([turn.real, turn.imag, level], 3)[:, :, 1:].flatten(2)
        bins = torch.cat([level[..., :1], bins], 2)  # (B, T, 88)
        bins = self._dense(self._dense(bins, "dense_if_upsampler_1").tanh(), "dense_if_upsampler_2")
        lags = correlogram(residual)[:, None]  # (B, 1, T, 224)
        for name in ("conv2d_1", "conv2d_2"):
            weight, shift = getattr(self, f"{name}_weight"), getattr(self, f"{name}_bias")
            lags = F.conv2d(F.pad(lags, (1, 1, 2, 0)), weight, shift).tanh()
        hidden = torch.cat([lags[:, 0], bins.tanh()], 2)
        hidden = self._dense(hidden, "dense_downsampler").tanh()
        names = ("gru_1_input_weight", "gru_1_recurrent_weight", "gru_1_input_bias")
        weights = [getattr(self, name) for name in (*names, "gru_1_recurrent_bias")]
        state = hidden.new_zeros(1, len(hidden), weights[1].shape[1])
        hidden, _ = torch.gru(hidden, state, weights, True, 1, 0.0, False, False, True)
        scores = self._dense(hidden, "dense_final_upsampler")[..., :PITCHES]
        # The weighted mean of the five around the best, which is the lowest if none is over -1.
        places = torch.arange(PITCHES, device=scores.device)
        best = torch.where(scores.amax(2) > -1, scores.argmax(2), 0)[..., None]
        share = scores.masked_fill((places - best).abs() > 2, -torch.inf).softmax(2)
        return share @ places.float() / PER_OCTAVE - 1.5

    def _dense(self, row: Tensor, name: str) -> Tensor:
        return F.linear(row, getattr(self, f"{name}_weight"), getattr(self, f"{name}_bias"))


def band_shapes() -> np.ndarray:
    """The triangular bands over the power spectrum, (160 bins, 18); the last bin is in none."""
    return np.stack([np.interp(np.arange(HOP), PEAKS, one) for one in np.eye(CEPSTRA)], 1)


def cosines() -> np.ndarray:
    """The orthonormal cosine transform from bands to cepstra, (18, 18)."""
    places = np.arange(CEPSTRA)
    waves = np.cos(math.pi / CEPSTRA * (places[:, None] + 0.5) * places)
    return waves * np.where(places == 0, math.sqrt(1 / CEPSTRA), math.sqrt(2 / CEPSTRA))


def levinson(auto: Tensor) -> Tensor:
    """Autocorrelations (..., N + 1) -> whitening filters 1, a_1 ... a_N (..., N + 1).

    Levinson-Durbin; like upstream's it stops where 30 dB are predicted.
    """
    taps = torch.zeros_like(auto)
    taps[..., 0] = 1
    error = auto[..., 0]
    for i in range(1, auto.shape[-1]):
        going = error >= 0.001 * auto[..., 0]
        reflected = -(taps[..., :i] * auto[..., 1 : i + 1].flip(-1)).sum(-1) / error
        reflected = torch.where(going, reflected, 0)
        taps[..., 1 : i + 1] += reflected[..., None] * taps[..., :i].flip(-1)
        error = error * (1 - reflected**2)
    return taps


def whiten(flat: Tensor, filters: Tensor) -> Tensor:
    """Speech (B, T * 160) through filters (B, T, 17), 5 ms late: where a frame's window is full."""
    late = F.pad(flat, (HOP // 2 + ORDER, -HOP // 2))
    pieces = late.unfold(1, HOP + ORDER, HOP).unfold(2, ORDER + 1, 1)  # (B, T, 160, 17)
    return (pieces @ filters.flip(2)[..., None]).flatten(1)


def correlogram(residual: Tensor) -> Tensor:
    """Residual (B, T * 160) -> how like each frame is to what it was 256 to 33 samples before.

    (B, T, 224) in [-1, 1], of the residual with its upper half lowered a little.
    """
    residual = residual + 0.7 * F.pad(residual, (1, -1))
    frames = F.pad(residual, (LONGEST, 0)).unfold(1, LONGEST + HOP, HOP)  # (B, T, 416)
    now, past = frames[..., LONGEST:], frames.unfold(2, HOP, 1)[:, :, :LAGS]
    like = (past @ now[..., None])[..., 0]
    sums = F.pad(frames.double() ** 2, (1, 0)).cumsum(2)
    energy = (sums[..., HOP:] - sums[..., :-HOP]).float()  # (B, T, 257)
    return 2 * like / (1 + energy[..., -1:] + energy[..., :LAGS])


def correlation(low: Tensor, period: Tensor) -> Tensor:
    """Lowpassed residual (B, T * 160) and periods (B, T) -> the pitch correlation (B, T)."""
    padded = F.pad(low, (LONGEST, 0))
    places = torch.arange(LONGEST, padded.shape[1], device=low.device)
    past = padded.gather(1, places - period.repeat_interleave(HOP, 1)).unflatten(1, (-1, HOP))
    now = low.unflatten(1, (-1, HOP))
    like = (now * past).sum(2) / (1 + (now**2).sum(2) * (past**2).sum(2)).sqrt()
    return F.softplus(5 * like) / math.log(1 + math.exp(5)) - 0.5
