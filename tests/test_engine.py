"""The engine: alone, in a batch, joined late, sharing a prompt, it says what the oracle says."""

import shutil
from dataclasses import replace

import pytest
import torch

from sayso.model import compiled
from sayso.model.engine import Engine, Request, Speech
from sayso.model.errors import InputError
from sayso.model.extras.alignment import NONE, AlignedAR, Walk
from sayso.model.rows import LOOK_EVERY
from sayso.model.sampling import Sampling
from sayso.model.transformer import join
from sayso.model.valle2 import ABLATIONS, Valle2, pure_ar, pure_nar
from test_generate import naive, seeded
from test_valle2 import KINDS, K, Placed, V, make

TEXT = [[3, 1, 4, 1, 5], [9, 2, 6, 5, 3, 5, 8, 9], [7, 9], [2, 7, 1, 8, 2, 8]]
SAID = [2, 3, 0, 1]
LIMITS = [20, 14, 26, 9]
WAYS = [Sampling(), Sampling(top_p=0.5), Sampling(), Sampling("greedy")]
PROMPTS = [torch.randint(0, V, (K, n), generator=seeded(n)) for n in (9, 6, 0, 3)]


def requests(model: Valle2) -> list[Request]:
    return [
        Request(TEXT[i], PROMPTS[i], LIMITS[i], model.generator(i), WAYS[i], SAID[i])
        for i in range(4)
    ]


def by_the_oracle(model: Valle2, request: Request, nars: Request | None = None) -> Speech:
    """Without a cache, one step after the other, and a NAR that reads everything at each level.

    The NAR may be told another request than the AR.
    """
    text, prompt = torch.tensor([request.text]), request.prompt[None]
    sizes = [torch.tensor([n]) for n in (len(request.text), prompt.shape[2], request.limit)]
    steer, how = None, model.extras
    if isinstance(model.ar, AlignedAR):
        said = torch.tensor([request.said])
        steer = Walk(model.ar, text, sizes[0], said, how.stay, how.guidance)
    given = text, sizes[0], prompt[:, 0], sizes[1], sizes[2]
    rows, ended = naive(pure_ar(model.ar), *given, request.sampling, [request.random], steer)
    lengths, extra = torch.tensor([len(rows[0])]), None
    nars = request if nars is None else nars
    text, prompt = torch.tensor([nars.text or [0]]), nars.prompt[None]
    sizes = [torch.tensor([n]) for n in (len(nars.text), prompt.shape[2])]
    if steer is not None:
        where = steer.frames(0, len(rows[0]))[None, :, None]
        where = where + nars.said - request.said if nars.text else torch.full_like(where, NONE)
        where = join(torch.zeros_like(prompt[:, 0])[..., None], sizes[1], where)[..., 0]
        extra = model.nar.told(text, sizes[0], where, sizes[1])  # type: ignore[union-attr]
    nar = pure_nar(model.nar)
    full = torch.cat([prompt, torch.zeros(1, K, len(rows[0]), dtype=torch.long)], 2)
    full[:, 0, prompt.shape[2] :] = rows[0]
    with torch.inference_mode():
        for level in range(1, K):
            logits = nar(text, sizes[0], full, sizes[1] + lengths, sizes[1], level, extra)
            best = logits.argmax(-1) if model.choose is None else model.choose(logits, level)
            full[:, level, prompt.shape[2] :] = best[:, prompt.shape[2] :]
    return Speech(full[0, :, prompt.shape[2] :], ended[0])


def assert_same(found: list[Speech], wanted: list[Speech]):
    for one, two in zip(found, wanted, strict=True):
        assert one.codes.shape[1] > 0
        assert torch.equal(one.codes, two.codes) and one.finished == two.finished


@pytest.mark.parametrize("part", ABLATIONS)
@pytest.mark.parametrize(("alignment", "extras"), KINDS)
def test_what_is_left_out_is_told_to_one_model_only(alignment, extras, part):
    model, wanted = make(alignment, extras), []
    for request in requests(model):
        bare = replace(request, text=request.text[request.said :], prompt=PROMPTS[2], said=0)
        ar, nar = {
            "AR prompt": (bare, request),
            "NAR prompt": (request, bare),
            "NAR text": (request, replace(request, text=[], said=0)),
        }[part]
        wanted.append(by_the_oracle(model, ar, nar))
    assert_same(Engine(model.ablated(part)).answer(requests(model)), wanted)
    whole = zip(Engine(model).answer(requests(model)), wanted, strict=True)
    expected = extras.expected  # of tiny random weights they are much alike
    assert expected or any(not torch.equal(one.codes, two.codes) for one, two in whole)


@pytest.mark.parametrize("look", [1, 5])
@pytest.mark.parametrize(("alignment", "extras"), KINDS)
def test_alone_in_a_batch_and_joined_late_are_what_the_oracle_says(
    alignment, extras, look, monkeypatch
):
    """With one place all are alone; with two, the others join when one has left."""
    monkeypatch.setitem(LOOK_EVERY, "cpu", look)  # as on a GPU: rows that have ended go on, unread
    model = make(alignment, extras)
    wanted = [by_the_oracle(model, request) for request in requests(model)]
    assert len({speech.codes.shape[1] for speech in wanted}) > 1
    for rows in (1, 2, 4):
        assert_same(Engine(model, rows).answer(requests(model)), wanted)
    engine, late = Engine(model), requests(model)
    ended, numbers = dict[int, Speech](), []
    for step in range(60):
        if step in (0, 3, 4, 9):
            numbers.append(engine.submit(late[len(numbers)]))
        ended |= dict(engine.step())
    assert_same([ended[number] for number in numbers], wanted)


