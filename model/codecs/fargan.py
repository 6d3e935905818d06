"""FARGAN: speech at 16 kHz from 20 features per 10 ms, by a small autoregressive network.

Valin et al., "Very Low Complexity Speech Synthesis Using Framewise Autoregressive GAN (FARGAN)
with Pitch Prediction" (arXiv:2405.21069); weights and details as in opus 1.6.1 (dnn/fargan.c).
Three GRUs make 2.5 ms at a time, of the features and of what was said one pitch period before.
Letters: B batch, T frames of 10 ms, S subframes of 2.5 ms.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import InputError
from .fargan_weights import bias, gru_rows, load_arrays, matrix

SAMPLE_RATE = 16000  # Hz
HOP = 160  # samples per frame
CEPSTRA, FEATURES = 18, 20
"""The columns: 18 cepstra, pitch (`pitch_period`), pitch correlation."""
SHORTEST, LONGEST = 32, 256  # pitch periods in samples
DEEMPHASIS = 0.85
SUBFRAME, SUBFRAMES = 40, 4  # samples; in a frame
LATENT = 80  # numbers that a subframe is conditioned on
MARGIN = 2  # samples around a predicted subframe, which only the first layer sees
HEARD = 2 * SUBFRAME + 2 * MARGIN  # samples of the past that a subframe is made of
TAPS = 160  # of the deemphasis: .85 ** 160 is 5e-12
SIZES = {  # outputs of each layer, by upstream's names
    "cond_net_fdense1": 64,
    "cond_net_fconv1": 128,
    "cond_net_fdense2": SUBFRAMES * LATENT,
    "sig_net_cond_gain_dense": 1,
    "sig_net_fwc0_conv": 192,
    "sig_net_fwc0_glu_gate": 192,
    "sig_net_gain_dense_out": 4,
    "sig_net_skip_dense": 128,
    "sig_net_skip_glu_gate": 128,
    "sig_net_sig_dense_out": SUBFRAME,
}
GRUS = (160, 128, 128)


def pitch_period(pitch: Tensor) -> Tensor:
    """The pitch feature, 1.5 at 500 Hz and 1 less an octave down -> samples, int64, 32 to 256."""
    period = torch.floor(0.5 + LONGEST / 2 ** (pitch.double() + 1.5))
    return period.clamp(SHORTEST, LONGEST).long()


class FarganVocoder(nn.Module):
    """Features (B, T, 20) -> audio (B, T * 160) float32 within [-1, 1], at 16 kHz.

    Frame t is centred on sample 160 t. The weights come with the package and are no part of a
    state dict; upstream's 8-bit products are computed here in float32.
    """

    cond_net_fdense1: Tensor
    cond_net_fconv1: Tensor
    cond_net_fdense2: Tensor
    sig_net_cond_gain_dense: Tensor
    sig_net_fwc0_conv: Tensor
    sig_net_fwc0_glu_gate: Tensor
    sig_net_gain_dense_out: Tensor
    sig_net_skip_dense: Tensor
    sig_net_skip_glu_gate: Tensor
    sig_net_sig_dense_out: Tensor
    embedding: Tensor
    gain_bias: Tensor
    gate_bias: Tensor
    ringing: Tensor

    def __init__(self):
        super().__init__()
        arrays = load_arrays()
        kept = {name: matrix(arrays, f"fargan.{name}", size) for name, size in SIZES.items()}
        for number, size in enumerate(GRUS, 1):
            name = f"sig_net_gru{number}"
            for side in ("input", "recurrent"):
                kept[f"{name}_{side}"] = gru_rows(matrix(arrays, f"fargan.{name}_{side}", 3 * size))
            kept[f"{name}_glu_gate"] = matrix(arrays, f"fargan.{name}_glu_gate", size)
        kept["embedding"] = matrix(arrays, "fargan.cond_net_pembed", 12).t().contiguous()
        kept["gain_bias"] = bias(arrays, "fargan.sig_net_cond_gain_dense", 1)
        kept["gate_bias"] = bias(arrays, "fargan.sig_net_gain_dense_out", 4)
        kept["ringing"] = DEEMPHASIS ** torch.arange(TAPS - 1.0, -1.0, -1.0)[None, None]
        for name, tensor in kept.items():
            self.register_buffer(name, tensor, persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """Raises InputError unless features are (B, T, 20) and finite."""
        if features.ndim != 3 or 0 in features.shape or features.shape[2] != FEATURES:
            raise InputError(f"features of shape {tuple(features.shape)}: FARGAN takes (B, T, 20)")
        if not torch.isfinite(features).all():
            raise InputError("features have NaN or infinite numbers: measure them again")
        with torch.inference_mode():
            flat = self._generate(features.float(), None)
            audio = F.conv1d(F.pad(flat[:, None], (TAPS - 1, 0)), self.ringing)[:, 0]
            start = HOP // 2  # the network speaks half a frame late
            audio = audio[:, start : start + HOP * features.shape[1]].clamp(-1, 1)
        return audio.clone()  # no inference tensor, which autograd would refuse

    def predict(self, features: Tensor, audio: Tensor) -> Tensor:
        """What it would say next if it had said `audio` (B, T * 160) so far, before deemphasis.

        Features (B, T, 20) -> (B, T * 160): each 40 samples follow from the given ones before.
        """
        flat = audio - DEEMPHASIS * F.pad(audio, (1, -1))
        with torch.inference_mode():
            said = self._generate(features.float(), flat)
            return said[:, HOP // 2 : HOP // 2 + flat.shape[1]]

    def _condition(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, T, 20) -> latents (B, 4 T, 80) and pitch periods (B, T)."""
        period = pitch_period(features[..., CEPSTRA])
        row = (period - SHORTEST).clamp_max(len(self.embedding) - 1)
        hidden = torch.cat([features, self.embedding[row]], 2)
        hidden = F.linear(hidden, self.cond_net_fdense1).tanh()
        hidden = torch.cat([hidden[:, :1], hidden[:, :1], hidden], 1)
        hidden = torch.cat([hidden[:, :-2], hidden[:, 1:-1], hidden[:, 2:]], 2)  # (B, T, 192)
        hidden = F.linear(hidden, self.cond_net_fconv1).tanh()
        latents = F.linear(hidden, self.cond_net_fdense2).tanh()
        return latents.view(len(latents), -1, LATENT), period

    def _generate(self, features: Tensor, heard: Tensor | None) -> Tensor:
        """Features (B, T, 20) -> speech before deemphasis, (B, T * 160 + 320), half a frame late.

        Like upstream's program it runs the first frame once into silence and the last two times
        more. With `heard` (B, T * 160) that, not its own output, is what it goes on from.
        """
        first, last = features[:, :1], features[:, -1:]
        latents, period = self._condition(torch.cat([first, features[:, 1:], last, last], 1))
        B, S = latents.shape[:2]
        period = torch.cat([period[:, :1], period[:, :-1]], 1)  # the pitch is a frame late, too
        gain = (F.linear(latents, self.sig_net_cond_gain_dense) + self.gain_bias).exp()
        gains = gain.transpose(0, 1).contiguous()  # (S, B, 1)
        inverse = 1 / (1e-5 + gains)
        places = heard_at(period.repeat_interleave(SUBFRAMES, 1))  # (S, B, 84)
        # Of the first layer, a convolution over two subframes, all but the speech is known already.
        kernel = self.sig_net_fwc0_conv.unflatten(1, (2, LATENT + HEARD))
        before = F.pad(latents, (0, 0, 1, -1))
        known = F.linear(before, kernel[:, 0, :LATENT]) + F.linear(latents, kernel[:, 1, :LATENT])
        known = known.transpose(0, 1).contiguous()  # (S, B, 192)
        kernel = kernel[:, :, LATENT:].flatten(1)  # (192, 168)

        said = features.new_zeros(B, LONGEST + S * SUBFRAME)
        if heard is not None:
            begin = LONGEST + HOP + HOP // 2
            said[:, begin : begin + heard.shape[1]] = heard
        own = features.new_zeros(B, S, SUBFRAME)
        old = features.new_zeros(B, HEARD)
        states = [features.new_zeros(B, size) for size in GRUS]
        for s in range(S):
            now = (said.gather(1, places[s]) * inverse[s]).clamp_(-1, 1)
            mixed = known[s] + F.linear(torch.cat([old, now], 1), kernel)
            own[:, s] = self._speak(mixed.tanh_(), now, states) * gains[s]
            if heard is None and s >= SUBFRAMES:
                said[:, LONGEST + SUBFRAME * s : LONGEST + SUBFRAME * (s + 1)] = own[:, s]
            old = now
        return own[:, SUBFRAMES:].flatten(1)

    def _speak(self, mixed: Tensor, now: Tensor, states: list[Tensor]) -> Tensor:
        """First layer (B, 192) and past (B, 84) -> the next samples (B, 40) in [-1, 1].

        Changes the list of the GRUs' states.
        """
        mixed = gated(mixed, self.sig_net_fwc0_glu_gate)
        gates = torch.addmm(self.gate_bias, mixed, self.sig_net_gain_dense_out.t()).sigmoid_()
        repeated = now[:, None, MARGIN : MARGIN + SUBFRAME] * gates[:, :, None]  # (B, 4, 40)
        last = now[:, -SUBFRAME:]
        row, rows = mixed, []
        for number, state in enumerate(states):
            name = f"sig_net_gru{number + 1}"
            row = torch.cat([row, repeated[:, number], last], 1)
            into, back = getattr(self, f"{name}_input"), getattr(self, f"{name}_recurrent")
            states[number] = torch.gru_cell(row, state, into, back)
            row = gated(states[number], getattr(self, f"{name}_glu_gate"))
            rows.append(row)
        row = F.linear(torch.cat([*rows, mixed, repeated[:, 3], last], 1), self.sig_net_skip_dense)
        row = gated(row.tanh_(), self.sig_net_skip_glu_gate)
        return F.linear(row, self.sig_net_sig_dense_out).tanh_()


def gated(row: Tensor, weights: Tensor) -> Tensor:
    """A gated linear unit: (B, N) times what the weights (N, N) make of it, between 0 and 1."""
    return row * F.linear(row, weights).sigmoid_()


def heard_at(period: Tensor) -> Tensor:
    """Where in all that was said, behind 256 zeros, each subframe looks: (B, S) -> (S, B, 84).

    First one pitch period back, over and over where that is shorter than a subframe, with a margin
    of 2; then the subframe before.
    """
    ahead = torch.arange(-MARGIN, SUBFRAME + MARGIN, device=period.device)
    period = period.t()[..., None]  # (S, B, 1)
    back = torch.where(ahead < 0, ahead, ahead % period) - period
    back = back.clamp_min(-LONGEST)  # no further than upstream's buffer
    last = torch.arange(-SUBFRAME, 0, device=period.device).expand(*period.shape[:2], -1)
    start = LONGEST + SUBFRAME * torch.arange(len(period), device=period.device)
    return torch.cat([back, last], 2) + start[:, None, None]
