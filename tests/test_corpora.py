"""The allow-list of corpora: what is on it, what it refuses, and that entries cannot be edited."""

import pytest

from sayso.model.errors import CorpusError
from sayso.training import corpora


def test_every_allowed_corpus_states_licence_basis_and_attribution():
    allowed, refused = corpora.read_list()
    assert {"libritts", "libritts-r", "librispeech", "vctk", "ljspeech", "hifi-tts"} <= set(allowed)
    assert {"mls-english", "common-voice", "kathleen", "joe", "librispeech-clips"} <= set(allowed)
    for entry in allowed.values():
        assert entry.licence and entry.basis and entry.attribution and entry.version
        assert entry.url.startswith("https://")
        assert entry.checksum is None or ":" in entry.checksum
    assert "emilia" in refused and refused["emilia"].reason


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
