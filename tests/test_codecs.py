"""One interface for every codec: guards, a toy codec spoken through the gate, EnCodec alone."""

import ast
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sayso.inference.consent.other_voices import issue_corpus_voice
from sayso.inference.detection.detector import detect
from sayso.inference.errors import RefusedError
from sayso.inference.saying import limit_seconds
from sayso.inference.store.store import Store
from sayso.inference.synthesizer import Synthesizer
from sayso.model.ar import AR, ARConfig
from sayso.model.bundle import BUNDLED, load_bundle
from sayso.model.codecs import load
from sayso.model.codecs.base import Codec, Stored, check_audio, check_codes
from sayso.model.codecs.encodec import EncodecCodec, EncodecConfig
from sayso.model.codecs.voice_edit import Alteration
from sayso.model.engine import Engine, Request
from sayso.model.errors import CheckpointError, InputError
from sayso.model.nar import NAR, NARConfig
from sayso.model.text.tokenizers import Phonemes
from sayso.model.transformer import Size
from sayso.model.valle2 import Valle2

ROOT = Path(__file__).parents[1]
ROOMS = ("model", "training", "inference", "src/sayso", "benchmarks", "tools")
TEXT = "There is a new kind of code here, and nobody but its own file knows what it is."


def trees(*rooms: str) -> dict[str, ast.Module]:
    """Every file of ours by its path; symlinked rooms are read once."""
    found = {}
    for path in (path for room in rooms for path in (ROOT / room).rglob("*.py")):
        name = str(path.relative_to(ROOT))
        if not name.startswith(tuple(f"src/sayso/{room}/" for room in ROOMS[:3])):
            found[name] = ast.parse(path.read_text())
    return found


def asked_for(tree: ast.Module) -> set[str]:
    """Names of the classes that `isinstance`, `issubclass`, `type(...) is` and `match` look for."""
    looked: list[ast.AST] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("isinstance", "issubclass"):
            looked.append(node.args[1])
        elif isinstance(node, ast.Compare) and "type(" in ast.unparse(node):
            looked.append(node)
        elif isinstance(node, ast.MatchClass):
            looked.append(node.cls)
    names = (inner for node in looked for inner in ast.walk(node))
    return {ast.unparse(n).rpartition(".")[2] for n in names if isinstance(n, ast.expr)}


def test_nobody_outside_asks_what_kind_of_codec_there_is():
    inside = trees("model/codecs").values()
    ours = {n.name for tree in inside for n in ast.walk(tree) if isinstance(n, ast.ClassDef)}
    assert {"Codec", "WorldCodec", "EncodecCodec", "TimbreCodec", "SpeechModel"} <= ours
    rest = {k: v for k, v in trees(*ROOMS).items() if not k.startswith("model/codecs/")}
    assert {name: found for name, tree in rest.items() if (found := asked_for(tree) & ours)} == {}


@pytest.mark.parametrize(
    "line",
    [
        "isinstance(a, WorldCodec)",
        "assert issubclass(a, (int, world.WorldCodec))",
        "type(a) is WorldCodec",
        "match a:\n    case WorldCodec():\n        pass",
    ],
)
def test_the_guard_sees_every_way_to_ask(line: str):
    assert "WorldCodec" in asked_for(ast.parse(line))


def test_pyworld_is_world_s_alone():
    users = {
        name
        for name, tree in trees(*ROOMS[:4]).items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Import) and "pyworld" in {each.name for each in node.names}
    }
    assert users == {"model/codecs/world.py"}


LOADERS = ("torch.load", "pickle.load", "pickle.loads", "pickle.Unpickler", "torch.jit.load")


def test_pickles_are_read_where_their_hash_is_known_and_as_tensors_only():
    calls: dict[str, list[str]] = {}
    for name, tree in trees(*ROOMS).items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in LOADERS:
                calls.setdefault(name, []).append(ast.unparse(node))
    assert all("weights_only=True" in call for found in calls.values() for call in found)
    assert set(calls) == {
        "model/checkpoint.py",  # `load_pickle`
        "inference/recognisers.py",
        "inference/watermark/perth.py",
        "inference/watermark/audioseal.py",
    }


@dataclass(frozen=True)
class ToyConfig:
    kind: str = "toy"
    hop: int = 4800
    codebooks: int = 2
    codebook_size: int = 16


class ToyCodec(Stored, Codec):
    """Sums of pieces of noise, 5 a second."""

    config_class = ToyConfig
    pieces: Tensor

    def __init__(self, config: ToyConfig):
        super().__init__()
        self.config = config
        self.sample_rate, self.frame_rate = 24_000, 24_000 / config.hop
        self.codebooks, self.codebook_size = config.codebooks, config.codebook_size
        noise = torch.randn(config.codebooks, config.codebook_size, config.hop) / 10
        self.register_buffer("pieces", noise)

    def encode(self, audio: Tensor) -> Tensor:
        check_audio(audio)
        rows = torch.nn.functional.pad(audio, (0, -audio.shape[1] % self.config.hop))
        rows = rows.unflatten(1, (-1, self.config.hop))  # (B, T, hop)
        codes = []
        for book in self.pieces:
            codes.append(torch.cdist(rows, book[None]).argmin(2))
            rows = rows - book[codes[-1]]
        return torch.stack(codes, 1)

    def decode(self, codes: Tensor) -> Tensor:
        check_codes(codes, self.codebooks, self.codebook_size)
        heard = [book[row] for book, row in zip(self.pieces, codes.unbind(1), strict=False)]
        return torch.stack(heard).sum(0).flatten(1)

    def entries(self) -> Tensor:
        return self.pieces


