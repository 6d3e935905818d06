"""Token files: made from real speech, whole after any kill, and never from what cannot be used."""

import hashlib
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
import torch.nn.functional as F

from sayso.model.ar import AR, ARConfig
from sayso.model.card import read_card
from sayso.model.codecs.encodec import EncodecCodec, EncodecConfig
from sayso.model.codecs.world import WorldCodec, WorldConfig, analyse
from sayso.model.errors import CorpusError, InputError
from sayso.model.nar import NAR, NARConfig
from sayso.model.text.normalization import normalise
from sayso.model.text.tokenizers import Phonemes
from sayso.model.transformer import Size
from sayso.training import commands
from sayso.training.bar import Bar
from sayso.training.encoding import encode, encode_together, hear
from sayso.training.finetune import start_from_codebooks
from sayso.training.fitting.world import fit_world
from sayso.training.prepare import prepare, process_rank, sample
from sayso.training.readers import LeftOut, Utterance, list_corpus, read_corpus
from sayso.training.recordings import Recording
from sayso.training.speech import Filters, Unusable, read_speech
from sayso.training.tokens import open_tokens
from sayso.training.train import train_ar, train_nar
from speech import READERS
from training_fixtures import CONFIGS, prepare_kathleen, processes, small_recipe

FILTERS = Filters()


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def codec(kathleen, tmp_path_factory):
    """A real WORLD codec of 4 x 32, fitted to three sentences."""
    config = WorldConfig(codebooks=4, codebook_size=32)
    heard = read_corpus("kathleen", kathleen)[:3]
    speech = [read_speech(u.recording, config.sample_rate, FILTERS)[0].numpy() for u in heard]
    fitted = fit_world([analyse(each, config) for each in speech], config, iterations=2)
    folder = tmp_path_factory.mktemp("codec")
    fitted.save(folder)
    from sayso.model.codecs.load import load_codec

    return load_codec(folder)


@pytest.fixture(scope="module")
def phonemes() -> Phonemes:
    return Phonemes()


def hashes(folder: Path) -> dict[str, str]:
    files = [*folder.glob("*.parquet"), folder / "manifest.json"]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_rows_hold_what_was_said_and_the_codec_heard(kathleen, codec, phonemes, tmp_path):
    done = prepare("kathleen", kathleen, tmp_path, codec, phonemes, FILTERS, 4, limit=10)
    assert done
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    rows = [row for path in sorted(tmp_path.glob("*.parquet")) for row in _rows(path)]
    source = {u.id: u for u in sample(read_corpus("kathleen", kathleen), 10)}
    assert [row["id"] for row in rows] == list(source)
    for row in rows:
        utterance = source[row["id"]]
        assert row["text"] == normalise(utterance.text)
        assert row["text_ids"] == phonemes.encode(row["text"])
        assert row["part"] == "train"
        codes = torch.tensor(row["codes"]).view(codec.codebooks, row["frames"])
        audio = read_speech(utterance.recording, codec.sample_rate, FILTERS)
        assert torch.equal(codes, codec.encode(audio)[0])
    assert manifest["codec"]["identity"] == codec.identity
    assert manifest["tokenizer"]["identity"] == phonemes.identity
    assert manifest["corpora"][0]["licence"] == "CC0 1.0"
    counts = manifest["counts"]
    assert sum(count["frames"] for count in counts.values()) == sum(row["frames"] for row in rows)
    assert counts["train"]["utterances"] == len(source)


def _rows(path: Path) -> list[dict]:
    return pq.read_table(path).to_pylist()


