"""Corpora as people have them: each layout read, and each kind of damage named and counted."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from sayso.model.errors import CorpusError
from sayso.training.readers import LeftOut, list_corpus, read_corpus

COUNT = 12
TEXTS = (".txt", ".tsv", ".csv", ".json", ".jsonl")


def put(path: Path, text: str | bytes = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())


def metadata(root: Path, speaker: bool = False) -> None:
    rows = [f"u-{i}\t{'s1' + chr(9) if speaker else ''}The ship sails {i}." for i in range(COUNT)]
    put(root / "metadata.tsv", "\n".join(["id\tspeaker\ttext" if speaker else "id\ttext", *rows]))
    for i in range(COUNT):
        put(root / "audio" / ("s1" if speaker else "") / f"u-{i}.opus", b"sound")


def speakers(root: Path) -> None:
    metadata(root, speaker=True)


def libritts(root: Path) -> None:
    for i in range(COUNT):
        folder = root / ("dev-clean" if i % 4 == 0 else "train-clean-100") / str(i % 3) / "7"
        put(folder / f"{i}_7_0.wav", b"sound")
        put(folder / f"{i}_7_0.normalized.txt", f"The ship sails {i}.")
    put(root / "test-clean" / "9" / "7" / "t.wav", b"never read")


def librispeech(root: Path) -> None:
    for i in range(COUNT):
        folder = root / "train-clean-100" / str(i // 4) / "7"
        put(folder / f"{i // 4}-7-{i}.flac", b"sound")
    for speaker in range(COUNT // 4):
        lines = [f"{speaker}-7-{i} THE SHIP SAILS" for i in range(4 * speaker, 4 * speaker + 4)]
        put(
            root / "train-clean-100" / str(speaker) / "7" / f"{speaker}-7.trans.txt",
            "\n".join(lines) + "\n",
        )


def vctk(root: Path) -> None:
    for i in range(COUNT):
        for mic in (1, 2):
            put(root / "wav48_silence_trimmed" / "p225" / f"p225_{i}_mic{mic}.flac", b"sound")
        put(root / "txt" / "p225" / f"p225_{i}.txt", f"The ship sails {i}.\n")


def ljspeech(root: Path) -> None:
    put(root / "metadata.csv", "\n".join(f"LJ-{i}|In 1900|In nineteen" for i in range(COUNT)))
    for i in range(COUNT):
        put(root / "wavs" / f"LJ-{i}.wav", b"sound")


def hifi(root: Path) -> None:
    rows = [f'{{"audio_filepath": "audio/{i}.flac", "text": "hello {i}"}}' for i in range(COUNT)]
    put(root / "92_manifest_clean_train.json", "\n".join(rows) + "\n")
    put(root / "92_manifest_clean_dev.json", '{"audio_filepath": "audio/t.flac", "text": "no"}\n')
    for i in range(COUNT):
        put(root / "audio" / f"{i}.flac", b"sound")


def mls(root: Path) -> None:
    for part in ("train", "dev"):
        ids = [f"{4800 + (part == 'dev')}_1_{i}" for i in range(COUNT // 2)]
        put(root / part / "transcripts.txt", "\n".join(f"{id}\toh my dear" for id in ids) + "\n")
        for id in ids:
            put(root / part / "audio" / id.split("_")[0] / "1" / f"{id}.flac", b"sound")


def common_voice(root: Path) -> None:
    rows = [f"abc\tcv_{i}.mp3\tHello {i}." for i in range(COUNT)]
    put(root / "train.tsv", "\n".join(["client_id\tpath\tsentence", *rows]) + "\n")
    for i in range(COUNT):
        put(root / "clips" / f"cv_{i}.mp3", b"sound")
    put(root / "clips" / "of_another_part.mp3", b"sound")


def joe(root: Path) -> None:
    for i in range(COUNT):
        put(root / "en_US-joe" / f"{i:04d}.txt", f" Hello, Joe {i}.\n")
        put(root / "en_US-joe" / f"{i:04d}.flac", b"sound")
    put(root / "en_US-joe" / "0000.webm", b"what the FLAC was made from")
    put(root / "en_US-joe" / "LICENSE.txt", "no recording beside it")


def libriheavy(root: Path) -> None:
    lines: dict[str, list[str]] = {"dev": [], "small": [], "test_clean": []}
    for i in range(COUNT + 1):
        id = f"small/{100 + i % 3}/sea_fairies/{i:02d}_baum_0"
        source = f"download/librilight/{id[:-2]}.flac"
        said = {"id": id, "start": 0, "duration": 7.36, "channel": 0, "speaker": id.split("/")[1]}
        said["custom"] = {"texts": [f"The ship sails {i}.", "THE SHIP SAILS"]}
        cut = {"id": id, "start": 243.919, "duration": 7.36, "channel": 0, "type": "MonoCut"}
        cut["supervisions"] = [said]
        cut["recording"] = {"sources": [{"type": "file", "channels": [0], "source": source}]}
        part = "test_clean" if i == COUNT else "dev" if i % 4 == 0 else "small"
        lines[part].append(json.dumps(cut))
        put(root / f"{id[:-2]}.flac", b"sound")
    for part, own in lines.items():
        put(root / f"libriheavy_cuts_{part}.jsonl", "\n".join(own) + "\n")


TREES: dict[str, Callable[[Path], None]] = {
    **{"kathleen": metadata, "librispeech-clips": metadata, "ljspeech-part": metadata},
    **{"speechocean762-adults": speakers, "vctk-p239": speakers},
    **{"librispeech-three-readers": speakers, "libritts": libritts, "libritts-r": libritts},
    **{"librispeech": librispeech, "vctk": vctk, "ljspeech": ljspeech, "hifi-tts": hifi},
    **{"mls-english": mls, "common-voice": common_voice, "joe": joe},
    "libriheavy": libriheavy,
}


@pytest.mark.parametrize("name", TREES)
def test_every_layout_is_read(name, tmp_path):
    TREES[name](tmp_path)
    listing = list_corpus(name, tmp_path)
    assert len(listing.utterances) == COUNT and not listing.left_out
    assert all(u.path.is_file() and u.text and u.speaker for u in listing.utterances)
    assert [u.id for u in listing.utterances] == sorted(u.id for u in listing.utterances)
    parts = {"libritts": 3, "libritts-r": 3, "mls-english": 6, "libriheavy": 3}
    development = parts.get(name, 0)
    assert [u.part for u in listing.utterances].count("dev") == development
    if name == "joe":
        assert listing.utterances[0].path.suffix == ".flac"


@pytest.mark.parametrize("name", TREES)
def test_what_other_systems_leave_is_no_part_of_a_corpus(name, tmp_path):
    TREES[name](tmp_path)
    for folder in [tmp_path, *(p for p in tmp_path.rglob("*") if p.is_dir())]:
        for litter in (".DS_Store", "Thumbs.db", "desktop.ini"):
            put(folder / litter, b"\x00\x01")
    for path in [p for p in tmp_path.rglob("*") if p.is_file()]:
        put(path.with_name(f"._{path.name}"), b"\x00\x05\x16\x07")
    listing = list_corpus(name, tmp_path)
    assert len(listing.utterances) == COUNT and not listing.left_out


@pytest.mark.parametrize("name", TREES)
@pytest.mark.parametrize("change", ["bom", "crlf", "blank lines", "a line separator in a text"])
def test_texts_as_other_systems_write_them_are_read(name, change, tmp_path):
    TREES[name](tmp_path)
    plain = {u.id: u.text for u in read_corpus(name, tmp_path)}
    for path in [p for p in tmp_path.rglob("*") if p.suffix in TEXTS]:
        raw = path.read_bytes()
        if change == "bom":
            raw = b"\xef\xbb\xbf" + raw
        elif change == "crlf":
            raw = raw.replace(b"\n", b"\r\n")
        elif change == "blank lines":
            raw = raw.replace(b"\n", b"\n\n") + b"\n \n"
        else:
            for words in (b"ship sails", b"SHIP SAILS", b"hello ", b"In nineteen", b"oh my"):
                raw = raw.replace(words, words.replace(b" ", "\u2028".encode()))
        path.write_bytes(raw)
    found = {u.id: " ".join(u.text.split()) for u in read_corpus(name, tmp_path)}
    assert found == plain


def test_each_fault_is_named_with_its_utterance(tmp_path):
    libritts(tmp_path)
    folder = tmp_path / "train-clean-100" / "1" / "7"
    (folder / "1_7_0.wav").unlink()
    (tmp_path / "train-clean-100" / "2" / "7" / "2_7_0.normalized.txt").unlink()
    put(tmp_path / "train-clean-100" / "0" / "7" / "3_7_0.normalized.txt", b"caf\xe9")
    put(tmp_path / "train-clean-100" / "2" / "7" / "5_7_0.normalized.txt", b" \n")
    put(tmp_path / "dev-clean" / "8" / "7" / "6_7_0.wav", b"sound")
    listing = list_corpus("libritts", tmp_path, most_broken=0.5)
    assert listing.left_out == [
        LeftOut("1_7_0", "no recording"),
        LeftOut("2_7_0", "no transcript"),
        LeftOut("3_7_0", "text is not UTF-8"),
        LeftOut("5_7_0", "empty transcript"),
        LeftOut("6_7_0", "recorded twice"),
    ]
    assert len(listing.utterances) == COUNT - 5
    with pytest.raises(CorpusError, match=r"5 of 12 utterances .* are broken .*1_7_0.*unpack"):
        read_corpus("libritts", tmp_path)


def test_lines_that_are_broken_are_named_and_the_message_stays_short(tmp_path):
    metadata(tmp_path)
    lines = (tmp_path / "metadata.tsv").read_bytes().split(b"\n")
    lines[3] = b"u-2\tcaf\xe9 " + b"x" * 10_000
    lines[5] = b"u-4"
    lines[7] = lines[6]
    (tmp_path / "metadata.tsv").write_bytes(b"\n".join(lines))
    listing = list_corpus("kathleen", tmp_path, most_broken=0.5)
    assert {each.id: each.reason for each in listing.left_out} == {
        "u-2": "text is not UTF-8",
        "u-4": "line is cut off",
        "u-5": "transcribed twice",
        "u-6": "no transcript",
    }
    with pytest.raises(CorpusError) as error:
        read_corpus("kathleen", tmp_path)
    assert len(str(error.value)) < 400
    put(tmp_path / "metadata.tsv", "id\twords\nu-1\tHello.\n")
    with pytest.raises(CorpusError, match=r"metadata\.tsv has no column text"):
        read_corpus("kathleen", tmp_path)


def test_a_linked_corpus_that_cannot_be_written_is_read(tmp_path):
    libritts(tmp_path / "real")
    for path in (tmp_path / "real").rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    (tmp_path / "link").symlink_to(tmp_path / "real", target_is_directory=True)
    assert len(read_corpus("libritts", tmp_path / "link")) == COUNT
    for path in (tmp_path / "real").rglob("*"):
        path.chmod(0o755)


DAMAGES = ("cut", "emptied", "renamed", "gone", "bom", "dotted", "latin-1")


def damage(path: Path, kind: str) -> None:
    raw = path.read_bytes()
    match kind:
        case "cut":
            path.write_bytes(raw[: len(raw) // 2])
        case "emptied":
            path.write_bytes(b"")
        case "renamed":
            path.rename(path.with_name(path.name + ".bak"))
        case "gone":
            path.unlink()
        case "bom":
            path.write_bytes(b"\xef\xbb\xbf" + raw)
        case "dotted":
            put(path.with_name(f"._{path.name}"), b"\x00\x05")
        case "latin-1":
            path.write_bytes(raw + b"\xe9")


@pytest.mark.parametrize("name", TREES)
def test_taken_and_left_out_always_add_up(name, tmp_path):
    """One file of each of some utterances is damaged; 30 seeded corpora of each layout."""
    TREES[name](tmp_path / "whole")
    whole = {u.id: u for u in read_corpus(name, tmp_path / "whole")}
    own_text = {"libritts", "libritts-r", "vctk", "joe"}  # a text file for each utterance
    texts = {"vctk": "txt/p225/{}.txt", "joe": "en_US-joe/{}.txt"}
    for seed in range(30):
        dice, root = random.Random(seed), tmp_path / str(seed)
        shutil.copytree(tmp_path / "whole", root)
        hurt = dice.sample(sorted(whole), dice.randint(1, 6))
        for id in hurt:
            path = root / whole[id].path.relative_to(tmp_path / "whole")
            if name == "joe" and id == "0000":
                continue  # has two recordings
            if name in own_text and dice.random() < 0.5:
                text = root / texts.get(name, "").format(id)
                path = text if name in texts else path.with_suffix(".normalized.txt")
            damage(path, dice.choice(DAMAGES))
        listing = list_corpus(name, root, most_broken=1.0)
        taken = {u.id for u in listing.utterances}
        left_out = {each.id for each in listing.left_out}
        assert not taken & left_out
        assert taken | left_out == set(whole), (seed, hurt)
        assert left_out <= set(hurt)
        assert all(each.reason for each in listing.left_out)


@pytest.mark.parametrize("name", ["kathleen", "ljspeech", "librispeech", "vctk-p239"])
@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_list_of_transcripts_loses_no_utterance_silently(name, kind, tmp_path):
    TREES[name](tmp_path)
    [path, *_] = sorted(p for p in tmp_path.rglob("*") if p.suffix in (".tsv", ".csv", ".txt"))
    ids = {u.id for u in read_corpus(name, tmp_path)}
    damage(path, kind)
    try:
        listing = list_corpus(name, tmp_path, most_broken=1.0)
    except CorpusError as error:  # there is no list any more
        assert "not laid out as published" in str(error) and path.name in str(error)
        return
    found = {u.id for u in listing.utterances} | {each.id for each in listing.left_out}
    assert ids <= found and len(found - ids) <= 1  # a name that was cut is one more
