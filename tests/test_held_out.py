"""Held-out speakers are in no batch, whatever token files say; other rules encode nothing anew."""

from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sayso.model.card import read_card
from sayso.model.errors import CorpusError, InputError
from sayso.model.files import file_hash
from sayso.training.data import Batches
from sayso.training.held_out import HeldOut, held_out, split, trained_on
from sayso.training.recipe import read_recipe
from sayso.training.shards import SCHEMAS
from sayso.training.tokens import TRAIN, VALIDATION, Tokens, open_tokens
from sayso.training.train import train_ar
from speech import READERS
from training_fixtures import CONFIGS, edit_manifest, rows, small_recipe, write_tokens


def many_speakers(corpus: str = "libritts", count: int = 120) -> list[dict]:
    made = rows(count, corpus=corpus)
    return [{**row, "speaker": f"{i % 20}", "part": "train"} for i, row in enumerate(made)]


def utterances_in(batches: Batches, epochs: int = 3) -> set[int]:
    return {i for n in range(epochs) for b in batches.epoch(n) for members in b for i in members}


def test_no_utterance_of_a_held_out_speaker_is_in_any_batch(tmp_path):
    made = many_speakers()
    tokens = write_tokens(tmp_path / "tokens", made, ("libritts",))
    rule = HeldOut(speakers={"libritts": 4})
    opened = open_tokens([tokens], ["libritts"], rule)
    out = {f"{s}" for s in range(20) if held_out(f"librivox/{s}", 4)}
    assert 2 <= len(out) <= 10 and opened.new_voices == len(out)
    batches = Batches(opened, 300, 1, 64, 256, join_seconds=2.0)
    trained = {made[i]["speaker"] for i in utterances_in(batches)}
    validated = {made[i]["speaker"] for i in batches.validation}
    assert validated == out and trained == {row["speaker"] for row in made} - out
    texts = {tuple(made[i]["text_ids"]) for i in utterances_in(batches)}
    single = Batches(opened, 300, 1, 64, 256)  # and what a batch holds is of these alone
    for batch in (next(single.steps(n))[0] for n in range(20)):
        for ids, size in zip(batch.text.tolist(), batch.text_lengths.tolist(), strict=True):
            assert tuple(ids[:size]) in texts


def test_another_rule_encodes_nothing_anew(tmp_path):
    tokens = write_tokens(tmp_path / "tokens", many_speakers(), ("libritts",))
    before = {path.name: file_hash(path) for path in tokens.glob("*.*") if path.is_file()}
    splits = []
    for rule in (HeldOut(), HeldOut({"libritts": 3}), HeldOut({}, {"libritts": 10})):
        splits.append(open_tokens([tokens], ["libritts"], rule).split)
    assert splits[0].sum() == 0 and splits[1].sum() != splits[2].sum() > 0
    assert before == {path.name: file_hash(path) for path in tokens.glob("*.*") if path.is_file()}


def test_a_reader_held_out_in_one_corpus_is_held_out_in_all():
    """librispeech-clips has one utterance of each reader, so that its rule names whole readers."""
    clips = trained_on({"librispeech-clips": READERS}, HeldOut())["librispeech-clips"]
    rule = HeldOut(utterances={"librispeech-clips": 3})
    out = [u for u in clips if held_out(u.id, 3)]
    assert 0 < len(out) < len(clips)
    corpus = [*["librispeech-clips"] * len(clips), "libritts", "vctk"]
    speaker = [*[u.speaker for u in clips], out[0].speaker, out[0].speaker]
    id = [*[u.id for u in clips], "another", "of another person"]
    held, people = split(corpus, speaker, id, ["train"] * len(id), rule)
    assert held.tolist() == [*[u in out for u in clips], True, False]
    assert people == {f"librivox/{u.speaker}" for u in out}


def test_what_a_corpus_keeps_for_development_is_held_out_with_its_speakers():
    held, people = split(
        ["libritts", "libritts-r", "libritts"], ["7", "7", "8"], ["a", "b", "c"],
        ["dev", "train", "train"], HeldOut(),
    )  # fmt: skip
    assert held.tolist() == [True, True, False] and people == {"librivox/7"}


