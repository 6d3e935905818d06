"""Enrolment: a genuine reading gets a receipt; every other recording its own reason code."""

import dataclasses
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from conftest import Clock
from sayso.inference import recognisers
from sayso.inference.consent import (
    challenge,
    checks,
    clauses,
    enrolment,
    recording,
    session,
    statement,
)
from sayso.inference.consent import prompt as alignment
from sayso.inference.consent.enrolment import finish_enrolment
from sayso.inference.consent.microphone import record
from sayso.inference.consent.receipt import verify_receipt
from sayso.inference.consent.recording import RATE, fingerprint, overlap
from sayso.inference.consent.session import Session, start_enrolment
from sayso.inference.consent.take import Take, read_take
from sayso.inference.errors import RefusedError
from sayso.inference.gate import Gate
from sayso.inference.provenance.certificates import ensure_ca
from sayso.inference.recognisers import Ears, load_ears, same_speaker
from sayso.inference.store import ledger
from sayso.inference.store.checking import verify
from sayso.inference.store.store import Store
from sayso.inference.synthesizer import Synthesizer
from sayso.inference.watermark.ensemble import Marks, load_marks
from sayso.model.audio import resample
from sayso.model.bundle import BUNDLED
from sayso.model.codecs.base import Codec
from sayso.model.codecs.load import load_codec
from sayso.model.errors import CheckpointError, InputError
from sayso.model.text import phonemes
from signing import sign
from speech import KATHLEEN, SPEECH, reader_clips
from test_store import in_child

pytest.importorskip("faster_whisper", reason="the extra `enrol` is not installed")
SPRING = 1_585_800_000.0  # 2 April 2020: the reader's corpus has every word of that date
READING = SPEECH / "consent.opus"
"""Philip's consent, put together from Kathleen's words (benchmarks/readings.py)."""
WORDS = ("afternoon", "tragedy", "country", "ambition", "asleep")


@pytest.fixture(scope="module")
def ears() -> Ears:
    return load_ears()


@pytest.fixture(scope="module")
def marks(tmp_path_factory: pytest.TempPathFactory) -> Marks:
    return load_marks(tmp_path_factory.mktemp("marks"))


@pytest.fixture(scope="module")
def codec() -> Codec:
    if not (BUNDLED / "codec" / "config.json").is_file():
        pytest.skip(f"no bundled model: {BUNDLED} is missing")
    return load_codec(BUNDLED / "codec")


@pytest.fixture
def store(tmp_path: Path, clock: Clock):
    clock.now = SPRING
    with Store.open(tmp_path / "home") as store:
        yield store


def begin(store: Store, **more) -> Session:
    more = {"users": ("Ernest",), "controller": "Gregson"} | more
    return start_enrolment(store, "Philip", purposes=("business",), days=30, **more)


def save(path: Path, audio: np.ndarray) -> Path:
    soundfile.write(path, audio, RATE, subtype="PCM_16")
    return path


def take_of(path: Path) -> Take:
    return read_take(io.BytesIO(path.read_bytes()), path, "consent")


def heard(path: Path) -> np.ndarray:
    audio, rate = soundfile.read(path, dtype="float32")
    return resample(audio, rate, RATE)


def kathleen(count: int, start: int = 0) -> np.ndarray:
    """Sentences of one reader, one after the other."""
    paths = sorted((KATHLEEN / "audio").iterdir())
    return np.concatenate([heard(path) for path in paths[start : start + count]])


def reader(index: int) -> np.ndarray:
    return heard(reader_clips()[index])


def natural() -> np.ndarray:
    """Another reader's unbroken recording of 16 s, long enough to be a consent recording."""
    return reader(2)


def refusal(store, session, path, codec: Any = None, ears=None, marks=None, **more) -> str:
    """The code that `finish_enrolment` refuses with; that it is logged, and nothing enrolled."""
    before = {voice.voice for voice in store.voices()}
    with pytest.raises(RefusedError) as caught:
        finish_enrolment(store, session.id, path, codec, ears=ears, marks=marks, **more)
    last = store.entries()[-1]
    assert last.event == "enrol-refused" and last.content["code"] == caught.value.code
    assert {voice.voice for voice in store.voices()} == before
    verify(store)
    return caught.value.code


