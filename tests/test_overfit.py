"""The AR model learns 8 real sentences by heart: greedy decoding returns their codes exactly."""

import pytest
import torch

from sayso.model.ar import AR, ARConfig, clip_to_groups
from sayso.model.audio import read_audio
from sayso.model.bundle import BUNDLED
from sayso.model.codecs.load import load_codec
from sayso.model.engine import pad
from sayso.model.generate import generate_ar
from sayso.model.sampling import Sampling
from sayso.model.text.normalization import normalise
from sayso.model.text.tokenizers import load_tokenizer
from sayso.model.transformer import Size

MOST_STEPS = 400


@pytest.fixture(scope="module")
def sentences(kathleen):
    """Text ids and codebook 0 of 8 short Kathleen sentences."""
    codec, tokenizer = load_codec(BUNDLED / "codec"), load_tokenizer(BUNDLED / "text")
    rows = [line.split("\t") for line in (kathleen / "metadata.tsv").read_text().splitlines()[1:]]
    short = sorted(rows, key=lambda row: len(row[1]))[:8]
    ids = [torch.tensor(tokenizer.encode(normalise(text))) for _, text in short]
    audio = [
        read_audio(kathleen / "audio" / f"{name}.opus", codec.sample_rate) for name, _ in short
    ]
    codes = [codec.encode(recording)[0, 0] for recording in audio]
    return tokenizer.size, codec.codebook_size, ids, codes


@pytest.mark.slow
@pytest.mark.parametrize("G", [1, 2])
def test_greedy_decoding_returns_the_codes_of_overfitted_sentences(sentences, G):
    text_size, codebook_size, ids, rows = sentences
    text, text_lengths = pad(ids), torch.tensor([len(row) for row in ids])
    codes, lengths = pad(rows), torch.tensor([len(row) for row in rows])
    torch.manual_seed(0)
    size = Size(layers=2, heads=2, width=128, feed_forward=256, dropout=0.0)
    model = AR(ARConfig(text_size, codebook_size, G, size, max_text=128, max_frames=512))
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.95), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.05, MOST_STEPS)
    for _ in range(MOST_STEPS):
        loss = model.loss(text, text_lengths, codes, lengths).total
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if loss < 0.005:
            break
    wanted, wanted_lengths = clip_to_groups(codes, lengths, G)
    nothing = torch.zeros(len(rows), 0, dtype=torch.long)
    said = generate_ar(
        model.eval(),
        text,
        text_lengths,
        nothing,
        torch.zeros_like(lengths),
        lengths + 50,
        Sampling("greedy"),
        [torch.Generator() for _ in rows],
    )
    assert said.finished.all()
    assert said.lengths.tolist() == wanted_lengths.tolist()
    for row, length in enumerate(wanted_lengths.tolist()):
        assert torch.equal(said.codes[row, :length], wanted[row, :length])
