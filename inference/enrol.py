"""Enrolment: a person says yes, just now, aloud, and gets a signed receipt.

`start_enrolment` shows a statement and fresh random words; `finish_enrolment` takes the recording
made of them within two minutes, checks it (checks.py), and takes the voice into the store. A
session is used up by its first recording, whatever comes of it.
"""

import dataclasses
import getpass
import hashlib
import re
import secrets
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from sayso.inference import checks, keys, ledger, recording
from sayso.inference.alignment import cut_prompt
from sayso.inference.audio import read_audio
from sayso.inference.bundled import pack_codes
from sayso.inference.checks import Take, read_take
from sayso.inference.hearing import Ears, embedding, load_ears
from sayso.inference.ledger import Entry
from sayso.inference.marks import Marks, load_marks
from sayso.inference.receipt import ANY, Check, Receipt, Scope, codes_digest, issue
from sayso.inference.store import Store
from sayso.inference.words import draw_words, tokens
from sayso.model.codec import Codec
from sayso.model.errors import InputError, RefusedError, StoreError
from sayso.model.text import normalise

VALID_SECONDS = 120.0
MAX_DAYS = 366
MAX_FILE = 256 * 2**20  # bytes; recordings are kept, encrypted
SPEAKABLE = re.compile(r"[^\W\d_](?:[^\W\d_]|[ .'\u2019-]){0,59}")


@dataclass(frozen=True)
class Session:
    """What a speaker is shown: read `statement`, then `words`, before `expires`."""

    id: str
    statement: str
    words: tuple[str, ...]
    expires: str

    @property
    def text(self) -> str:
        """Statement and words, as they are to be read."""
        return f"{self.statement} {', '.join(self.words)}."


@dataclass(frozen=True)
class Enrolment:
    """A voice taken in: its id, its receipt, and the signed form to hand to the speaker."""

    voice: str
    receipt: Receipt
    token: str


def start_enrolment(
    store: Store,
    speaker: str,
    purposes: tuple[str, ...],
    days: int,
    users: tuple[str, ...] | None = None,
    controller: str | None = None,
    max_characters: int | None = None,
    max_uses: int | None = None,
    may_alter: bool = False,
) -> Session:
    """Open a session; its words count for `VALID_SECONDS` from now, once.

    Args:
        speaker: The name of the person who will speak, as they say it.
        purposes: What the voice may be used for, in words that can be read aloud.
        days: How long the consent holds, 1 to 366.
        users: Who may use the voice; the login name if None.
        controller: Who is responsible: a person, lab or project; the login name if None.
        may_alter: Whether pitch and formants may be changed.
    Raises:
        InputError: Something that cannot be read aloud, or a number out of range.
    """
    login = getpass.getuser()
    users = (login,) if users is None else tuple(users)
    controller = controller if controller is not None else login
    for name, value in [("speaker", speaker), *(("purpose", purpose) for purpose in purposes)]:
        if not SPEAKABLE.fullmatch(value):
            raise InputError(f"The {name} {value[:80]!r} cannot be read aloud: letters, 1 to 60.")
    if not re.search(r"[^\W_]", controller) or len(controller) > 60:
        raise InputError(f"The controller {controller[:80]!r} is no name: 1 to 60 characters.")
    if not purposes or not users or ANY in users or not all(user.strip() for user in users):
        raise InputError("Name each purpose and each user: a person's consent is never for all.")
    if not 1 <= days <= MAX_DAYS:
        raise InputError(f"{days} days: a consent holds 1 to {MAX_DAYS} days.")
    if any(limit is not None and limit < 1 for limit in (max_characters, max_uses)):
        raise InputError("A quota of characters or uses must be at least 1.")
    now = store.now()
    until = ledger.stamp(now + days * 86400)
    statement = (
        f"I am {speaker}. I allow {controller} to speak in my voice for {' and '.join(purposes)}, "
        f"until {spoken_date(now + days * 86400)}. I say so of my own will, and I may take it back "
        f"at any time. {'My voice may be altered. ' if may_alter else ''}"
        "My words for today are:"
    )
    words, session_id = draw_words(tokens(statement)), f"s-{secrets.token_hex(16)}"
    scope = Scope(purposes, users, ("en",), max_characters, max_uses, may_alter)
    content = {
        "speaker": speaker,
        "controller": controller,
        "statement": statement,
        "words": list(words),
        "until": until,
        "scope": dataclasses.asdict(scope),
    }
    with store.transaction():
        store.check()
        store.append("session-started", session_id, content)
    return Session(session_id, statement, words, ledger.stamp(now + VALID_SECONDS))