def genuine(store: Store, monkeypatch: pytest.MonkeyPatch) -> Session:
    """The session that `READING` reads."""
    monkeypatch.setattr(session, "draw_words", lambda statement: WORDS)
    return begin(store)


# --- the session ---


def test_a_session_names_what_is_consented_to(store: Store):
    session = begin(store, may_alter=True)
    for part in ("Philip", "Gregson", "business", "Ernest", "the second of May", "be altered"):
        assert part in session.statement
    assert len(session.words) == 5 and session.text.endswith(f"{session.words[-1]}.")
    assert session.expires == ledger.stamp(SPRING + 120)
    assert begin(store).words != session.words


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"speaker": "R2-D2 <x>"}, "read aloud"),
        ({"purposes": ("*",)}, "read aloud"),
        ({"purposes": ()}, "Name each purpose"),
        ({"users": ("*",)}, "never for all"),
        ({"days": 0}, "1 to 366"),
        ({"days": 400}, "1 to 366"),
        ({"max_uses": 0}, "at least 1"),
        ({"controller": ""}, "read aloud"),
    ],
)
def test_a_session_that_cannot_be_is_an_input_error(store: Store, change: dict, said: str):
    arguments = {
        "speaker": "Vera",
        "controller": "Example Lab",
        "purposes": ("research",),
        "days": 30,
    }
    with pytest.raises(InputError, match=said):
        start_enrolment(store, **(arguments | change))


def test_an_unknown_session(store: Store, tmp_path: Path):
    session = Session("s-made-up\udcff", "", (), "")
    assert refusal(store, session, tmp_path / "none.wav") == "session-unknown"


def test_an_expired_session(store: Store, clock: Clock, tmp_path: Path):
    session = begin(store)
    clock.now += 121
    assert refusal(store, session, tmp_path / "none.wav") == "session-expired"


def test_a_replayed_session(store: Store, tmp_path: Path, marks: Marks, ears: Ears):
    session = begin(store)
    path = save(tmp_path / "a.wav", np.zeros(10 * RATE, np.float32))
    assert refusal(store, session, path, ears=ears, marks=marks) == "silent"
    path = save(tmp_path / "b.wav", natural())
    assert refusal(store, session, path, ears=ears, marks=marks) == "session-used"


def test_an_unreadable_file_does_not_use_the_session_up(store: Store, tmp_path: Path, ears, marks):
    session = begin(store)
    (tmp_path / "text.wav").write_text("no audio")
    for name in ("text.wav", "missing.wav"):
        with pytest.raises(InputError, match=name):
            finish_enrolment(store, session.id, tmp_path / name, None, ears=ears, marks=marks)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="together"):
        finish_enrolment(store, session.id, tmp_path / "x", None, prompt=tmp_path / "y")  # type: ignore[arg-type]
    assert not store.entries("session-used")


# --- recordings that are not what they should be ---


def noise(seconds: float) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.1, int(seconds * RATE)).astype(np.float32)


