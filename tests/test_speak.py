"""`Synthesizer.speak` with the bundled model: both marks, or a refusal and no file."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from sayso.cli import app
from sayso.inference import saying
from sayso.inference.detection.detector import detect
from sayso.inference.errors import MarkError, RefusedError
from sayso.inference.store.checking import verify
from sayso.inference.store.releases import check_destination
from sayso.inference.store.store import Store
from sayso.inference.synthesizer import Synthesizer
from sayso.model.bundle import BUNDLED, load_bundle
from sayso.model.engine import Engine, Request, Speech
from sayso.model.errors import CheckpointError, InputError, SaysoError, UnfinishedError
from sayso.model.sampling import Sampling

TEXT = "The cat sat on the mat."
SAY = ("--text", TEXT, "--out")


@pytest.fixture
def home(tmp_path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def speaker(home) -> Synthesizer:
    return Synthesizer(store=Store.open(home))


def files(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def unreleased(home: Path) -> list[str]:
    """What is left of audio that was not released (locks of finished calls may stay)."""
    return [name for name in files(home / "work") if not name.endswith(".lock")]


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".mp3", ".ogg", ".opus"])
def test_what_leaves_carries_both_marks_and_stands_in_the_ledger(speaker, home, tmp_path, suffix):
    out = tmp_path / f"said{suffix}"
    spoken = speaker.speak(TEXT, "nobody", out)
    found = detect(out, home)
    assert found.present
    assert found.manifest.state == "trusted"
    assert found.manifest.ledger_id == spoken.ledger_id
    assert found.manifest.card_hash == speaker.bundle.card_hash
    assert spoken.ledger_id in found.ledger_ids and found.ours
    assert unreleased(tmp_path / "home") == []
    verify(speaker.store)


def test_same_seed_same_codes_other_seed_other_codes():
    """Codes, not files: each file's watermark carries its own ledger id."""
    bundle = load_bundle(device="cpu")
    ids = bundle.tokenizer.encode(TEXT)
    prompt = torch.zeros(bundle.codec.codebooks, 0, dtype=torch.long)
    how, model = bundle.sampling, bundle.model
    one, same, other = (
        speech.codes
        for speech in Engine(model).answer(
            [Request(ids, prompt, 150, model.generator(seed), how) for seed in (0, 0, 1)]
        )
    )
    assert torch.equal(one, same)
    assert one.shape != other.shape or not torch.equal(one, other)


def test_one_field_of_the_cards_sampling_changes_and_the_rest_is_kept(monkeypatch, home, tmp_path):
    """`--top-p` on the command line: the bundled card's window, threshold and extras stay."""
    asked = {}

    def speak(self, text, voice, out, purpose, user, seed, sampling, alteration, samples):
        asked.update(sampling=sampling, bundle=self.bundle, device=self.bundle.model.device)
        raise InputError("asked")

    monkeypatch.setattr(Synthesizer, "speak", speak)
    monkeypatch.setenv("SAYSO_HOME", str(home))
    say = ["speak", "--voice", "nobody", "--text", TEXT, "--out", str(tmp_path / "no.wav")]
    runner = CliRunner()
    assert isinstance(runner.invoke(app, [*say, "--top-p", "0.5"]).exception, InputError)
    own = asked["bundle"].sampling
    assert own.top_p != 0.5 and own.threshold != Sampling().threshold
    assert asked["sampling"] == replace(own, top_p=0.5)
    assert asked["bundle"].model.extras.guidance > 0
    assert isinstance(runner.invoke(app, [*say, "--device", "cpu"]).exception, InputError)
    assert asked["sampling"] == own and asked["device"] == torch.device("cpu")
    wrong = runner.invoke(app, [*say, "--top-p", "2"]).exception
    assert isinstance(wrong, InputError) and "--top-p" in str(wrong)


@pytest.mark.parametrize(
    "text", ["", "   ", "\U0001f600\U0001f680", "...", "a" * 100_000, "word " * 20_000]
)
def test_unspeakable_texts_are_refused_and_leave_nothing(speaker, tmp_path, text):
    before = files(tmp_path)
    with pytest.raises(InputError):
        speaker.speak(text, "nobody", tmp_path / "no.wav")
    assert not (tmp_path / "no.wav").exists()
    assert [f for f in files(tmp_path) if f not in before] == []


