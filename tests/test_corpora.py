"""The allow-list of corpora: what is on it, what it refuses, and that entries cannot be edited."""

import json
import re
import subprocess
import sys
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from sayso.cli import app
from sayso.inference.errors import RefusedError
from sayso.model import corpora
from sayso.model.errors import CorpusError
from sayso.model.files import file_hash


def test_every_allowed_corpus_states_licence_basis_and_attribution():
    allowed, refused = corpora.read_list()
    assert {"libritts", "libritts-r", "librispeech", "vctk", "ljspeech", "hifi-tts"} <= set(allowed)
    assert {"mls-english", "common-voice", "kathleen", "joe", "librispeech-clips"} <= set(allowed)
    for entry in allowed.values():
        assert entry.licence and entry.basis and entry.attribution and entry.version
        assert entry.url.startswith("https://")
        for line in (entry.checksum or "").splitlines():
            assert re.fullmatch(r"\S+ (sha256:[0-9a-f]{64}|md5:[0-9a-f]{32})", line)
        assert "training" in entry.uses
    assert {"emilia", "gigaspeech", "voxceleb"} <= set(refused)
    assert all(entry.reason for entry in refused.values())


@pytest.mark.parametrize("name, word", [("emilia", "refused"), ("my-scrape", "not on the list")])
def test_unlisted_corpora_are_refused_by_name(name, word):
    with pytest.raises(CorpusError, match=f"{name}.*{word}"):
        corpora.get(name)


def test_a_use_that_is_not_listed_is_refused():
    assert corpora.get("kathleen", "free-text").licence == "CC0 1.0"
    with pytest.raises(CorpusError, match=r"libritts.*free-text"):
        corpora.get("libritts", "free-text")


def test_entries_verify_and_edits_are_found():
    entry = corpora.get("vctk").to_json()
    assert corpora.verify([entry], "card.json")[0].name == "vctk"
    with pytest.raises(CorpusError, match=r"card.json.*vctk.*licence"):
        corpora.verify([{**entry, "licence": "all mine"}], "card.json")
    with pytest.raises(CorpusError, match="emilia"):
        corpora.verify([{**entry, "name": "emilia"}], "card.json")
    with pytest.raises(CorpusError, match="no corpus"):
        corpora.verify([], "card.json")


def test_a_broken_list_is_a_clear_error(tmp_path):
    path = tmp_path / "list.yaml"
    path.write_text("allowed: [{name: a}]\nrefused: []\n")
    with pytest.raises(CorpusError, match="not a list of corpora"):
        corpora.read_list(path)


def test_archives_are_compared_with_the_checksums(tmp_path):
    (tmp_path / "a.tar.gz").write_bytes(b"whole")
    (tmp_path / "b.tar.gz").write_bytes(b"whole, too")
    known = [
        f"a.tar.gz sha256:{file_hash(tmp_path / 'a.tar.gz')}",
        f"b.tar.gz md5:{file_hash(tmp_path / 'b.tar.gz', 'md5')}",
        f"c.tar.gz sha256:{'0' * 64}",  # not downloaded
    ]
    corpus = replace(corpora.get("vctk"), checksum="\n".join(known))
    assert corpora.check_archives(corpus, tmp_path) == ["a.tar.gz", "b.tar.gz"]
    (tmp_path / "b.tar.gz").write_bytes(b"cut")
    with pytest.raises(CorpusError, match=r"b\.tar\.gz of vctk; download it anew"):
        corpora.check_archives(corpus, tmp_path)
    with pytest.raises(CorpusError, match="none of the archives"):
        corpora.check_archives(corpus, tmp_path / "elsewhere")
    with pytest.raises(CorpusError, match="no checksums of hifi-tts"):
        corpora.check_archives(corpora.get("hifi-tts"), tmp_path)


def test_the_command_lists_shows_and_checks(tmp_path, kathleen):
    def sayso(*arguments: str):
        return CliRunner().invoke(app, ["corpora", *arguments])

    listed = sayso("list").output.splitlines()
    allowed, refused = corpora.read_list()
    assert [line.split(":")[0] for line in listed] == [*allowed, *refused]
    assert "refused: speech scraped" in listed[len(allowed)]
    shown = json.loads(sayso("show", "kathleen").output)
    assert shown.items() >= corpora.get("kathleen").to_json().items()
    assert isinstance(sayso("show", "my-scrape").exception, RefusedError)
    found = sayso("check", str(kathleen), "--corpus", "kathleen").output
    assert "146 utterances of 1 speakers of kathleen, 0 left out" in found
    (tmp_path / "metadata.tsv").write_text("id\ttext\na\tHello.\n")
    lost = sayso("check", str(tmp_path), "--corpus", "kathleen")
    assert "a: no recording\n" in lost.output
    assert isinstance(lost.exception, CorpusError) and "1 of 1 utterances" in str(lost.exception)
    (tmp_path / "VCTK-Corpus-0.92.zip").write_bytes(b"half")
    wrong = sayso("check", str(tmp_path), "--corpus", "vctk").exception
    assert isinstance(wrong, CorpusError) and "download it anew" in str(wrong)
    assert "'emilia' is refused" in str(sayso("check", ".", "--corpus", "emilia").exception)


def test_without_the_train_extra_the_command_says_what_to_install():
    code = "import sys; sys.modules['pyarrow'] = None; from sayso.cli import main; main()"
    command = [sys.executable, "-c", code, "prepare", "--corpus", "kathleen", "--root", "."]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "sayso: error: pyarrow is missing: pip install 'sayso[train]'\n"
