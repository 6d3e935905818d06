"""Monotonic alignment, the option: what a pointer reads, how it moves, and decoding with it."""

import pytest
import torch

from sayso.model.ar import ARConfig
from sayso.model.extras.alignment import (
    FARTHEST,
    NONE,
    AlignedAR,
    AlignedARConfig,
    AlignedNAR,
    AlignedNARConfig,
    Walk,
    ages,
    allowed,
    guided,
    moves,
    to_groups,
)
from sayso.model.extras.nearest import nearest_expected
from sayso.model.generate import generate_ar, generate_nar
from sayso.model.nar import NARConfig
from sayso.model.sampling import Sampling, probabilities
from test_generate import assert_same, each, inputs, naive, seeded, without_eos
from test_models import SIZE, batch


def make_ar(G: int = 1) -> AlignedAR:
    torch.manual_seed(0)
    config = ARConfig(20, 30, group_size=G, size=SIZE, max_frames=128)
    model = AlignedAR(AlignedARConfig(config))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def make_nar() -> AlignedNAR:
    torch.manual_seed(0)
    config = NARConfig(20, 30, codebooks=4, size=SIZE, max_frames=128)
    model = AlignedNAR(AlignedNARConfig(config))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def walk_of(model: AlignedAR, rows: int = 3, **how) -> Walk:
    """Behind the prompts' text of `inputs`."""
    text, text_lengths = inputs(rows)[:2]
    return Walk(model, text, text_lengths, SAID[:rows], **how)


def walks(model: AlignedAR, sampling: Sampling, rows: int = 3, **how):
    """What is said along a walk."""
    return generate_ar(model.ar, *inputs(rows), sampling, each(rows), walk_of(model, rows, **how))


def walked(lengths, text_lengths, frames: int = 24):
    """Pointers that go evenly from 0 to the last token."""
    share = (torch.arange(frames) / lengths[:, None]).clamp(max=1)
    return (share * text_lengths[:, None]).long()


SAID = torch.tensor([3, 2, 0])


def test_ages_count_from_each_move():
    pointer = torch.tensor([[0, 0, 1, 1, 1, 4], [NONE, NONE, 2, 2, 3, 3]])
    assert ages(pointer).tolist() == [[0, 1, 0, 1, 2, 0], [0, 1, 0, 1, 0, 1]]


def test_moves_are_unknown_where_the_pointer_was_or_where_it_leaps():
    pointer = torch.tensor([[NONE, 3, 3, 4, 6, 6 + FARTHEST, 14 + FARTHEST]])
    assert moves(pointer).tolist() == [[NONE, 0, 1, 2, FARTHEST, NONE]]


def test_a_group_is_where_its_last_frame_is():
    assert to_groups(torch.tensor([[0, 1, 1, 1, 2, 3]]), 2).tolist() == [[1, 1, 3]]


def test_the_pointer_never_leaves_the_text():
    lengths = torch.tensor([5, 5, 9])
    logits = allowed(torch.zeros(3, FARTHEST + 1), torch.tensor([4, 5, 0]), lengths)
    assert logits.isfinite().sum(1).tolist() == [2, 1, FARTHEST + 1]
    model, text = make_ar(), torch.zeros(3, 9, dtype=torch.long)
    for seed in range(20):
        before = torch.tensor([4, 5, 0])
        walk = Walk(model, text, lengths, before, None if seed % 2 else 0.9)
        walk.step(torch.randn(3, 16, generator=seeded(seed)), each(3, seed))
        assert (walk.pointer >= before).all()
        assert (walk.pointer <= lengths).all()
        assert walk.pointer[1] == 5 and walk.age[1] == 1


@pytest.mark.parametrize("G", [1, 2, 4])
def test_loss_reads_pointers_and_predicts_their_moves(G):
    model, (text, text_lengths, codes, lengths) = make_ar(G), batch()
    pointer = walked(lengths, text_lengths)
    loss = model.loss(text, text_lengths, codes, lengths, pointer)
    other = model.loss(text, text_lengths, codes, lengths, torch.zeros_like(pointer))
    assert loss.count == (24 + 8 + 16) + 3 * G
    assert loss.moves > 0
    assert not torch.isclose(loss.summed, other.summed)
    unknown = model.loss(text, text_lengths, codes, lengths, torch.full_like(pointer, NONE))
    assert unknown.moves == 0


