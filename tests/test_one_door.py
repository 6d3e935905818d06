"""One door: whatever can make sound in a voice asks the gate, and makes none without a grant.

A new verb, public function, caller or benchmark fails these tests until somebody has looked at it
and put it into the lists below. What a person who patches the code can do is no business of a test:
see ETHICS.md.
"""

import ast
import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from typer.testing import CliRunner

import sayso
from sayso import demo
from sayso.cli import app
from sayso.inference.errors import RefusedError
from sayso.inference.finishing import Marked
from sayso.inference.gate import Gate, Grant
from sayso.inference.store.store import Store
from sayso.inference.synthesizer import Synthesizer
from sayso.model.codecs.voice_edit import Alteration

ROOT = Path(__file__).resolve().parents[1]
SOUND = {"speak", "demo"}  # verbs that make audio in a voice
LISTENING = {"train ar", "train nar"}  # with --listen: in corpus voices; see tests/test_listen.py
MEASURING = {"evaluate"}  # through the gate, as `speak`; see tests/test_evaluation_run.py
SERVING = {"serve"}  # hands each request to a verb, and the gate decides: tests/test_service.py
SILENT = {
    *("token create", "token list", "token revoke"),
    *("detect", "voices", "revoke", "prepare"),
    *("enrol start", "enrol finish", "enrol record", "receipt verify", "receipt key"),
    *("receipt export", "ledger verify", "ledger head", "ledger export", "ledger check"),
    *("keys rotate", "ca export", "corpora list", "corpora show", "corpora check"),
    *("train codec", "train timbre", "train text", "train share", "codec published", "export"),
    *("train doctor", "train report", "train decoder", "evaluate kit", "evaluate answers"),
}
SPEAK_OPTIONS = {  # of `sayso speak`: a new one may be a new way to a voice
    *("--voice", "--text", "--out", "--purpose", "--user", "--seed", "--top-p"),
    *("--speed", "--pitch", "--formant", "--samples", "--model", "--device"),
    *("--precision", "--compile"),  # how the same model is computed
    *("--file", "--resume"),  # a text out of a file, granted as a whole
    "--whole",  # what has left under that, bound into one file by the gate
    "--stream",  # through the same gate, sentence by sentence
    "--lexicon",  # changes what is asked for, before it is asked
}
DATA = re.compile(r"Tensor|ndarray|NDArray|Audio\b|bytes|Grant|Take\b|Features|Spoken|Said|Chunk")
YIELDERS = {  # public functions that give sound, codes or bytes without being given any: why
    "gate.Gate.authorise": "asks",
    "synthesizer.Synthesizer.speak": "asks",
    "synthesizer.Synthesizer.stream": "asks",
    "synthesizer.Synthesizer.stretches": "is given a grant, and asks again for each",
    "long_grants.grant_part": "asks for a part of what was granted",
    "finishing.unpacked": "bytes that were given, as samples",
    "finishing.Sent.blocks": "of a stream, which has left",
    "saying.speech_of": "is given a grant",
    "speaking.speak": "asks for each",
    "listen.say_held_out": "asks for each",
    "studio.Visit.next": "of what was asked for under a grant",
    "studio.Job.said": "of what was asked for under a grant",
    "permission.unpack_prompt": "of what a grant opened",
    "store.Store.grant": "logs the grant that it is given for, in one step",
    "voices.wave_of": "a file of the caller's",
    "perth.read_weights": "weights of the package",
    "recognisers.read_weights": "weights of the packages",
    "c2pa.sign_audio": "a file that was given, signed",
    "store.Store.release_key": "of a file that the ledger has released",
    "releases.begin": "the key of a file that was given",
    "sealed.seal": "sealed bytes",
    "sealed.unseal": "what the key's holder sealed",
    "sealed.read_key": "a key, to the store",
    "sealed.read_sealed": "a voice's data, to the store",
    "take.Take.at": "a file of the caller's",
    "c2pa.sign_stream": "a manifest",
    "recording.unpack": "a fingerprint",
    "perth_filter.evidence": "a measure of sound given before",
    "fixed_pattern.group_of": "numbers of bands",
    "keyed.Keyed.chips": "a pattern",
    "sound.signs_of": "a fingerprint",
    "released.released": "fingerprints",
    "keys.canonical": "JSON",
    "keys.verify": "a receipt",
    "keys.passphrase": "a secret of the caller's",
    "keys.next_passphrase": "a secret of the caller's",
    "keyed.ensure_key": "the key of the mark",
    "keyed.load_key": "the key of the mark",
    "nobody.invent": "codes of nobody, with no prompt",
    "speech.say": "asks",
    "speech.events": "a released file in pieces",
    "errors.Json.render": "JSON",
}
MAKERS = {  # call -> the only files that may make it
    "Grant": {"inference/gate.py", "inference/long_grants.py"},
    "store.grant": {"inference/gate.py", "inference/long_grants.py"},
    "read_sealed": {"inference/store/store.py", "inference/store/checking.py"},
    "read_key": {"inference/store/sealed.py", "inference/store/checking.py"},
    # The benchmark's codes, of a prompt of noise, become no sound.
    "Engine": {"inference/studio.py", "inference/nobody.py", "benchmarks/batches.py"},
    "Studio": {"inference/synthesizer.py"},
    "Job": {"inference/saying.py"},
    "speech_of": {"inference/saying.py", "inference/synthesizer.py"},
    "codec.speak": {"tools/classifier_clips.py"},
    "codec.speak_all": {"inference/studio.py"},
    "codec.hear": {
        *("inference/saying.py", "inference/consent/changes.py"),
        "inference/nobody.py",  # of what was just made up
    },
    "codec.as_prompt": {"inference/nobody.py", "src/sayso/listen.py"},
    "synthesise": {"benchmarks/attacks.py"},
    "authorise": {"inference/synthesizer.py", "inference/book.py"},
    "gate.mark": {"inference/synthesizer.py"},
    "gate.release": {"inference/synthesizer.py", "inference/book.py"},
    "gate.bind": {"inference/book.py"},
    "finish_whole": {"inference/gate.py"},
    "encode_chapters": {"inference/whole.py"},
    "gate.take_up": {"inference/long_grants.py"},
    "grant_part": {"inference/book.py"},
    "gate.let_out": {"inference/synthesizer.py"},
    "finish_stretch": {"inference/gate.py"},
    "synthesizer.stream": {"src/sayso/cli/speech.py", "src/sayso/service/speech.py"},
    "synthesizer.speak": {
        "src/sayso/cli/speech.py",
        "src/sayso/demo.py",
        "src/sayso/service/speech.py",
    },
    "finish": {"inference/gate.py"},
    "encode_audio": {"inference/finishing.py", "model/audio.py"},
    "releases.deliver": {"inference/gate.py"},
    "store.enrol": {"inference/consent/enrolment.py", "inference/consent/other_voices.py"},
    "issue_bundled_voice": {"src/sayso/export.py"},
    "issue_own_voice": {"inference/nobody.py"},
    "issue_corpus_voice": {
        "src/sayso/listen.py",
        "src/sayso/evaluation/voices.py",
        "benchmarks/speak.py",
    },
    # Not in a voice of the store: codecs tried on recordings, and what is written as a file.
    "codec.decode": {"src/sayso/evaluation/voices.py"},  # of recordings, judged in memory
    "decode": {
        *("src/sayso/evaluation/voices.py", "benchmarks/attacks.py", "benchmarks/decode.py"),
        "tools/fit_classifier.py",
    },
    "write_audio": {"inference/consent/microphone.py", "tools/classifier_clips.py"},
    "soundfile.write": {
        *("model/audio.py", "benchmarks/attacks.py", "benchmarks/speak.py", "benchmarks/serve.py"),
    },
}