@pytest.mark.parametrize(
    "voice", ["somebody", "", "../nobody", "nobody\x00", "'; DROP TABLE voices"]
)
def test_unknown_voices_are_refused(speaker, tmp_path, voice):
    with pytest.raises(RefusedError) as error:
        speaker.speak(TEXT, voice, tmp_path / "no.wav")
    assert error.value.code == "voice-unknown"
    assert not (tmp_path / "no.wav").exists()


def test_a_revoked_voice_is_silent_from_the_next_call(speaker, tmp_path):
    speaker.speak(TEXT, "nobody", tmp_path / "before.wav")
    speaker.gate.revoke("nobody")
    with pytest.raises(RefusedError) as error:
        speaker.speak(TEXT, "nobody", tmp_path / "after.wav")
    assert error.value.code == "voice-revoked"
    assert not (tmp_path / "after.wav").exists()


@pytest.mark.parametrize("name", ["said.ogg.exe", "said", "missing/said.wav", "folder.wav"])
def test_bad_destinations_are_refused_before_anything_is_granted(speaker, tmp_path, name):
    (tmp_path / "folder.wav").mkdir()
    with pytest.raises(InputError):
        speaker.speak(TEXT, "nobody", tmp_path / name)


def test_an_utterance_without_end_is_an_error_not_a_file(speaker, tmp_path, monkeypatch):
    monkeypatch.setattr(saying, "limit_seconds", lambda text: 0.2)
    with pytest.raises(UnfinishedError, match=r"No end within 0\.2 s.* 3 tries of 'The cat sat"):
        speaker.speak(TEXT, "nobody", tmp_path / "no.wav")
    assert not (tmp_path / "no.wav").exists()


def test_a_long_sentence_that_does_not_fit_is_said_in_pieces(speaker, tmp_path, monkeypatch):
    limit, asked = saying.limit_seconds, list[str]()

    def too_short_for_long_ones(text):
        asked.append(text)
        return 0.2 if len(text) > 50 else limit(text)

    monkeypatch.setattr(saying, "limit_seconds", too_short_for_long_ones)
    long = "The cat sat on the mat and slept, while the dog lay under the old table."
    spoken = speaker.speak(f"{TEXT} {long}", "nobody", tmp_path / "said.wav", seed=1)
    assert asked == [TEXT, long, "The cat sat on the mat and slept.", long[34:]]
    assert spoken.seconds > 4


@pytest.mark.parametrize("failure", ["swallowed", "nothing", "silent"])
@pytest.mark.parametrize("times", [2, 3])
def test_a_sentence_with_words_left_out_or_silent_is_said_again_and_then_named(
    speaker, tmp_path, monkeypatch, failure, times
):
    """The second sentence fails two or three times; never a silent gap."""
    step, speak, seeds, asked = Engine.step, speaker.bundle.codec.speak_all, [], []
    frames = {"swallowed": 20, "nothing": 0, "silent": 100}[failure]

    def short(engine):
        said = step(engine)
        seeds[:] = [each.random.initial_seed() for each in engine.requests.values()] or seeds
        for place, (number, speech) in enumerate(said):
            asked.append(number)
            if 1 < number < 2 + times:
                codes = speech.codes.repeat(1, 3)[:, :frames]
                said[place] = (number, Speech(codes, speech.finished))
        return said

    def quiet(said):
        pairs = zip(speak(said), said, strict=True)
        return [sound * (one.codes.shape[1] != 100) for sound, one in pairs]

    monkeypatch.setattr(Engine, "step", short)
    monkeypatch.setattr(speaker.bundle.codec, "speak_all", quiet)
    if times == 2:
        speaker.speak(f"Good morning. {TEXT}", "nobody", tmp_path / "said.wav", seed=1)
        assert seeds[-1] == saying.own_seed(1, 1, 2)
    else:
        with pytest.raises(UnfinishedError, match="words left out, in 3 tries of 'The cat sat"):
            speaker.speak(f"Good morning. {TEXT}", "nobody", tmp_path / "no.wav", seed=1)
        assert not (tmp_path / "no.wav").exists()
    assert sorted(asked) == [1, 2, 3, 4]


@pytest.mark.parametrize("text", ['"Oh!" she cried.', "Hi!", "Wow! That is great.", "A", "Yes."])
def test_exclamations_and_single_words_come_out(speaker, tmp_path, text):
    assert speaker.speak(text, "nobody", tmp_path / "said.wav").seconds > 0.3


