"""AR and NAR: shapes, causality, padding, paper details, save and load."""

import inspect
import json
import re
from pathlib import Path

import pytest
import torch

from sayso.model.ar import AR, ARConfig, clip_to_groups
from sayso.model.checkpoint import load_module, save_module
from sayso.model.errors import CheckpointError
from sayso.model.nar import NAR, NARConfig
from sayso.model.transformer import Size, join, part

SIZE = Size(layers=2, heads=2, width=16, feed_forward=32, dropout=0.0)
GROUPS = [1, 2, 4, 8]


def make_ar(G: int = 1, size: Size = SIZE) -> AR:
    torch.manual_seed(0)
    model = AR(ARConfig(text_size=20, codebook_size=30, group_size=G, size=size, max_frames=128))
    for parameter in model.parameters():  # large weights: a small leak must show
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def make_nar(size: Size = SIZE) -> NAR:
    torch.manual_seed(0)
    model = NAR(NARConfig(text_size=20, codebook_size=30, codebooks=4, size=size, max_frames=128))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def batch(K: int | None = None):
    """Three utterances of unequal lengths, right-padded."""
    g = torch.Generator().manual_seed(1)
    text = torch.randint(0, 20, (3, 7), generator=g)
    shape = (3, 24) if K is None else (3, K, 24)
    codes = torch.randint(0, 30, shape, generator=g)
    return text, torch.tensor([7, 3, 5]), codes, torch.tensor([24, 8, 16])


