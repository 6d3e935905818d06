"""Decoding: the cached path equals the naive one, limits, prompts, seeds, batches, devices."""

import pytest
import torch

from sayso.model.ar import clip_to_groups
from sayso.model.generate import generate_ar, generate_nar
from sayso.model.rows import LOOK_EVERY
from sayso.model.sampling import EMPTY, Sampling, last_codes, sample_group
from test_models import make_ar, make_nar


def inputs(rows: int):
    g = torch.Generator().manual_seed(2)
    text = torch.randint(0, 20, (3, 9), generator=g)
    prompt = torch.randint(0, 30, (3, 19), generator=g)
    sizes = torch.tensor([[9, 4, 6], [19, 8, 0], [40, 24, 33]])[:, :rows]
    return text[:rows], sizes[0], prompt[:rows], sizes[1], sizes[2]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def each(rows: int, seed: int = 0) -> list[torch.Generator]:
    """One of its own for each row."""
    return [seeded(seed + row) for row in range(rows)]


@torch.inference_mode()
def naive(
    model, text, text_lengths, prompt, prompt_lengths, limits, sampling, generator, steer=None
):
    """The oracle: `generate_ar` without a cache, everything read anew at each step.

    Returns each row's codes and whether it ended.
    """
    G = model.config.group_size
    codes, lengths = clip_to_groups(prompt, prompt_lengths, G)
    rows = [row[:length] for row, length in zip(codes, lengths.tolist(), strict=True)]
    left, state = (-(-limits // G)).tolist(), ["running"] * len(rows)
    told = [] if steer is None else list(steer.start(lengths // G))  # (N + 1, D) of each reading
    R = max(1, len(told) // len(rows))
    told = [one[: int(lengths[i // R]) // G + 1] for i, one in enumerate(told)]
    while any(each == "running" and left[row] for row, each in enumerate(state)):
        lengths = torch.tensor([len(row) for row in rows])
        codes = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        extra = None if not told else torch.nn.utils.rnn.pad_sequence(told, batch_first=True)
        given = [x.repeat_interleave(R, 0) for x in (text, text_lengths, codes, lengths)]
        hidden = model.read(*given, extra)
        hidden = hidden[torch.arange(R * len(rows)), (lengths // G).repeat_interleave(R)]
        logits = model.predict(hidden)
        logits = logits if steer is None else steer.logits(logits)
        history = last_codes(codes, lengths, sampling.window)
        group, ended = sample_group(logits, history, model.eos_id, sampling, generator)
        more = [] if steer is None else steer.step(hidden, generator)
        for row in range(len(rows)):
            if state[row] != "running" or not left[row]:
                continue
            if ended[row]:
                state[row] = "ended"
                continue
            left[row] -= 1
            rows[row] = torch.cat([rows[row], group[row]])
            for reading in range(row * R, row * R + R if told else 0):
                told[reading] = torch.cat([told[reading], more[reading]])
    starts = (prompt_lengths // G * G).tolist()
    return [row[n:] for row, n in zip(rows, starts, strict=True)], [x == "ended" for x in state]


def assert_same(found, wanted):
    """Codes of `generate_ar` and of `naive`."""
    rows, ended = wanted
    assert found.finished.tolist() == ended
    assert found.lengths.tolist() == [len(row) for row in rows]
    for row, codes in enumerate(rows):
        assert found.codes[row, : len(codes)].tolist() == codes.tolist()
        assert not found.codes[row, len(codes) :].any()


@pytest.mark.parametrize("G", [1, 2, 4, 8])
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("method", ["greedy", "ras", "random"])
def test_cached_decoding_equals_naive_token_for_token(G, rows, method):
    model = make_ar(G)
    found = generate_ar(model, *inputs(rows), Sampling(method), each(rows))
    assert_same(found, naive(model, *inputs(rows), Sampling(method), each(rows)))
    assert found.codes.shape[1] > 0


@pytest.mark.parametrize("G", [1, 2, 4])
@pytest.mark.parametrize("method", ["greedy", "ras", "random"])
def test_what_a_row_says_does_not_hang_on_who_shares_its_batch(G, method):
    """Each row has its own generator; greedy needs none."""
    model, how = make_ar(G), Sampling(method)
    together = generate_ar(model, *inputs(3), how, each(3))
    for row in range(3):
        text, text_lengths, prompt, prompt_lengths, limits = (x[row : row + 1] for x in inputs(3))
        text, prompt = text[:, : int(text_lengths)], prompt[:, : int(prompt_lengths)]
        alone = generate_ar(
            model, text, text_lengths, prompt, prompt_lengths, limits, how, [seeded(row)]
        )
        length = int(alone.lengths)
        assert together.lengths[row] == length
        assert torch.equal(together.codes[row, :length], alone.codes[0, :length])
        assert together.finished[row] == alone.finished[0]


@pytest.mark.parametrize("G", [1, 4])
def test_looking_rarely_for_the_end_changes_nothing(G, monkeypatch):
    """As on a GPU: rows that have ended go on for a while, unread."""
    often = generate_ar(make_ar(G), *inputs(3), Sampling(), each(3))
    monkeypatch.setitem(LOOK_EVERY, "cpu", 7)
    rarely = generate_ar(make_ar(G), *inputs(3), Sampling(), each(3))
    assert len(set(often.lengths.tolist())) > 1
    for one, two in zip(often[:3], rarely[:3], strict=True):
        assert torch.equal(one, two)


def test_same_seed_same_codes_other_seed_other_codes():
    model = make_ar(2)
    one, same, other = (
        generate_ar(model, *inputs(1), Sampling("random"), [seeded(s)]).codes for s in (5, 5, 6)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("G", [1, 4])
def test_the_limit_ends_an_utterance_that_does_not_end_itself(G):
    model = make_ar(G)
    never = without_eos(model)
    result = generate_ar(never, *inputs(3), Sampling("random"), each(3))
    assert not result.finished.any()
    assert result.lengths.tolist() == [-(-limit // G) * G for limit in (40, 24, 33)]


def without_eos(model):
    """The same model, never able to draw <eos>."""
    predict = model.predict

    def never(hidden):
        logits = predict(hidden).clone()
        logits[..., model.eos_id] = -1e9
        return logits

    model.predict = never
    return model


def test_more_than_the_positions_hold_is_refused_with_the_numbers():
    text, text_lengths, prompt, prompt_lengths, _ = inputs(1)
    with pytest.raises(ValueError, match="219 frames, 128 fit"):
        generate_ar(
            make_ar(),
            text,
            text_lengths,
            prompt,
            prompt_lengths,
            torch.tensor([200]),
            Sampling(),
            each(1),
        )


def test_the_first_place_of_a_group_decides_on_eos():
    model = make_ar(4)
    logits = torch.zeros(1, 4, 31)
    logits[0, 1:, model.eos_id] = 50  # later places would all but surely draw <eos>
    logits[0, 0, model.eos_id] = -50
    empty = torch.full((1, 10), EMPTY)
    codes, ended = sample_group(logits, empty, model.eos_id, Sampling(), seeded())
    assert not ended.item()
    assert (codes < model.eos_id).all()
    logits[0, 0, model.eos_id] = 50
    codes, ended = sample_group(logits, empty, model.eos_id, Sampling(), seeded())
    assert ended.item()
    assert (codes < model.eos_id).all()  # what is fed on must have an embedding of a real code


def test_group_mates_count_as_history():
    """The same peaked code at both places: the second is a repeat when the window says so."""
    model = make_ar(2)
    logits = torch.full((2000, 2, 31), -2.0)
    logits[:, :, 5] = 5.0
    seen = torch.full((2000, 10), EMPTY)
    seen[:, -1] = 5  # r = .1 for the first place, .2 for the second
    how = Sampling(top_p=0.0, threshold=0.1)
    codes, _ = sample_group(logits, seen, model.eos_id, how, seeded())
    assert (codes[:, 0] == 5).all()
    assert (codes[:, 1] != 5).any()


def test_the_prompt_counts_as_history():
    codes = torch.tensor([[1, 2, 3, 0, 0], [4, 5, 6, 7, 8]])
    window = last_codes(codes, torch.tensor([3, 5]), 4)
    assert window.tolist() == [[EMPTY, 1, 2, 3], [5, 6, 7, 8]]


def test_the_prompt_is_clipped_at_its_start():
    model = make_ar(4)
    text, text_lengths, prompt, prompt_lengths, limits = inputs(1)  # 19 frames: the first 3 go
    other = prompt.clone()
    other[:, :3] = (other[:, :3] + 1) % 30
    results = [
        generate_ar(
            model, text, text_lengths, p, prompt_lengths, limits, Sampling("greedy"), each(1)
        )
        for p in (prompt, other)
    ]
    assert torch.equal(results[0].codes, results[1].codes)


def test_nar_fills_the_other_codebooks_row_by_row():
    model = make_nar()
    g = torch.Generator().manual_seed(3)
    text, text_lengths = torch.randint(0, 20, (2, 6), generator=g), torch.tensor([6, 4])
    prompt, prompt_lengths = torch.randint(0, 30, (2, 4, 9), generator=g), torch.tensor([9, 5])
    codes, lengths = torch.randint(0, 30, (2, 12), generator=g), torch.tensor([12, 7])
    full = generate_nar(model, text, text_lengths, prompt, prompt_lengths, codes, lengths)
    assert full.shape == (2, 4, 12)
    assert torch.equal(full[0, 0], codes[0])
    assert torch.equal(full[1, 0, :7], codes[1, :7])
    assert not full[1, :, 7:].any()
    alone = generate_nar(
        model,
        text[1:, :4],
        text_lengths[1:],
        prompt[1:, :, :5],
        prompt_lengths[1:],
        codes[1:, :7],
        lengths[1:],
    )
    assert torch.equal(full[1, :, :7], alone[0])
