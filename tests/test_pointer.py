"""Monotonic alignment, the option: what a pointer reads, how it moves, and decoding with it."""

import pytest
import torch

from sayso.model.ar import AR, ARConfig
from sayso.model.extras.alignment import FARTHEST, NONE, ages, allowed, moves, to_groups
from sayso.model.generate import Walk, generate_ar, generate_nar, nearest_expected, step_on
from sayso.model.nar import NAR, NARConfig
from sayso.model.sampling import Sampling
from test_generate import inputs, seeded, without_eos
from test_models import SIZE, batch


def make_ar(G: int = 1) -> AR:
    torch.manual_seed(0)
    model = AR(ARConfig(20, 30, group_size=G, size=SIZE, max_frames=128, alignment=True))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def make_nar() -> NAR:
    torch.manual_seed(0)
    model = NAR(NARConfig(20, 30, codebooks=4, size=SIZE, max_frames=128, alignment=True))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


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
    logits = allowed(torch.zeros(3, FARTHEST + 1), torch.tensor([4, 5, 0]), torch.tensor([5, 5, 9]))
    assert logits.isfinite().sum(1).tolist() == [2, 1, FARTHEST + 1]
    model = make_ar()
    walk = Walk(torch.tensor([4, 5, 0]), torch.tensor([0, 3, 1]), torch.ones(3))
    for seed in range(20):
        hidden = torch.randn(3, 16, generator=seeded(seed))
        how = Sampling(stay=None if seed % 2 else 0.9)
        after = step_on(walk, hidden, torch.tensor([5, 5, 9]), model, how, seeded(seed))
        assert (after.pointer >= walk.pointer).all()
        assert (after.pointer <= torch.tensor([5, 5, 9])).all()
        assert after.pointer[1] == 5 and after.age[1] == 4


@pytest.mark.parametrize("G", [1, 2, 4])
def test_loss_reads_pointers_and_predicts_their_moves(G):
    model, (text, text_lengths, codes, lengths) = make_ar(G), batch()
    pointer = walked(lengths, text_lengths)
    loss = model.loss(text, text_lengths, codes, lengths, pointer)
    other = model.loss(text, text_lengths, codes, lengths, torch.zeros_like(pointer))
    assert loss.count == (24 + 8 + 16) + 3 * G
    assert loss.aside is not None and loss.aside > 0
    assert not torch.isclose(loss.summed, other.summed)
    unknown = model.loss(text, text_lengths, codes, lengths, torch.full_like(pointer, NONE))
    assert unknown.aside == 0


def test_with_stay_the_pointer_moves_once_it_would_more_likely_have_gone():
    model = make_ar()
    assert model.move is not None
    torch.nn.init.zeros_(model.move.weight)
    with torch.no_grad():  # .6 to stay, .3 to go one on, .1 to go three on
        chances = torch.tensor([0.6, 0.3, 0, 0.1, 0, 0, 0, 0])
        model.move.bias.copy_(chances.log())
    walk, lengths = Walk(torch.tensor([0]), torch.tensor([0]), torch.ones(1)), torch.tensor([3])
    found = []
    for _ in range(9):
        walk = step_on(walk, torch.zeros(1, 16), lengths, model, Sampling(stay=0.5), seeded())
        found.append((int(walk.pointer), int(walk.age)))
    # .6 is still above .5, .36 is not; and at the last token there is nowhere to go.
    assert found == [(0, 1), (1, 0), (1, 1), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2), (3, 3)]
    with pytest.raises(ValueError, match="stay 1"):
        Sampling(stay=1)


@pytest.mark.parametrize("G", [1, 2])
def test_what_lies_behind_the_pointers_reach_changes_nothing_but_through_attention(G):
    """The guide itself reads two tokens back and three on, and no further."""
    model, (text, text_lengths, _, _) = make_ar(G), batch()
    pointer = torch.tensor([[3]] * 3)
    changed = text.clone()
    changed[:, 6] = (changed[:, 6] + 1) % 20  # token 7
    age = torch.zeros_like(pointer)
    one, two = (model.guide(t, text_lengths, pointer, age) for t in (text, changed))
    assert torch.equal(one, two)
    pointer = torch.tensor([[4]] * 3)
    one, two = (model.guide(t, text_lengths, pointer, age) for t in (text, changed))
    assert not torch.equal(one[0], two[0])
    assert torch.equal(one[1:], two[1:])  # shorter texts: beyond the end


@pytest.mark.parametrize("G", [1, 2, 4])
@pytest.mark.parametrize(
    "sampling",
    [
        Sampling("greedy"),
        Sampling("ras"),
        Sampling("ras", stay=0.5),
        Sampling("ras", guidance=0.8),
        Sampling("greedy", stay=0.5, guidance=2),
    ],
)
def test_cached_decoding_equals_naive_token_for_token(G, sampling):
    model = make_ar(G)
    fast, slow = (
        generate_ar(model, *inputs(3), sampling, seeded(), cached=cached, said=SAID)
        for cached in (True, False)
    )
    assert torch.equal(fast.codes, slow.codes)
    assert torch.equal(fast.lengths, slow.lengths)
    assert fast.pointer is not None and slow.pointer is not None
    assert torch.equal(fast.pointer, slow.pointer)
    assert fast.pointer.shape == fast.codes.shape