@pytest.mark.parametrize("G", GROUPS)
def test_ar_shapes(G):
    model = make_ar(G)
    assert model(*batch()).shape == (3, 24 // G + 1, G, 31)
    loss = model.loss(*batch())
    assert loss.count == (24 + 8 + 16) + 3 * G  # every code and one whole group of <eos> each
    torch.testing.assert_close(loss.total * loss.count, loss.summed)


@pytest.mark.parametrize("G", GROUPS)
def test_ar_is_causal_over_groups(G):
    """Group n's prediction hangs on every group before n, and on nothing from n on."""
    model, (text, text_lengths, codes, lengths) = make_ar(G), batch()
    n = 8 // G
    changed = codes.clone()
    changed[:, n * G] = (changed[:, n * G] + 1) % 30
    before = model(text, text_lengths, codes, lengths)
    after = model(text, text_lengths, changed, lengths)
    torch.testing.assert_close(before[:, : n + 1], after[:, : n + 1])
    assert (before[0, n + 1] - after[0, n + 1]).abs().max() > 1e-3


@pytest.mark.parametrize("G", GROUPS)
def test_ar_rows_do_not_see_padding_or_each_other(G):
    model, (text, text_lengths, codes, lengths) = make_ar(G), batch()
    together = model(text, text_lengths, codes, lengths)
    for row in range(3):
        s, t = int(text_lengths[row]), int(lengths[row])
        alone = model(
            text[row : row + 1, :s],
            text_lengths[row : row + 1],
            codes[row : row + 1, :t],
            lengths[row : row + 1],
        )
        torch.testing.assert_close(together[row, : t // G + 1], alone[0], atol=2e-5, rtol=1e-4)


def test_group_size_one_has_neither_group_layer():
    names = dict(make_ar(1).named_parameters())
    assert not [name for name in names if name.startswith("group_")]
    assert [name for name in dict(make_ar(2).named_parameters()) if name.startswith("group_")]


@pytest.mark.parametrize("G", GROUPS)
def test_ar_prediction_is_tied_to_the_code_embedding(G):
    model = make_ar(G)
    hidden = torch.randn(5, 16)
    before = model.predict(hidden)
    with torch.no_grad():
        model.code_embedding.weight[7] += 1
    changed = (model.predict(hidden) - before).abs().amax((0, 1))
    assert changed[7] > 0.01
    assert changed[[c for c in range(31) if c != 7]].max() == 0
    assert not [
        name for name, p in model.named_parameters() if p.shape[0] == 31 and "code_emb" not in name
    ]


def test_codes_of_a_group_are_embedded_in_order():
    model = make_ar(2)
    one = model.embed_groups(torch.tensor([[3, 4]]), torch.tensor([1]))
    other = model.embed_groups(torch.tensor([[4, 3]]), torch.tensor([1]))
    assert (one - other).abs().max() > 1e-3


def test_clipping_drops_the_start():
    codes = torch.arange(1, 8).repeat(2, 1)
    clipped, lengths = clip_to_groups(codes, torch.tensor([7, 5]), 4)
    assert lengths.tolist() == [4, 4]
    assert clipped[:, :4].tolist() == [[4, 5, 6, 7], [2, 3, 4, 5]]
    same, lengths = clip_to_groups(codes, torch.tensor([7, 5]), 1)
    assert torch.equal(same, codes)
    assert lengths.tolist() == [7, 5]


def test_join_and_part_are_inverse():
    first, second = torch.randn(3, 4, 2), torch.randn(3, 5, 2)
    lengths = torch.tensor([4, 0, 2])
    joined = join(first, lengths, second)
    torch.testing.assert_close(part(joined, lengths, 5), second)
    torch.testing.assert_close(joined[2, :2], first[2, :2])


@pytest.mark.parametrize("level", [1, 2, 3])
def test_nar_reads_what_the_paper_gives_it_and_no_more(level):
    """Prompt frames in all codebooks; target frames in codebooks below `level`; both directions."""
    model, (text, text_lengths, codes, lengths) = make_nar(), batch(K=4)
    prompts = torch.tensor([6, 2, 4])

    def change(k: int, t: int) -> float:
        changed = codes.clone()
        changed[0, k, t] = (changed[0, k, t] + 1) % 30
        a = model(text, text_lengths, codes, lengths, prompts, level)
        b = model(text, text_lengths, changed, lengths, prompts, level)
        assert torch.equal(a[1:], b[1:])
        return (a[0, 10] - b[0, 10]).abs().max().item()

    for k in range(4):
        assert change(k, 3) > 1e-4, "prompt frame"
        assert (change(k, 15) > 1e-4) == (k < level), "target frame"


def test_nar_rows_do_not_see_padding():
    model, (text, text_lengths, codes, lengths) = make_nar(), batch(K=4)
    prompts = torch.tensor([6, 2, 4])
    together = model(text, text_lengths, codes, lengths, prompts, 2)
    row = slice(1, 2)
    alone = model(
        text[row, :3], text_lengths[row], codes[row, :, :8], lengths[row], prompts[row], 2
    )
    torch.testing.assert_close(together[1, :8], alone[0], atol=2e-5, rtol=1e-4)


def test_nar_loss_counts_target_frames_only():
    loss = make_nar().loss(*batch(K=4), torch.tensor([6, 2, 4]), 1)
    assert loss.count == (24 + 8 + 16) - (6 + 2 + 4)


def test_nar_level_token_matters():
    model, args = make_nar(), (*batch(K=4), torch.tensor([6, 2, 4]))
    before = model(*args, 2)
    with torch.no_grad():
        model.level_embedding.weight[1] *= -1
    assert (model(*args, 2) - before).abs().max() > 1e-3
    with pytest.raises(ValueError, match="level 0"):
        model(*args, 0)


def test_gradients_reach_every_parameter():
    for G in (1, 2):
        model = make_ar(G)
        model.loss(*batch()).total.backward()
        assert not [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    nar = make_nar()
    for level in (1, 2, 3):
        nar.loss(*batch(K=4), torch.tensor([6, 2, 4]), level).total.backward()
    assert not [n for n, p in nar.named_parameters() if p.grad is None or not p.grad.any()]


def test_dropout_only_in_training():
    model = make_ar(2, Size(2, 2, 16, 32, dropout=0.5))
    assert torch.equal(model(*batch()), model(*batch()))
    model.train()
    assert not torch.equal(model(*batch()), model(*batch()))


def test_the_paper_size_is_the_default():
    size = Size()
    assert (size.layers, size.heads, size.width, size.feed_forward, size.dropout) == (
        12,
        16,
        1024,
        4096,
        0.1,
    )


def test_each_equation_of_the_paper_is_named_once_where_it_is_computed():
    """Eq. 5-17 and Algorithm 1; and the five files import nothing that the paper does not have."""
    folder = Path(inspect.getfile(AR)).parent
    files = [folder / f"{name}.py" for name in "transformer ar nar sampling generate".split()]
    text = "".join(path.read_text() for path in files)
    found = [
        number
        for first, last in re.findall(r"Eq\. (\d+)(?:-(\d+))?", text)
        for number in range(int(first), int(last or first) + 1)
    ]
    assert sorted(found) == list(range(5, 18))
    assert text.count("Algorithm 1") == 1
    assert "from .extras" not in text


def test_too_long_is_refused_with_the_numbers():
    model, (text, text_lengths, codes, lengths) = make_ar(), batch()
    with pytest.raises(ValueError, match="144 frames, the model holds 128"):
        model(text, text_lengths, codes.repeat(1, 6), lengths)


@pytest.mark.parametrize("G", [1, 2])
def test_ar_overfits_one_batch(G):
    torch.manual_seed(0)
    size = Size(2, 2, 32, 64, 0.0)
    model = AR(ARConfig(text_size=20, codebook_size=30, group_size=G, size=size, max_frames=128))
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(150):
        loss = model.loss(*batch()).total
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.05  # type: ignore[possibly-undefined]


def test_save_and_load_is_exact(tmp_path):
    for model, config in [(make_ar(2), ARConfig), (make_nar(), NARConfig)]:
        save_module(tmp_path, model, model.config)
        again = load_module(tmp_path, type(model), config)
        assert again.config == model.config
        assert not again.training
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, again.state_dict()[name])


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda f: (f / "model.safetensors").unlink(), "model.safetensors is missing"),
        (lambda f: (f / "config.json").unlink(), "config.json is missing"),
        (
            lambda f: (f / "model.safetensors").write_bytes(
                (f / "model.safetensors").read_bytes()[:-100]
            ),
            "is damaged",
        ),
        (lambda f: (f / "model.safetensors").write_bytes(b""), "is damaged"),
        (lambda f: (f / "config.json").write_text("{"), "cannot be read"),
        (lambda f: (f / "config.json").write_text("[]"), "no JSON object"),
        (lambda f: edit(f, group_size=4), "does not fit"),
        (lambda f: edit(f, group_size=0), "does not describe"),
        (lambda f: edit(f, colour="red"), "unknown key 'colour'"),
    ],
)
def test_damaged_checkpoints_are_refused(tmp_path, damage, says):
    model = make_ar(2)
    save_module(tmp_path, model, model.config)
    damage(tmp_path)
    with pytest.raises(CheckpointError, match=says):
        load_module(tmp_path, AR, ARConfig)


def edit(folder, **values):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | values))


def test_logits_are_fp32_under_bf16_autocast():
    ar, nar = make_ar(2), make_nar()
    text, text_lengths, codes, lengths = batch()
    all_codes = batch(4)[2]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert ar(text, text_lengths, codes, lengths).dtype == torch.float32
        assert nar(text, text_lengths, all_codes, lengths, lengths // 2, 1).dtype == torch.float32
        hidden = ar.transformer.blocks[0].qkv(torch.zeros(1, 1, 16))  # type: ignore[operator]
        assert hidden.dtype == torch.bfloat16  # while the rest of the model is not