@pytest.mark.parametrize(("alignment", "extras"), KINDS)
def test_what_is_said_so_far_is_how_it_begins_and_changes_nothing(alignment, extras):
    model = make(alignment, extras)
    wanted = [by_the_oracle(model, request) for request in requests(model)]
    engine, ended, early = Engine(model, 4), dict[int, Speech](), dict[int, Speech]()
    numbers = [engine.submit(request) for request in requests(model)]
    assert engine.so_far(numbers[0], 1) is None
    while len(ended) < len(numbers):
        ended |= dict(engine.step())
        found = {number: engine.so_far(number, 4) for number in numbers}
        early |= {number: speech for number, speech in found.items() if speech is not None}
        assert not set(ended) & {number for number, speech in found.items() if speech}
    assert_same([ended[number] for number in numbers], wanted)
    assert early and not engine.requests
    for number, speech in early.items():
        size = speech.codes.shape[1]
        assert size >= 4 and torch.equal(speech.codes[0], ended[number].codes[0, :size])


@pytest.mark.parametrize(("alignment", "extras"), KINDS)
def test_what_is_dropped_frees_its_row_and_changes_nothing_for_the_others(alignment, extras):
    model = make(alignment, extras)
    wanted = [by_the_oracle(model, request) for request in requests(model)]
    engine, asked = Engine(model, 3), requests(model)
    numbers = [engine.submit(request) for request in asked[:3]]
    ended = dict(engine.step())
    assert not ended and engine.free == 0
    with pytest.raises(ValueError, match="all 3 rows are taken"):
        engine.submit(asked[3])
    engine.drop({numbers[0]})
    numbers.append(engine.submit(asked[3]))
    ended |= dict(engine.step())  # the fourth has the row of the first
    assert engine.free == 0 and len(engine.decoder.tags) == 3
    engine.drop({numbers[3]})
    while len(ended) < 2:
        ended |= dict(engine.step())
    assert_same([ended[number] for number in numbers[1:3]], wanted[1:3])
    assert engine.free == 3 and not engine.requests and engine.step() == []


@pytest.mark.parametrize(("alignment", "extras"), KINDS)
def test_requests_with_one_text_and_prompt_are_read_once(alignment, extras, monkeypatch):
    model = make(alignment, extras)
    asked, alone = (
        [
            Request(TEXT[i], PROMPTS[i], LIMITS[i], model.generator(seed), Sampling(), SAID[i])
            for seed, i in enumerate((0, 1, 0, 1, 0))
        ]
        for _ in range(2)
    )
    wanted = [Engine(model).answer([request])[0] for request in alone]
    ar, read = pure_ar(model.ar), []
    prefill = ar.prefill
    monkeypatch.setattr(
        ar, "prefill", lambda text, *rest: read.append(text) or prefill(text, *rest)
    )
    assert_same(Engine(model).answer(asked), wanted)
    readings = 2 if extras.guidance else 1
    assert [len(text) for text in read] == [2 * readings]


@pytest.mark.parametrize(("alignment", "extras"), KINDS)
def test_a_compiled_step_says_what_the_oracle_says(alignment, extras, monkeypatch):
    """In its few shapes; what a compiler makes of them is the next test's."""
    monkeypatch.setattr(compiled, "BACKEND", "eager")
    model = make(alignment, extras)
    wanted = [by_the_oracle(model, request) for request in requests(model)]
    model.compiled = True
    assert_same(Engine(model, 3).answer(requests(model)), wanted)  # three rows: a fourth is empty


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="NOT RUN: needs a C++ compiler")
def test_what_the_compiler_makes_of_a_step_says_what_the_oracle_says():
    model = make(False)
    wanted = [by_the_oracle(model, request) for request in requests(model)]
    model.compiled = True
    for _ in range(2):  # in a fresh cache, too
        assert_same(Engine(model, 1).answer(requests(model)), wanted)


def test_what_is_too_long_is_refused_with_how_much_too_long():
    model = make(False)
    assert model.room(9) == 64 - 9 - 2
    with pytest.raises(InputError, match="3 frames of prompt and speech more"):
        Engine(model).submit(Request([1], PROMPTS[0], 56, seeded()))
    with pytest.raises(InputError, match="5 text tokens more"):
        Engine(model).submit(Request([1] * 20, PROMPTS[0], 5, seeded()))


@pytest.mark.parametrize(("alignment", "extras"), KINDS)
def test_nothing_is_made_on_a_device_that_was_not_asked_for(alignment, extras):
    model = make(alignment, extras)
    asked = requests(model)
    with Placed():
        Engine(model, 2).answer(asked)
        with pytest.raises(AssertionError, match="zeros without a device"):
            torch.zeros(1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="NOT RUN: needs an NVIDIA GPU")
@pytest.mark.parametrize(("alignment", "extras"), KINDS)
@pytest.mark.parametrize("graph", [False, True])
def test_a_gpu_says_what_the_cpu_says(alignment, extras, graph):
    here, there = make(alignment, extras), make(alignment, extras, "cuda")
    there.compiled = graph
    assert next(pure_ar(there.ar).parameters()).is_cuda
    greedy = [
        [
            Request(TEXT[i], PROMPTS[i], LIMITS[i], model.generator(0), Sampling("greedy"), SAID[i])
            for i in range(4)
        ]
        for model in (here, there)
    ]
    assert_same(Engine(there).answer(greedy[1]), Engine(here).answer(greedy[0]))
