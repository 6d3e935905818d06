"""The corpora that may be trained on, and those refused (``corpora.yaml``, beside this file)."""

from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from .errors import CorpusError
from .files import ASSETS, MOST_JSON, file_hash, read_bounded, read_utf8

LIST = Path(__file__).with_name("corpora.yaml")
USES = ("training", "benchmark", "free-text")
RECORDINGS = ASSETS / "recordings"
"""Hashes of the utterances of some corpora (`python -m tools.list_recordings` makes them)."""


@dataclass(frozen=True)
class Corpus:
    """One corpus and the ground on which it may be used."""

    name: str
    title: str
    version: str
    licence: str
    basis: str
    url: str
    checksum: str | None
    """Of the published archives, a line ``FILE sha256:hex`` (or md5) each; None: none known."""
    attribution: str
    uses: tuple[str, ...]
    prompts: str | None = None
    """The published corpus that receipts of its benchmark prompts name; None: it has no prompts."""
    speakers: str | None = None
    """Whose ids its speakers have: the same id in two corpora with this word is the same person."""

    def __post_init__(self) -> None:
        unknown = [use for use in self.uses if use not in USES]
        if unknown:
            raise CorpusError(f"corpus {self.name}: unknown uses {unknown}; known are {USES}")

    def to_json(self) -> dict[str, Any]:
        """The ground on which it is used as plain JSON, as it travels in manifests and cards."""
        entry = {**asdict(self), "uses": list(self.uses)}
        return {key: entry[key] for key in entry if key not in ("prompts", "speakers")}

    def person(self, speaker: str) -> str:
        """A name of a speaker that is the same in every corpus with this person."""
        return f"{self.speakers or self.name}/{speaker}"


@dataclass(frozen=True)
class Refused:
    """A corpus that was looked at and turned down."""

    name: str
    title: str
    reason: str


def read_list(path: Path = LIST) -> tuple[dict[str, Corpus], dict[str, Refused]]:
    """Reads a list file: the corpora allowed and those refused, by name.

    Raises:
        CorpusError: The file is not a list of corpora, or names one twice.
    """
    try:
        content = yaml.safe_load(read_bounded(path, MOST_JSON))
        allowed = [
            Corpus(**{**entry, "uses": tuple(entry["uses"])}) for entry in content["allowed"]
        ]
        refused = [Refused(**entry) for entry in content["refused"]]
    except (OSError, yaml.YAMLError, TypeError, KeyError, RecursionError) as error:
        raise CorpusError(f"{path} is not a list of corpora: {error}") from error
    names = [entry.name for entry in (*allowed, *refused)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise CorpusError(f"{path} names {', '.join(twice)} twice")
    return {entry.name: entry for entry in allowed}, {entry.name: entry for entry in refused}


def check_archives(corpus: Corpus, folder: Path) -> list[str]:
    """Compares the downloaded archives in a folder with the checksums of the list.

    Returns:
        The names of those found, all of them whole.

    Raises:
        CorpusError: The list has no checksums of this corpus, none of its archives is there, or
            one of them differs.
    """
    known = dict(line.split() for line in (corpus.checksum or "").splitlines())
    if not known:
        raise CorpusError(f"the list has no checksums of {corpus.name}: nothing to compare with")
    found = [name for name in known if (folder / name).is_file()]
    if not found:
        raise CorpusError(f"{folder} holds none of the archives of {corpus.name}: {sorted(known)}")
    for name in found:
        kind, expected = known[name].split(":")
        if file_hash(folder / name, kind) != expected:
            raise CorpusError(
                f"{folder / name} is not the {name} of {corpus.name}; download it anew"
            )
    return found


def names() -> list[str]:
    """Names of all corpora that may be used."""
    return list(read_list()[0])


def get(name: str, use: str = "training") -> Corpus:
    """The entry of one corpus, for one use.

    Raises:
        CorpusError: The corpus is refused, unknown, or not allowed for this use.
    """
    allowed, refused = read_list()
    if name in refused:
        raise CorpusError(f"corpus {name!r} is refused: {refused[name].reason}")
    if name not in allowed:
        raise CorpusError(
            f"corpus {name!r} is not on the list of consented corpora ({', '.join(allowed)}); "
            "add an entry with licence and basis to model/corpora.yaml, with a review"
        )
    if use not in allowed[name].uses:
        raise CorpusError(
            f"corpus {name!r} may be used for {', '.join(allowed[name].uses)}, not for {use}"
        )
    return allowed[name]


@cache
def recordings(name: str) -> frozenset[str]:
    """``SHA256  ID`` of each known utterance of a corpus; empty where none is listed.

    Raises:
        CorpusError: The corpus itself is not listed.
    """
    path = RECORDINGS / f"{get(name).name}.sha256"
    return frozenset(read_utf8(path).splitlines() if path.is_file() else [])


def published(prompts: str) -> Corpus:
    """The published corpus that receipts of benchmark prompts name, such as ``LibriTTS``.

    Raises:
        CorpusError: No listed corpus has prompts of that name.
    """
    known = {c.prompts: c for c in reversed(read_list()[0].values()) if c.prompts}
    if prompts not in known:
        raise CorpusError(
            f"{prompts!r} is not a corpus for prompts; those are {', '.join(sorted(known))}."
        )
    return known[prompts]


def verify(entries: list[dict[str, Any]], where: Path | str) -> list[Corpus]:
    """Checks the corpora entries written into a manifest or card against the list.

    Args:
        entries: Entries as written by :meth:`Corpus.to_json`.
        where: The file they come from, for the message.

    Raises:
        CorpusError: There is none, one is not on the list, or one was edited.
    """
    if not isinstance(entries, list) or not entries:
        raise CorpusError(f"{where} names no corpus; only listed corpora may be trained on")
    corpora = []
    for entry in entries:
        if not isinstance(entry, dict) or "name" not in entry:
            raise CorpusError(f"{where}: a corpus entry without a name: {entry!r}")
        corpus = get(str(entry["name"]))
        expected = corpus.to_json()
        differing = sorted(
            key for key in {*expected, *entry} if entry.get(key) != expected.get(key)
        )
        if differing:
            raise CorpusError(
                f"{where}: the entry of corpus {corpus.name!r} differs from the list in "
                f"{', '.join(differing)}; prepare it again from the listed corpus"
            )
        corpora.append(corpus)
    return corpora
