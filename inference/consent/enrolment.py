"""Enrolment: a person says yes, just now, aloud, and gets a signed receipt.

`start_enrolment` (session.py) shows a statement and fresh random words; `finish_enrolment` takes
the recording made of them within two minutes, checks it (checks.py), and takes the voice into the
store. A session is used up by its first recording, whatever comes of it.
"""

import contextlib
import dataclasses
import hashlib
import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from sayso.model.codecs.base import Codec
from sayso.model.decoding import check_file
from sayso.model.errors import InputError
from sayso.model.files import read_regular
from sayso.model.text.normalization import normalise

from ..errors import RefusedError
from ..nameless import held
from ..provenance.c2pa import sidecar_of
from ..recognisers import Ears, embedding, load_ears
from ..store import keys, ledger
from ..store.ledger import Entry
from ..store.released import released
from ..store.store import Store
from ..watermark.ensemble import Marks, load_marks
from . import checks, recording
from .other_voices import pack_codes
from .prompt import cut_prompt
from .receipt import Check, Receipt, Scope, codes_digest, issue
from .recording import RATE, Audio
from .session import terms_of, waiting
from .statement import phrases, text_of
from .take import Take, read_take

MAX_FILE = 256 * 2**20  # bytes; recordings are kept, encrypted
MAX_PROMPT_TEXT = 1000  # characters: 30 s read fast hold 600
NOT_LIVE = {
    "consent": "a recording. Nobody saw it being made: it was checked that the words are right and "
    "the voice is one, not that a living person spoke. A machine that imitates a voice well passes."
}
"""Stands in each receipt, as its source: in words that a speaker understands."""


@dataclass(frozen=True)
class Enrolment:
    """A voice taken in: its id, its receipt, and the signed form to hand to the speaker."""

    voice: str
    receipt: Receipt
    token: str


def finish_enrolment(
    store: Store,
    session: str,
    consent: Path,
    codec: Codec,
    prompt: Path | None = None,
    prompt_text: str | None = None,
    ears: Ears | None = None,
    marks: Marks | None = None,
    decoded: Mapping[int, Audio] | None = None,
    file: BinaryIO | None = None,
) -> Enrolment:
    """Check the recording of a session and take the voice in, or say which check refused it.

    Args:
        session: Id from `start_enrolment`.
        consent: The recording of statement and words.
        codec: Turns the prompt into codes.
        prompt: Another recording of the same speaker (3 to 30 s) to be the prompt. Better is none:
            then the last seconds of the consent recording are, and nobody could prepare it.
        prompt_text: What is said in `prompt`; required with it.
        ears, marks: Already loaded, for many enrolments.
        decoded: What `consent` holds, (samples,) by rate in Hz (16 kHz and the codec's), where
            somebody has decoded it already.
        file: The recording, open, where `consent` is only its name: nobody else may write it.
    Raises:
        RefusedError: session-unknown, session-used, session-expired, or a check's own code.
        InputError: A file is no readable audio (the session is not used up), or `prompt_text`
        lacks.
    """
    if (prompt is None) != (not (prompt_text or "").strip()):
        raise InputError(
            "Give --prompt and --prompt-text together: VALL-E reads what a prompt says."
        )
    if prompt_text is not None and (
        len(prompt_text) > MAX_PROMPT_TEXT or not normalise(prompt_text).strip()
    ):
        raise InputError(
            f"The prompt's text has {len(prompt_text)} characters; 1 to {MAX_PROMPT_TEXT} that can "
            "be read are taken."
        )
    arrived = store.now(), store.steady()  # the models' loading is no fault of the speaker's
    with _refusal_logged(store, session):
        waiting(store, session, *arrived)
    # What is checked is what is kept: a file could be exchanged between two readings of it.
    takes = [_taken(store, Path(consent), "consent", file, decoded)]
    if prompt is not None:
        takes.append(_taken(store, Path(prompt), "prompt"))
    hashes = {take.name: hashlib.sha256(_bytes(take)).hexdigest() for take in takes}
    marks = marks or load_marks(store.home, rows=released(store.home))
    ears = ears or load_ears()
    with _refusal_logged(store, session), store.transaction():
        store.check()
        started = waiting(store, session, *arrived)
        used = {"session": session, "recordings": hashes}
        used["fingerprint"] = recording.pack(recording.fingerprint(takes[0].audio))
        store.append("session-used", session, used)  # one recording only: it counts from here
    hearing = _Hearing(store, started, takes, prompt_text, hashes, codec, ears, marks)
    try:
        return hearing.take_in(hearing.examine())
    except RefusedError:
        raise
    except Exception as error:  # the session is used up: the ledger must say what became of it
        hearing.refused("broken-off", type(error).__name__, [])
        raise


def _taken(
    store: Store,
    path: Path,
    name: str,
    file: BinaryIO | None = None,
    decoded: Mapping[int, Audio] | None = None,
) -> Take:
    """A recording in a file of our own, which has no name: a killed process leaves nothing of it.

    InputError when it is no readable audio.
    """
    beside = None
    if file is None:
        file = held(store.home / "work", read_regular(path, MAX_FILE))
        check_file(path)
        if sidecar_of(path).exists():
            beside = read_regular(sidecar_of(path), MAX_FILE)
    return read_take(file, path, name, beside, decoded)


