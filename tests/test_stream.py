"""`Synthesizer.stream`: each chunk marked before it leaves, one row from the first on."""

import base64
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from sayso.cli import app
from sayso.inference import saying
from sayso.inference.detection.detector import Detector
from sayso.inference.errors import MarkError, RefusedError
from sayso.inference.finishing import SOFT, finish_stretch, unpacked
from sayso.inference.gate import Gate
from sayso.inference.saying import speech_of
from sayso.inference.store.checking import verify
from sayso.inference.store.store import Store
from sayso.inference.synthesizer import Synthesizer
from sayso.inference.watermark.spread_spectrum import HOP
from sayso.model.audio import read_audio, wav_header
from sayso.model.codecs.base import Said
from sayso.model.codecs.timbre_codec import DecodedPieces
from sayso.model.errors import InputError, UnfinishedError
from sayso.model.files import file_hash
from sayso.model.loudness import loudness
from speech import reader_clips

TEXT = "The cat sat on the mat. Good morning, everybody! The bus was late again today."
RATE = 24_000


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("SAYSO_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def speaker(home) -> Synthesizer:
    return Synthesizer(store=Store.open(home))


def events(store: Store, grant: str) -> list[str]:
    return [entry.event for entry in store.entries(id=grant)]


def test_a_stream_is_marked_throughout_and_is_one_row(speaker, home, tmp_path):
    chunks = []
    for chunk in speaker.stream(TEXT, "nobody", seed=3):
        if chunk.pcm:  # as soon as it is heard the ledger knows
            assert events(speaker.store, chunk.ledger_id) == ["granted", "streamed"]
        chunks.append(chunk)
    *heard, last = chunks
    assert len(heard) > 1 and last.manifest and not any(chunk.manifest for chunk in heard)
    assert " ".join(chunk.text for chunk in heard) == TEXT
    data = wav_header(RATE) + b"".join(chunk.pcm for chunk in heard)
    assert last.start == pytest.approx((len(data) - 44) / 2 / RATE)
    assert events(speaker.store, last.ledger_id) == ["granted", "streamed", "released"]
    out = tmp_path / "said.wav"
    out.write_bytes(data)
    out.with_name("said.wav.c2pa").write_bytes(last.manifest)
    detector = Detector(home)
    found = detector.detect(out)
    assert found.manifest.state == "trusted" and found.manifest.ledger_id == last.ledger_id
    assert found.ledger_ids == (last.ledger_id,)  # by the keyed mark: its pattern has no seams
    out.write_bytes(data[:-2])
    assert detector.detect(out).manifest.state == "invalid"
    verify(speaker.store)
    assert [output.ledger_id for output in speaker.gate.outputs("nobody")] == [last.ledger_id]


def test_a_stream_says_what_a_file_says(speaker, monkeypatch):
    """But for the marks: without them the samples are those of the sentences in one batch."""
    monkeypatch.setattr(speaker.marks, "embed", lambda audio, *_: audio)
    monkeypatch.setattr(speaker.marks, "demand", lambda *_: 1.0)
    stream = b"".join(chunk.pcm for chunk in speaker.stream(TEXT, "nobody", seed=3))
    manner = speaker.manner(3)
    grant, spoken = speaker._ask(TEXT, "nobody", "research", "me", manner)
    whole = []
    for sound, _ in speech_of(speaker.studio, grant, spoken, manner):
        whole.append(torch.nn.functional.pad(sound, (0, -len(sound) % HOP)))
    heard, wanted = unpacked(wav_header(RATE) + stream, RATE), torch.cat(whole)
    assert heard.shape == wanted.shape  # the codec may have had other sentences beside each
    assert float((heard - wanted).abs().max()) < 1e-3


def test_a_stream_cut_short_is_a_row_with_its_sound(speaker, home, tmp_path):
    stream = speaker.stream(TEXT, "nobody", seed=3)
    first = next(stream)
    stream.close()
    assert events(speaker.store, first.ledger_id) == ["granted", "streamed", "stream-cut"]
    out = tmp_path / "part.wav"
    out.write_bytes(wav_header(RATE) + first.pcm)
    assert Detector(home).detect(out).ledger_ids == (first.ledger_id,)
    with pytest.raises(StopIteration):
        next(stream)
    verify(speaker.store)
    assert [output.ledger_id for output in speaker.gate.outputs("nobody")] == [first.ledger_id]


def test_a_long_text_is_one_grant_and_one_that_is_too_long_is_none(speaker):
    text = f"{TEXT} " * 20
    assert 1000 < len(text) < 4096
    stream = speaker.stream(text, "nobody", seed=3)
    first = next(stream)
    stream.close()
    [granted] = speaker.store.entries("granted", voice="nobody")
    assert granted.id == first.ledger_id and granted.content["characters"] >= len(text.strip())
    for long, why in (
        ("Yes. " * 2001, "at most 10000 are said at once"),
        ("Is it 777,777? " * 250, "at most 10000 are said at once"),
        ("yes " * 300, "sentence of 1199 characters"),
        ("! " * 600, "nothing that can be spoken"),
    ):
        with pytest.raises(InputError, match=why):
            next(speaker.stream(long, "nobody"))
    assert len(speaker.store.entries("granted", voice="nobody")) == 1


def test_what_has_left_is_not_held_in_memory(speaker, tmp_path):
    audio = torch.cat([read_audio(path, RATE)[0] for path in reader_clips()[:8]])
    grant, _ = speaker._ask(TEXT, "nobody", "research", "me", speaker.manner(3))
    tracemalloc.start()
    out = wav_header(RATE) + speaker.gate.let_out(grant, audio[: 3 * RATE], RATE, speaker.marks)
    before = tracemalloc.get_traced_memory()[0]
    file = tmp_path / "said.wav"
    file.write_bytes(out)
    for start in range(3 * RATE, 15 * RATE, 3 * RATE):
        part = audio[start : start + 3 * RATE]
        with file.open("ab") as more:
            more.write(speaker.gate.let_out(grant, part, RATE, speaker.marks))
    assert tracemalloc.get_traced_memory()[0] - before < file.stat().st_size / 4
    tracemalloc.stop()
    made = speaker.gate.end_stream(grant, "said.wav", "0" * 64, speaker.marks, speaker.ca)
    (row,) = speaker.store.entries("released")
    assert row.content["sha256"] == file_hash(file)
    assert base64.b64decode(row.content["sound"]) == made.sound
    file.with_name("said.wav.c2pa").write_bytes(made.manifest)
    assert Detector(speaker.store.home).detect(file).manifest.state == "trusted"


def test_a_stretch_has_no_mark_at_its_ends(speaker):
    audio = read_audio(reader_clips()[0], RATE)[0, : 100 * HOP]
    data, _ = finish_stretch(audio, RATE, f"g-{'0' * 32}", 0, speaker.marks)
    away = (unpacked(wav_header(RATE) + data, RATE) - audio).abs()
    assert float(away.max()) > 1e-3
    assert max(away[:SOFT].max(), away[-SOFT:].max()) < 1e-4


def test_a_voice_revoked_between_chunks_is_silent(speaker, home):
    stream = speaker.stream(TEXT, "nobody", seed=3)
    first = next(stream)
    with Store.open(home) as other:
        Gate(other).revoke("nobody")
    with pytest.raises(RefusedError, match="voice-revoked"):
        next(stream)
    assert events(speaker.store, first.ledger_id)[-1] == "stream-cut"


def test_what_cannot_be_marked_does_not_leave_and_counts_to_no_quota(speaker, monkeypatch):
    monkeypatch.setattr(speaker.marks, "embed", lambda audio, *_: audio)
    with pytest.raises(MarkError, match="watermark was not found"):
        next(speaker.stream("The cat sat on the mat.", "nobody", seed=3))
    (grant,) = speaker.store.entries("granted")
    assert events(speaker.store, grant.id) == ["granted", "given-back"]


def test_the_command_writes_a_file_or_standard_output(home, tmp_path):
    out = tmp_path / "said.wav"
    say = ["speak", "--voice", "nobody", "--text", TEXT, "--stream", "--out"]
    done = CliRunner().invoke(app, [*say, str(out)])
    assert done.exit_code == 0, done.output
    assert Detector(home).detect(out).manifest.state == "trusted"
    assert read_audio(out, RATE).shape[1] > 3 * RATE
    for name in (str(out), "said.mp3"):
        assert "a new .wav file" in str(CliRunner().invoke(app, [*say, name]).exception)
    piped = CliRunner().invoke(app, [*say, "-"])
    assert piped.stdout_bytes.startswith(wav_header(RATE)) and len(piped.stdout_bytes) > 3 * RATE


LONG = "We walked along the river until the sun went down behind the hills and then it rained."


def test_a_long_first_sentence_leaves_in_pieces(speaker, tmp_path):
    *heard, last = speaker.stream(f"{LONG} {TEXT}", "nobody", seed=3)
    texts = [chunk.text for chunk in heard]
    count = next(n for n in range(1, len(texts)) if texts[n])
    assert count > 1 and texts[:count] == [LONG, *[""] * (count - 1)]
    assert len(heard[0].pcm) / 2 / RATE < 1.5
    assert events(speaker.store, last.ledger_id) == ["granted", "streamed", "released"]
    speaker.speak(LONG, "nobody", tmp_path / "said.wav", seed=3)
    file = read_audio(tmp_path / "said.wav", RATE)[0]
    audio = unpacked(wav_header(RATE) + b"".join(chunk.pcm for chunk in heard[:count]), RATE)
    assert 0 <= len(audio) - len(file) - RATE / 4 < HOP  # the pause, in whole frames
    seam = len(heard[0].pcm) // 2
    assert float(audio[seam - 100 : seam + 100].abs().min()) < float(audio.abs().max())
    for start, stop in ((0, seam), (seam, len(file))):
        levels = [float(x[start:stop].square().mean().log10() * 10) for x in (audio, file)]
        assert abs(levels[0] - levels[1]) < 4


def test_whoever_is_alone_hears_the_first_piece_before_more_is_decoded(speaker, monkeypatch):
    steps, engine, add = list[int](), speaker.studio.engine, DecodedPieces.add

    def added(*given):
        before = engine.decoder.steps
        time.sleep(0.1)
        steps.append(engine.decoder.steps - before)
        return add(*given)

    monkeypatch.setattr(DecodedPieces, "add", added)
    monkeypatch.setattr(saying, "STOPS", (60,))
    list(speaker.stream(LONG, "nobody", seed=3))
    assert len(steps) == 2 and steps[0] == 0


def test_without_a_decoder_a_long_first_sentence_is_said_once(speaker, monkeypatch):
    monkeypatch.setattr(speaker.bundle.codec, "decoder", None)
    grant, spoken = speaker._ask(LONG, "nobody", "research", "me", speaker.manner(3))
    manner = replace(speaker.manner(3), hurry=True)
    assert [ended for _, ended in speech_of(speaker.studio, grant, spoken, manner)] == [True]


def test_what_fails_when_a_piece_has_left_is_a_stream_cut_short(speaker, monkeypatch):
    monkeypatch.setattr(saying, "limit_seconds", lambda text: 4.0)
    stream = speaker.stream(LONG, "nobody", seed=3)
    first = next(stream)
    with pytest.raises(UnfinishedError, match="No end within 4"):
        list(stream)
    assert events(speaker.store, first.ledger_id) == ["granted", "streamed", "stream-cut"]


def test_what_is_heard_in_one_piece_is_the_whole_and_in_two_nearly(speaker):
    codec, manner = speaker.bundle.codec, speaker.manner(3)
    grant, _ = speaker._ask(LONG, "nobody", "research", None, manner)
    said = Said(torch.randint(0, 9, (4, 90), generator=torch.manual_seed(3)), grant.codes)
    whole = codec.speak_all([said])[0]
    one, two = (codec.in_pieces(said.prompt) for _ in range(2))
    assert torch.equal(one.add(said), whole)
    early = two.add(said._replace(codes=said.codes[:, :60]), 50)
    both = torch.cat([early, two.add(said)])
    assert both.shape == whole.shape and len(early) == 48 * RATE // 50
    assert float(both.diff().abs()[len(early) - 50 : len(early) + 50].max()) < 0.1
    assert codec.in_pieces(said.prompt[:, :0]) is None


def test_a_quiet_beginning_makes_the_rest_no_louder_than_usual(speaker):
    codec = speaker.bundle.codec
    grant, _ = speaker._ask(LONG, "nobody", "research", None, speaker.manner(3))
    said = Said(torch.randint(0, 9, (4, 60), generator=torch.manual_seed(3)), grant.codes)
    pieces = codec.in_pieces(grant.codes)
    codec._heard(grant.codes).loudness = 4 * loudness(codec.in_pieces(grant.codes).add(said))
    pieces.add(said, 50)
    assert pieces.gain < 2