def old_format(folder, made):
    """The same token folder as it was written before: with the split in the shards."""
    write_tokens(folder, made)
    shard = folder / "shard-00000.parquet"
    old = [{**row, "split": "validation" if i % 5 == 0 else "train"} for i, row in enumerate(made)]
    pq.write_table(pa.Table.from_pylist(old, schema=SCHEMAS[2]), shard)
    edit_manifest(
        folder,
        format=2,
        shards=[{"file": shard.name, "rows": len(made), "sha256": file_hash(shard)}],
    )
    return folder


def test_old_shards_with_a_stored_split_open_and_follow_the_recipe(tmp_path):
    folder = old_format(tmp_path / "old", many_speakers("kathleen"))
    opened = open_tokens([folder], ["kathleen"], HeldOut(utterances={"kathleen": 6}))
    ids = [name.partition("/")[2] for name in opened.names]
    wanted = [VALIDATION if held_out(id, 6) else TRAIN for id in ids]
    assert opened.split.tolist() == wanted and 0 < sum(wanted) < len(wanted)
    edit_manifest(folder, format=1)
    with pytest.raises(InputError, match="has format 1"):
        open_tokens([folder], ["kathleen"])


def test_where_no_speaker_is_held_out_the_run_says_so(tmp_path):
    tokens = write_tokens(tmp_path / "tokens", many_speakers("kathleen", 60))
    own: dict[str, Any] = {"ar__train__steps": 2, "ar__train__warm_up": 0}
    cases: tuple[tuple[str, dict[str, Any]], ...] = (
        ("utterances", {"data__held_out_every": 5}),
        ("speakers", {"data__held_out_speakers": 5}),
        ("none", {"ar__train__export": "last"}),
    )
    for name, more in cases:
        lines: list[str] = []
        train_ar(small_recipe(tmp_path / name, tokens, **own, **more), report=lines.append)
        warned = any("no speaker is held out" in line for line in lines)
        assert warned == (name != "speakers")
        card = read_card(tmp_path / name)["models"]["ar"]
        assert (card["new_voices"] > 0) == (name == "speakers")
        assert (card["validation_loss"] is None) == (name == "none")


def test_a_validation_takes_the_same_part_of_much_held_out_speech(tmp_path):
    tokens = write_tokens(tmp_path / "tokens", many_speakers(count=400), ("libritts",))
    opened = open_tokens([tokens], ["libritts"], HeldOut({"libritts": 2}))
    whole = Batches(opened, 300, 1, 64, 256)
    part, again = (Batches(opened, 300, s, 64, 256, validation_minutes=0.2) for s in (1, 2))
    seconds = opened.frames[part.validation].sum() / opened.codec["frame_rate"]
    assert 10 < seconds <= 12 and set(part.validation) < set(whole.validation)
    assert part.validation.tolist() == again.validation.tolist()
    assert len(set(opened.speaker[part.validation].tolist())) > 3


def test_a_rule_names_corpora_of_the_recipe():
    for key, value, word in (
        ("data.held_out_speakers", {"vctk": 5}, "vctk, which is not in corpora"),
        ("data.held_out_speakers", 1, "at least 2"),
    ):
        with pytest.raises(InputError, match=word):
            read_recipe(CONFIGS / "tiny.yaml", {key: value})
    with pytest.raises(CorpusError, match="my-scrape"):
        split(["my-scrape"], ["a"], ["b"], ["train"], HeldOut())


def test_a_token_file_that_is_cut_while_a_run_reads_it_is_an_error_with_its_name(tmp_path):
    tokens: Tokens = open_tokens([write_tokens(tmp_path / "t", rows(40))], ["kathleen"])
    batches = Batches(tokens, 300, 1, 64, 256)
    codes = next((tmp_path / "t").glob("arrays-*/codes.i16"))
    codes.write_bytes(codes.read_bytes()[:100])
    with pytest.raises(InputError, match=r"kathleen/u\d+ of .*shard-00000\.parquet: .*cut off"):
        for _, batch in zip(range(20), batches.steps(0), strict=False):
            assert batch
    with pytest.raises(InputError, match="is cut off: remove"):
        open_tokens([tmp_path / "t"], ["kathleen"])
