"""Inference: codebook 0 by the AR model, the others by the NAR model (VALL-E 2, 3.4).

Two seams for what the paper does not have: a `Steer` for the AR, a `Choose` for the NAR. Without
them this is the paper's; nothing here makes one (`model/extras/`).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .ar import AR
from .nar import NAR
from .rows import Decoder, Ended, Steer
from .sampling import Sampling
from .transformer import join, part

Choose = Callable[[Tensor, int], Tensor]
"""The NAR's codes (B, T) of logits (B, T, V) of one level."""


class Codes(NamedTuple):
    """New codes of codebook 0, without the prompt's."""

    codes: Tensor
    """(B, T) int64, zeros beyond `lengths`."""
    lengths: Tensor
    """(B,) frames."""
    finished: Tensor
    """(B,) bool: the model drew <eos> before its limit."""
    where: Tensor | None
    """(B, T) what a `Steer` kept of each frame, zeros beyond `lengths`."""


def generate_ar(
    model: AR,
    text: Tensor,
    text_lengths: Tensor,
    prompt: Tensor,
    prompt_lengths: Tensor,
    limits: Tensor,
    sampling: Sampling,
    random: Sequence[torch.Generator],
    steer: Steer | None = None,
) -> Codes:
    """Continue each prompt until <eos> or the row's limit: one batch from first to last.

    Arguments and errors as of `Decoder.join`.
    """
    decoder, rows = Decoder(model), list(range(len(text)))
    given = text, text_lengths, prompt, prompt_lengths, limits
    decoder.join(rows, *given, [sampling] * len(rows), list(random), steer)
    ended: dict[int, Ended] = {}
    while len(ended) < len(rows):
        ended |= {row.tag: row for row in decoder.step()}
    found = [ended[row] for row in rows]
    codes, where = (
        torch.nn.utils.rnn.pad_sequence([x for x in each if x is not None], batch_first=True)
        if each[0] is not None
        else None
        for each in ([row.codes for row in found], [row.where for row in found])
    )
    assert codes is not None
    lengths, finished = (
        torch.tensor(each, device=codes.device)
        for each in ([len(row.codes) for row in found], [row.finished for row in found])
    )
    return Codes(codes, lengths, finished, where)


def cut(codes: Tensor, start: Tensor, frames: Tensor) -> Tensor:
    """`frames` (B,) codes of each row (B, T) from `start` (B,), zeros behind: (B, T')."""
    longest = int(frames.max())
    kept = part(F.pad(codes, (0, longest))[..., None], start, longest)[..., 0]
    return kept.masked_fill(torch.arange(longest, device=codes.device) >= frames[:, None], 0)


@torch.inference_mode()
def generate_nar(
    model: NAR,
    text: Tensor,
    text_lengths: Tensor,
    prompt: Tensor,
    prompt_lengths: Tensor,
    codes: Tensor,
    lengths: Tensor,
    extra: Tensor | None = None,
    choose: Choose | None = None,
) -> Tensor:
    """Fill codebooks 1..K-1, one pass each, with the likeliest codes.

    Args:
        text: (B, S) int64, right-padded beyond `text_lengths` (B,).
        prompt: (B, K, T) int64, right-padded beyond `prompt_lengths` (B,).
        codes: (B, T') int64 of codebook 0, right-padded beyond `lengths` (B,).
        extra: (B, longest prompt and codes, D), added to the frames; none is in VALL-E 2.
        choose: Picks other codes than the likeliest; none does in VALL-E 2.

    Returns:
        (B, K, T') int64, zeros beyond `lengths`.

    Raises:
        ValueError: The model has another K, or its positions do not hold text, prompt and codes.
    """
    K, total = prompt.shape[1], prompt_lengths + lengths
    others = codes.new_zeros(len(codes), K - 1, codes.shape[1])
    target = torch.cat([codes[:, None], others], 1)
    full = join(prompt.transpose(1, 2), prompt_lengths, target.transpose(1, 2)).transpose(1, 2)
    full = full[..., : int(total.max())].contiguous()  # (B, K, longest)
    is_target = torch.arange(full.shape[2], device=full.device) >= prompt_lengths[:, None]
    # What the passes share is summed once; each adds one codebook, in the order of the sum.
    read = model.read_text(text, text_lengths)
    frames = model.read_frames(full, prompt_lengths, 1)
    for level in range(1, K):
        heard = frames if extra is None else frames + extra
        logits = model.say(read, text_lengths, heard, total, prompt_lengths, codes.shape[1], level)
        best = logits.argmax(-1) if choose is None else choose(logits, level)  # (B, T')
        best = join(full[:, level, :, None], prompt_lengths, best[..., None])[..., 0]
        full[:, level] = torch.where(is_target, best[:, : full.shape[2]], full[:, level])
        frames = frames + model.embedded(full[:, level], level) * is_target[..., None]
    said = [cut(full[:, level], prompt_lengths, lengths) for level in range(K)]
    return F.pad(torch.stack(said, 1), (0, codes.shape[1] - said[0].shape[1]))