@pytest.fixture
def revoked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store in which even nobody's voice was withdrawn; the current folder is empty."""
    monkeypatch.setenv("SAYSO_HOME", str(tmp_path / "home"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with Store.open() as store:
        gate = Gate(store)
        if store.voice("nobody") is None:
            pytest.skip("no bundled voice")
        gate.revoke("nobody")
    return tmp_path / "here"


def verbs(command: Any, name: str = "") -> set[str]:
    """Full names of a command's verbs (typer has a click of its own, so no isinstance)."""
    if not hasattr(command, "commands"):
        return {name}
    parts = command.commands.items()
    own = {name} if getattr(command, "invoke_without_command", False) else set()
    return own | {verb for part, inner in parts for verb in verbs(inner, f"{name} {part}".strip())}


def recordings(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.suffix in {".wav", ".flac", ".mp3", ".part"}]


def test_every_verb_is_known():
    found = verbs(typer.main.get_command(app))
    assert found >= SOUND
    assert found - SILENT - LISTENING - MEASURING - SERVING == SOUND
    options = typer.main.get_command(app).commands["speak"].params  # type: ignore[attr-defined]
    assert {name for option in options for name in option.opts} == SPEAK_OPTIONS


@pytest.mark.parametrize("voice", ["nobody", "a-stranger"])
def test_no_verb_speaks_without_a_grant(revoked: Path, voice: str):
    say = ["speak", "--voice", voice, "--text", "Hi.", "--out"]
    (revoked / "a.md").write_text("# Hi\n\nThere.")
    calls = [
        [*say, "a.wav"],
        [*say, "a.opus", "--samples", "3"],
        [*say, "a.mp3", "--speed", "1.5"],
        [*say, "a.wav", "--stream"],
        [*say, "-", "--stream"],
        ["speak", "--voice", voice, "--file", "a.md", "--out", "book"],
        ["speak", "--voice", voice, "--file", "a.md", "--out", "book2", "--whole", "ogg"],
        [*say, "a.flac", "--pitch", "3", "--formant", "1.1"],
        [*say, "a.wav", "--user", "*", "--purpose", "*", "--seed", "1", "--top-p", "0.5"],
        ["demo"],
    ]
    assert {arguments[0] for arguments in calls} == SOUND
    for arguments in calls:
        result = CliRunner().invoke(app, arguments)
        assert isinstance(result.exception, RefusedError), (arguments, result)
        assert not recordings(revoked)
    with Store.open() as store:
        assert not list((store.home / "work").iterdir())


def test_every_public_name_is_known():
    names = {"RefusedError", "Sampling", "SaysoError", "Store", "Synthesizer", "detect"}
    assert set(sayso.__all__) == names
    own = {name for name, _ in inspect.getmembers(Synthesizer, inspect.isfunction)}
    assert {name for name in own if not name.startswith("_")} == {
        "speak",
        "stream",
        "stretches",
        "manner",
        "beside",
        "ablated",
    }


def public_functions() -> Iterator[tuple[str, Callable]]:
    """Every public function and method of inference/ and src/sayso/, by module and name."""
    for folder, package in ((ROOT / "inference", "sayso.inference"), (ROOT / "src/sayso", "sayso")):
        for path in folder.rglob("*.py"):
            inside = path.relative_to(folder).with_suffix("").parts
            if inside[0] in ("model", "training"):
                continue
            module = importlib.import_module(".".join((package, *inside)).removesuffix(".__init__"))
            for name, thing in vars(module).items():
                if name.startswith("_") or getattr(thing, "__module__", "") != module.__name__:
                    continue
                if inspect.isfunction(thing):
                    yield f"{path.stem}.{name}", thing
                for part, method in vars(thing).items() if inspect.isclass(thing) else ():
                    method = getattr(method, "fget", None) or getattr(method, "__func__", method)
                    if inspect.isfunction(method) and not part.startswith("_"):
                        yield f"{path.stem}.{name}.{part}", method


def test_every_public_function_that_yields_sound_is_known():
    """Those that are given sound and change it are passed over: they have no voice of their own."""
    found, seen = set(), 0
    for name, function in public_functions():
        signature = inspect.signature(function)
        given = " ".join(str(part.annotation) for part in signature.parameters.values())
        if DATA.search(str(signature.return_annotation)) and not re.search(
            r"Tensor|ndarray|NDArray", given
        ):
            found.add(name)
        seen += 1
    assert seen > 200
    methods = {
        name for name in found if name.startswith("perth_filter.Sums.")
    }  # of sums given before
    assert found - methods == set(YIELDERS)


def test_speaking_in_python_asks_the_gate(revoked: Path):
    synthesizer = Synthesizer()
    out, gate = revoked / "a.wav", synthesizer.gate
    made = Marked("g-1", b"RIFF", b"", b"", 1.0)
    made_up = Grant("g-1", "nobody", "c-1", "a", "b", "Hi.", torch.zeros(8, 9), "", True, "codec")
    doors: list[Callable[[], Any]] = [
        lambda: synthesizer.speak("Hi.", "nobody", out),
        lambda: synthesizer.speak("Hi.", "a-stranger", out),
        lambda: synthesizer.speak("Hi.", "nobody", out, samples=2),
        lambda: next(synthesizer.stream("Hi.", "nobody")),
        lambda: next(synthesizer.stream("Hi.", "a-stranger")),
        lambda: gate.let_out(made_up, torch.zeros(9), 24_000, synthesizer.marks),
        lambda: synthesizer.speak("Hi.", "nobody", out, alteration=Alteration(speed=1.5, pitch=2)),
        lambda: gate.authorise("nobody", "a", "b", "Hi."),
        lambda: gate.authorise("a-stranger", "a", "b", "Hi."),
        lambda: gate.release(made_up, made, out),
        lambda: demo.run(revoked / "demo"),
    ]
    for door in doors:
        with pytest.raises(RefusedError):
            door()
    assert not recordings(revoked)


def makes(call: ast.Call, name: str) -> bool:
    """Whether a call is one of `MAKERS`; text is decoded, too, but from a constant or nothing."""
    if name == "decode" and not any(not isinstance(each, ast.Constant) for each in call.args):
        return False
    written = f".{ast.unparse(call.func)}"
    return written.endswith(f".{name}") and not written.endswith("lock.release")


def test_nothing_else_in_the_code_opens_a_voice_or_makes_sound():
    folders = ("inference", "training", "src/sayso", "benchmarks", "tools")
    files = [path for folder in folders for path in ROOT.glob(f"{folder}/**/*.py")]
    files += [ROOT / "model/audio.py", ROOT / "model/decoding.py"]
    assert len(files) > 40
    callers: dict[str, set[str]] = {name: set() for name in MAKERS}
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                for name in MAKERS:
                    if makes(node, name):
                        callers[name].add(str(path.relative_to(ROOT)))
    for name, allowed in MAKERS.items():
        assert callers[name] <= allowed, name
        assert callers[name] >= {
            file for file in allowed if not file.startswith(("benchmarks/", "tools/"))
        }
