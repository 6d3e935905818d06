"""A miniature LibriTTS through the real recipe: prepared, trained, resumed, exported, spoken."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from typer.testing import CliRunner

from sayso.cli import app
from sayso.export import export
from sayso.inference import nobody
from sayso.inference.consent.enrolment import finish_enrolment
from sayso.inference.detection.detector import detect
from sayso.inference.errors import RefusedError
from sayso.inference.gate import Gate
from sayso.inference.nobody import invent, own_nobody
from sayso.inference.store.store import Store
from sayso.inference.synthesizer import Synthesizer
from sayso.listen import listen
from sayso.model import corpora
from sayso.model.card import read_card
from sayso.model.codecs.world import WorldConfig, analyse
from sayso.model.errors import CheckpointError, InputError
from sayso.model.files import file_hash, write_json
from sayso.training import commands
from sayso.training.fitting.bpe import fit_text
from sayso.training.fitting.world import fit_world
from sayso.training.readers import read_corpus
from sayso.training.recipe import Recipe, read_recipe
from sayso.training.speech import Filters, read_speech
from sayso.training.train import train_ar, train_nar
from speech import READERS
from training_fixtures import CONFIGS, end_every

SIZE: dict[str, object] = {
    **{f"{part}.size.layers": 1 for part in ("ar", "nar")},
    **{f"{part}.size.width": 16 for part in ("ar", "nar")},
    **{f"{part}.size.heads": 2 for part in ("ar", "nar")},
    **{f"{part}.size.feed_forward": 32 for part in ("ar", "nar")},
    **{f"{part}.train.accelerator": "cpu" for part in ("ar", "nar")},
    **{f"{part}.train.compile": False for part in ("ar", "nar")},  # minutes, on a CPU
    **{f"{part}.train.warm_up": 1 for part in ("ar", "nar")},  # of four steps
}
"""Of the models and of the run, and that there is no GPU here; all else is the recipe's."""


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> Recipe:
    """Trained in two goes; with a WORLD codec, as EnCodec cannot be had without a network."""
    base = tmp_path_factory.mktemp("libritts")
    root = base / "LibriTTS"
    for number, clip in enumerate(read_corpus("librispeech-clips", READERS)[:12]):
        speaker, chapter, _ = clip.id.split("-")
        part = "dev-clean" if number % 4 == 0 else "train-clean-100"
        folder = root / part / speaker / chapter
        folder.mkdir(parents=True)
        audio, rate = soundfile.read(clip.path, dtype="float32")
        soundfile.write(folder / f"{clip.id}.wav", audio[: 5 * rate], rate)
        (folder / f"{clip.id}.normalized.txt").write_text(clip.text[:60] + "\n")
    config = WorldConfig(codebooks=2, codebook_size=64)
    heard = [
        read_speech(u.recording, config.sample_rate, Filters())
        for u in read_corpus("libritts", root)
    ]
    codec = fit_world([analyse(each[0].numpy(), config) for each in heard[:3]], config, 1)
    run = base / "run"
    codec.save(run / "codec")
    entry = corpora.get("libritts").to_json()
    write_json(run / "codec" / "corpora.json", {"corpora": [entry]})
    fit_text({"libritts": root}, 300).save(run / "text")
    text = (CONFIGS / "libritts.yaml").read_text().replace("runs/libritts", str(run))
    (base / "libritts.yaml").write_text(text)
    commands.prepare("libritts", root, base / "libritts.yaml")
    for steps in (2, 4):  # the second goes on from the first
        own = {
            f"{part}.train.{key}": steps
            for part in ("ar", "nar")
            for key in ("steps", "save_every")
        }
        settings = read_recipe(base / "libritts.yaml", SIZE | own)
        lines: list[str] = []
        train_ar(settings, report=lines.append)
        train_nar(settings, report=lines.append)
        assert not any("warning" in line for line in lines)  # dev-clean is held out
    assert sum("continuing after step 2" in line for line in lines) == 2
    return settings


@pytest.fixture(scope="module")
def model(recipe) -> Path:
    out = Path(recipe.run).parent / "model"
    export(Path(recipe.run), out)
    return out


def contents(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): file_hash(p) for p in folder.rglob("*") if p.is_file()}


def test_the_model_speaks_as_its_own_nobody_through_the_gate(model, monkeypatch, tmp_path):
    """A model of four steps ends anywhere or never, so it is stopped every 100 groups."""
    end_every(100, monkeypatch)
    with Store.open(tmp_path / "home") as store:
        speaker = Synthesizer(model, store, "cpu")
        spoken = speaker.speak("The ship sails.", "nobody", tmp_path / "a.wav", seed=1)
        assert detect(spoken.path, store.home).present
        own = [v.voice for v in store.voices() if v.voice.startswith("nobody-")]
        assert own == [f"nobody-{speaker.bundle.codec.identity[:12]}"]
        receipt = speaker.gate.receipt(own[0])
        assert receipt.basis == "synthetic" and receipt.codec == speaker.bundle.codec.identity
        card = json.loads((model / "card.json").read_text())
        assert receipt.source == {
            "made": f"made by the model of card {speaker.bundle.card_hash[:12]}, "
            f"seed {card['nobody']['seed']}"
        }
        another = Synthesizer(model, store, "cpu")
        another.speak("It sails.", "nobody", tmp_path / "b.wav", seed=1)
        assert sum(v.voice.startswith("nobody-") for v in store.voices()) == 1
        speaker.gate.revoke(own[0], "enough")
        with pytest.raises(RefusedError, match="withdrawn"):
            speaker.speak("The ship sails.", "nobody", tmp_path / "c.wav")
    assert sorted(p.name for p in tmp_path.glob("*.wav")) == ["a.wav", "b.wav"]