def test_several_processes_make_the_same_shards(kathleen, codec, phonemes, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    arguments = (codec, phonemes, FILTERS, 2)
    assert prepare("kathleen", kathleen, one, *arguments, limit=6)
    assert not prepare("kathleen", kathleen, two, *arguments, limit=6, rank=0, world=2)
    assert prepare("kathleen", kathleen, two, *arguments, limit=6, rank=1, world=2)
    assert hashes(one) == hashes(two)


def test_other_settings_do_not_mix_with_finished_shards(kathleen, codec, phonemes, tmp_path):
    prepare("kathleen", kathleen, tmp_path, codec, phonemes, FILTERS, limit=2)
    with pytest.raises(InputError, match=r"other settings \(filters;"):
        prepare("kathleen", kathleen, tmp_path, codec, phonemes, Filters(max_seconds=5), limit=2)


def test_only_listed_corpora_are_prepared(tmp_path, codec, phonemes):
    for name, word in (("emilia", "refused"), ("my-scrape", "not on the list")):
        with pytest.raises(CorpusError, match=f"{name}.*{word}"):
            prepare(name, tmp_path, tmp_path / "out", codec, phonemes)
    with pytest.raises(CorpusError, match="no utterance found"):
        prepare("joe", tmp_path, tmp_path / "out", codec, phonemes)
    with pytest.raises(CorpusError, match="not laid out as published"):
        prepare("kathleen", tmp_path, tmp_path / "out", codec, phonemes)
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_used_is_left_out_listed_and_counted(kathleen, codec, phonemes, tmp_path):
    root = tmp_path / "corpus"
    (root / "audio").mkdir(parents=True)
    speech, rate = soundfile.read(kathleen / "audio" / "arctic_a0001.opus", dtype="float32")
    nan = np.where(np.arange(len(speech)) == 9, np.nan, speech)
    broken = {  # id: reason, audio, text
        "good": ("", speech, "The ship sails."),
        "nan": ("not finite", nan, "The ship sails."),
        "short": ("too short", speech[:100], "The ship sails."),
        "one-frame": ("too short", speech[: rate // 50], "The ship sails."),
        "minute": ("too long", np.tile(speech, 30)[: 60 * rate], "The ship sails."),
        "loud": ("clipped", (speech * 100).clip(-1, 1), "The ship sails."),
        "still": ("silent", speech * 1e-5, "The ship sails."),
        "balloon": ("text", speech, "🎈"),
        "mute": ("empty transcript", speech, ""),
        "half": ("unreadable", None, "The ship sails."),
        "cut": ("cut off", ..., "The ship sails."),
        "gone": ("no recording", ..., "The ship sails."),
        **{f"good{i}": ("", speech, "The ship sails.") for i in range(12)},
    }
    soundfile.write(root / "audio" / "cut.wav", speech, rate)
    whole = (root / "audio" / "cut.wav").read_bytes()
    (root / "audio" / "cut.wav").write_bytes(whole[: len(whole) // 2])
    lines = ["id\ttext"]
    for id, (_, audio, text) in broken.items():
        path = root / "audio" / f"{id}.flac"
        lines.append(f"{id}\t{text}")
        if audio is None:
            path.write_bytes(b"fLaC, but no more than that")
        elif audio is not ...:  # WAV of floats under the name: libsndfile looks at the content
            soundfile.write(path, audio, rate, format="WAV", subtype="FLOAT")
    (root / "metadata.tsv").write_text("\n".join(lines) + "\n")
    out = tmp_path / "out"
    assert prepare("kathleen", root, out, codec, phonemes, Filters(0.01, 20.0), 3)
    left_out = json.loads((out / "manifest.json").read_text())["left_out"]
    expected = {id: reason for id, (reason, _, _) in broken.items() if reason}
    assert {item["id"]: item["reason"] for item in left_out["utterances"]} == expected
    assert left_out["reasons"] == Counter(expected.values())
    made = [row["id"] for path in sorted(out.glob("*.parquet")) for row in _rows(path)]
    assert made == sorted(id for id, (reason, _, _) in broken.items() if not reason)


def test_batches_of_like_lengths_have_the_codes_of_each_alone(kathleen, tmp_path, monkeypatch):
    torch.manual_seed(0)
    codec = EncodecCodec(EncodecConfig(codebooks=4, codebook_size=256, filters=8, dimension=32))
    heard = sample(read_corpus("kathleen", kathleen), 12)
    cut = [
        F.pad(a, (0, -a.shape[1] % 320))
        for a in (read_speech(u.recording, 24000, FILTERS) for u in heard)
    ]
    assert len({each.shape[1] for each in cut}) > 8
    monkeypatch.setattr("sayso.training.encoding.BATCH_SECONDS", 15.0)
    together = encode_together(cut, codec)
    for audio, codes in zip(cut, together, strict=True):
        assert torch.equal(codes, codec.encode(audio)[0])
    sizes: list[int] = []
    encode = codec.encode
    monkeypatch.setattr(codec, "encode", lambda audio: sizes.append(len(audio)) or encode(audio))
    prepare("kathleen", kathleen, tmp_path, codec, Phonemes(), FILTERS, limit=12)
    assert max(sizes) > 1 and sum(sizes) == 12
    rows = [row for path in tmp_path.glob("*.parquet") for row in _rows(path)]
    codes = {u.id: each for u, each in zip(heard, together, strict=True)}
    assert all(row["codes"] == codes[row["id"]].flatten().tolist() for row in rows)


def test_one_recording_that_cannot_be_encoded_spoils_no_batch(kathleen):
    class Picky(EncodecCodec):
        """Takes no recording of more than 3 s."""

        def encode(self, audio):
            if audio.shape[1] > 3 * 24000:
                raise InputError("too much")
            return super().encode(audio)

    codec = Picky(EncodecConfig(codebooks=2, codebook_size=16, filters=2, dimension=8, lstm=0))
    heard = [hear(u, codec, Phonemes(), FILTERS) for u in read_corpus("kathleen", kathleen)[:8]]
    coded = encode(heard, codec)
    reasons = ["codec" if each.audio.shape[1] > 72000 else "" for each in heard]
    assert [str(c) if isinstance(c, Unusable) else "" for c in coded] == reasons
    assert 0 < reasons.count("codec") < 8


def test_the_limit_takes_whole_speakers_and_a_higher_one_the_same_and_more(kathleen):
    named = [(s, i) for s in range(20) for i in range(9)]
    none = Recording(Path("none"))
    many = [Utterance(f"{s:02d}-{i}", f"s{s}", "text", none) for s, i in named]
    before: set[str] = set()
    for limit in (9, 20, 50, 180, 1000):
        taken = sample(many, limit)
        assert len(taken) == min(limit, 180) and before <= {u.id for u in taken}
        assert taken == sorted(taken, key=lambda u: u.id)
        before = {u.id for u in taken}
        whole = [s for s in range(20) if sum(u.speaker == f"s{s}" for u in taken) == 9]
        assert len(whole) == min(limit, 180) // 9
    assert {u.speaker for u in sample(many, 18)} != {"s0", "s1"}  # not the first ids
    assert sample(many, None) == many


def test_a_device_that_is_not_there_is_named(monkeypatch):
    assert commands.codec_device("cpu", 3) == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert commands.codec_device("auto") == "cpu"
    for name in ("cuda", "tpu"):
        with pytest.raises(InputError, match=f"--device {name}"):
            commands.codec_device(name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert [commands.codec_device("auto", rank) for rank in (0, 5)] == ["cuda:0", "cuda:1"]


@pytest.mark.parametrize(
    "attribute, value, reason",
    [
        ("codebooks", 5, "wrong number of codebooks"),
        ("codebook_size", 4, "code beyond the codebook"),
    ],
)
def test_codes_that_do_not_fit_the_codec_are_left_out(
    kathleen, codec, phonemes, tmp_path, attribute, value, reason
):
    class Lying:
        """The codec, but for one thing it says of itself."""

        def __getattr__(self, name):
            return value if name == attribute else getattr(codec, name)

    prepare("kathleen", kathleen, tmp_path, Lying(), phonemes, FILTERS, limit=2)  # type: ignore[arg-type]
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["left_out"]["reasons"] == {reason: 2}


def test_a_killed_run_continues_to_the_same_shards(kathleen, codec, phonemes, tmp_path):
    codec.save(tmp_path / "codec")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    prepare("kathleen", kathleen, whole, codec, phonemes, FILTERS, 1, limit=24)
    random = np.random.default_rng(7)
    for _ in range(10):
        aim = 1 + (len(list(killed.glob("shard-*.parquet"))) if killed.is_dir() else 0)
        process = processes().Process(
            target=prepare_kathleen, args=(tmp_path / "codec", kathleen, killed)
        )
        process.start()
        while process.is_alive() and len(list(killed.glob("shard-*.parquet"))) < aim:
            time.sleep(0.01)
        time.sleep(random.uniform(0, 0.2))
        assert process.is_alive(), "the run ended before its ten kills"
        process.kill()
        process.join()
    assert not (killed / "manifest.json").exists()
    assert prepare("kathleen", kathleen, killed, codec, phonemes, FILTERS, 1, limit=24)
    assert hashes(killed) == hashes(whole)
    assert not list(killed.glob(".*"))  # nothing half-written is left


def test_a_libritts_tree_goes_through_prepare_and_trains(codec, phonemes, tmp_path):
    clips = READERS
    root = tmp_path / "LibriTTS"
    for number, clip in enumerate(read_corpus("librispeech-clips", clips)[:12]):
        speaker, chapter, _ = clip.id.split("-")
        id = f"{clip.id.replace('-', '_')}_000000"
        own = "train-clean-100" if number < 8 else "dev-clean"
        for part in (own, "test-clean"):  # test-clean must not be read
            folder = root / part / speaker / chapter
            folder.mkdir(parents=True)
            audio, rate = soundfile.read(clip.path)
            soundfile.write(folder / f"{id}.wav", audio[: 4 * rate], rate)
            (folder / f"{id}.normalized.txt").write_text(clip.text)
            (folder / f"{id}.original.txt").write_text(clip.text)
    folder = root / "train-clean-100" / "1" / "1"
    folder.mkdir(parents=True)
    (folder / "none.wav").write_bytes(b"")
    (folder / "none.normalized.txt").write_bytes(b"\xff\xfe, which is not UTF-8")
    listing = list_corpus("libritts", root)
    assert len(listing.utterances) == 12
    assert [u.part for u in listing.utterances].count("dev") == 4
    _prepare_and_train("libritts", root, codec, phonemes, tmp_path, 12)
    manifest = json.loads((tmp_path / "tokens" / "manifest.json").read_text())
    assert manifest["counts"]["dev"]["utterances"] == 4
    assert manifest["left_out"]["utterances"] == [{"id": "none", "reason": "text is not UTF-8"}]


def test_a_vctk_tree_goes_through_prepare_and_trains(kathleen, codec, phonemes, tmp_path):
    root = tmp_path / "VCTK-Corpus-0.92"
    for i, sentence in enumerate(read_corpus("kathleen", kathleen)[:8]):
        speaker = f"p{225 + i % 3}"
        audio = root / "wav48_silence_trimmed" / speaker
        text = root / "txt" / speaker
        audio.mkdir(parents=True, exist_ok=True)
        text.mkdir(parents=True, exist_ok=True)
        for mic in ("mic1", "mic2"):
            samples, rate = soundfile.read(sentence.path)
            soundfile.write(audio / f"{speaker}_{i:03d}_{mic}.flac", samples, rate)
        (text / f"{speaker}_{i:03d}.txt").write_text(f"{sentence.text}\n")
    (root / "wav48_silence_trimmed" / "p225" / "p225_099_mic1.flac").write_bytes(b"no text")
    listing = list_corpus("vctk", root, most_broken=0.2)
    assert {u.speaker for u in listing.utterances} == {"p225", "p226", "p227"}
    assert listing.left_out == [LeftOut("p225_099", "no transcript")]
    with pytest.raises(CorpusError, match=r"1 of 9 utterances .* are broken \(1 no transcript"):
        read_corpus("vctk", root)
    (root / "wav48_silence_trimmed" / "p225" / "p225_099_mic1.flac").unlink()
    codec.save(tmp_path / "codec")
    start: dict[str, Any] = {f"{part}__code_init": "codebooks" for part in ("ar", "nar")}
    start["data__held_out_speakers"] = 5  # which are p226 and p227
    start["codec__folder"] = str(tmp_path / "codec")
    _prepare_and_train("vctk", root, codec, phonemes, tmp_path, 8, **start)
    WorldCodec(codec.config).save(tmp_path / "codec")
    with pytest.raises(InputError, match="another codec"):
        train_ar(
            small_recipe(tmp_path / "new", tmp_path / "tokens", data__corpora=["vctk"], **start)
        )


def test_code_tables_from_codebooks_keep_the_geometry(codec):
    size = Size(1, 2, 64, 64, 0.0)
    nar = NAR(NARConfig(44, codec.codebook_size, codec.codebooks, size))
    start_from_codebooks(nar, codec, 1)
    for level, table in enumerate(nar.code_embeddings):
        book = codec.codebook(level)
        sound = torch.cdist(book, book).flatten()
        weight = next(table.parameters())
        start = torch.cdist(weight, weight).flatten()
        assert torch.corrcoef(torch.stack([sound, start]))[0, 1] > 0.7
    small = EncodecConfig(codebooks=2, codebook_size=32, filters=2, dimension=16, lstm=0)
    other = AR(ARConfig(44, 32, 1, size))
    start_from_codebooks(other, EncodecCodec(small), 1)
    with pytest.raises(InputError, match="do not fit"):
        start_from_codebooks(AR(ARConfig(44, 64, 1, size)), EncodecCodec(small), 1)
    ar = AR(ARConfig(44, codec.codebook_size, 2, size))
    eos = ar.code_embedding.weight[-1].clone()
    start_from_codebooks(ar, codec, 1)
    assert torch.equal(ar.code_embedding.weight[-1], eos)
    assert 0.01 < ar.code_embedding.weight.std() < 0.04


def _prepare_and_train(name, root, codec, phonemes, folder, count, **more):
    tokens = folder / "tokens"
    assert prepare(name, root, tokens, codec, phonemes, FILTERS, 3)
    opened = open_tokens([tokens], [name])
    assert len(opened.frames) == count
    more |= {"data__corpora": [name], "ar__train__steps": 3, "nar__train__steps": 3}
    for part in ("ar", "nar"):
        more |= {f"{part}__max_frames": 1200, f"{part}__train__frames": 1200}
        more |= {f"{part}__max_text": 400}
    recipe = small_recipe(folder / "run", tokens, **more)
    train_ar(recipe, report=lambda line: None)
    train_nar(recipe, report=lambda line: None)
    card = read_card(folder / "run")
    assert [entry["name"] for entry in card["corpora"]] == [name]
    assert card["codec"]["identity"] == codec.identity


def test_torchrun_and_slurm_say_which_process_this_is(monkeypatch):
    assert process_rank() == (0, 1)
    slurm = {"NTASKS": "16", "PROCID": "11", "LOCALID": "3", "NODEID": "1", "JOB_NAME": "prepare"}
    with monkeypatch.context() as patch:
        for name, value in slurm.items():
            patch.setenv(f"SLURM_{name}", value)
        with pytest.raises(InputError, match="ntasks-per-node"):
            process_rank()
        patch.setenv("SLURM_NTASKS_PER_NODE", "8")
        assert process_rank() == (11, 16)
    torchrun = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "5", "GROUP_RANK": "0"}
    for name, value in {**torchrun, "TORCHELASTIC_RUN_ID": "a", "LOCAL_WORLD_SIZE": "8"}.items():
        monkeypatch.setenv(name, value)
    assert process_rank() == (5, 8)


def test_progress_says_hours_and_what_is_left(capsys):
    """Shards that an earlier run made say nothing of how long the rest takes."""
    with Bar(1, 8) as bar:
        bar.report(0, 1, 100, 0.5)
        bar.report(1, 2, 100, 1.0)
        bar.report(2, 100, 100, 7.25)
    lines = capsys.readouterr().out.splitlines()
    assert [line.rsplit(",", 1)[0] for line in lines] == [
        "prepare 2/8: shard 2 of 100, 1.000 h",
        "prepare 2/8: shard 100 of 100, 7.250 h",
    ]
    assert all(line.endswith(" 0 min left") for line in lines)


@pytest.mark.slow
def test_the_command_prepares_with_two_processes(kathleen, codec, phonemes, tmp_path, capfd):
    codec.save(tmp_path / "codec")
    phonemes.save(tmp_path / "text")
    text = (CONFIGS / "tiny.yaml").read_text()
    for part in ("codec", "text", "tokens"):
        text = text.replace(f"runs/tiny/{part}", str(tmp_path / part))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(text)
    with pytest.raises(InputError, match="give the command again"):
        commands.prepare("kathleen", tmp_path / "nowhere", recipe, processes=2)
    assert "nowhere does not exist" in capfd.readouterr().out
    commands.prepare("kathleen", kathleen, recipe, limit=70, processes=2)
    assert "manifest.json is complete: 0.0" in capfd.readouterr().out
    assert len(open_tokens([tmp_path / "tokens"], ["kathleen"]).frames) == 70
    with pytest.raises(InputError, match=r"'vctk' is not in"):
        commands.prepare("vctk", kathleen, recipe)
    with pytest.raises(InputError, match=r"configs/kathleen\.yaml here: name a recipe"):
        commands.prepare("kathleen", kathleen)
    with pytest.raises(CorpusError, match="my-scrape"):
        commands.prepare("my-scrape", kathleen)
    recipe.write_text(text.replace("kind: phonemes", "kind: bpe     "))
    with pytest.raises(InputError, match="holds phonemes, the recipe asks for bpe"):
        commands.prepare("kathleen", kathleen, recipe, limit=70)
