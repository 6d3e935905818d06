"""The language model as one object: its parts, its folder, its device."""

from contextlib import nullcontext

import pytest
import torch
from torch.overrides import TorchFunctionMode

from sayso.model.ar import AR, ARConfig
from sayso.model.errors import CheckpointError, InputError
from sayso.model.extras.alignment import AlignedAR
from sayso.model.nar import NAR, NARConfig
from sayso.model.valle2 import Extras, Valle2, find_device, make_ar, make_nar
from test_generate import seeded
from test_models import SIZE

K, V = 4, 30


def make(alignment: bool, extras: Extras = Extras(), device: str = "cpu") -> Valle2:  # noqa: B008
    torch.manual_seed(0)
    ar = make_ar(ARConfig(20, V, 2, SIZE, max_text=16, max_frames=64), alignment)
    nar = make_nar(NARConfig(20, V, K, SIZE, max_text=16, max_frames=64), alignment)
    for model in (ar, nar):
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    entries = torch.randn(K, V, 5, generator=seeded(1))
    return Valle2(ar, nar, extras, entries, device)


KINDS = [
    (False, Extras()),
    (False, Extras(expected=True)),
    (True, Extras()),
    (True, Extras(stay=0.5, guidance=0.8, expected=True)),
]


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
        cache = ar.transformer.cache(2, 20)
        ar.prefill(text, lengths, codes[:, 0], lengths, cache)
        assert ar.decode(codes[:, 0, :2], lengths, cache).device.type == "meta"
        assert nar(text, lengths, codes, lengths, lengths, 2).device.type == "meta"
