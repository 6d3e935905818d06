"""Nothing is read without an end: one way to read files, and files that are more than they seem."""

import ast
import gzip
import json
import os
import shutil
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sayso.evaluation.kit import make_kit
from sayso.evaluation.protocols import Trial, check_files, make_list
from sayso.inference.store import keys
from sayso.model import corpora
from sayso.model.codecs.vocos import read_arguments
from sayso.model.errors import CheckpointError, CorpusError, InputError
from sayso.model.files import MOST_JSON
from sayso.model.text.epub import read_epub
from sayso.training.log import read_log
from sayso.training.readers import read_corpus
from sayso.training.recipe import read_recipe
from sayso.training.shards import read_table

HOUSE = Path(__file__).parents[1]
READS = {"read_text", "read_bytes", "open", "ParquetFile", "fromfile"}
LOADS = {"json.load", "np.load", "pickle.load", "yaml.load", "pq.read_table", "load_file"}
OWN = {  # who reads on its own, and why that has an end
    "model/files.py": "the one way",
    "training/shards.py": "the one way for Parquet",
    "model/checkpoint.py": "the one way for weights",
    "model/decoding.py": "sound, by blocks",
    "model/text/epub.py": "a member of a ZIP, with a limit",
    "model/text/tables/__init__.py": "the package's own tables",
    "src/sayso/service/uploads.py": "what a bounded process left, no longer than it may",
}
NOT_FILES = {"Store.open", "self.read_text", "model.read_text", "os.open"}


def test_nothing_is_read_but_by_the_bounded_readers():
    found = []
    for folder in ("model", "training", "inference", "src/sayso"):
        for path in (HOUSE / folder).rglob("*.py"):
            name = str(path.relative_to(HOUSE))
            if name in OWN or path.resolve() != path:
                continue
            for call in ast.walk(ast.parse(path.read_text())):
                if isinstance(call, ast.Call) and _reads(call):
                    found.append(f"{name}:{call.lineno} {ast.unparse(call)}")
    assert found == []


def _reads(call: ast.Call) -> bool:
    name = ast.unparse(call.func)
    words = [str(each.value) for each in call.args if isinstance(each, ast.Constant)]
    if name in NOT_FILES or any(word[:1] in "wxa" for word in words):
        return False  # none, or only written
    method = isinstance(call.func, ast.Attribute) and call.func.attr in READS
    return name in LOADS or name == "open" or method


def within(mebibytes: int, work: Callable[[], object]) -> None:
    """Fails where Python holds more memory than that at any time."""
    tracemalloc.start()
    try:
        work()
        assert tracemalloc.get_traced_memory()[1] < mebibytes * 2**20
    finally:
        tracemalloc.stop()


def refused(work: Callable[[], object], *kinds: type[Exception]) -> Callable[[], None]:
    def try_it() -> None:
        with pytest.raises(kinds):
            work()

    return try_it


def test_cuts_that_unpack_to_one_line_without_end_are_refused_before_they_are_read(tmp_path: Path):
    with gzip.open(tmp_path / "libriheavy_cuts_small.jsonl.gz", "wb", 1) as file:
        for _ in range(2**5):
            file.write(bytes(2**22))  # one line of 128 MiB
    assert (tmp_path / "libriheavy_cuts_small.jsonl.gz").stat().st_size < 2**20
    within(16, refused(lambda: read_corpus("libriheavy", tmp_path), CorpusError))


def bomb(path: Path, rows: int = 20_000) -> Path:
    """A megabyte of text that stands once in the file, and in each of its rows."""
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), ["x" * 2**20])
    audio = pa.StructArray.from_arrays(
        [pa.array([b""] * rows), pa.array(["a"] * rows)], ["bytes", "path"]
    )
    ids = [f"1_1_000001_{i:06d}" for i in range(rows)]
    pq.write_table(pa.table({"text": texts, "id": ids, "audio": audio}), path, store_schema=False)
    return path


def test_tables_of_equal_rows_without_end_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("sayso.training.shards.MOST_BYTES", 2**24)
    path = bomb(tmp_path / "train.parquet")
    assert path.stat().st_size < 2**22
    within(256, refused(lambda: read_corpus("libritts", tmp_path), CorpusError))
    within(256, refused(lambda: read_table(path), ValueError))
    kept = tmp_path / "kept.parquet"
    pq.write_table(pa.table({"text": pa.array(["a"] * 9).dictionary_encode()}), kept)
    with pytest.raises(ValueError, match="dictionary type"):
        read_table(kept)


def test_an_alias_that_stands_for_millions_is_refused(tmp_path: Path):
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    lines += [
        f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]"
        for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    ]
    recipe = tmp_path / "bomb.yaml"
    for text in ("\n".join(lines), "[" * 5000, "a: [\n", "x" * (MOST_JSON + 1)):
        recipe.write_text(text)
        within(256, refused(lambda: read_recipe(recipe), InputError))
        within(256, refused(lambda: read_arguments(recipe), CheckpointError))


