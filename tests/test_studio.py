"""What waits for the codec is heard in one batch; all get their own sound, or their own error."""

import threading
import time
from collections.abc import Callable
from functools import partial

import pytest
import torch
from safetensors.torch import load_file

from sayso.inference.errors import GoneError
from sayso.inference.nobody import INVENTED
from sayso.inference.shift import alone
from sayso.inference.studio import Job, Rounds, Studio, Visit
from sayso.model.bundle import BUNDLED, load_bundle
from sayso.model.codecs.voice_edit import Alteration
from sayso.model.engine import Request, Speech
from sayso.model.errors import InputError
from sayso.model.loudness import loudness
from sayso.model.text.normalization import normalise

if not (BUNDLED / "codec" / "config.json").is_file():
    pytest.skip(f"no bundled model: {BUNDLED} is missing", allow_module_level=True)


@pytest.fixture(scope="module")
def studio() -> Studio:
    torch.set_num_threads(1)
    return Studio(load_bundle(device="cpu"))


def decoded(studio: Studio, visit: Visit, number: int, frames: int) -> Job:
    """One that the engine has answered."""
    random = torch.Generator().manual_seed(number)
    prompt = torch.randint(1024, (studio.bundle.codec.encode(torch.zeros(1, 480)).shape[1], 40))
    codes = torch.randint(
        studio.bundle.codec.codebook_size, (studio.bundle.codec.codebooks, frames), generator=random
    )
    request = Request([1], codes, frames, random)
    return Job(visit, (number, 0), request, prompt, Alteration(), 0.0, None, Speech(codes, True))


def test_each_caller_hears_their_own(studio: Studio, monkeypatch: pytest.MonkeyPatch):
    codec, batches = studio.bundle.codec, list[int]()
    together = codec.speak_all

    def counted(said):
        batches.append(len(said))
        return together(said)

    monkeypatch.setattr(codec, "speak_all", counted)
    with studio.visit() as one, studio.visit() as other, studio.visit() as left:
        jobs = [decoded(studio, visit, n, 20 + 9 * n) for n, visit in enumerate((one, other, left))]
        left.gone.set()
        studio._sounder.give(jobs)
        for visit, job in ((one, jobs[0]), (other, jobs[1])):
            key, sound = visit.next()
            alone = codec.speak(*job.said)
            assert key == job.key and sound is not None and sound.shape == alone.shape
            assert loudness(sound - alone) < 1e-3 * loudness(alone)
        with pytest.raises(GoneError):
            left.next()
    assert batches[0] == 2


def test_what_cannot_be_heard_is_an_error_to_its_caller_alone(studio: Studio):
    with studio.visit() as one, studio.visit() as bad, studio.visit() as other:
        jobs = [decoded(studio, visit, n, 20) for n, visit in enumerate((one, bad, other))]
        jobs[1].speech = Speech(jobs[1].said.codes + 10**6, True)
        studio._sounder.give(jobs)
        for visit, job in ((one, jobs[0]), (other, jobs[2])):
            key, sound = visit.next()
            assert key == job.key and sound is not None
            assert torch.equal(sound, studio.bundle.codec.speak(*job.said))
        with pytest.raises(InputError):
            bad.next()
        assert all(visit.found.empty() for visit in (one, bad, other))


def asked(studio: Studio, visit: Visit, number: int, limit: int) -> Job:
    """One of three texts by nobody, which ends within 90 frames and not within 2."""
    prompt = load_file(BUNDLED / "voices/nobody/prompt.safetensors")["codes"].long()
    known = studio.bundle.tokenizer.encode(normalise(INVENTED))
    text = known + studio.bundle.tokenizer.encode(("Why not?", "Not now.", "Now.")[number])
    random, codes = torch.Generator().manual_seed(number), studio.bundle.codec.read(prompt)
    request = Request(text, codes, limit, random, said=len(known))
    return Job(visit, (number, limit), request, prompt, Alteration(), 0.0)


def said_in_rounds(studio: Studio, late: int, limits: list[list[int]]) -> dict:
    """What callers of a text each are told, who ask again with each limit; one of them is late."""
    rounds, told = Rounds(studio.bundle, len(limits)), {}

    def call(number: int) -> None:
        time.sleep(0.2 * (number == late))
        seat = rounds.seats[number]
        with seat.visit() as visit:
            for limit in limits[number]:
                seat.ask([asked(studio, visit, number, limit)])
                told[number, limit] = visit.next()[1]
        rounds.idle()

    in_threads([partial(call, number) for number in range(len(limits))])
    return told


def in_threads(calls: list[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=call, daemon=True) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not any(thread.is_alive() for thread in threads), "somebody waits for ever"


def test_on_its_own_threads_a_small_model_computes_with_one_and_nobody_elses_is_changed(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
):
    threads, engine, codec = list[int](), studio.engine, studio.bundle.codec

    def counted(work):
        def call(*given):
            threads.append(torch.get_num_threads())
            return work(*given)

        return call

    monkeypatch.setattr(engine, "step", counted(engine.step))
    monkeypatch.setattr(codec, "speak_all", counted(codec.speak_all))
    torch.set_num_threads(2)
    try:
        with studio.visit() as visit:
            studio.ask([asked(studio, visit, 2, 90)])
            assert visit.next()[1] is not None
        assert len(threads) > 2 and set(threads) == {1}
        with alone():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
        in_threads([lambda: threads.append(torch.get_num_threads())])
        assert threads[-1] == 2
    finally:
        torch.set_num_threads(1)


def test_in_rounds_it_is_the_same_bit_for_bit_whoever_comes_first(studio: Studio):
    """The first fails and asks again; the second leaves unheard; the third fails for good."""
    limits = [[2, 90], [], [2]]
    one, two = (said_in_rounds(studio, late, limits) for late in (0, 2))
    assert one[0, 2] is None and one[2, 2] is None and one.keys() == two.keys()
    assert one[0, 90] is not None and torch.equal(one[0, 90], two[0, 90])


def test_in_rounds_a_caller_may_ask_in_two_visits_at_once(studio: Studio):
    """As a long sentence that is cut does, while others of its text are said again."""
    rounds, told = Rounds(studio.bundle, 2), list[int]()

    def call() -> None:
        seat = rounds.seats[0]
        with seat.visit() as outer, seat.visit() as inner:
            seat.ask([asked(studio, outer, 0, 2)])
            for visit in (inner, outer, inner):
                seat.ask([asked(studio, inner, 1, 2)])
                told.append(visit.next()[0][0])
        rounds.idle()

    in_threads([call, rounds.idle])
    assert told == [1, 0, 1]