def test_with_stay_the_pointer_moves_once_it_would_more_likely_have_gone():
    model = make_ar()
    torch.nn.init.zeros_(model.move.weight)
    with torch.no_grad():  # .6 to stay, .3 to go one on, .1 to go three on
        chances = torch.tensor([0.6, 0.3, 0, 0.1, 0, 0, 0, 0])
        model.move.bias.copy_(chances.log())
    text, lengths = torch.zeros(1, 3, dtype=torch.long), torch.tensor([3])
    walk = Walk(model, text, lengths, torch.tensor([0]), stay=0.5)
    found = []
    for _ in range(9):
        walk.step(torch.zeros(1, 16), each(1))
        found.append((int(walk.pointer), int(walk.age)))
    # .6 is still above .5, .36 is not; and at the last token there is nowhere to go.
    assert found == [(0, 1), (1, 0), (1, 1), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2), (3, 3)]


@pytest.mark.parametrize("G", [1, 2])
def test_what_lies_behind_the_pointers_reach_changes_nothing_but_through_attention(G):
    """The guide itself reads two tokens back and three on, and no further."""
    model, (text, text_lengths, _, _) = make_ar(G), batch()
    pointer = torch.tensor([[3]] * 3)
    changed = text.clone()
    changed[:, 6] = (changed[:, 6] + 1) % 20  # token 7
    age = torch.zeros_like(pointer)
    one, two = (model.told(t, text_lengths, pointer, age) for t in (text, changed))
    assert torch.equal(one, two)
    pointer = torch.tensor([[4]] * 3)
    one, two = (model.told(t, text_lengths, pointer, age) for t in (text, changed))
    assert not torch.equal(one[0], two[0])
    assert torch.equal(one[1:], two[1:])  # shorter texts: beyond the end


@pytest.mark.parametrize("G", [1, 2, 4])
@pytest.mark.parametrize(
    ("method", "how"),
    [
        ("greedy", {}),
        ("ras", {}),
        ("ras", {"stay": 0.5}),
        ("ras", {"guidance": 0.8}),
        ("greedy", {"stay": 0.5, "guidance": 2}),
    ],
)
def test_cached_decoding_equals_naive_token_for_token(G, method, how):
    model, sampling = make_ar(G), Sampling(method)
    fast, slow = walks(model, sampling, **how), walk_of(model, **how)
    assert_same(fast, naive(model.ar, *inputs(3), sampling, each(3), slow))
    assert fast.where is not None
    assert fast.where.shape == fast.codes.shape
    for row, count in enumerate(fast.lengths.tolist()):
        assert torch.equal(fast.where[row, :count], slow.frames(row, count))


@pytest.mark.parametrize("how", [{}, {"stay": 0.5, "guidance": 0.8}])
def test_what_a_row_says_does_not_hang_on_who_shares_its_batch(how):
    model = make_ar(2)
    text, text_lengths, prompt, prompt_lengths, limits = inputs(3)
    walk = Walk(model, text, text_lengths, SAID, **how)
    together = generate_ar(model.ar, *inputs(3), Sampling(), each(3), walk)
    for row in range(3):
        alone, s, t = slice(row, row + 1), int(text_lengths[row]), int(prompt_lengths[row])
        walk = Walk(model, text[alone, :s], text_lengths[alone], SAID[alone], **how)
        given = text[alone, :s], text_lengths[alone], prompt[alone, :t], prompt_lengths[alone]
        said = generate_ar(model.ar, *given, limits[alone], Sampling(), [seeded(row)], walk)
        assert together.lengths[row] == said.lengths[0]
        assert torch.equal(together.codes[row, : int(said.lengths)], said.codes[0])


def test_guidance_by_hand():
    aware, unaware = torch.tensor([[0.5, 0.4, 0.1]]), torch.tensor([[0.7, 0.2, 0.1]])
    found = probabilities(guided(aware.log(), unaware.log() + 5, 2.0))
    wanted = aware**3 / unaware**2
    assert torch.allclose(found, wanted / wanted.sum())
    assert torch.allclose(probabilities(guided(aware.log(), unaware.log(), 0.0)), aware)