def test_the_model_speaks_in_the_voice_of_a_person_who_enrolled(
    model, clock, monkeypatch, tmp_path
):
    """A reading that every check lets through, of which the model's own codec makes the prompt."""
    pytest.importorskip("faster_whisper", reason="the extra `enrol` is not installed")
    from test_enrol import READING, SPRING, genuine

    end_every(100, monkeypatch)
    clock.now = SPRING
    with Store.open(tmp_path / "home") as store:
        speaker = Synthesizer(model, store, "cpu")
        session = genuine(store, monkeypatch)
        codec = speaker.bundle.codec
        voice = finish_enrolment(store, session.id, READING, codec, marks=speaker.marks).voice
        assert speaker.gate.receipt(voice).codec == codec.identity
        asked = {"purpose": "business", "user": "Ernest", "seed": 1}
        spoken = speaker.speak("The ship sails.", voice, tmp_path / "a.wav", **asked)
        found = detect(spoken.path, store.home)
        assert found.present and spoken.ledger_id in found.ledger_ids
        with pytest.raises(RefusedError, match="purpose"):
            asked["purpose"] = "research"
            speaker.speak("The ship sails.", voice, tmp_path / "b.wav", **asked)
        speaker.gate.revoke(voice, "enough")
        with pytest.raises(RefusedError, match="withdrawn"):
            asked["purpose"] = "business"
            speaker.speak("The ship sails.", voice, tmp_path / "b.wav", **asked)
    assert not (tmp_path / "b.wav").exists()


def test_nobody_is_registered_once_by_two_first_callers(model, tmp_path, monkeypatch):
    both = threading.Barrier(2)

    def together(*given):  # neither registers it before both have made it up
        made = invent(*given)
        both.wait(60)
        return made

    with Store.open(tmp_path / "home") as store:
        first = Synthesizer(model, store, "cpu")

    def ask(_: int) -> str:
        with Store.open(tmp_path / "home") as store:
            return own_nobody(Gate(store), first.bundle, 30.0)

    monkeypatch.setattr(nobody, "invent", together)
    with ThreadPoolExecutor(2) as pool:
        [name] = set(pool.map(ask, range(2)))
    with Store.open(tmp_path / "home") as store:
        assert len(store.entries("enrolled", voice=name)) == 1


def test_the_model_speaks_in_the_voice_of_a_held_out_reader(recipe, monkeypatch, tmp_path):
    """A model of four steps ends anywhere, so it is stopped every 200 groups."""
    end_every(200, monkeypatch)
    with pytest.raises(InputError, match="recordings are listed"):  # nobody listed these
        listen(recipe, 4)
    rows = [
        row
        for folder in recipe.data.tokens
        for shard in Path(folder).glob("*.parquet")
        for row in pq.read_table(shard).to_pylist()
    ]
    listed = tmp_path / "libritts.sha256"
    listed.write_text("".join(f"{row['sha256']}  {row['id']}\n" for row in rows))
    monkeypatch.setattr(corpora, "RECORDINGS", tmp_path)
    corpora.recordings.cache_clear()
    made = listen(recipe, 4)
    corpora.recordings.cache_clear()
    assert made and all(path.is_file() for path in made.values())


def test_the_card_says_that_new_voices_were_heard(recipe, model):
    models = read_card(model)["models"]
    assert models["ar"]["new_voices"] == models["nar"]["new_voices"] == 3


def test_an_export_that_fails_leaves_what_was_there_and_one_line(recipe, model, tmp_path):
    run, before = Path(recipe.run), contents(model)
    fitted = run / "codec" / "corpora.json"
    kept = fitted.read_bytes()
    fitted.unlink()
    with pytest.raises(CheckpointError, match=r"corpora\.json is missing"):
        export(run, model)
    fitted.write_bytes(kept)
    assert contents(model) == before
    with pytest.raises(
        InputError, match="has no text and no codec and no ar and no nar and no card"
    ):
        export(tmp_path, tmp_path / "out")
    with pytest.raises(InputError, match="is no model folder"):
        export(run, run)
    with pytest.raises(InputError, match="top_p"):
        export(run, tmp_path / "out", top_p=3.0)
    (tmp_path / "file").write_text("")
    said = CliRunner().invoke(app, ["export", str(run), str(tmp_path / "file" / "out")])
    assert isinstance(said.exception, InputError) and "cannot be written" in str(said.exception)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert not [path for path in model.parent.iterdir() if path.name.startswith(".model")]


def test_the_doctor_finds_what_would_stop_a_run_and_says_what_it_costs(recipe, tmp_path):
    file = Path(recipe.run).parent / "libritts.yaml"
    changes = json.dumps(SIZE | {"ar.train.steps": 100, "nar.train.steps": 100})
    well = CliRunner().invoke(app, ["train", "doctor", str(file), "--set", changes])
    assert well.exit_code == 0, well.output
    assert "PROBLEM" not in well.output and "100 steps take about" in well.output
    assert "GB of memory" in well.output and "disk: checkpoints and weights take" in well.output
    one = json.dumps(SIZE | {"data.tokens": [str(tmp_path)], "codec.folder": str(tmp_path)})
    ill = CliRunner().invoke(app, ["train", "doctor", str(file), "--set", one])
    assert ill.exit_code == 1
    assert "PROBLEM codec: " in ill.output and "PROBLEM tokens: " in ill.output
    if not torch.cuda.is_available():
        cuda = json.dumps(SIZE | {"ar.train.accelerator": "cuda"})
        gpu = CliRunner().invoke(app, ["train", "doctor", str(file), "--set", cuda])
        assert gpu.exit_code == 1 and "PROBLEM ar: 1 x 1 x cuda wanted, 0 GPUs here" in gpu.output