def test_a_sidecar_stays_with_its_recording_when_the_next_one_fails(speaker, home, tmp_path):
    out = tmp_path / "said.opus"
    first = speaker.speak(TEXT, "nobody", out)
    assert files(tmp_path)[-2:] == ["said.opus", "said.opus.c2pa"]

    def fail(*_):
        raise RefusedError("voice-revoked", "withdrawn while it spoke")

    speaker.gate.release = fail
    with pytest.raises(RefusedError, match="withdrawn"):
        speaker.speak(TEXT, "nobody", out)
    with pytest.raises(RefusedError, match="withdrawn"):
        speaker.speak(TEXT, "nobody", tmp_path / "new.opus")
    assert not (tmp_path / "new.opus.c2pa").exists()
    assert detect(out, home).manifest.ledger_id == first.ledger_id
    assert detect(out, home).manifest.state == "trusted"


def test_a_mark_that_is_not_found_again_stops_the_file(speaker, tmp_path, monkeypatch):
    """The watermark is lost on the way: the re-read file decides, not the intention."""
    monkeypatch.setattr(speaker.marks, "embed", lambda audio, rate, ledger_id: audio)
    with pytest.raises(MarkError, match="watermark was not found"):
        speaker.speak(TEXT, "nobody", tmp_path / "no.wav")
    assert not (tmp_path / "no.wav").exists()
    assert unreleased(tmp_path / "home") == []


def test_an_unreadable_authority_stops_everything(home, tmp_path):
    Synthesizer(store=Store.open(home))
    (home / "ca" / "leaf.pem").write_text("not a certificate")
    with pytest.raises(MarkError, match="authority"):
        Synthesizer(store=Store.open(home))


@pytest.mark.parametrize("package", ["perth", "pkg_resources"])
def test_without_the_watermark_package_nothing_speaks(home, tmp_path, package):
    """In a process of its own, where importing the package fails."""
    code = f"import sys; sys.modules[{package!r}] = None\nfrom sayso.cli import main; main()"
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            code,
            "speak",
            "--voice",
            "nobody",
            "--text",
            TEXT,
            "--out",
            str(tmp_path / "no.wav"),
        ],
        capture_output=True,
        text=True,
        env={"SAYSO_HOME": str(home), "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 1
    assert package in done.stderr
    assert "pip install" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "no.wav").exists()


@pytest.mark.parametrize("part", ["ar", "nar", "codec"])
def test_truncated_checkpoints_are_refused_by_name(tmp_path, part):
    folder = tmp_path / "model"
    shutil.copytree(BUNDLED, folder)
    weights = folder / part / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match=part):
        load_bundle(folder)


def test_parts_of_different_models_are_refused(tmp_path):
    import json

    folder = tmp_path / "model"
    shutil.copytree(BUNDLED, folder)
    config = folder / "ar" / "config.json"
    values = json.loads(config.read_text())
    values["ar"]["codebook_size"] = 512
    config.write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match="does not fit"):
        load_bundle(folder)


def test_the_limit_grows_with_the_text():
    assert saying.limit_seconds("a" * 70) == pytest.approx(11.5)


def test_every_known_error_is_a_sayso_error():
    for error in (InputError, MarkError, RefusedError, CheckpointError, UnfinishedError):
        assert issubclass(error, SaysoError)
    with pytest.raises(InputError):
        check_destination(Path("/"))


def test_a_file_that_lost_its_manifest_is_led_back_to_it(speaker, home, tmp_path):
    """Written anew: its sound names the ledger row, and the store has kept the manifest."""
    from sayso.model.audio import read_audio, write_audio

    spoken = speaker.speak(TEXT, "nobody", tmp_path / "said.wav")
    (row,) = speaker.store.entries("released", id=spoken.ledger_id)
    assert row.content["seed"] == spoken.seed
    write_audio(tmp_path / "bare.wav", read_audio(tmp_path / "said.wav", 24_000), 24_000)
    found = detect(tmp_path / "bare.wav", home)
    assert found.manifest.state == "none"
    assert found.ours and found.present and found.ledger_ids == (spoken.ledger_id,)
    assert found.recalled is not None
    assert found.recalled.ledger_id == spoken.ledger_id