def test_guidance_moves_away_from_what_is_said_without_the_pointer():
    model, (text, text_lengths, prompt, lengths, _) = make_ar(1), inputs(1)
    plain = walks(model, Sampling("greedy"), 1)
    assert torch.equal(plain.codes, walks(model, Sampling("greedy"), 1, guidance=1e-6).codes)
    # One step by hand.
    pointer = torch.full((1, prompt.shape[1] + 1), NONE)
    ignorant = model.told(text, text_lengths, pointer, torch.zeros_like(pointer))
    pointer[:, int(lengths[0])] = SAID[0]
    knowing = model.told(text, text_lengths, pointer, torch.zeros_like(pointer))
    with torch.inference_mode():
        one, two = (
            model.ar(text, text_lengths, prompt, lengths, extra)[0, int(lengths[0]), 0, :-1]
            for extra in (knowing, ignorant)
        )
    wanted = (4 * torch.log_softmax(one, 0) - 3 * torch.log_softmax(two, 0)).argmax()
    strong = walks(model, Sampling("greedy"), 1, guidance=3)
    assert strong.codes[0, 0] == wanted


def test_the_pointer_starts_behind_the_prompts_text_and_only_goes_on():
    model = make_ar(2)
    without_eos(model.ar)
    result = walks(model, Sampling("random"))
    where = result.where
    assert where is not None
    assert where[:, 0].tolist() == SAID.tolist()
    for row in range(3):
        steps = where[row, : int(result.lengths[row])].diff()
        assert (steps >= 0).all() and (steps <= FARTHEST).all()


def test_no_end_before_the_last_token():
    """A model that wants to end at once must first walk to the last token."""
    model = make_ar(1)
    predict = model.ar.predict

    def eager(hidden):
        logits = predict(hidden).clone()
        logits[..., model.ar.eos_id] = 1e4
        return logits

    model.ar.predict = eager
    result, text_lengths = walks(model, Sampling("greedy")), inputs(3)[1]
    where = result.where
    assert result.finished.all() and where is not None
    for row in range(3):
        before = where[row, : int(result.lengths[row])]
        assert (before < text_lengths[row]).all()  # it ended as soon as it stood at the last
        assert len(before) >= (text_lengths[row] - SAID[row]) / FARTHEST


def test_nar_reads_pointers_but_not_of_prompts():
    model = make_nar()
    text, text_lengths, codes, lengths = batch(4)
    prompts = torch.tensor([6, 2, 4])
    pointer = walked(lengths, text_lengths)
    in_prompt = torch.where(torch.arange(24) < prompts[:, None], 1, pointer)
    one, two, three = (
        model.told(text, text_lengths, each, prompts)
        for each in (pointer, in_prompt, torch.ones_like(pointer))
    )
    torch.testing.assert_close(one, two)
    losses = [
        model.loss(text, text_lengths, codes, lengths, prompts, 2, each).summed
        for each in (pointer, in_prompt, torch.ones_like(pointer))
    ]
    assert losses[0] == losses[1] != losses[2]
    given = text, text_lengths, codes[:, :, :6], prompts, codes[:, 0, :18], lengths - prompts
    results = [generate_nar(model.nar, *given, extra) for extra in (one, two, three)]
    assert torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])


def test_the_expected_entry_is_the_middle_and_a_sure_model_gets_its_way():
    entries = torch.tensor([[-4.0], [-1.0], [0.1], [1.0], [4.0]])
    unsure = torch.tensor([0.3, 0.1, 0.1, 0.1, 0.29]).log()
    sure = torch.tensor([0.01, 0.01, 0.01, 0.01, 0.96]).log()
    found = nearest_expected(torch.stack([unsure, sure])[None], entries)
    assert found.tolist() == [[2, 4]]  # not entry 0, the likeliest by a hair


def test_a_choice_of_codes_is_made_row_by_row_and_level_by_level():
    torch.manual_seed(0)
    model = make_nar().nar
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    text, text_lengths, codes, lengths = batch(4)
    prompts = torch.tensor([6, 2, 4])
    entries = torch.randn(4, 30, 5)
    for level in (1, 2, 3):
        entries[level, level] = 0.0  # a fresh model is unsure of everything: the middle
    full = generate_nar(
        model,
        *(text, text_lengths, codes[:, :, :6], prompts, codes[:, 0], lengths),
        choose=lambda logits, level: nearest_expected(logits, entries[level]),
    )
    for level in (1, 2, 3):
        assert (full[0, level, :24] == level).float().mean() > 0.8
