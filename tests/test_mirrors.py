"""Listed corpora as labs keep them: lhotse's cuts, and Hugging Face's Parquet files."""

import gzip
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import torch

from sayso.model.codecs.world import WorldConfig, analyse
from sayso.model.errors import CorpusError
from sayso.model.text.tokenizers import Phonemes
from sayso.training.fitting.world import fit_world
from sayso.training.prepare import prepare
from sayso.training.readers import LeftOut, list_corpus, read_corpus
from sayso.training.speech import Filters, Unusable, read_speech
from speech import READERS
from training_fixtures import write_tokens

RATE = 16_000
FILTERS = Filters(0.2, 60.0)


def spoken(count: int) -> list[tuple[str, np.ndarray]]:
    """Texts and 1.5 s of real speech each."""
    clips = read_corpus("librispeech-clips", READERS)[:count]
    read = [soundfile.read(clip.path, RATE * 3 // 2, RATE, dtype="float32")[0] for clip in clips]
    return [(clip.text[:20], audio) for clip, audio in zip(clips, read, strict=True)]


def packed(audio: np.ndarray) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, audio, RATE, format="FLAC")
    return file.getvalue()


def cut(id: str, source: str, start: float, text: str, **more: Any) -> dict[str, Any]:
    """A line of Libriheavy, as its README shows one."""
    said = {"id": id, "start": 0, "duration": 1.0, "custom": {"texts": [text, text.upper()]}}
    sources = [{"type": "file", "channels": [0], "source": f"download/librilight/{source}"}]
    made = {"id": id, "start": start, "duration": 1.0, "channel": 0, "supervisions": [said]}
    return made | {"recording": {"sources": sources}, "type": "MonoCut"} | more


def write_cuts(path: Path, lines: list[Any]) -> None:
    text = "\n".join(each if isinstance(each, str) else json.dumps(each) for each in lines)
    path.write_bytes(gzip.compress(text.encode()))


def heavy(root: Path) -> list[dict[str, Any]]:
    """Libriheavy: ten cuts in two recordings of one second each and a half."""
    lines = []
    for book, (_, audio) in enumerate(spoken(2)):
        path = root / "small" / f"{100 + book}" / "sea_fairies" / "01_baum.flac"
        path.parent.mkdir(parents=True)
        soundfile.write(path, audio, RATE)
        for i in range(5):
            id = f"small/{100 + book}/sea_fairies/01_baum_{i}"
            lines.append(cut(id, str(path.relative_to(root)), i / 10, f"The ship sails {i}."))
    write_cuts(root / "libriheavy_cuts_small.jsonl.gz", lines)
    return lines


def test_cuts_of_one_recording_are_read_each_for_itself(tmp_path):
    heavy(tmp_path)
    found = read_corpus("libriheavy", tmp_path)
    assert len(found) == 10 and {u.speaker for u in found} == {"100", "101"}
    for number, utterance in enumerate(found[:5]):
        whole, _ = soundfile.read(utterance.path, dtype="float32")
        audio = read_speech(utterance.recording, RATE, FILTERS)[0].numpy()
        assert np.array_equal(audio, whole[number * RATE // 10 :][:RATE])
        assert utterance.text == f"The ship sails {number}."


def test_each_fault_of_a_cut_is_named(tmp_path):
    lines = heavy(tmp_path)
    source = "small/100/sea_fairies/01_baum.flac"
    two = lines[1]["supervisions"] * 2
    away = {"sources": [{"type": "url", "source": "https://example.org/a.flac"}]}
    lines[1] = {**lines[1], "supervisions": two}
    lines[2] = {**lines[2], "recording": away}
    lines[3] = cut("POD0000_S0001", source, 0.0, "A podcast.")
    lines[4] = cut("small/100/sea_fairies/lost_0", "small/100/gone.flac", 0.0, "Gone.")
    lines[5] = cut("small/101/sea_fairies/01_baum_9", source, 0.0, "  ")
    lines += [lines[6], json.dumps(lines[7])[:40], {"id": "x", "type": "PaddingCut"}]
    lines.append({**cut("small/100/b/c_0", source, 0.0, ""), "supervisions": []})
    write_cuts(tmp_path / "libriheavy_cuts_small.jsonl.gz", lines)
    write_cuts(tmp_path / "libriheavy_cuts_test_clean.jsonl.gz", [cut("small/1/t", source, 0, "T")])
    listing = list_corpus("libriheavy", tmp_path, most_broken=1.0)
    assert {each.id: each.reason for each in listing.left_out} == {
        "small/100/sea_fairies/01_baum_1": "several supervisions",
        "small/100/sea_fairies/01_baum_2": "recording is a url",
        "POD0000_S0001": "no id of libriheavy",
        "small/100/sea_fairies/lost_0": "no recording",
        "small/101/sea_fairies/01_baum_9": "empty transcript",
        "small/101/sea_fairies/01_baum_1": "transcribed twice",
        "libriheavy_cuts_small.jsonl.gz:12": "line is cut off",
        "libriheavy_cuts_small.jsonl.gz:13": "line is cut off",
        "small/100/b/c_0": "empty transcript",
    }
    assert len(listing.utterances) == 4


def test_a_cut_beyond_the_end_of_its_recording_is_cut_off(tmp_path):
    [first, *_] = heavy(tmp_path)
    write_cuts(tmp_path / "libriheavy_cuts_small.jsonl.gz", [{**first, "start": 0.9}])
    [utterance] = read_corpus("libriheavy", tmp_path)
    with pytest.raises(Unusable, match="cut off"):
        read_speech(utterance.recording, RATE, FILTERS)


def test_cuts_that_were_downloaded_by_half_are_refused_by_name(tmp_path):
    heavy(tmp_path)
    path = tmp_path / "libriheavy_cuts_small.jsonl.gz"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(CorpusError, match=r"cuts_small\.jsonl\.gz is cut off: download"):
        read_corpus("libriheavy", tmp_path)
    path.unlink()
    with pytest.raises(CorpusError, match=r"there is no \*_cuts_\*\.jsonl"):
        read_corpus("libriheavy", tmp_path)


def test_lhotses_cuts_of_another_listed_corpus_are_read(tmp_path):
    """As `lhotse prepare librispeech` names them: a cut has a number more than its supervision."""
    lines = []
    for i, (_, audio) in enumerate(spoken(3)):
        soundfile.write(tmp_path / f"{i}.flac", audio, RATE)
        said = {"id": f"19-198-{i:04d}", "start": 0.0, "duration": 1.5, "text": "THE SHIP SAILS"}
        line = cut(f"{said['id']}-{i}", "", 0.0, "", supervisions=[said], duration=1.5)
        line["recording"]["sources"][0]["source"] = str(tmp_path / f"{i}.flac")
        lines.append(line)
    write_cuts(tmp_path / "librispeech_cuts_train-clean-100.jsonl.gz", lines[:2])
    write_cuts(tmp_path / "librispeech_cuts_dev-clean.jsonl.gz", lines[2:])
    found = read_corpus("librispeech", tmp_path)
    assert [(u.id, u.speaker, u.text, u.part) for u in found] == [
        ("19-198-0000", "19", "the ship sails", "train"),
        ("19-198-0001", "19", "the ship sails", "train"),
        ("19-198-0002", "19", "the ship sails", "dev"),
    ]


COLUMNS = pa.schema(
    [
        ("audio", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("text_normalized", pa.string()),
        ("text_original", pa.string()),
        ("id", pa.string()),
    ]
)


def rows_of(count: int) -> list[dict[str, Any]]:
    made = []
    for i, (text, audio) in enumerate(spoken(count)):
        id = f"{100 + i // 4}_7_000000_{i:06d}"
        own = {"bytes": packed(audio), "path": f"{id}.flac"}
        made.append({"audio": own, "text_normalized": text, "text_original": "No. 1", "id": id})
    return made


def write_table(path: Path, rows: list[dict[str, Any]], schema: pa.Schema = COLUMNS) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path, row_group_size=2)


def test_a_corpus_in_parquet_makes_the_same_tokens_as_the_published_one(tmp_path):
    torch.set_num_threads(1)
    rows, tree, tables = rows_of(6), tmp_path / "LibriTTS", tmp_path / "tables"
    for number, row in enumerate(rows):
        part = "dev-clean" if number >= 4 else "train-clean-100"
        folder = tree / part / row["id"].split("_")[0] / "7"
        folder.mkdir(parents=True, exist_ok=True)
        audio, rate = soundfile.read(io.BytesIO(row["audio"]["bytes"]))
        soundfile.write(folder / f"{row['id']}.wav", audio, rate)
        (folder / f"{row['id']}.normalized.txt").write_text(row["text_normalized"])
    write_table(tables / "data" / "train.clean.100-00000-of-00001.parquet", rows[3::-1])
    write_table(tables / "data" / "dev.clean-00000-of-00001.parquet", rows[4:])
    write_table(tables / "data" / "test.clean-00000-of-00001.parquet", rows[:1])
    config = WorldConfig(codebooks=1, codebook_size=16)
    heard = [read_speech(u.recording, RATE, FILTERS) for u in read_corpus("libritts", tables)]
    codec = fit_world([analyse(heard[0][0].numpy(), config)], config, 1)
    made = []
    for name, root in (("a", tree), ("b", tables)):
        prepare("libritts", root, tmp_path / name, codec, Phonemes(), FILTERS, shard_size=6)
        table = pq.read_table(tmp_path / name / "shard-00000.parquet")
        made.append(table.drop_columns("sha256").to_pylist())  # WAV and FLAC are other bytes
    assert made[0] == made[1] and len(made[0]) == 6
    assert [row["part"] for row in made[0]].count("dev") == 2


def test_faults_of_a_parquet_file_are_named(tmp_path):
    rows = rows_of(12)
    rows[1]["text_normalized"] = None
    rows[2]["id"] = None
    rows[3]["id"] = "POD0000_S0001"
    rows[4]["audio"]["bytes"] = None
    rows[5]["audio"] = None
    rows[6]["audio"]["bytes"] = rows[6]["audio"]["bytes"][:2000]
    write_table(tmp_path / "train" / "0000.parquet", rows)
    write_table(tmp_path / "train" / "._0000.parquet", rows)
    write_tokens(tmp_path / "tokens", [])  # ours, in the same folder: they are not read
    listing = list_corpus("libritts", tmp_path, most_broken=0.5)
    assert listing.left_out == [
        LeftOut(rows[1]["id"], "empty transcript"),
        LeftOut("POD0000_S0001", "no id of libritts"),
        LeftOut("train/0000.parquet:1:0", "no id of libritts"),
    ]
    unusable = {}
    for utterance in listing.utterances:
        try:
            read_speech(utterance.recording, RATE, FILTERS)
        except Unusable as why:
            unusable[utterance.id] = str(why)
    assert list(unusable) == [rows[i]["id"] for i in (4, 5, 6)]
    assert set(unusable.values()) <= {"unreadable", "cut off"}


def test_the_same_rows_in_two_configurations_are_not_taken_twice(tmp_path):
    rows = rows_of(2)
    for config in ("all", "clean"):
        write_table(tmp_path / config / "train.clean.100" / "0000.parquet", rows)
    with pytest.raises(CorpusError, match=r"2 of 2 utterances .* twice"):
        read_corpus("libritts", tmp_path)
    assert len(read_corpus("libritts", tmp_path / "clean")) == 2


def test_what_is_no_parquet_with_audio_is_refused_by_name(tmp_path):
    path = tmp_path / "train" / "0000.parquet"
    write_table(path, rows_of(2))
    whole = path.read_bytes()
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n"
    for data in (whole[:-50], pointer, b""):
        path.write_bytes(data)
        with pytest.raises(CorpusError, match=r"0000\.parquet"):
            read_corpus("libritts", tmp_path)
    write_table(path, [{"audio": "a.wav", "text": "A"}], pa.schema({"audio": "str", "text": "str"}))
    with pytest.raises(
        CorpusError, match=r"0000\.parquet: it has no column audio of bytes and path"
    ):
        read_corpus("libritts", tmp_path)
    write_table(path, [{"words": "A"}], pa.schema({"words": "str"}))
    with pytest.raises(CorpusError, match=r"0000\.parquet: it has no column text_normalized or"):
        read_corpus("libritts", tmp_path)


def test_no_reader_lets_in_what_is_not_on_the_list(tmp_path):
    """Neither by its own name, nor under another's, nor where ids say nothing of whose they are."""
    rows = [{**row, "id": f"POD_{number}"} for number, row in enumerate(rows_of(2))]
    write_table(tmp_path / "train" / "0000.parquet", rows)
    with pytest.raises(CorpusError, match="'gigaspeech' is refused"):
        read_corpus("gigaspeech", tmp_path)
    with pytest.raises(CorpusError, match="'my-scrape' is not on the list"):
        read_corpus("my-scrape", tmp_path)
    with pytest.raises(CorpusError, match="no id of libritts"):
        read_corpus("libritts", tmp_path)
    with pytest.raises(CorpusError, match=r"kathleen: .* is not laid out as published"):
        read_corpus("kathleen", tmp_path)