def _bytes(take: Take) -> bytes:
    take.file.seek(0)
    return take.file.read()


@contextlib.contextmanager
def _refusal_logged(store: Store, session: str) -> Iterator[None]:
    """Logs a refusal of the session itself, outside of whatever transaction it came up in."""
    try:
        yield
    except RefusedError as refusal:
        named = session[:80].encode("utf-8", "replace").decode()
        details = {"session": named, "code": refusal.code, "checks": []}
        store.log_refusal(details, "enrol-refused")
        raise


@dataclass(frozen=True)
class _Hearing:
    """A session's recording on its way to a voice, or to a refusal."""

    store: Store
    started: Entry
    takes: list[Take]  # the consent, and perhaps another recording that is to be the prompt
    prompt_text: str | None
    hashes: dict[str, str]
    codec: Codec
    ears: Ears
    marks: Marks

    def examine(self) -> list[Check]:
        """Run the checks; the list of them, or RefusedError (logged with the scores so far)."""
        asked, store = self.started.content, self.store
        others = [e.content for e in store.entries("session-started") if e.id != self.started.id]
        heard = [e.content for e in store.entries("session-used") if e.id != self.started.id]
        terms = terms_of(asked["speaker"], asked["controller"], asked["scope"], asked["until"])
        read = phrases(terms)
        if text_of(read) != asked["statement"]:  # two minutes ago, by another version
            message = "The statement was shown by another version of Sayso: start a new session."
            raise self.refused("session-expired", message, [])
        done: list[Check] = []
        for verdict in checks.examine(
            self.takes[0],
            self.takes[1] if len(self.takes) > 1 else None,
            read,
            asked["words"],
            [each["words"] for each in others],
            [recording.unpack(each["fingerprint"]) for each in heard],
            self.ears,
            self.marks,
            self.codec,
        ):
            done.append(verdict.check)
            if not verdict.passed:
                raise self.refused(verdict.code, verdict.message, done)
        return done

    def refused(self, code: str, message: str, done: list[Check]) -> RefusedError:
        """The refusal of a recording, logged with the scores so far."""
        details = {
            "session": self.started.id,
            "code": code,
            "checks": [dataclasses.asdict(check) for check in done],
            "recordings": self.hashes,
        }
        with self.store.transaction():
            self.store.append("enrol-refused", f"e-{secrets.token_hex(16)}", details)
        return RefusedError(code, message)

    def cut(self, passed: list[Check]) -> tuple[float, float, str]:
        """From where to where the last recording is the prompt, in seconds, and what it says.

        A consent recording is longer than a prompt should be: of that it is the end.
        """
        source, asked = self.takes[-1], self.started.content
        if len(self.takes) > 1:
            return 0.0, source.seconds, self.prompt_text or ""
        read = f"{asked['statement']} {', '.join(asked['words'])}."
        try:
            behind = recording.speech_span(source.audio)[1]
            start, transcript = cut_prompt(source.audio[:behind], normalise(read))
            return start, behind / RATE, transcript
        except InputError as error:
            message = f"No prompt can be cut from the consent recording: {error}."
            raise self.refused("prompt-unclear", message, passed) from None

    def take_in(self, passed: list[Check]) -> Enrolment:
        """Register the voice, whose checks all passed."""
        asked, store, codec, source = self.started.content, self.store, self.codec, self.takes[-1]
        start, stop, transcript = self.cut(passed)
        audio = source.at(codec.sample_rate)
        audio = audio[:, int(start * codec.sample_rate) : int(stop * codec.sample_rate)]
        codes = codec.encode(audio)[0]
        slug = re.sub(r"[^a-z0-9]+", "-", asked["speaker"].lower()).strip("-") or "voice"
        scope: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in asked["scope"].items()
        }
        key, now, anchor = store.signing_key(), store.now(), vars(store.check())
        receipt = Receipt(
            record_id=f"c-{secrets.token_hex(16)}",
            voice=_fresh_name(store, slug),
            basis="consent",
            principal=asked["speaker"],
            controller=asked["controller"],
            statement=asked["statement"],
            transcript=transcript,
            scope=Scope(**scope),
            issued=ledger.stamp(now),
            expires=asked["until"],
            codes_sha256=codes_digest(codes),
            codec=codec.identity,
            kid=keys.thumbprint(key.public_key()),
            recordings=self.hashes,
            checks=tuple(passed),
            anchor=anchor,
            source=NOT_LIVE,
        )
        token = issue(receipt, key)
        secret = {"codes": pack_codes(codes)}
        secret["embedding"] = embedding(self.ears.voices(source.audio)).astype("<f4").tobytes()
        for take in self.takes:
            secret[f"{take.name}-recording"] = _bytes(take)
        store.enrol(receipt.voice, receipt.record_id, token, secret)
        return Enrolment(receipt.voice, receipt, token)


def _fresh_name(store: Store, slug: str) -> str:
    """A voice's id that was never used: enrolling under one that was would replace its voice."""
    while True:
        name = f"{slug}-{secrets.token_hex(3)}"
        if store.voice(name) is None:
            return name
