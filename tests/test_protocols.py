"""Protocol lists equal those computed by hand, on miniature trees with every odd case."""

import numpy as np
import pytest
import soundfile

from sayso.evaluation.protocols import (
    HARD,
    Trial,
    list_hash,
    make_list,
    to_tsv,
)
from sayso.model.errors import InputError

RATE = 8000
LIBRISPEECH = {  # id: seconds; 10 speaks twice in range in one chapter and once in another
    "10-2-0000": 4.0,  # on the edge
    "10-2-0001": 3.99,  # too short
    "10-2-0002": 10.0,  # on the edge
    "10-11-0000": 5.0,  # chapter 11 comes before 2: ids are ordered as text
    "20-1-0000": 10.1,  # too long: 20 has one utterance in range
    "20-1-0001": 6.0,
    "9-1-0000": 2.0,  # 9 has none
}
VCTK = {  # 3 s: p1 has two of 2.5 s, p2 one of exactly 3 s, p3 nothing below 3, p4 nothing else
    "p1": {"001": 2.5, "002": 2.5, "003": 4.9, "004": 5.0, "005": 9.0, "006": 3.5},
    "p2": {"001": 3.0, "002": 2.0, "003": 8.0, "004": 1.0, "005": 1.5},
    "p3": {"001": 3.2, "002": 4.0, "003": 7.0},
    "p4": {"001": 2.0},
}


def write(path, seconds):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = 0.1 * np.random.default_rng(0).standard_normal((round(seconds * RATE),), np.float32)
    soundfile.write(path, noise, RATE)


@pytest.fixture(scope="module")
def librispeech(tmp_path_factory):
    root = tmp_path_factory.mktemp("LibriSpeech") / "test-clean"
    for id, seconds in LIBRISPEECH.items():
        speaker, chapter, _ = id.split("-")
        write(root / speaker / chapter / f"{id}.flac", seconds)
        with (root / speaker / chapter / f"{speaker}-{chapter}.trans.txt").open("a") as file:
            file.write(f"{id} TEXT OF {id}\n")
    return root.parent


@pytest.fixture(scope="module")
def vctk(tmp_path_factory):
    root = tmp_path_factory.mktemp("VCTK")
    for speaker, clips in VCTK.items():
        for number, seconds in clips.items():
            id = f"{speaker}_{number}"
            write(root / "wav48_silence_trimmed" / speaker / f"{id}_mic1.flac", seconds)
            (root / "txt" / speaker).mkdir(parents=True, exist_ok=True)
            (root / "txt" / speaker / f"{id}.txt").write_text(f"Text of {id}.\n")
    return root


def flac(id: str) -> str:
    return "/".join((*id.split("-")[:2], f"{id}.flac"))


def test_prefix_says_every_utterance_of_4_to_10_seconds(librispeech):
    ids = ["10-11-0000", "10-2-0000", "10-2-0002", "20-1-0001"]
    assert make_list("librispeech-prefix", librispeech) == [
        Trial(i, i.split("-")[0], f"text of {i}", flac(i), f"text of {i}", 3.0, flac(i))
        for i in ids
    ]


def test_reference_is_the_previous_one_and_the_first_takes_the_last(librispeech):
    pairs = {
        "10-11-0000": "10-2-0002",
        "10-2-0000": "10-11-0000",
        "10-2-0002": "10-2-0000",
    }  # 20 has no other
    assert make_list("librispeech-reference", librispeech / "test-clean") == [
        Trial(i, "10", f"text of {i}", flac(before), f"text of {before}", 0.0, flac(i))
        for i, before in pairs.items()
    ]


@pytest.mark.parametrize(
    ("seconds", "prompts"),
    [
        ("3", {"p1": "001", "p2": "002"}),  # the first of two as long; 3.0 is not below 3
        ("5", {"p1": "003", "p2": "001", "p3": "002"}),
        ("10", {"p1": "005", "p2": "003", "p3": "003"}),
    ],
)
def test_vctk_prompt_is_the_longest_below(vctk, seconds, prompts):
    """What p1 says is neither 001, 003 nor 005; sha256 of p1_002, _004, _006 begin fc, dc, 5a."""
    said = {"p1": "006", "p2": "004", "p3": "001"}
    found = make_list(f"vctk-{seconds}", vctk)
    assert {t.speaker: t.prompt.split("_")[-2] for t in found} == prompts
    assert {t.speaker: t.id[3:] for t in found} == {who: said[who] for who in prompts}
    assert all(t.text == f"Text of {t.id}." and t.id in t.recording for t in found)
    assert all(t.prompt_text == f"Text of {t.speaker}_{prompts[t.speaker]}." for t in found)


def test_a_written_list_is_read_again_with_the_same_hash(librispeech, tmp_path):
    trials = make_list("librispeech-reference", librispeech)
    (tmp_path / "list.tsv").write_text(to_tsv(trials))
    again = make_list("folder", librispeech, tmp_path / "list.tsv")
    assert again == trials and list_hash(again) == list_hash(trials)
    assert list_hash(trials[1:]) != list_hash(trials)


def test_the_list_of_f5_tts_is_read(tmp_path):
    line = "10-2-0000\t4.0\tHe said so.\t10-2-0002\t10.0\tAnd so did she.\n"
    (tmp_path / "pc.lst").write_text(line)
    ids = "10-2-0002", "10-2-0000"
    wanted = Trial(ids[0], "10", "And so did she.", flac(ids[1]), "He said so.", 0.0, flac(ids[0]))
    assert make_list("folder", tmp_path, tmp_path / "pc.lst") == [wanted]


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("a.tsv", "id\ttext\tspeaker\na\t\tnobody\n", "line 2: no usable text"),
        ("a.tsv", "id\ttext\na\tHello.\n", "no usable speaker"),
        ("a.tsv", "id\ttext\tspeaker\tprompt\na\tHello.\tme\tx.wav\n", "prompt_text"),
        ("a.tsv", "id\ttext\tspeaker\na\tHello.\tme\na\tBye.\tme\n", "1 ids occur twice"),
        ("a.tsv", "id\ttext\tspeaker\n../a\tHello.\tme\n", "no file's name"),
        ("a.tsv", "id\ttext\tspeaker\tseconds\na\tHello.\tme\tthree\n", "seconds"),
        ("a.lst", "10-2-0000\t4.0\tHe said so.\n", "line 1: six cells"),
        ("a.tsv", "", "no trial"),
    ],
)
def test_a_list_that_cannot_be_used_is_named(tmp_path, name, text, why):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=why):
        make_list("folder", tmp_path, tmp_path / name)


def test_a_few_trials_are_chosen_evenly():
    every = make_list("hard", None, voices=["nobody"])
    assert make_list("hard", None, voices=["nobody"], most=5) == every[::10]
    assert make_list("hard", None, voices=["nobody"], most=999) == every
    with pytest.raises(InputError, match="at least 1"):
        make_list("hard", None, voices=["nobody"], most=0)


def test_what_a_protocol_lacks_is_named():
    for protocol, why in {"vctk-3": "--root", "folder": "--list", "vctk-4": "choose one"}.items():
        with pytest.raises(InputError, match=why):
            make_list(protocol, None)


def test_hard_sentences_are_fifty_and_speakable():
    from sayso.model.text.normalization import pieces

    trials = make_list("hard", None, voices=["nobody"])
    assert len(trials) == len({t.text for t in trials}) == 50 == len(HARD.read_text().splitlines())
    assert all(pieces(trial.text) for trial in trials)