@pytest.fixture(scope="module")
def toy_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with a toy codec and two random models for its codes."""
    folder = tmp_path_factory.mktemp("toy")
    torch.manual_seed(0)
    codec, text, size = ToyCodec(ToyConfig()), Phonemes(), Size(1, 2, 16, 32)
    codec.save(folder / "codec")
    text.save(folder / "text")
    ar = ARConfig(text.size, codec.codebook_size, size=size)
    nar = NARConfig(text.size, codec.codebook_size, codec.codebooks, size=size)
    Valle2(AR(ar), NAR(nar)).save(folder)
    (folder / "card.json").write_text(json.dumps({"codec": {"identity": codec.identity}}))
    return folder


@pytest.fixture
def toy_is_known(monkeypatch: pytest.MonkeyPatch):
    """The one line in the loader."""
    monkeypatch.setitem(load.KINDS, "toy", (__name__, "ToyCodec"))


def test_a_kind_nobody_knows_is_refused(toy_model: Path):
    with pytest.raises(CheckpointError, match="kind 'toy': it must be of"):
        load_bundle(toy_model)


def test_a_new_codec_is_a_file_and_a_line(toy_is_known, toy_model: Path, tmp_path: Path):
    with Store.open(tmp_path / "home") as store:
        speaker = Synthesizer(toy_model, store)
        codec = speaker.bundle.codec
        noise = torch.randn(1, 24_000, generator=torch.Generator().manual_seed(0)) / 10
        prompt = codec.encode(noise)[0]
        assert torch.equal(codec.encode(codec.decode(prompt[None]))[0], prompt)
        issue_corpus_voice(
            store, "toy", prompt, "new codes", codec.identity, "Kathleen", "kathleen", [TEXT]
        )
        seed = next(seed for seed in range(50) if 4 < seconds(speaker, prompt, seed))
        spoken = speaker.speak(TEXT, "toy", tmp_path / "a.wav", "benchmark", seed=seed)
        assert spoken.seconds > 4
        found = detect(tmp_path / "a.wav", store.home)
        assert found.present and found.manifest.ledger_id == spoken.ledger_id
        out = tmp_path / "b.wav"
        with pytest.raises(InputError, match="need a codec that can edit"):
            speaker.speak(TEXT, "toy", out, "benchmark", alteration=Alteration(speed=1.2))
        with pytest.raises(InputError, match=r"\*new\* asks for emphasis.*WORLD codec"):
            speaker.speak(TEXT.replace("new", "*new*"), "toy", out, "benchmark")
        issue_corpus_voice(
            store, "old", prompt, "new codes", "another", "Kathleen", "kathleen", [TEXT]
        )
        with pytest.raises(RefusedError, match="codec-mismatch"):
            speaker.speak(TEXT, "old", out, "benchmark")
        assert not out.exists()


def seconds(speaker: Synthesizer, prompt: Tensor, seed: int) -> float:
    """How long TEXT takes with a seed, 0 if it does not end: random models end by chance."""
    bundle, random = speaker.bundle, speaker.bundle.model.generator(seed)
    before, said = (bundle.tokenizer.encode(text) for text in ("new codes", TEXT))
    limit = int(limit_seconds(TEXT) * bundle.codec.frame_rate)
    request = Request(before + said, prompt, limit, random, bundle.sampling, len(before))
    [(codes, finished, _)] = Engine(bundle.model).answer([request])
    return finished * codes.shape[1] / bundle.codec.frame_rate


ENCODEC_ALONE = """
import sys
sys.modules["pyworld"] = None
import torch
from sayso.model.bundle import load_bundle, BUNDLED
from sayso.model.errors import InputError
from pathlib import Path
import sayso.inference.synthesizer
codec = load_bundle(Path(sys.argv[1])).codec
prompt = codec.encode(torch.randn(1, 800))[0]
print(codec.speak(codec.read(prompt), prompt).shape)
try:
    load_bundle(BUNDLED)
except InputError as error:
    print(error)
"""


def test_a_model_with_encodec_needs_no_pyworld(toy_model: Path, tmp_path: Path):
    """In a process where pyworld cannot be imported; a model with WORLD says that it is missing."""
    codec = EncodecCodec(
        EncodecConfig(codebooks=2, codebook_size=16, filters=2, dimension=8, ratios=(4, 2), lstm=0)
    )
    codec.save(tmp_path / "codec")
    (tmp_path / "card.json").write_text(json.dumps({"codec": {"identity": codec.identity}}))
    for part in ("text", "ar", "nar"):
        (tmp_path / part).symlink_to(toy_model / part)
    command = [sys.executable, "-c", ENCODEC_ALONE, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "torch.Size([800])" in done.stdout
    assert "pyworld (vocoder) cannot be imported" in done.stdout


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("kind", ["encodec", "timbre"])
def test_a_codec_on_a_gpu_says_what_it_says_on_a_cpu(kind: str, tmp_path: Path):
    """But for ties: most codes are equal, and equal codes sound alike."""
    folder, timbre = BUNDLED / "codec", BUNDLED / "timbre"
    if kind == "encodec":
        folder, timbre = tmp_path, None
        EncodecCodec(EncodecConfig(filters=4, dimension=16)).save(folder)
    here, there = (load.load_codec(folder, timbre, device) for device in ("cpu", "cuda"))
    prompt = here.encode(torch.randn(1, 48_000) / 10)[0]
    assert there.encode(torch.randn(1, 48_000).cuda()).device.type == "cpu"
    codes = here.read(prompt)
    assert (there.read(prompt.cuda()) == codes).float().mean() > 0.95
    torch.testing.assert_close(
        there.speak(codes.cuda(), prompt), here.speak(codes, prompt), atol=1e-3, rtol=1e-2
    )
    assert here.identity == there.identity
