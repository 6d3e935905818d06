"""The kit for a lent GPU, on the CPU: packed, trained in slices, gone on with elsewhere."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sayso.model.codecs.decoder import Decoder
from sayso.model.errors import CorpusError, InputError
from sayso.training.checkpoints import newest, read_state
from sayso.training.fitting.decoder_examples import Example
from tools.gpu.examples import read_examples, write_examples
from tools.gpu.pack import pack_examples, pack_tokens
from tools.gpu.parcels import pack, unpack
from tools.gpu.run import parser, slice_of, slim, widened
from training_fixtures import CONFIGS, SMALL, rows, write_tokens

DECODER = """
decoder: {width: 8, blocks: 1, kernel: 3}
batch: 2
frames: 20
steps: 4
adversarial_from: 2
channels: 4
listener_steps: 2
clear_steps: 2
joined_steps: 2
save_every: 2
held_out_every: 3
"""


def examples(count: int = 12) -> dict[str, Example]:
    random = torch.Generator().manual_seed(0)

    def drawn(rows: int, columns: int) -> torch.Tensor:
        return torch.randn(rows, columns, generator=random) * torch.arange(1, columns + 1)

    ids = torch.randint(-1, 12, (50,), generator=random)
    return {
        f"kathleen~u{n:04d}": Example([drawn(50, 37), drawn(50, 37)], drawn(100, 20), ids)
        for n in range(count)
    }


@pytest.fixture(scope="module")
def kit(tmp_path_factory) -> Path:
    """Of made-up tokens and examples, with the names of consented corpora."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("kit")
    run = folder / "run"
    write_tokens(run / "tokens-some", rows(40), aligned=True)
    (run / "timbre" / "decoder").mkdir(parents=True)
    (run / "timbre" / "config.json").write_text("{}")
    (run / "timbre" / "decoder" / "model.safetensors").write_bytes(b"not to travel")
    (folder / "examples").mkdir()
    for name, each in examples().items():
        tensors = {f"said{i}": value.half() for i, value in enumerate(each.said)}
        assert each.symbols is not None
        tensors |= {"recorded": each.recorded.half(), "symbols": each.symbols.short()}
        save_file(tensors, folder / "examples" / f"{name}.safetensors")
    pack_tokens(run, folder / "kit")
    pack_examples(run, folder / "examples", folder / "kit")
    return folder / "kit"


def asked(kit: Path, place: Path, *more: str):
    (place / "decoder.yaml").write_text(DECODER)
    settings = SMALL | {"data.corpora": ["kathleen"], "data.held_out_every": None}
    settings |= {f"{part}.train.steps": 4 for part in ("ar", "nar")}
    given = ["--device", "cpu", "--kit", str(kit), "--out", str(place / "out")]
    given += ["--work", str(place / "work"), "--config", str(CONFIGS / "mini" / "gpu.yaml")]
    given += ["--decoder-config", str(place / "decoder.yaml"), "--set", json.dumps(settings)]
    return parser().parse_args([*given, *more])


def test_examples_are_nearly_what_they_were(tmp_path: Path):
    before = examples()
    before["kathleen~u0001"] = dataclasses.replace(before["kathleen~u0001"], symbols=None)
    assert 0.02 < write_examples(tmp_path, before, 12) < 0.04
    after, symbols = read_examples(tmp_path)
    assert symbols == 12 and list(after) == list(before)
    spread = torch.arange(1, 38)
    for name, each in after.items():
        assert ((each.said[0] - before[name].said[-1]) / spread).abs().max() < 0.06
        assert each.recorded.shape == (100, 20)
        assert (each.symbols is None) == (name == "kathleen~u0001")
    ids = after["kathleen~u0002"].symbols, before["kathleen~u0002"].symbols
    assert ids[0] is not None and ids[1] is not None and torch.equal(ids[0], ids[1])


def test_a_parcel_that_was_changed_or_is_of_others_is_refused(kit: Path, tmp_path: Path):
    shutil.copytree(kit, tmp_path / "kit")
    piece = tmp_path / "kit" / "tokens.000"
    assert unpack(tmp_path / "kit", "tokens", tmp_path / "good") == ["kathleen"]
    assert not (tmp_path / "good" / "timbre" / "decoder").exists()
    piece.write_bytes(piece.read_bytes()[:-1] + b"?")
    with pytest.raises(InputError, match="differs"):
        unpack(tmp_path / "kit", "tokens", tmp_path / "bad")
    assert not (tmp_path / "bad").exists()
    with pytest.raises(CorpusError, match="voxceleb"):
        pack(tmp_path / "good", tmp_path / "kit", "other", ["voxceleb2"])
    assert not (tmp_path / "kit" / "other.json").exists()


def test_slices_train_all_three_parts(kit: Path, tmp_path: Path):
    slice_of(asked(kit, tmp_path))
    assert {path.stem for path in (tmp_path / "out").glob("*.json")} == {"ar", "nar", "decoder"}
    for part in ("ar", "nar", "decoder"):
        unpack(tmp_path / "out", part, tmp_path / "back")
    assert set(json.loads((tmp_path / "back" / "card.json").read_text())["models"]) == {"ar", "nar"}
    decoder = Decoder.load(tmp_path / "back" / "decoder")
    assert decoder.config.symbols == 12
    assert "frames a second" in (tmp_path / "back" / "logs" / "ar.txt").read_text()


def test_a_slice_that_time_ends_goes_on_on_another_machine(kit: Path, tmp_path: Path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    checkpoints = tmp_path / "one" / "work" / "run" / "checkpoints" / "ar"
    for minutes in ("0.08", "0.4", "2"):  # as long as it takes to begin
        given = asked(kit, tmp_path / "one", "--parts", "ar", "--minutes", minutes)
        settings = json.loads(given.set) | {"ar.train.steps": 10**6, "ar.train.save_every": 10**5}
        given.set = json.dumps(settings)  # the seconds end it, not the steps
        slice_of(given)
        if checkpoints.is_dir():
            break
    assert not (tmp_path / "one" / "work" / "run" / "finished" / "ar").exists()
    [path] = checkpoints.glob("step-*")
    step = int(path.stem.removeprefix("step-"))
    assert step > 4
    out = tmp_path / "one" / "out"
    given = asked(kit, tmp_path / "two", "--parts", "ar", "--resume", str(out))
    settings = json.loads(given.set) | {"ar.train.steps": step + 3}
    given.set = json.dumps(settings)
    slice_of(given)
    last = newest(tmp_path / "two" / "work" / "run" / "checkpoints" / "ar")
    assert last is not None and read_state(last)[1]["progress"]["step"] == step + 3
    assert (tmp_path / "two" / "work" / "run" / "finished" / "ar").exists()


def test_a_checkpoint_travels_as_its_averaged_weights_alone():
    tensors = {
        **{"model.a": torch.ones(2), "average.a": torch.zeros(2), "judge/model.b": torch.ones(1)},
        **{"optimizer.step.a": torch.ones(1), "judge/optimizer.step.b": torch.ones(1)},
    }
    made = slim(tensors)
    assert set(made) == {"average.a", "judge/model.b"}
    assert all(value.dtype == torch.float16 for value in made.values())
    assert torch.equal(widened(made)["model.a"], torch.zeros(2))


def test_no_gpu_is_said_at_once(kit: Path, tmp_path: Path):
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(InputError, match="no GPU"):
        slice_of(asked(kit, tmp_path, "--device", "cuda"))
    assert not (tmp_path / "work").exists()
    with pytest.raises(InputError, match="--parts"):
        slice_of(asked(kit, tmp_path, "--parts", "vocoder"))