def test_a_zip_of_millions_of_names_or_a_damaged_page_is_refused(tmp_path: Path):
    book = tmp_path / "book.epub"
    with book.open("wb") as file:
        file.truncate(2**36)  # of which nothing is on the disk
    with pytest.raises(InputError, match="larger than"):
        read_epub(book)
    with zipfile.ZipFile(book, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("META-INF/container.xml", "<container>" + "a" * 9999)
    data = bytearray(book.read_bytes())
    data[60:70] = b"\xff" * 10
    book.write_bytes(data)
    with pytest.raises(InputError, match=r"book\.epub"):
        read_epub(book)


def test_files_that_never_end_are_refused_wherever_a_path_comes_in(tmp_path: Path, monkeypatch):
    """A pipe that nobody writes to, and a terabyte that is not on the disk."""
    run = tmp_path / "run"
    run.mkdir()
    reads: dict[str, Callable[[Path], object]] = {
        "list.tsv": lambda path: make_list("folder", tmp_path, path),
        "list.lst": lambda path: make_list("folder", tmp_path, path),
        "ar.csv": read_log,
        "results.json": lambda path: make_kit(run, ("a", "b"), tmp_path / "kit", tmp_path),
        "corpora.yaml": corpora.read_list,
        "book.epub": read_epub,
        "recipe.yaml": read_recipe,
    }
    for name, read in reads.items():
        path = run / name
        os.mkfifo(path)
        within(256, refused(lambda read=read, path=path: read(path), InputError, CorpusError))
        path.unlink()
        with path.open("wb") as file:
            file.truncate(2**40)
        within(256, refused(lambda read=read, path=path: read(path), InputError, CorpusError))


def test_a_key_that_is_a_link_destroys_nothing_elsewhere(tmp_path: Path):
    """A store that somebody else made may hold links: recovery overwrites voices' keys."""
    other, key = tmp_path / "mine", tmp_path / "voice.key"
    other.write_bytes(b"of nobody's business")
    key.symlink_to(other)
    keys.destroy(key)
    assert other.read_bytes() == b"of nobody's business" and not key.is_symlink()
    os.mkfifo(key)
    keys.destroy(key)
    assert not key.exists()
    with key.open("wb") as file:
        file.truncate(2**40)
    within(16, lambda: keys.destroy(key))


CUT = {
    "id": "small/7/a/b_0",
    "start": 0,
    "duration": 2.0,
    "supervisions": [{"id": "small/7/a/b_0", "text": "Hello.", "start": 0, "duration": 2.0}],
}


def test_a_published_list_names_no_file_outside_of_its_folder(tmp_path: Path, kathleen: Path):
    """Else it is heard, and copied into the page and the kit that are handed out."""
    theirs = next(kathleen.rglob("*.opus"))
    for path in (str(theirs), os.path.relpath(theirs, tmp_path)):
        for trial in (Trial("a", "x", "Hi.", path, "Hi."), Trial("a", "x", "Hi.", recording=path)):
            with pytest.raises(InputError, match="leads out of"):
                check_files([trial], tmp_path)


def test_cuts_of_no_length_are_left_out(tmp_path: Path, kathleen: Path):
    """A negative length reads the whole of a file, and one that is no number ended `prepare`."""
    shutil.copy(next(kathleen.rglob("*.opus")), tmp_path / "a.opus")
    recording = {"sources": [{"type": "file", "source": "a.opus", "channels": [0]}]}
    for length in (-1.0, 0.0, float("nan"), float("inf")):
        own = CUT["supervisions"][0] | {"duration": length}
        cut = CUT | {"recording": recording, "supervisions": [own]}
        (tmp_path / "libriheavy_cuts_small.jsonl").write_text(json.dumps(cut) + "\n")
        with pytest.raises(CorpusError, match="no length"):
            read_corpus("libriheavy", tmp_path)


def test_a_manifest_names_no_file_outside_of_the_corpus(tmp_path: Path, kathleen: Path):
    """Else a stranger's manifest makes any recording on the machine one of a listed corpus."""
    root = tmp_path / "corpus"
    root.mkdir()
    theirs = next(kathleen.rglob("*.opus"))
    for source in (str(theirs), os.path.relpath(theirs, root), f"download/librilight/{theirs}"):
        sources = [{"type": "file", "source": source, "channels": [0]}]
        cut = CUT | {"recording": {"sources": sources}}
        (root / "libriheavy_cuts_small.jsonl").write_text(json.dumps(cut) + "\n")
        with pytest.raises(CorpusError, match="no recording"):
            read_corpus("libriheavy", root)
        (root / "92_manifest_clean_train.json").write_text(
            json.dumps({"audio_filepath": source, "text": "Hello."}) + "\n"
        )
        with pytest.raises(CorpusError, match="no recording"):
            read_corpus("hifi-tts", root)