def test_guidance_moves_away_from_what_is_said_without_the_pointer():
    model, (text, text_lengths, prompt, lengths, limits) = make_ar(1), inputs(3)
    aware = Sampling("greedy", guidance=1e-6)
    plain = generate_ar(model, *inputs(3), Sampling("greedy"), seeded(), said=SAID)
    assert torch.equal(
        plain.codes, generate_ar(model, *inputs(3), aware, seeded(), said=SAID).codes
    )
    # One step by hand: the first code of row 0, alone in its batch.
    one = text[:1, : int(text_lengths[0])], text_lengths[:1], prompt[:1], lengths[:1]
    pointer = torch.full((1, prompt.shape[1] + 1), NONE)
    ignorant = model.guide(one[0], one[1], pointer, torch.zeros_like(pointer))
    pointer[:, int(lengths[0])] = SAID[0]
    knowing = model.guide(one[0], one[1], pointer, torch.zeros_like(pointer))
    end = int(lengths[0])
    with torch.inference_mode():
        logits = [model(*one, guide)[:, end, 0] for guide in (knowing, ignorant)]
    logits = [each.index_fill(1, torch.tensor([model.eos_id]), -torch.inf) for each in logits]
    wanted = (4 * torch.log_softmax(logits[0], 1) - 3 * torch.log_softmax(logits[1], 1))[
        :, : model.eos_id
    ].argmax(1)
    strong = generate_ar(
        model, *one, limits[:1], Sampling("greedy", guidance=3), seeded(), said=SAID[:1]
    )
    assert strong.codes[0, 0] == wanted[0]
    with pytest.raises(ValueError, match="guidance"):
        Sampling(guidance=-1)


def test_the_pointer_starts_behind_the_prompts_text_and_only_goes_on():
    result = generate_ar(
        without_eos(make_ar(2)), *inputs(3), Sampling("random"), seeded(), said=SAID
    )
    assert result.pointer is not None
    assert result.pointer[:, 0].tolist() == SAID.tolist()
    for row in range(3):
        steps = result.pointer[row, : int(result.lengths[row])].diff()
        assert (steps >= 0).all() and (steps <= FARTHEST).all()


def test_no_end_before_the_last_token():
    """A model that wants to end at once must first walk to the last token."""
    model = make_ar(1)
    predict = model.predict

    def eager(hidden):
        logits = predict(hidden).clone()
        logits[..., model.eos_id] = 1e4
        return logits

    model.predict = eager
    result = generate_ar(model, *inputs(3), Sampling("greedy"), seeded(), said=SAID)
    assert result.finished.all()
    assert result.pointer is not None
    text_lengths = inputs(3)[1]
    for row in range(3):
        before = result.pointer[row, : int(result.lengths[row])]
        assert (before < text_lengths[row]).all()  # it ended as soon as it stood at the last
        assert len(before) >= (text_lengths[row] - SAID[row]) / FARTHEST


def test_nar_reads_pointers_but_not_of_prompts():
    model = make_nar()
    text, text_lengths, codes, lengths = batch(4)
    prompts = torch.tensor([6, 2, 4])
    pointer = walked(lengths, text_lengths)
    one = model(text, text_lengths, codes, lengths, prompts, 2, pointer)
    in_prompt = torch.where(torch.arange(24) < prompts[:, None], 1, pointer)
    two = model(text, text_lengths, codes, lengths, prompts, 2, in_prompt)
    torch.testing.assert_close(one, two)
    three = model(text, text_lengths, codes, lengths, prompts, 2, torch.ones_like(pointer))
    assert (one - three).abs().max() > 1e-3
    result = generate_nar(
        model, text, text_lengths, codes[:, :, :6], prompts, codes[:, 0], lengths, pointer
    )
    assert result.shape == (3, 4, 24)


def test_the_expected_entry_is_the_middle_and_a_sure_model_gets_its_way():
    entries = torch.tensor([[-4.0], [-1.0], [0.1], [1.0], [4.0]])
    unsure = torch.tensor([0.3, 0.1, 0.1, 0.1, 0.29]).log()
    sure = torch.tensor([0.01, 0.01, 0.01, 0.01, 0.96]).log()
    found = nearest_expected(torch.stack([unsure, sure])[None], entries)
    assert found.tolist() == [[2, 4]]  # not entry 0, the likeliest by a hair


def test_expected_needs_the_entries_and_is_used_row_by_row():
    torch.manual_seed(0)
    model = NAR(NARConfig(20, 30, codebooks=4, size=SIZE, max_frames=128, expected=True)).eval()
    text, text_lengths, codes, lengths = batch(4)
    prompts = torch.tensor([6, 2, 4])
    given = (text, text_lengths, codes[:, :, :6], prompts, codes[:, 0], lengths)
    with pytest.raises(ValueError, match="expected is True"):
        generate_nar(model, *given)
    entries = torch.randn(4, 30, 5)
    entries[:, 7] = 0.0  # a fresh model is unsure of everything: the middle is entry 7
    full = generate_nar(model, *given, entries=entries)
    assert (full[0, 1:, :24] == 7).float().mean() > 0.8


def test_models_and_calls_that_do_not_fit_are_refused():
    text, text_lengths, codes, lengths = batch()
    with pytest.raises(ValueError, match="alignment is True"):
        make_ar()(text, text_lengths, codes, lengths)
    plain = AR(ARConfig(20, 30, size=SIZE, max_frames=128))
    with pytest.raises(ValueError, match="no pointer"):
        plain.loss(text, text_lengths, codes, lengths, torch.zeros_like(codes))
    with pytest.raises(ValueError, match="said must fit"):
        generate_ar(make_ar(), *inputs(3), Sampling(), seeded())
    with pytest.raises(ValueError, match="said must fit"):
        generate_ar(plain.eval(), *inputs(3), Sampling(), seeded(), said=SAID)
    text, text_lengths, codes, lengths = batch(4)
    with pytest.raises(ValueError, match="alignment is True"):
        make_nar()(text, text_lengths, codes, lengths, lengths // 2, 1)