def with_gaps() -> np.ndarray:
    gap = np.zeros(RATE // 5, np.float32)
    audio = kathleen(4)
    return np.concatenate([np.concatenate([part, gap]) for part in np.array_split(audio, 8)])


@pytest.mark.parametrize(
    ("audio", "code"),
    [
        (lambda: np.zeros(10 * RATE, np.float32), "silent"),
        (lambda: noise(10), "not-speech"),
        (lambda: np.sin(np.arange(10 * RATE) * 0.17).astype(np.float32), "not-speech"),
        (lambda: kathleen(1), "too-short"),
        (lambda: np.resize(kathleen(4), 600 * RATE), "too-long"),
        (lambda: np.resize(kathleen(4), 700 * RATE), "too-long"),
        (with_gaps, "spliced"),
        (lambda: np.concatenate([kathleen(3), natural()[: 8 * RATE]]), "speakers-several"),
        (natural, "words-wrong"),
    ],
    ids=["silence", "noise", "tone", "short", "ten-minutes", "longer", "spliced", "two", "wrong"],
)
def test_a_bad_recording_has_its_own_reason(store, tmp_path, ears, marks, audio, code):
    path = save(tmp_path / "consent.wav", audio())
    assert refusal(store, begin(store), path, ears=ears, marks=marks) == code


def test_a_recording_of_an_earlier_session_is_known_again(store, tmp_path, ears, marks):
    audio = natural()
    path = save(tmp_path / "first.wav", audio)
    assert refusal(store, begin(store), path, ears=ears, marks=marks) == "words-wrong"
    soundfile.write(tmp_path / "again.mp3", audio[RATE // 3 :] * 0.5, RATE)
    session = begin(store)
    assert refusal(store, session, tmp_path / "again.mp3", ears=ears, marks=marks) == (
        "recording-known"
    )


def test_our_own_speech_is_no_consent(
    store: Store, clock: Clock, tmp_path: Path, ears: Ears, codec: Codec
):
    clock.now = time.time()  # the bundled voice has no receipt for 2020
    synthesizer = Synthesizer(store=store)
    spoken = synthesizer.speak(
        "I allow this, here and now.",
        "nobody",
        tmp_path / "made.wav",
    )
    assert spoken.seconds > 1
    audio = soundfile.read(tmp_path / "made.wav", dtype="float32")
    made = resample(np.asarray(audio[0], np.float32), audio[1], RATE)
    path = save(tmp_path / "stripped.wav", np.resize(made, max(len(made), 6 * RATE)))
    code = refusal(store, begin(store), path, ears=ears, marks=load_marks(store.home))
    assert code == "watermark-found"  # C2PA is gone, the watermark is not


def test_a_generators_credentials_are_no_consent(store, tmp_path, ears, marks):
    save(tmp_path / "plain.wav", natural())
    ca = ensure_ca(tmp_path / "ca")
    sign(tmp_path / "plain.wav", tmp_path / "signed.wav", ca, "g-x", "0" * 64, "made")
    session = begin(store)
    assert refusal(store, session, tmp_path / "signed.wav", ears=ears, marks=marks) == "c2pa-found"


def test_another_speakers_prompt(store, tmp_path, ears, marks):
    consent, prompt = save(tmp_path / "c.wav", kathleen(4)), save(tmp_path / "p.wav", natural())
    code = refusal(
        store, begin(store), consent, ears=ears, marks=marks, prompt=prompt, prompt_text="words"
    )
    assert code == "prompt-speaker"


def test_a_prompt_that_goes_on_in_anothers_voice(store, tmp_path, ears, marks):
    """As a whole it is like the speaker: more than half of it is hers."""
    consent = save(tmp_path / "c.wav", kathleen(6))
    mixed = np.concatenate([kathleen(3, start=10), natural()[: 4 * RATE]])
    voices = [ears.voices(audio) for audio in (kathleen(6), mixed)]
    assert same_speaker(*voices) > checks.MIN_SAME_SPEAKER
    prompt = save(tmp_path / "p.wav", mixed)
    code = refusal(
        store, begin(store), consent, ears=ears, marks=marks, prompt=prompt, prompt_text="words"
    )
    assert code == "prompt-speaker"
    last = store.entries()[-1].content["checks"][-1]
    assert last["name"] == "prompt and consent alike throughout"


def test_a_prompt_with_a_soft_second_voice(store, tmp_path, ears, marks):
    """At -30 dB the speaker encoder takes it for a pause; the codec would keep it."""
    consent = save(tmp_path / "c.wav", kathleen(6))
    mixed = np.concatenate([kathleen(2, start=10), natural()[: 3 * RATE] * 10 ** (-30 / 20)])
    prompt = save(tmp_path / "p.wav", mixed)
    code = refusal(
        store, begin(store), consent, ears=ears, marks=marks, prompt=prompt, prompt_text="words"
    )
    assert code == "prompt-pause"


# --- one who uses the installation as it is, and means ill ---


def test_setting_the_clock_back_does_not_lengthen_a_session(store, clock: Clock, tmp_path: Path):
    for passed in (121.0, -1000.0):  # the second: the machine was started again
        session = begin(store)
        clock.steady += passed
        assert refusal(store, session, tmp_path / "none.wav") == "session-expired"


def test_two_processes_finish_one_session_at_once(store: Store, tmp_path: Path, ears, marks):
    """Each finds it unused; one gets it, and the others' refusals are logged, too."""
    session, home = begin(store), store.home
    path = save(tmp_path / "a.wav", np.zeros(10 * RATE, np.float32))
    ready, go, found = (os.pipe() for _ in range(3))

    def work() -> None:
        with Store.open(home) as own:
            os.write(ready[1], b"x")
            os.read(go[0], 1)
            with pytest.raises(RefusedError) as caught:
                finish_enrolment(own, session.id, path, None, ears=ears, marks=marks)  # type: ignore[arg-type]
            os.write(found[1], f"{caught.value.code} ".encode())

    children = [in_child(work) for _ in range(3)]
    os.close(ready[1])
    for _ in children:
        assert os.read(ready[0], 1)
    with store.exclusive():  # until all have looked whether it is unused
        os.write(go[1], b"xxx")
        time.sleep(1.0)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
    codes = os.read(found[0], 1000).decode().split()
    assert sorted(codes) == ["session-used", "session-used", "silent"]
    rows = store.entries("enrol-refused")
    assert sorted(row.content["code"] for row in rows) == sorted(codes)
    assert len(store.entries("session-used")) == 1
    verify(store)


def test_files_that_are_none_do_not_use_the_session_up(store, tmp_path, ears, marks):
    session = begin(store)
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "folder.wav").mkdir()
    with open(tmp_path / "huge.wav", "wb") as file:
        file.truncate(enrolment.MAX_FILE + 1)
    broken = np.full(10 * RATE, np.nan, np.float32)
    soundfile.write(tmp_path / "nan.wav", broken, RATE, subtype="FLOAT")
    (tmp_path / "loop.wav").symlink_to(tmp_path / "loop.wav")
    for name in ("pipe", "folder", "huge", "nan", "loop"):
        path = tmp_path / f"{name}.wav"
        with pytest.raises(InputError, match=f"{name}.wav"):
            finish_enrolment(store, session.id, path, None, ears=ears, marks=marks)  # type: ignore[arg-type]
    for text in ("x" * 1001, "\udcff", "\x00", "..."):
        with pytest.raises(InputError):
            finish_enrolment(store, session.id, path, None, prompt=path, prompt_text=text)  # type: ignore[arg-type]
    assert not store.entries("session-used")
    assert not list((store.home / "work").iterdir())


def test_a_session_that_breaks_off_stands_in_the_ledger(store, tmp_path, ears, marks):
    path = save(tmp_path / "c.wav", natural())
    deaf = Ears(None, ears.encoder)
    with pytest.raises(AttributeError):
        finish_enrolment(store, begin(store).id, path, None, ears=deaf, marks=marks)  # type: ignore[arg-type]
    last = store.entries()[-1]
    assert (last.event, last.content["code"]) == ("enrol-refused", "broken-off")


class Exchanger(Ears):
    """Hears as the ears it is made of, and exchanges the recording meanwhile."""

    path: Path
    data: bytes

    def hear(self, audio: np.ndarray) -> recognisers.Heard:
        self.path.write_bytes(self.data)
        return super().hear(audio)


class Killed(Ears):
    """Ends the process in the middle of the checks."""

    def voices(self, audio: np.ndarray) -> np.ndarray:
        os.kill(os.getpid(), signal.SIGKILL)
        return super().voices(audio)


@pytest.mark.parametrize("suffix", [".opus", ".m4a"])
def test_an_enrolment_that_is_killed_leaves_nothing_of_the_recording(
    store, tmp_path, ears, marks, codec, monkeypatch, suffix
):
    path, session = tmp_path / f"consent{suffix}", genuine(store, monkeypatch)
    path.write_bytes(READING.read_bytes())
    if suffix == ".m4a":
        if not shutil.which("ffmpeg"):
            pytest.skip("the ffmpeg program is absent: install it")
        subprocess.run(["ffmpeg", "-v", "error", "-y", "-i", READING, path], check=True)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def work() -> None:
        deadly = Killed(ears.whisper, ears.encoder, ears.judge)
        with Store.open(store.home) as own:
            finish_enrolment(own, session.id, path, codec, ears=deadly, marks=marks)

    assert os.waitpid(in_child(work), 0)[1] == signal.SIGKILL
    assert store.entries("session-used")
    assert not list((store.home / "work").iterdir())
    piece = path.read_bytes()[2000:2064]
    files = [each for each in tmp_path.rglob("*") if each.is_file() and each != path]
    assert not [each for each in files if piece in each.read_bytes()]


# --- genuine ---


def test_a_genuine_reading_is_taken_in(store, tmp_path, ears, marks, codec, monkeypatch):
    """Then it is spoken with, claimed for more than was read, and used again."""
    session = genuine(store, monkeypatch)
    path = tmp_path / "consent.opus"
    path.write_bytes(READING.read_bytes())
    original, exchanger = path.read_bytes(), Exchanger(ears.whisper, ears.encoder, ears.judge)
    exchanger.path, exchanger.data = path, save(tmp_path / "other.wav", natural()).read_bytes()
    taken = finish_enrolment(store, session.id, path, codec, ears=exchanger, marks=marks)
    assert path.read_bytes() != original  # it was exchanged, and to no avail
    assert taken.voice.startswith("philip-") and taken.receipt.basis == "consent"
    assert taken.receipt.expires == ledger.stamp(SPRING + 30 * 86400)
    names = [check.name for check in taken.receipt.checks]
    assert {"words heard in order", "negations heard", "who: doubt", "users: doubt"} <= set(names)
    assert not any("spoof" in name for name in names)  # what always passes is no check
    assert taken.receipt.source == enrolment.NOT_LIVE
    (tmp_path / "receipt.jws").write_text(taken.token)
    public = store.public_keys()[taken.receipt.kid]
    assert verify_receipt(tmp_path / "receipt.jws", public) == taken.receipt
    grant = Gate(store).authorise(taken.voice, "business", "Ernest", "Hello.")
    assert grant.codes.shape[0] == codec.codebooks
    assert challenge.tokens(session.text)[-5:] == challenge.tokens(grant.transcript)[-5:]
    assert 3 < grant.codes.shape[1] / codec.frame_rate < 10  # the end of it is the prompt
    voice = store.voice(taken.voice)
    assert set(voice.sealed) == {"codes", "embedding", "consent-recording"}
    public_text = json.dumps(taken.receipt.payload())
    assert "embedding" not in public_text and len(public_text) < 8000
    verify(store)
    # Had anything else been shown than was read, it would have been refused.
    hearing = ears.hear(take_of(READING).audio)
    said = statement.Terms("Philip", "Gregson", ("business",), ("Ernest",), SPRING + 30 * 86400)
    for change in (
        {"purposes": ("business", "advertising")},
        {"until": SPRING + 365 * 86400},
        {"may_alter": True},
        {"users": ("Ernest", "Caroline")},
        {"controller": "Harrison"},
        {"max_uses": 10},
    ):
        read = statement.phrases(dataclasses.replace(said, **change))
        heard = clauses.judged(hearing, read, WORDS)
        failed = [v.code for v in checks.check_words(heard, read, WORDS, []) if not v.passed]
        assert failed == ["statement-wrong"], change
    # The same words in a new session: its own are not heard, and the old ones are recognised.
    monkeypatch.undo()
    monkeypatch.setattr(checks, "MAX_OVERLAP", 1.0)  # it is known, too
    assert refusal(store, begin(store), READING, codec, ears, marks) == "words-reused"


# --- the parts ---


def test_a_long_silence_behind_the_words_leaves_no_prompt():
    spoken = kathleen(1)
    late = np.concatenate([spoken, np.zeros(9 * RATE, np.float32)])
    text = (KATHLEEN / "metadata.tsv").read_text().splitlines()[1].split("\t")[1]
    with pytest.raises(InputError, match="no word begins in the last 8 s"):
        alignment.cut_prompt(late, text)


def test_a_recording_may_go_on_after_the_words(ears):
    """`sayso enrol record` listens for 40 s: no words are heard in the silence, no prompt is it."""
    take = take_of(READING)
    room = np.random.default_rng(0).normal(0, 1e-3, 15 * RATE).astype(np.float32)
    late = Take(io.BytesIO(), Path(), np.concatenate([take.raw, room]), "consent")
    said = statement.Terms("Philip", "Gregson", ("business",), ("Ernest",), SPRING + 30 * 86400)
    heard = clauses.spoken(late.audio, statement.phrases(said), WORDS, ears)
    assert heard.good and heard.found == len(WORDS)
    stop = recording.speech_span(late.audio)[1]
    assert abs(stop / RATE - take.seconds) < 1


def test_a_consent_without_a_prompt_in_it_is_logged_as_refused(
    store, ears, marks, codec, monkeypatch
):
    """All checks passed, and then the words could not be found in time."""

    def unclear(audio, text):
        raise InputError("3 of 40 words could be aligned")

    monkeypatch.setattr(enrolment, "cut_prompt", unclear)
    session = genuine(store, monkeypatch)
    assert refusal(store, session, READING, codec, ears, marks) == "prompt-unclear"
    row = store.entries()[-1]
    assert len(row.content["checks"]) > 10


@pytest.mark.parametrize(
    ("day", "said"),
    [
        ("2027-05-02", "the second of May twenty twenty seven"),
        ("2027-01-01", "the first of January twenty twenty seven"),
        ("2027-11-11", "the eleventh of November twenty twenty seven"),
        ("2028-12-23", "the twenty third of December twenty twenty eight"),
        ("2030-03-31", "the thirty first of March twenty thirty"),
    ],
)
def test_dates_are_shown_as_they_are_read(day: str, said: str):
    shown = statement.spoken_date(ledger.seconds(f"{day}T12:00:00.000Z"))
    assert challenge.tokens(shown) == challenge.tokens(said)


def test_fingerprints_know_the_same_recording_and_no_other(tmp_path: Path):
    first, second = natural(), reader(3)
    soundfile.write(tmp_path / "a.mp3", first, RATE)
    mp3 = soundfile.read(tmp_path / "a.mp3", dtype="float32")[0]
    noisy = first + 0.1 * float(first.std()) * noise(len(first) / RATE)[: len(first)] / 0.1
    own = fingerprint(first)
    for same in (mp3, noisy, first[len(first) // 2 :], first * 0.2):
        assert overlap(own, fingerprint(np.asarray(same, np.float32))) > checks.MAX_OVERLAP
    assert overlap(own, fingerprint(second)) < checks.MAX_OVERLAP / 2
    assert overlap(own, fingerprint(np.zeros(100, np.float32))) == 0


@pytest.mark.parametrize("kind", ["none", "offset", "a step", "rumble"])
def test_an_offset_hides_no_second_voice(kind: str):
    """A soft second voice is found by its softness, and an offset makes pauses loud."""
    mixed = np.concatenate([kathleen(2, start=10), natural()[: 4 * RATE] * 10 ** (-25 / 20)])
    time_axis = np.arange(len(mixed), dtype=np.float32) / RATE
    added = {"none": 0.0, "offset": 0.01, "a step": 0.02 * np.sign(time_axis - 5)}
    added["rumble"] = 0.02 * np.sin(126 * time_axis)
    take = Take(io.BytesIO(), Path(), (mixed + added[kind]).astype(np.float32), "prompt")
    assert not next(checks.check_pauses(take)).passed


@pytest.mark.parametrize(
    ("level", "offset"), [(1.0, 0.02), (0.01, 0.0), (0.003, 0.0), (0.01, 0.05)]
)
def test_soft_and_shifted_clean_speech_is_speech(tmp_path: Path, level: float, offset: float):
    speech = kathleen(3)
    path = save(tmp_path / "a.wav", speech / np.abs(speech).max() * level + offset)
    take = take_of(path)
    verdicts = [*checks.check_sound(take, 5, 90), *checks.check_cuts(take)]
    assert [verdict.code for verdict in verdicts if not verdict.passed] == []


def test_an_offset_alone_is_silence():
    take = Take(io.BytesIO(), Path(), np.full(10 * RATE, 0.3, np.float32), "consent")
    assert {v.code for v in checks.check_sound(take, 5, 90) if not v.passed} >= {"silent"}


def test_a_prompt_that_only_fools_the_encoder(ears, codec):
    """One that is like the speaker as it is, and is another's through codec and changes."""
    consent = ears.voices(kathleen(4))
    own, other = (
        Take(io.BytesIO(), Path(), audio, "prompt") for audio in (kathleen(2, 20), natural())
    )
    assert all(v.passed for v in checks.check_heard_again(consent, own, codec, ears))
    failed = [v for v in checks.check_heard_again(consent, other, codec, ears) if not v.passed]
    assert len(failed) == 5 and {v.code for v in failed} == {"prompt-fragile"}


@pytest.mark.parametrize("package", recognisers.WEIGHTS)
def test_other_weights_are_refused(package: str, monkeypatch: pytest.MonkeyPatch):
    known = dict.fromkeys(recognisers.WEIGHTS[package], "0" * 64)
    monkeypatch.setitem(recognisers.WEIGHTS, package, known)
    with pytest.raises(CheckpointError, match=f"reinstall {package}"):
        load_ears()


def test_another_dictionary_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(phonemes, "DICTIONARY_SHA256", "0" * 64)
    with pytest.raises(CheckpointError, match="reinstall pocketsphinx"):
        phonemes.Dictionary()


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "faster_whisper", None)
    with pytest.raises(
        InputError, match=r"faster_whisper is missing: pip install 'sayso\[enrol\]'"
    ):
        load_ears()


class Unwritable:
    """What numba says of librosa where no folder can be written; root can write everywhere."""

    def find_spec(self, name, *_):
        if name == "resemblyzer":
            raise RuntimeError("cannot cache function '__o_fold': no locator available")


def test_no_place_for_numba_is_told_with_the_remedy(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delitem(sys.modules, "resemblyzer", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Unwritable(), *sys.meta_path])
    with pytest.raises(CheckpointError, match="no locator available: set NUMBA_CACHE_DIR"):
        load_ears()


def test_time_counts_from_arrival_not_from_loading_models(store, clock, tmp_path, ears, marks):
    session = begin(store)
    clock.now += 119
    path = save(tmp_path / "c.wav", np.zeros(10 * RATE, np.float32))
    started = time.perf_counter()
    assert refusal(store, session, path, ears=ears, marks=marks) == "silent"
    assert time.perf_counter() - started < 60


def test_without_a_microphone_a_file_is_asked_for(tmp_path: Path):
    try:
        import sounddevice

        sounddevice.check_input_settings()
        pytest.skip("there is a microphone here")
    except (ImportError, OSError, ValueError):
        pass
    except Exception as error:  # sounddevice.PortAudioError: no device
        assert "device" in str(error).lower()
    with pytest.raises(InputError, match=r"PortAudio|give a file|pip install"):
        record(tmp_path / "a.wav", 0.1)
    assert not (tmp_path / "a.wav").exists()
