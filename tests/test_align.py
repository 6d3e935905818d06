"""Alignment of speech and phonemes: first frames, pointers, and real speech through prepare."""

from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
import soxr
import torch

from sayso.model.card import read_card
from sayso.model.codecs.world import WorldCodec, WorldConfig, analyse
from sayso.model.errors import InputError
from sayso.model.extras.alignment import NONE
from sayso.model.text.forced_alignment import RATE, Aligner, Phone
from sayso.model.text.normalization import normalise
from sayso.model.text.tokenizers import Phonemes
from sayso.training.data import Batches
from sayso.training.extras.align import align_tokens, first_frames, pointers, spoken_words
from sayso.training.extras.augment import VOICES, altered_speaker
from sayso.training.fitting.world import fit_world
from sayso.training.held_out import HeldOut
from sayso.training.prepare import prepare
from sayso.training.readers import read_corpus
from sayso.training.shards import COPY
from sayso.training.speech import Filters
from sayso.training.tokens import NEITHER, TRAIN, VALIDATION, open_tokens
from sayso.training.train import train_ar, train_nar
from training_fixtures import TEXT_SIZE, rows, small_recipe, write_tokens


@pytest.fixture(scope="module")
def phonemes() -> Phonemes:
    return Phonemes()


def test_words_are_runs_of_phones_between_marks(phonemes):
    ids = phonemes.encode("A cat, no dog.")
    assert spoken_words(ids, phonemes) == [["AH"], ["K", "AE", "T"], ["N", "OW"], ["D", "AO", "G"]]


def test_pauses_belong_to_the_first_mark_and_unheard_marks_to_nothing(phonemes):
    ids = phonemes.encode("A cat, no.")  # AH | K AE T , | N OW .
    times = [(0, 0.1, 0.2), (1, 0.2, 0.3), (1, 0.3, 0.4), (1, 0.4, 0.5), (2, 0.8, 0.9), (2, 0.9, 1)]
    phones = [Phone(*each) for each in times]
    starts = first_frames(ids, phonemes, phones, 50.0)
    #                         AH | K   AE  T  ,   |   N   OW  .
    assert starts.tolist() == [5, 10, 10, 15, 20, 25, 40, 40, 45, 50]
    where = pointers(starts, 60, 1)
    assert where[[0, 4, 5, 9, 10, 14]].tolist() == [0, 0, 1, 1, 3, 3]  # nobody hears the boundary
    assert where[[25, 39, 40, 44, 45, 50, 59]].tolist() == [6, 6, 8, 8, 9, 10, 10]


def test_all_frames_of_a_group_are_where_its_last_is_counted_from_the_end():
    starts = np.array([1, 4], np.int32)
    assert pointers(starts, 7, 1).tolist() == [0, 1, 1, 1, 2, 2, 2]
    assert pointers(starts, 7, 2).tolist() == [0, 1, 1, 2, 2, 2, 2]
    assert pointers(starts, 7, 4).tolist() == [1, 1, 1, 2, 2, 2, 2]