def finish_enrolment(
    store: Store,
    session: str,
    consent: Path,
    codec: Codec,
    prompt: Path | None = None,
    prompt_text: str | None = None,
    ears: Ears | None = None,
    marks: Marks | None = None,
) -> Enrolment:
    """Check the recording of a session and take the voice in, or say which check refused it.

    Args:
        session: Id from `start_enrolment`.
        consent: The recording of statement and words.
        codec: Turns the prompt into codes.
        prompt: A better recording of the same speaker (3 to 30 s) to be the prompt; without it the
            last seconds of the consent recording are.
        prompt_text: What is said in `prompt`; required with it.
        ears, marks: Already loaded, for many enrolments.
    Raises:
        RefusedError: session-unknown, session-used, session-expired, or a check's own code.
        InputError: A file is no readable audio (the session is not used up), or `prompt_text`
        lacks.
    """
    if (prompt is None) != (not (prompt_text or "").strip()):
        raise InputError(
            "Give --prompt and --prompt-text together: VALL-E reads what a prompt says."
        )
    arrived = store.now()  # before the models load: they are no fault of the speaker's
    _session(store, session, arrived)
    take = read_take(consent, "consent")
    other = None if prompt is None else read_take(prompt, "prompt")
    hashes = {shot.name: _file_hash(shot.path) for shot in (take, other) if shot is not None}
    marks = marks or load_marks(store.home)
    ears = ears or load_ears()
    with store.transaction():  # one recording only, and it counts from here
        store.check()
        started = _session(store, session, arrived)
        used = {"session": session, "recordings": hashes}
        used["fingerprint"] = recording.pack(recording.fingerprint(take.audio))
        store.append("session-used", session, used)
    passed = _examine(store, started, take, other, hashes, ears, marks)
    return _take_in(store, started, take, other, prompt_text, hashes, passed, codec, ears)


def _session(store: Store, session: str, now: float) -> Entry:
    """The session's first row; RefusedError (logged) unless it waits for its recording."""
    with store.readable():
        started = ledger.entries(store.database, "session-started", session) if session else []
        used = ledger.entries(store.database, "session-used", session) if session else []
    code = message = ""
    if not started:
        code, message = "session-unknown", f"There is no session {session[:80]!r}: start one."
    elif used:
        code, message = "session-used", "A session takes one recording, and this one had it."
    elif now > ledger.seconds(started[0].time) + VALID_SECONDS:
        age = now - ledger.seconds(started[0].time)
        code = "session-expired"
        message = f"The words were shown {age:.0f} s ago and count for {VALID_SECONDS:.0f} s."
    if code:
        refusal = RefusedError(code, message + " Start a new session.")
        if store.database.in_transaction:
            raise refusal
        with store.transaction():
            named = session[:80].encode("utf-8", "replace").decode()
            details = {"session": named, "code": code, "checks": []}
            store.append("enrol-refused", f"e-{secrets.token_hex(16)}", details)
        raise refusal
    return started[0]


def _examine(
    store: Store,
    started: Entry,
    consent: Take,
    prompt: Take | None,
    hashes: dict[str, str],
    ears: Ears,
    marks: Marks,
) -> list[Check]:
    """Run the checks; the list of them, or RefusedError (logged with the scores so far)."""
    with store.readable():
        sessions = ledger.entries(store.database, "session-started")
        heard = ledger.entries(store.database, "session-used")
    words = [entry.content["words"] for entry in sessions if entry.id != started.id]
    prints = [recording.unpack(e.content["fingerprint"]) for e in heard if e.id != started.id]
    done: list[Check] = []
    verdicts = checks.examine(
        consent,
        prompt,
        started.content["statement"],
        started.content["words"],
        words,
        prints,
        ears,
        marks,
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
    start, transcript = 0.0, prompt_text or ""
    if prompt is None:  # a consent recording is longer than a prompt should be: its end
        read = f"{asked['statement']} {', '.join(asked['words'])}."
        try:
            start, transcript = cut_prompt(consent.audio, normalise(read))
        except InputError as error:
            message = f"No prompt can be cut from the consent recording: {error}."
            raise _refused(store, started, "prompt-unclear", message, passed, hashes) from None
    audio = read_audio(source.path, codec.sample_rate)[:, int(start * codec.sample_rate) :]
    codes = codec.encode(audio)[0]
    slug = re.sub(r"[^a-z0-9]+", "-", asked["speaker"].lower()).strip("-") or "voice"
    scope: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in asked["scope"].items()
    }
    with store.readable():
        key, now, anchor = store.signing_key(), store.now(), vars(store.check())
    receipt = Receipt(
        record_id=f"c-{secrets.token_hex(16)}",
        voice=f"{slug}-{secrets.token_hex(3)}",
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
    )
    token = issue(receipt, key)
    secret = {"codes": pack_codes(codes)}
    secret["embedding"] = embedding(ears.voices(source.audio)).astype("<f4").tobytes()
    for take in (consent, prompt):
        if take is not None:
            secret[f"{take.name}-recording"] = take.path.read_bytes()
            if hashlib.sha256(secret[f"{take.name}-recording"]).hexdigest() != hashes[take.name]:
                raise StoreError(f"{take.path} changed while it was checked: start a new session.")
    store.enrol(receipt.voice, receipt.record_id, token, secret)
    return Enrolment(receipt.voice, receipt, token)


def spoken_date(time: float) -> str:
    """A date as it is read aloud: "the twenty second of December twenty twenty six"."""
    date = datetime.fromtimestamp(time, timezone.utc)
    ending = {1: "st", 2: "nd", 3: "rd"}.get(date.day % 10 if date.day // 10 != 1 else 0, "th")
    return normalise(f"the {date.day}{ending} of {date:%B}, {date.year}").strip(" .")


def _file_hash(path: Path) -> str:
    if path.stat().st_size > MAX_FILE:
        raise InputError(f"{path} is larger than {MAX_FILE >> 20} MiB: give a shorter recording.")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_embedding(data: bytes) -> np.ndarray:
    """A stored speaker embedding, (256,) float32."""
    return np.frombuffer(data, "<f4")
