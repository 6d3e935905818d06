"""Long texts: parts, one grant, marked files, transcripts, and going on where it was stopped."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sayso.cli.speech import read_text
from sayso.inference.book import read_out
from sayso.inference.detection.detector import Detector
from sayso.inference.errors import RefusedError
from sayso.inference.long_grants import begin, grant_part
from sayso.inference.permission import Asked
from sayso.inference.store.checking import verify
from sayso.inference.store.store import Store
from sayso.inference.synthesizer import Synthesizer
from sayso.inference.whole import Bound
from sayso.model.audio import read_audio, wav_header
from sayso.model.chapters import Chapter, encode_chapters
from sayso.model.errors import InputError
from sayso.model.text.book import PART_CHARACTERS, parts_of, sentences_of
from sayso.model.text.captions import Cue, read_srt, srt, vtt
from sayso.model.text.epub import MOST_BYTES
from speech import reader_clips
from test_store import in_child

needs_ffmpeg = pytest.mark.skipif(not shutil.which("ffmpeg"), reason="the ffmpeg program is absent")
TEXT = """# The Cat

The cat sat on the mat. It was a cold day.

* * *

# The Bus

The bus was late again today.
"""


@pytest.fixture
def speaker(tmp_path) -> Synthesizer:
    return Synthesizer(store=Store.open(tmp_path / "home"))


def read(speaker: Synthesizer, folder: Path, **how) -> list[Path]:
    return read_out(speaker, TEXT, "nobody", folder, "research", "me", speaker.manner(1), **how)


class Killed(BaseException):
    pass


def test_parts_are_chapters_and_long_ones_are_cut_between_paragraphs():
    first, second = parts_of(TEXT)
    assert (first.number, first.title, second.title) == (1, "The Cat", "The Bus")
    assert first.text in TEXT and "mat" in first.text and "late" not in first.text
    long = "CHAPTER I. Down\n\n" + "A word or two of it.\n\n" * 600
    cut = parts_of(long)
    assert [part.title for part in cut] == ["CHAPTER I. Down"] * 2
    assert max(len(part.text) for part in cut) <= PART_CHARACTERS
    assert sum(part.text.count("word") for part in cut) == 600
    assert parts_of("* * *\n\n---") == []


def test_headings_and_paragraphs_have_their_pauses_and_no_sentence_is_lost():
    heading, cat, day = sentences_of(parts_of(TEXT)[0].text, 100)
    assert heading.pause and day.pause and heading.pause > day.pause and cat.pause is None
    many = sentences_of("The cat sat on the mat. " * 100, 100)
    assert len(many) == 100 and many[-1].pause


def test_a_text_becomes_marked_files_with_transcripts_and_is_counted_once(speaker, tmp_path):
    told, out = [], tmp_path / "out"
    files = read(speaker, out, tell=lambda *far: told.append(far))
    assert [file.name for file in files] == ["01-the-cat.wav", "02-the-bus.wav"]
    detector = Detector(speaker.store.home)
    ids = []
    for file in files:
        found = detector.detect(file)
        assert found.manifest.state == "trusted"
        assert found.ledger_ids == (found.manifest.ledger_id,)
        ids.append(found.manifest.ledger_id)
        seconds = read_audio(file, 24_000).shape[1] / 24_000
        last = file.with_suffix(".srt").read_text().split(" --> ")[-1][:12]
        assert float(last[6:].replace(",", ".")) == pytest.approx(seconds, abs=0.01)
        cues = read_srt(file.with_suffix(".srt").read_text())
        assert cues and file.with_suffix(".vtt").read_text() == vtt(cues)
    assert told == sorted(told) and told[-1][0] == told[-1][1]
    assert len(set(ids)) == 2
    (grant,) = speaker.store.entries("granted")
    assert speaker.store.used(grant.content["receipt_id"])[0] == 1
    assert not list(out.glob(".*"))
    verify(speaker.store)
    for folder, why in ((out, "not empty"), (files[0], "cannot be made")):
        with pytest.raises(InputError, match=why):
            read(speaker, folder)


def test_captions_are_as_their_formats_have_them():
    cues = [Cue(0, 1500, "One & <two>."), Cue(1500, 3_723_004, "Three.")]
    assert read_srt(srt(cues)) == cues
    assert srt(cues).startswith("1\n00:00:00,000 --> 00:00:01,500\nOne & <two>.\n\n2\n")
    assert vtt(cues) == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.500\nOne &amp; &lt;two&gt;.\n\n"
        "00:00:01.500 --> 01:02:03.004\nThree.\n"
    )


@needs_ffmpeg
def test_the_whole_is_one_marked_file_with_chapters(speaker, tmp_path):
    out = tmp_path / "out"
    *files, ogg = read(speaker, out, whole=".ogg")
    *_, m4b = read(speaker, out, resume=True, whole=".m4b")
    detector = Detector(speaker.store.home)
    parts = tuple(row.id for row in speaker.store.entries("part") if row.content["number"])
    seconds = sum(read_audio(file, 24_000).shape[1] / 24_000 for file in files)
    for whole in (ogg, m4b):
        found = detector.detect(whole)
        assert found.manifest.state == "trusted" and set(found.ledger_ids) <= {*parts}
        assert found.ledger_ids and found.manifest.ledger_id not in parts
        assert found.seconds == pytest.approx(seconds, abs=0.1)
        asked = "ffprobe -v error -of json -show_chapters -i".split()
        chapters = json.loads(subprocess.check_output([*asked, whole]))["chapters"]
        assert [each["tags"]["title"] for each in chapters] == ["The Cat", "The Bus"]
        second = read_audio(files[0], 24_000).shape[1] / 24_000
        assert float(chapters[1]["start_time"]) == pytest.approx(second, abs=0.01)
    cues = read_srt(m4b.with_suffix(".srt").read_text())
    assert [cue.text for cue in cues][-1].startswith("The bus")
    assert cues[-1].stop / 1000 == pytest.approx(seconds, abs=0.01)
    assert {output.path for output in speaker.gate.outputs("nobody")} >= {str(ogg), str(m4b)}
    verify(speaker.store)
    data = bytearray(files[1].read_bytes())
    data[-1] ^= 1
    files[1].write_bytes(data)
    with pytest.raises(RefusedError, match="audio-unmarked"):
        read(speaker, out, resume=True, whole=".m4b")
    speaker.gate.revoke("nobody")
    with pytest.raises(RefusedError, match="voice-revoked"):
        read(speaker, out, resume=True, whole=".m4b")


KILLER = """#!/bin/sh
# does what is asked, and on the nth call ends who asked
echo >> {calls}
[ "$(wc -l < {calls})" = {nth} ] || exec {program} "$@"
{program} "$@"
kill -9 $PPID
"""


@needs_ffmpeg
def test_killed_while_the_whole_is_made_nothing_of_it_lies_anywhere(speaker, tmp_path, monkeypatch):
    out, programs, calls = tmp_path / "out", tmp_path / "bin", tmp_path / "calls"
    read(speaker, out)
    programs.mkdir()

    def work() -> None:
        monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        own = speaker.beside(Store.open(speaker.store.home))
        read(own, out, resume=True, whole=".m4b")

    for nth in (1, 3):  # it was encoded; it is signed, and being looked at
        calls.unlink(missing_ok=True)
        for name in ("ffmpeg", "ffprobe"):
            facts = {"calls": calls, "nth": nth, "program": shutil.which(name)}
            (programs / name).write_text(KILLER.format(**facts))
            (programs / name).chmod(0o755)
        before = {path for path in tmp_path.rglob("*") if path.is_file()}
        assert os.waitpid(in_child(work), 0)[1] == signal.SIGKILL
        found = {path for path in tmp_path.rglob("*") if path.is_file()} - before
        kept = {path.name for path in found if path.suffix != ".lock"}  # of the text being said
        assert kept <= {"calls", "sayso.db-wal", "sayso.db-shm"}
    assert read(speaker, out, resume=True, whole=".m4b")[-1].is_file()
    verify(speaker.store)


@needs_ffmpeg
def test_a_length_that_is_rounded_up_in_the_file_is_no_fault(speaker, tmp_path):
    """5.0027 s of speech: MP4 says 5.003."""
    gate, codec, rate = speaker.gate, speaker.bundle.codec.identity, 24_000
    text = "The cat sat on the mat."
    asked = Asked("nobody", "research", "me", text, codec=codec)
    grant = gate.authorise("nobody", "research", "me", text, codec=codec)
    begin(gate, grant)
    part = grant_part(gate, grant.id, asked, 1, text)
    audio = torch.cat([read_audio(path, rate)[0] for path in reader_clips()[:3]])
    file = tmp_path / "1.wav"
    pcm = gate.let_out(part, audio[: 5 * rate], rate, speaker.marks)
    file.write_bytes(wav_header(rate) + pcm)
    gate.end_stream(part, file.name, "0" * 64, speaker.marks, speaker.ca)
    whole = grant_part(gate, grant.id, asked, 0, text)
    bound = [Bound(1, file, "Cat")]
    made = gate.bind(whole, bound, "a.m4b", "0" * 64, speaker.marks, speaker.ca)
    assert made.score > 0.5


def test_a_whole_is_all_parts_in_order_under_its_own_grant(speaker, tmp_path):
    """What is not is refused, and the ledger says so."""
    out, gate = tmp_path / "out", speaker.gate
    first, second = [Bound(n, file, "") for n, file in enumerate(read(speaker, out), 1)]
    (text,) = speaker.store.entries("granted")
    asked = Asked("nobody", "research", "me", TEXT, codec=speaker.bundle.codec.identity)
    part = grant_part(gate, text.id, asked, 1, parts_of(TEXT)[0].text)
    other = gate.authorise("nobody", "research", "me", TEXT)
    whole = grant_part(gate, text.id, asked, 0, TEXT)
    before = len(speaker.store.entries("refused"))
    swapped = [first._replace(path=second.path), second._replace(path=first.path)]
    tried = [
        *((whole, bound) for bound in ([], [first], [second, first], [first] * 2, swapped)),
        *((grant, [first, second]) for grant in (part, other, replace(whole, text="Other."))),
    ]
    for grant, bound in tried:
        with pytest.raises(RefusedError, match=r"audio-unmarked|grant-unknown"):
            gate.bind(grant, bound, "a.ogg", "0" * 64, speaker.marks, speaker.ca)
    assert len(speaker.store.entries("refused")) == before + len(tried)
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path / "none", out):
        with pytest.raises(InputError, match="cannot be read"):
            bound = [first._replace(path=path), second]
            gate.bind(whole, bound, "a.ogg", "0" * 64, speaker.marks, speaker.ca)
    gate.revoke("nobody")
    with pytest.raises(RefusedError, match="voice-revoked"):
        gate.bind(whole, [first, second], "a.ogg", "0" * 64, speaker.marks, speaker.ca)
    verify(speaker.store)


@needs_ffmpeg
def test_a_transcript_that_was_emptied_is_an_error_of_one_line(speaker, tmp_path):
    files = read(speaker, tmp_path / "out")
    for data in (b"", b"\xff"):
        files[0].with_suffix(".srt").write_bytes(data)
        with pytest.raises(InputError, match="no line of what is said"):
            read(speaker, tmp_path / "out", resume=True, whole=".ogg")


def test_a_whole_that_cannot_be_made_is_refused_first(speaker, tmp_path, monkeypatch):
    for suffix, why in ((".m4b", "ffmpeg program, which is not"), (".wav", "m4b or .ogg")):
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(InputError, match=why):
            read(speaker, tmp_path / "out", whole=suffix)
        assert not (tmp_path / "out").exists() and not speaker.store.entries("granted")


@needs_ffmpeg
def test_titles_of_chapters_may_hold_any_sign(tmp_path):
    titles = ["A = b; #1", "C:\\d", "Ä"]
    for suffix in (".m4b", ".ogg"):
        with (tmp_path / "samples").open("w+b") as file:
            file.write(bytes(2 * 24_000 * 3))
            file.seek(0)
            spans = [(24_000 * n, 24_000 * (n + 1)) for n in range(3)]
            chapters = [Chapter(title, *span) for title, span in zip(titles, spans, strict=True)]
            whole = tmp_path / f"a{suffix}"
            whole.write_bytes(encode_chapters(file, 24_000, chapters, suffix, tmp_path))
        asked = "ffprobe -v error -of json -show_chapters -i".split()
        found = json.loads(subprocess.check_output([*asked, whole]))["chapters"]
        assert [each["tags"]["title"] for each in found] == titles


def test_an_interrupted_text_goes_on_at_the_next_sentence(speaker, tmp_path):
    out, left = tmp_path / "out", []

    def kill(said, all):
        left.append(said)
        raise Killed

    with pytest.raises(Killed):
        read(speaker, out, tell=kill)
    (draft,) = out.glob(".*.part")
    begun = draft.read_bytes()
    draft.write_bytes(begun + b"more than was noted")
    with pytest.raises(Killed):
        read(speaker, out, resume=True, tell=kill)
    files = read(speaker, out, resume=True)
    said = "".join(file.with_suffix(".srt").read_text() for file in files)
    assert all(said.count(word) == 1 for word in ("The Cat", "mat", "cold", "Bus.", "late"))
    assert files[0].read_bytes().startswith(begun)
    assert Detector(speaker.store.home).detect(files[0]).manifest.state == "trusted"
    assert [row.event for row in speaker.store.entries(id=speaker.store.entries("part")[0].id)] == [
        *("part", "streamed", "resumed", "resumed", "released"),
    ]
    verify(speaker.store)


def test_two_callers_do_not_say_one_text_at_once(speaker, tmp_path):
    """Both would let out the next sentence, and the second file would not be what was logged."""
    out, said = tmp_path / "out", []

    def meanwhile(*far) -> None:
        if said:
            return
        with Store.open(speaker.store.home) as store, pytest.raises(InputError) as refused:
            read(speaker.beside(store), out, resume=True)
        said.append(str(refused.value))

    read(speaker, out, tell=meanwhile)
    assert said and "under way already" in said[0]
    assert [row.event for row in speaker.store.entries(event="resumed")] == []
    assert not list((speaker.store.home / "work").iterdir())
    assert len(read(speaker, out, resume=True)) == 2


def test_no_link_in_the_folder_is_written_through(speaker, tmp_path):
    out, mine = tmp_path / "out", tmp_path / "mine"

    def kill(said, all):
        raise Killed

    with pytest.raises(Killed):
        read(speaker, out, tell=kill)
    (draft,) = out.glob(".*.part")
    draft.rename(mine)
    draft.symlink_to(mine)
    before = mine.read_bytes()
    with pytest.raises(InputError, match="cannot be used"):
        read(speaker, out, resume=True)
    draft.unlink()
    mine.rename(draft)
    mine.write_bytes(b"of nobody's business")
    (out / ".02-the-bus.wav.part").symlink_to(mine)
    first, _ = read(speaker, out, resume=True)
    assert mine.read_bytes() == b"of nobody's business" and first.read_bytes().startswith(before)


def test_what_was_changed_or_revoked_meanwhile_does_not_go_on(speaker, tmp_path):
    out = tmp_path / "out"

    def kill(said, all):
        raise Killed

    with pytest.raises(Killed):
        read(speaker, out, tell=kill)
    (draft,) = out.glob(".*.part")
    begun = draft.read_bytes()
    draft.write_bytes(begun[:-2] + b"xx")
    with pytest.raises(InputError, match="was changed"):
        read(speaker, out, resume=True)
    draft.write_bytes(begun)
    with pytest.raises(InputError, match="another text"):
        read_out(
            speaker,
            TEXT + "More.",
            *("nobody", out, "research", "me", speaker.manner(1)),
            resume=True,
        )
    speaker.gate.revoke("nobody")
    with pytest.raises(RefusedError, match="voice-revoked"):
        read(speaker, out, resume=True)


def test_a_part_is_only_of_what_was_granted(speaker):
    codec, (one, two) = speaker.bundle.codec.identity, [part.text for part in parts_of(TEXT)]
    asked = Asked("nobody", "research", "me", TEXT, codec=codec)
    grant = speaker.gate.authorise("nobody", "research", "me", TEXT, codec=codec)
    with pytest.raises(RefusedError, match="grant-unknown"):  # not begun as a long one
        grant_part(speaker.gate, grant.id, asked, 1, one)
    begin(speaker.gate, grant)
    speaker.gate.give_back(grant)
    assert not speaker.store.entries("given-back")
    for wrong, number, text in (
        (asked, 1, "The dog sat on the mat."),
        (asked, 1, "The cat sat"),  # words that stand in it are no part of it
        (asked, 1, two),
        (asked, 3, one),  # nor does another number say it once more
        (asked, 0, one),
        (replace(asked, text="Another text."), 1, "Another text."),
        (replace(asked, purpose="advertising"), 1, one),
        (replace(asked, altered=True), 1, one),
    ):
        with pytest.raises(RefusedError):
            grant_part(speaker.gate, grant.id, wrong, number, text)
    part = grant_part(speaker.gate, grant.id, asked, 1, one)
    with pytest.raises(RefusedError, match="grant-unknown"):
        grant_part(speaker.gate, grant.id, asked, 2, two, again=part.id)


CONTAINER = (
    '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
    '<rootfile full-path="in/book.opf"/></rootfiles></container>'
)
PACKAGE = (
    '<package xmlns="http://www.idpf.org/2007/opf"><manifest><item id="b" href="b%20c.xhtml"/>'
    '<item id="a" href="a.xhtml"/><item id="n" href="notes.xhtml"/></manifest>'
    '<spine><itemref idref="a"/><itemref idref="b"/><itemref idref="n" linear="no"/>'
    "</spine></package>"
)
PAGES = {
    "in/a.xhtml": "<html><head><title>No</title><style>p {}</style></head><body><h1>The <b>Cat</b>"
    "</h1><p>The cat\nsat on<br/>the mat.</p><script src='x'/><p>It was &amp; is.</p>"
    "</body></html>",
    "in/b c.xhtml": "<html><body><nav>No</nav><h2>The Bus</h2><div>Late<p>again.</p></div>"
    "</body></html>",
    "in/notes.xhtml": "<p>No</p>",
}


def epub(path: Path, **changes: str) -> Path:
    names = {"META-INF/container.xml": CONTAINER, "in/book.opf": PACKAGE} | PAGES
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, text in (names | changes).items():
            file.writestr(name, text)
    return path


def test_an_epub_is_its_headings_and_paragraphs_in_reading_order(tmp_path):
    text = read_text(epub(tmp_path / "book.epub"))
    assert text.split("\n\n") == [
        *("# The Cat", "The cat sat on the mat.", "It was & is.", "## The Bus", "Late", "again."),
    ]
    assert [part.title for part in parts_of(text)] == ["The Cat", "The Bus"]


@pytest.mark.parametrize(
    "changes",
    [
        {"META-INF/container.xml": "<container/>"},
        {"in/book.opf": PACKAGE.replace("a.xhtml", "missing.xhtml")},
        {"in/book.opf": PACKAGE[:-20]},
        {"in/a.xhtml": "<p>" + " " * (MOST_BYTES + 1)},
    ],
)
def test_a_damaged_epub_is_refused_in_one_line(tmp_path, changes):
    with pytest.raises(InputError, match=r"book\.epub"):
        read_text(epub(tmp_path / "book.epub", **changes))
    (tmp_path / "book.epub").write_bytes(b"PK not")
    with pytest.raises(InputError, match="no whole EPUB"):
        read_text(tmp_path / "book.epub")
    for name, data in (("book.txt", b"\xff\xfe"), ("book.pdf", b"")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError):
            read_text(tmp_path / name)
