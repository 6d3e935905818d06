"""Enrolment: a person says yes, just now, aloud, and gets a signed receipt.

`start_enrolment` (session.py) shows a statement and fresh random words; `finish_enrolment` takes
the recording made of them within two minutes, checks it (checks.py), and takes the voice into the
store. A session is used up by its first recording, whatever comes of it.
"""

import contextlib
import dataclasses
import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sayso.model.codecs.base import Codec
from sayso.model.errors import InputError
from sayso.model.files import create_file, file_hash, read_regular
from sayso.model.text.normalization import normalise

from ..errors import RefusedError
from ..provenance.c2pa import sidecar_of
from ..recognisers import Ears, embedding, load_ears
from ..store import keys, ledger
from ..store.ledger import Entry
from ..store.released import released
from ..store.store import Store
from ..watermark.ensemble import Marks, load_marks
from . import checks, recording
from .checks import Take, read_take
from .other_voices import pack_codes
from .prompt import cut_prompt
from .receipt import Check, Receipt, Scope, codes_digest, issue
from .recording import RATE, Audio
from .session import terms_of, waiting
from .statement import phrases, text_of

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
    with store.workspace() as folder:
        # What is checked is what is kept: a file could be exchanged between two readings of it.
        take = _copy(consent, "consent", folder, decoded)
        other = None if prompt is None else _copy(prompt, "prompt", folder)
        takes = [shot for shot in (take, other) if shot is not None]
        hashes = {shot.name: file_hash(shot.path) for shot in takes}
        marks = marks or load_marks(store.home, rows=released(store.home))
        ears = ears or load_ears()
        with _refusal_logged(store, session), store.transaction():
            store.check()
            started = waiting(store, session, *arrived)
            used = {"session": session, "recordings": hashes}
            used["fingerprint"] = recording.pack(recording.fingerprint(take.audio))
            store.append("session-used", session, used)  # one recording only: it counts from here
        try:
            passed = _examine(store, started, take, other, hashes, ears, marks, codec)
            return _take_in(store, started, take, other, prompt_text, hashes, passed, codec, ears)
        except RefusedError:
            raise
        except Exception as error:  # the session is used up: the ledger must say what became of it
            _refused(store, started, "broken-off", type(error).__name__, [], hashes)
            raise


def _copy(path: Path, name: str, folder: Path, decoded: Mapping[int, Audio] | None = None) -> Take:
    """Read a recording from a copy of our own; InputError when it is no readable audio."""
    path = Path(path)
    copy = folder / f"{name}{path.suffix}"
    for source, target in ((path, copy), (sidecar_of(path), sidecar_of(copy))):
        if source is path or source.exists():
            create_file(target, read_regular(source, MAX_FILE))
    try:
        return read_take(copy, name, decoded)
    except InputError as error:
        raise InputError(str(error).replace(str(copy), str(path))) from None


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


def _examine(
    store: Store,
    started: Entry,
    consent: Take,
    prompt: Take | None,
    hashes: dict[str, str],
    ears: Ears,
    marks: Marks,
    codec: Codec,
) -> list[Check]:
    """Run the checks; the list of them, or RefusedError (logged with the scores so far)."""
    sessions = store.entries("session-started")
    heard = store.entries("session-used")
    words = [entry.content["words"] for entry in sessions if entry.id != started.id]
    prints = [recording.unpack(e.content["fingerprint"]) for e in heard if e.id != started.id]
    asked = started.content
    read = phrases(terms_of(asked["speaker"], asked["controller"], asked["scope"], asked["until"]))
    if text_of(read) != asked["statement"]:  # two minutes ago, by another version
        message = "The statement was shown by another version of Sayso: start a new session."
        raise _refused(store, started, "session-expired", message, [], hashes)
    done: list[Check] = []
    verdicts = checks.examine(
        consent,
        prompt,
        read,
        asked["words"],
        words,
        prints,
        ears,
        marks,
        codec,
    )
    for verdict in verdicts:
        done.append(verdict.check)
        if not verdict.passed:
            raise _refused(store, started, verdict.code, verdict.message, done, hashes)
    return done


def _refused(
    store: Store,
    started: Entry,
    code: str,
    message: str,
    done: list[Check],
    hashes: dict[str, str],
) -> RefusedError:
    """The refusal of a recording, logged with the scores so far."""
    details = {
        "session": started.id,
        "code": code,
        "checks": [dataclasses.asdict(check) for check in done],
        "recordings": hashes,
    }
    with store.transaction():
        store.append("enrol-refused", f"e-{secrets.token_hex(16)}", details)
    return RefusedError(code, message)


def _take_in(
    store: Store,
    started: Entry,
    consent: Take,
    prompt: Take | None,
    prompt_text: str | None,
    hashes: dict[str, str],
    passed: list[Check],
    codec: Codec,
    ears: Ears,
) -> Enrolment:
    asked = started.content
    source = prompt or consent
    start, stop, transcript = 0.0, source.seconds, prompt_text or ""
    if prompt is None:  # a consent recording is longer than a prompt should be: its end
        read = f"{asked['statement']} {', '.join(asked['words'])}."
        try:
            behind = recording.speech_span(consent.audio)[1]
            start, transcript = cut_prompt(consent.audio[:behind], normalise(read))
            stop = behind / RATE
        except InputError as error:
            message = f"No prompt can be cut from the consent recording: {error}."
            raise _refused(store, started, "prompt-unclear", message, passed, hashes) from None
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
        recordings=hashes,
        checks=tuple(passed),
        anchor=anchor,
        source=NOT_LIVE,
    )
    token = issue(receipt, key)
    secret = {"codes": pack_codes(codes)}
    secret["embedding"] = embedding(ears.voices(source.audio)).astype("<f4").tobytes()
    for take in (consent, prompt):
        if take is not None:
            secret[f"{take.name}-recording"] = take.path.read_bytes()
    store.enrol(receipt.voice, receipt.record_id, token, secret)
    return Enrolment(receipt.voice, receipt, token)


def _fresh_name(store: Store, slug: str) -> str:
    """A voice's id that was never used: enrolling under one that was would replace its voice."""
    while True:
        name = f"{slug}-{secrets.token_hex(3)}"
        if store.voice(name) is None:
            return name