def test_real_speech_is_aligned_where_it_is_said(kathleen, phonemes):
    """The phones of a sentence read twice in a row come twice, at the same distance."""
    first = read_corpus("kathleen", kathleen)[1]
    audio, rate = soundfile.read(first.path, dtype="float32")
    audio = soxr.resample(audio, rate, RATE)
    words = spoken_words(phonemes.encode(normalise(first.text)), phonemes)
    found = Aligner().align(np.concatenate([audio, audio]), words + words)
    once, again = found[: len(found) // 2], found[len(found) // 2 :]
    shift = np.array([b.start - a.start for a, b in zip(once, again, strict=True)])
    assert np.abs(shift - len(audio) / RATE).max() < 0.06
    assert all(a.end <= b.start + 1e-6 for a, b in pairwise(found))


def test_what_cannot_be_aligned_says_so(phonemes):
    with pytest.raises(InputError, match="align"):
        Aligner().align(np.zeros(RATE // 4, np.float32), [["K", "AE", "T"]] * 20)

    class Pieces:
        kind = "bpe"

    with pytest.raises(InputError, match="needs phonemes"):
        align_tokens(np.zeros(RATE, np.float32), [1], Pieces(), 50.0, Aligner())  # type: ignore


def test_prepare_aligns_real_speech(kathleen, phonemes, tmp_path):
    config = WorldConfig(codebooks=2, codebook_size=16)
    audio, rate = soundfile.read(read_corpus("kathleen", kathleen)[0].path, dtype="float32")
    heard = analyse(soxr.resample(audio, rate, config.sample_rate), config)
    codec = fit_world([heard], config, iterations=1)
    assert isinstance(codec, WorldCodec)
    done = prepare("kathleen", kathleen, tmp_path, codec, phonemes, Filters(), limit=4, align=True)
    assert done
    for row in pq.read_table(next(tmp_path.glob("*.parquet"))).to_pylist():
        assert len(row["starts"]) == len(row["text_ids"])
        assert row["starts"] == sorted(row["starts"])
        assert row["starts"][-1] <= row["frames"]
        assert row["starts"][-2] > row["frames"] * 0.6  # the last word is said near the end
    tokens = open_tokens([tmp_path], ["kathleen"])
    assert tokens.aligned


def test_batches_hide_pointers_of_some_prompts_and_shift_them_where_joined(tmp_path):
    tokens = open_tokens([write_tokens(tmp_path, rows(40), aligned=True)], ["kathleen"])
    batches = Batches(tokens, 200, 0, 63, 256, join_seconds=2.0, group_size=2)
    hidden = 0
    for _, (batch,) in zip(range(20), batches.steps(0), strict=False):
        assert batch.pointer is not None
        for row in range(len(batch.text)):
            pointer = batch.pointer[row, : int(batch.lengths[row])]
            head = int(batch.prompt_lengths[row])
            assert (pointer[head:] >= 0).all()
            assert pointer[-1] == batch.text_lengths[row]
            if pointer[0] == NONE:
                hidden += 1
                assert (pointer[:head] == NONE).all()
            # every frame says the token it points to: codes are made from the text, see `rows`
            said = batch.text[row][(pointer[head:] - 1).clamp(min=0)]
            same = said == batch.codes[row, 0, head : int(batch.lengths[row])] % TEXT_SIZE
            assert same.float().mean() > 0.7  # group-mates may belong to the token before
    assert hidden > 10


def test_an_aligned_model_reads_sooner(tmp_path):
    """The same steps, with the pointer: what takes long to find out is given."""
    aligned = write_tokens(tmp_path / "tokens", rows(80), aligned=True)
    more: dict[str, Any] = {"ar__train__steps": 200, "ar__train__validate_every": 200}
    more |= {"ar__size__width": 32, "ar__size__dropout": 0.0, "nar__train__steps": 60}
    losses = {}
    for alignment in (False, True):
        run = tmp_path / f"run{alignment}"
        recipe = small_recipe(
            run, aligned, ar__alignment=alignment, nar__alignment=alignment, **more
        )
        train_ar(recipe, report=lambda line: None)
        losses[alignment] = read_card(run)["models"]["ar"]["validation_loss"]
        assert read_card(run)["models"]["ar"]["alignment"] is alignment
    assert losses[True] < losses[False] - 0.3
    train_nar(recipe, report=lambda line: None)


def test_alignment_needs_aligned_tokens(tmp_path):
    tokens = write_tokens(tmp_path / "tokens", rows(20))
    with pytest.raises(InputError, match=r"data\.align: true"):
        train_ar(small_recipe(tmp_path / "run", tokens, ar__alignment=True))
    torch.manual_seed(0)


def test_copies_are_the_same_words_by_speakers_who_do_not_exist(kathleen, phonemes, tmp_path):
    config = WorldConfig(codebooks=2, codebook_size=64)
    audio, rate = soundfile.read(read_corpus("kathleen", kathleen)[0].path, dtype="float32")
    heard = analyse(soxr.resample(audio, rate, config.sample_rate), config)
    codec = fit_world([heard], config, iterations=1)
    for folder in ("one", "two"):
        assert prepare(
            "kathleen",
            kathleen,
            tmp_path / folder,
            codec,
            phonemes,
            Filters(),
            limit=8,
            align=True,
            copies=2,
        )
    one, two = (
        {row["id"]: row for row in pq.read_table(next(each.glob("*.parquet"))).to_pylist()}
        for each in (tmp_path / "one", tmp_path / "two")
    )
    assert one == two  # what is random hangs on names alone
    originals = [row for id, row in one.items() if COPY not in id]
    assert len(originals) == 8
    for row in originals:
        copies = [copy for id, copy in one.items() if id.startswith(row["id"] + COPY)]
        assert len(copies) == 2
        for copy in copies:
            ratio = copy["frames"] / row["frames"]
            assert copy["text_ids"] == row["text_ids"]
            assert copy["speaker"] != row["speaker"]
            assert copy["codes"] != row["codes"]
            np.testing.assert_allclose(copy["starts"], np.array(row["starts"]) * ratio, atol=1.5)
    opened = open_tokens([tmp_path / "one"], ["kathleen"], HeldOut(utterances={"kathleen": 2}))
    assert opened.recorded.sum() == len(originals)
    out = {name for name in opened.names if opened.split[opened.names == name] == VALIDATION}
    assert 0 < len(out) < 8  # copies go with what they are of, but are no validation
    for name, split in zip(opened.names, opened.split, strict=True):
        base = name.split(COPY)[0]
        assert split == (TRAIN if base not in out else VALIDATION if name == base else NEITHER)


def test_a_voice_of_copies_is_the_same_in_all_its_sentences():
    by_name = {}
    for number in range(400):
        name, alteration = altered_speaker(f"u{number}", "kathleen", 1)
        assert by_name.setdefault(name, alteration) == alteration
    assert len(by_name) == VOICES
    assert np.ptp([each.pitch for each in by_name.values()]) > 4
