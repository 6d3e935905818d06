"""Sampling on hand-made logits: every branch of Algorithm 1."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sayso.model.sampling import (
    EMPTY,
    Sampling,
    draw,
    nucleus,
    probabilities,
    repetition,
    sample,
    without,
)

P = torch.tensor([[0.5, 0.3, 0.15, 0.05]])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("top_p", "kept"), [(0.0, 1), (0.5, 1), (0.6, 2), (0.8, 2), (0.81, 3), (0.95, 3), (1.0, 4)]
)
def test_nucleus_keeps_the_fewest_codes_that_reach_top_p(top_p, kept):
    result = nucleus(P, top_p)
    assert (result > 0).sum() == kept
    torch.testing.assert_close(result, P * (torch.arange(4) < kept) / P[:, :kept].sum())


def test_nucleus_breaks_ties_by_id_and_keeps_no_extra_code():
    assert nucleus(torch.full((1, 4), 0.25), 0.5).tolist() == [[0.5, 0.5, 0.0, 0.0]]
    assert nucleus(torch.full((1, 4), 0.25), 0.0).tolist() == [[1.0, 0.0, 0.0, 0.0]]


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.floats(-20, 20, width=32), min_size=2, max_size=30),
    st.floats(0, 1, width=32),
    st.floats(0, 1, width=32),
)
def test_nucleus_is_a_distribution_and_grows_with_top_p(logits, a, b):
    p = probabilities(torch.tensor([logits]))
    small, large = nucleus(p, min(a, b)), nucleus(p, max(a, b))
    assert small.sum() == pytest.approx(1, abs=1e-4)
    assert bool(((small > 0) <= (large > 0)).all())
    assert bool(small[0, p[0].argmax()] > 0)


def test_draw_follows_the_distribution_and_the_seed():
    p = P.expand(20_000, 4)
    codes = draw(p, seeded())
    shares = torch.bincount(codes, minlength=4) / len(codes)
    torch.testing.assert_close(shares, P[0], atol=0.012, rtol=0)  # > 3 standard errors
    assert torch.equal(codes, draw(p, seeded()))
    assert not torch.equal(codes, draw(p, seeded(1)))


def test_draw_never_takes_an_impossible_code():
    p = torch.tensor([[0.0, 1.0, 0.0]]).expand(1000, 3)
    assert draw(p, seeded()).unique().tolist() == [1]


def test_an_excluded_code_that_had_all_the_mass_leaves_the_others_as_they_were():
    """200 nats above the rest its probability is 1 and the others' 0, in fp32."""
    logits = torch.tensor([[200.0, 0.0, 0.0, math.log(2)]]).expand(4000, 4)
    p = probabilities(without(logits, 0))
    torch.testing.assert_close(p[0], torch.tensor([0.0, 0.25, 0.25, 0.5]))
    history = torch.full((4000, 10), EMPTY)
    for method in ("ras", "nucleus", "random", "greedy"):
        codes = sample(logits, history, Sampling(method, top_p=1.0), seeded(), exclude=0)
        assert 0 not in codes.tolist()


def test_with_a_generator_for_each_row_no_row_moves_another():
    p = P.expand(3, 4)
    together = draw(p, [seeded(row) for row in range(3)])
    alone = [draw(P, [seeded(row)])[0] for row in range(3)]
    assert together.tolist() == torch.stack(alone).tolist()
    with pytest.raises(ValueError, match="zip"):
        draw(p, [seeded()])


def test_repetition_counts_over_the_whole_window_also_at_the_start():
    history = torch.tensor([[EMPTY] * 9 + [7], [7] * 10, [EMPTY] * 10])
    torch.testing.assert_close(
        repetition(torch.tensor([7, 7, 7]), history), torch.tensor([0.1, 1.0, 0.0])
    )


# One code takes nearly all of the nucleus; the tail can only come from the full distribution.
PEAKED = torch.tensor([[0.7, 0.1, 0.1, 0.1]]).log().expand(4000, 4)


def shares(history: list[int], sampling: Sampling) -> torch.Tensor:
    codes = sample(PEAKED, torch.tensor([history]).expand(4000, -1), sampling, seeded())
    return torch.bincount(codes, minlength=4) / len(codes)


def test_ras_keeps_the_nucleus_draw_while_it_is_rare():
    kept = shares([0] + [EMPTY] * 9, Sampling(top_p=0.5, threshold=0.1))  # r = 0.1, not above t_r
    assert kept.tolist() == [1, 0, 0, 0]


