"""Fewer bits and other blocks: the same codes, whoever shares the batch."""

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from sayso.inference.nobody import INVENTED
from sayso.model.bundle import BUNDLED, Bundle, load_bundle
from sayso.model.engine import Engine, Request, Speech
from sayso.model.errors import InputError
from sayso.model.extras.alignment import NONE, AlignedAR, AlignedNAR, ages
from sayso.model.precision import Packed, convert
from sayso.model.text.normalization import normalise
from test_engine import assert_same, by_the_oracle, requests
from test_valle2 import KINDS, make

SENTENCES = [  # of fewer a share of 99 % says little
    "In the end a farmer took us home in his old truck.",
    "She had thought about it for a long time before she answered the question.",
    "In the morning there was bread and butter on the table.",
    "The clocks were striking thirteen, and nobody was surprised.",
    "The cat sat on the mat and looked at the quiet garden.",
    "It was a bright cold day in April.",
    "Where were you this morning?",
    "We walked along the river until the sun went down.",
    "Nobody had brought an umbrella, so we waited under the bridge.",
    "A letter lay beside it.",
]
NEEDS_VNNI = pytest.mark.skipif(
    not torch.cpu._is_vnni_supported(), reason="NOT RUN: int8 needs a CPU with AVX-512 VNNI"
)


@pytest.mark.parametrize(("alignment", "extras"), KINDS)
def test_packed_layers_say_what_the_oracle_says(alignment, extras):
    model = make(alignment, extras)
    wanted = [by_the_oracle(model, request) for request in requests(model)]
    before = len(model.nar.state_dict())
    convert(model.ar, "fp32")
    convert(model.nar, "fp32")
    assert len(model.nar.state_dict()) < before  # they are packed
    assert_same(Engine(model).answer(requests(model)), wanted)


@NEEDS_VNNI
@pytest.mark.parametrize(("alignment", "extras"), KINDS)
def test_in_int8_no_row_hangs_on_who_shares_its_batch(alignment, extras):
    model = make(alignment, extras)
    convert(model.ar, "int8")
    convert(model.nar, "int8")
    alone = [Engine(model).answer([request])[0] for request in requests(model)]
    assert_same(Engine(model).answer(requests(model)), alone)


@pytest.fixture(scope="module")
def spoken() -> list[tuple[Request, Speech]]:
    """What the bundled model says in fp32, behind nobody's prompt."""
    bundle = load_bundle(device="cpu")
    stored = load_file(BUNDLED / "voices" / "nobody" / "prompt.safetensors")["codes"]
    prompt, known = bundle.codec.read(stored.long()), bundle.tokenizer.encode(normalise(INVENTED))
    texts = [known + bundle.tokenizer.encode(normalise(text)) for text in SENTENCES]
    asked = [
        Request(text, prompt, 300, bundle.model.generator(1), bundle.sampling, len(known))
        for text in texts
    ]
    return list(zip(asked, Engine(bundle.model).answer(asked), strict=True))


@torch.inference_mode()
def likeliest(bundle: Bundle, spoken: list[tuple[Request, Speech]]) -> tuple[Tensor, Tensor]:
    """The AR's and the NAR's likeliest codes at each place, given what was really said before; the
    AR's by a cache, as it speaks."""
    ar, nar = bundle.model.ar, bundle.model.nar
    assert isinstance(ar, AlignedAR) and isinstance(nar, AlignedNAR)
    G, found = ar.ar.config.group_size, ([], [])
    for request, said in spoken:
        assert said.where is not None
        text, held = torch.tensor([request.text]), torch.tensor([request.prompt.shape[1]])
        text_lengths, codes = torch.tensor([len(request.text)]), said.codes
        full = torch.cat([request.prompt, codes], 1)[None]
        lengths = torch.tensor([full.shape[2]])
        where = torch.cat([torch.full((int(held),), NONE), said.where])[None]
        told = where[:, G - 1 :: G]
        told = torch.cat([told, told[:, -1:]], 1)
        told = ar.told(text, text_lengths, told, ages(told))
        start, end = int(held) // G, full.shape[2] // G
        cache = ar.ar.transformer.cache(1, len(request.text) + 2 + end)
        given = text, text_lengths, full[:, 0, : start * G], held
        hidden = [ar.ar.prefill(*given, cache, told[:, : start + 1])]
        for n in range(start, end):
            group, number = full[:, 0, n * G : (n + 1) * G], torch.tensor([n + 1])
            hidden.append(ar.ar.decode(group, number, cache, told[:, n + 1 : n + 2]))
        found[0].append(ar.ar.predict(torch.cat(hidden)).argmax(-1).flatten())
        told = nar.told(text, text_lengths, where, held)
        for level in range(1, full.shape[1]):
            given = text, text_lengths, full, lengths, held, level, told
            found[1].append(nar.nar(*given)[0, int(held) :].argmax(-1))
    return torch.cat(found[0]), torch.cat(found[1])


@pytest.mark.parametrize("precision", ["bf16", pytest.param("int8", marks=NEEDS_VNNI)])
def test_in_fewer_bits_the_likeliest_codes_are_the_same(spoken, precision):
    wanted = likeliest(load_bundle(device="cpu"), spoken)
    assert len(wanted[0]) > 1000 and len(wanted[1]) > 3000
    found = likeliest(load_bundle(device="cpu", precision=precision), spoken)
    for one, two in zip(found, wanted, strict=True):
        assert (one == two).float().mean() >= 0.99


def test_a_precision_that_there_is_none_of_is_refused_with_those_there_are():
    with pytest.raises(InputError, match="'fp16': give fp32, bf16, int8"):
        load_bundle(precision="fp16")
    with pytest.raises(InputError, match="int8 needs a CPU"):
        convert(torch.nn.Linear(2, 2, device="meta"), "int8")


def test_a_compiled_ar_is_left_to_its_compiler_to_pack():
    """PyTorch's fails on what is packed; the NAR is not compiled."""
    model = load_bundle(device="cpu", compiled=True).model
    kinds = [{type(module) for module in part.modules()} for part in (model.ar, model.nar)]
    assert torch.nn.Linear in kinds[0] and Packed not in kinds[0]
    assert Packed in kinds[1]
