"""The language model as one object: batches in, codes out, its room, its folder, its device."""

from contextlib import nullcontext

import pytest
import torch
from torch.overrides import TorchFunctionMode

from sayso.model.ar import AR, ARConfig
from sayso.model.errors import CheckpointError, InputError
from sayso.model.extras.alignment import AlignedAR
from sayso.model.nar import NAR, NARConfig
from sayso.model.sampling import Sampling
from sayso.model.transformer import Cache
from sayso.model.valle2 import Extras, Valle2, find_device, make_ar, make_nar, pure_ar
from test_generate import seeded
from test_models import SIZE

K, V = 4, 30
TEXT = [[3, 1, 4, 1, 5], [9, 2, 6, 5, 3, 5, 8, 9], [7, 9]]
SAID = [2, 3, 0]
LIMITS = [20, 14, 26]
ASKED = Extras(stay=0.5, guidance=0.8, expected=True)


def make(alignment: bool, extras: Extras = Extras(), device: str = "cpu") -> Valle2:  # noqa: B008
    torch.manual_seed(0)
    ar = make_ar(ARConfig(20, V, 2, SIZE, max_text=16, max_frames=64), alignment)
    nar = make_nar(NARConfig(20, V, K, SIZE, max_text=16, max_frames=64), alignment)
    for model in (ar, nar):
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    entries = torch.randn(K, V, 5, generator=seeded(1))
    return Valle2(ar, nar, extras, entries, device)


def prompts() -> list[torch.Tensor]:
    return [torch.randint(0, V, (K, n), generator=seeded(n)) for n in (9, 6, 0)]


KINDS = [(False, Extras()), (False, Extras(expected=True)), (True, Extras()), (True, ASKED)]


@pytest.mark.parametrize(("alignment", "extras"), KINDS)
def test_a_request_with_its_own_generator_is_the_same_in_any_company(alignment, extras):
    model = make(alignment, extras)
    own = [model.generator(row) for row in range(3)]
    together = model.generate(TEXT, prompts(), LIMITS, Sampling(), own, SAID)
    for row, prompt in enumerate(prompts()):
        alone = model.generate(
            TEXT[row : row + 1],
            [prompt],
            LIMITS[row : row + 1],
            Sampling(),
            [model.generator(row)],
            SAID[row : row + 1],
        )
        assert together.codes[row].shape[0] == K and together.codes[row].shape[1] > 0
        assert torch.equal(together.codes[row], alone.codes[0])
        assert together.finished[row] == alone.finished[0]


def test_what_is_too_long_is_refused_with_how_much_too_long():
    model = make(False)
    assert model.room(9) == 64 - 9 - 2
    with pytest.raises(InputError, match="3 frames of prompt and speech more"):
        model.generate(TEXT, prompts(), [56, 1, 1], Sampling(), seeded(), SAID)
    with pytest.raises(InputError, match="5 text tokens more"):
        model.generate([[1] * 20], prompts()[:1], [5], Sampling(), seeded(), [0])


@pytest.mark.parametrize("alignment", [False, True])
def test_a_folder_holds_both_models_whole(alignment, tmp_path):
    model = make(alignment)
    model.save(tmp_path)
    again = Valle2.load(tmp_path, device="cpu")
    assert isinstance(again.ar, AlignedAR) == alignment
    for one, two in ((model.ar, again.ar), (model.nar, again.nar)):
        assert one.config == two.config and not two.training
        for name, tensor in one.state_dict().items():
            assert torch.equal(tensor, two.state_dict()[name])


def test_parts_that_do_not_belong_together_are_refused():
    plain, aligned = make(False), make(True)
    with pytest.raises(CheckpointError, match="the AR has none"):
        Valle2(plain.ar, aligned.nar)
    with pytest.raises(CheckpointError, match="AR with a pointer"):
        Valle2(plain.ar, plain.nar, Extras(guidance=0.8))
    with pytest.raises(CheckpointError, match="entries"):
        Valle2(plain.ar, plain.nar, Extras(expected=True))
    Valle2(aligned.ar, plain.nar)
    with pytest.raises(ValueError, match="stay 1"):
        Extras(stay=1)
    with pytest.raises(ValueError, match="guidance -1"):
        Extras(guidance=-1)


def test_a_device_that_is_not_there_is_refused_by_name():
    assert find_device("cpu") == torch.device("cpu")
    assert find_device().type in ("cuda", "mps", "cpu")
    for name in ("tpu", "", *(["cuda"] if not torch.cuda.is_available() else [])):
        with pytest.raises(InputError, match=f"device '{name}' is not there: this machine has"):
            find_device(name)


class Placed(TorchFunctionMode):
    """Refuses a tensor that is made without saying on which device."""

    makers = (torch.tensor, torch.zeros, torch.ones, torch.full, torch.empty, torch.arange)
    more = (torch.rand, torch.randn, torch.eye, torch.linspace, torch.as_tensor)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in self.makers + self.more:
            assert (kwargs or {}).get("device") is not None, f"{func.__name__} without a device"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("alignment", "extras"), KINDS)
@pytest.mark.parametrize("method", ["ras", "greedy"])
def test_nothing_is_made_on_a_device_that_was_not_asked_for(alignment, extras, method):
    model, given = make(alignment, extras), prompts()
    with Placed():
        model.generate(TEXT, given, LIMITS, Sampling(method), seeded(), SAID)
        with pytest.raises(AssertionError, match="zeros without a device"):
            torch.zeros(1)


def test_the_models_compute_on_the_device_they_are_on(monkeypatch):
    """On the meta device, where a tensor of another device in any sum is an error."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # knows no meta
    ar, nar = (part.to("meta") for part in (make(False).ar, make(False).nar))
    assert isinstance(ar, AR) and isinstance(nar, NAR)
    with torch.device("meta"):
        text, codes = torch.zeros(2, 5, dtype=torch.long), torch.zeros(2, K, 8, dtype=torch.long)
        lengths = torch.zeros(2, dtype=torch.long)
    with Placed():
        assert ar(text, lengths, codes[:, 0], lengths).device.type == "meta"
        cache = Cache(ar.config.size, 2, 20, ar.bos)
        ar.prefill(text, lengths, codes[:, 0], lengths, cache)
        assert ar.decode(codes[:, 0, :2], lengths, cache).device.type == "meta"
        assert nar(text, lengths, codes, lengths, lengths, 2).device.type == "meta"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="NOT RUN: needs an NVIDIA GPU")
@pytest.mark.parametrize(("alignment", "extras"), KINDS)
def test_a_gpu_says_what_the_cpu_says(alignment, extras):
    here, there = make(alignment, extras), make(alignment, extras, "cuda")
    assert next(pure_ar(there.ar).parameters()).is_cuda
    given = TEXT, prompts(), LIMITS, Sampling("greedy")
    one = here.generate(*given, here.generator(0), SAID)
    two = there.generate(*given, there.generator(0), SAID)
    assert one.finished == two.finished
    for wanted, found in zip(one.codes, two.codes, strict=True):
        assert found.device.type == "cpu"
        assert torch.equal(wanted, found)