def test_ras_draws_anew_from_the_full_distribution_when_r_is_above_the_threshold():
    redrawn = shares([0, 0] + [EMPTY] * 8, Sampling(top_p=0.5, threshold=0.1))  # r = 0.2
    torch.testing.assert_close(redrawn, torch.tensor([0.7, 0.1, 0.1, 0.1]), atol=0.025, rtol=0)


def test_ras_does_not_ban_the_repeated_code():
    assert shares([0] * 10, Sampling(top_p=0.5))[0] > 0.6


def test_ras_only_looks_at_its_window():
    far = [0] * 10 + [1] * 10
    assert shares(far, Sampling(top_p=0.5)).tolist() == [1, 0, 0, 0]
    assert shares(far, Sampling(top_p=0.5, window=20))[1] > 0


def test_a_threshold_of_zero_is_the_papers_print_of_k_from_0():
    """Sum over k = 0..K of c_t == c_(t-k), over K, above t_r .1: the term k = 0 is always a hit."""
    history = torch.randint(0, 4, (500, 10), generator=seeded(5))
    candidate = torch.randint(0, 4, (500,), generator=seeded(6))
    printed = (1 + (history == candidate[:, None]).sum(1)) / 10 > 0.1
    assert torch.equal(printed, repetition(candidate, history) > 0)
    assert 0 < printed.sum() < 500


def test_ras_with_a_zero_threshold_still_needs_one_repeat():
    assert shares([EMPTY] * 10, Sampling(top_p=0.5, threshold=0.0)).tolist() == [1, 0, 0, 0]
    assert shares([EMPTY] * 9 + [0], Sampling(top_p=0.5, threshold=0.0))[0] < 1


@pytest.mark.parametrize("threshold", [1.0, 2.0])
def test_ras_equals_nucleus_when_the_threshold_cannot_be_passed(threshold):
    logits = torch.randn(500, 20, generator=seeded(3))
    history = torch.randint(0, 20, (500, 10), generator=seeded(4))
    ras = sample(logits, history, Sampling("ras", 0.7, threshold=threshold), seeded())
    assert torch.equal(ras, sample(logits, history, Sampling("nucleus", 0.7), seeded()))


def test_top_p_zero_is_greedy_plus_ras():
    logits = torch.randn(500, 20, generator=seeded(3))
    empty = torch.full((500, 10), EMPTY)
    assert torch.equal(sample(logits, empty, Sampling(top_p=0.0), seeded()), logits.argmax(1))
    assert torch.equal(sample(logits, empty, Sampling("greedy"), seeded()), logits.argmax(1))


def test_random_is_the_whole_distribution_and_temperature_sharpens_it():
    history = torch.full((4000, 10), EMPTY)
    plain = sample(PEAKED, history, Sampling("random"), seeded())
    assert set(plain.tolist()) == {0, 1, 2, 3}
    cold = sample(PEAKED, history, Sampling("random", temperature=0.05), seeded())
    assert set(cold.tolist()) == {0}


@pytest.mark.parametrize("method", ["ras", "nucleus", "random", "greedy"])
def test_excluded_codes_never_come(method):
    codes = sample(PEAKED, torch.zeros(4000, 10, dtype=torch.long), Sampling(method), seeded(), 0)
    assert 0 not in codes.tolist()


def test_a_row_is_not_moved_by_what_happens_to_another():
    logits = torch.randn(8, 20, generator=seeded(3))
    calm = torch.full((8, 10), EMPTY)
    busy = calm.clone()
    busy[0] = logits[0].argmax()
    two = [sample(logits, history, Sampling(), seeded()) for history in (calm, busy)]
    assert torch.equal(two[0][1:], two[1][1:])


def test_a_loop_that_nucleus_sampling_never_leaves_ends_under_ras():
    """Code 0 predicts itself with .95, <eos> (3) with .02: nucleus .8 repeats for ever."""
    logits = torch.tensor([[0.95, 0.02, 0.01, 0.02]]).log()

    def run(method: str) -> int:
        history, generator = torch.zeros(1, 10, dtype=torch.long), seeded()
        for step in range(1000):
            code = sample(logits, history, Sampling(method), generator)  # type: ignore[arg-type]
            if code.item() == 3:
                return step
            history = torch.cat([history, code[:, None]], 1)[:, 1:]
        return 1000

    assert run("nucleus") == 1000
    assert run("ras") < 1000


@pytest.mark.parametrize(
    "bad",
    [
        {"top_p": 1.1},
        {"top_p": float("nan")},
        {"window": 0},
        {"threshold": -0.1},
        {"temperature": 0.0},
        {"method": "beam"},
    ],
)
def test_settings_out_of_range_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        Sampling(**bad)
