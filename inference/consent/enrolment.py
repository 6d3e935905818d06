"""Enrolment: a person says yes, just now, aloud, and gets a signed receipt.

`start_enrolment` shows a statement and fresh random words; `finish_enrolment` takes the recording
made of them within two minutes, checks it (checks.py), and takes the voice into the store. A
session is used up by its first recording, whatever comes of it.
"""

import contextlib
import dataclasses
import getpass
import hashlib
import math
import re
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sayso.model.audio import read_audio
from sayso.model.codecs.base import Codec
from sayso.model.errors import InputError
from sayso.model.text.normalization import normalise

from ..errors import RefusedError
from ..provenance.c2pa import sidecar_of
from ..recognisers import Ears, embedding, load_ears
from ..store import keys, ledger
from ..store.ledger import Entry
from ..store.store import Store
from ..watermark.ensemble import Marks, load_marks
from . import checks, recording
from .challenge import draw_words, tokens
from .checks import Take, read_take
from .other_voices import pack_codes
from .prompt import cut_prompt
from .receipt import ANY, MAX_NAME, Check, Receipt, Scope, codes_digest, issue

VALID_SECONDS = 120.0
MAX_DAYS = 366
MAX_FILE = 256 * 2**20  # bytes; recordings are kept, encrypted
MAX_PROMPT_TEXT = 1000  # characters: 30 s read fast hold 600
NAME = re.compile(r"[\w .,:;&@/()'\u2019+-]{1,60}")  # one line, no control characters
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
        if not tokens(value):
            raise InputError(f"The {name} {value!r} cannot be heard: only English is understood.")
    if not NAME.fullmatch(controller) or not re.search(r"[^\W_]", controller):
        raise InputError(f"The controller {controller[:80]!r} is no name: 1 to 60 characters.")
    if not purposes or not users or ANY in users or not all(user.strip() for user in users):
        raise InputError("Name each purpose and each user: a person's consent is never for all.")
    if any(len(user) > MAX_NAME or not user.isprintable() for user in users):
        raise InputError(f"A user's name has 1 to {MAX_NAME} characters that can be shown.")
    if not 1 <= days <= MAX_DAYS:
        raise InputError(f"{days} days: a consent holds 1 to {MAX_DAYS} days.")
    if any(limit is not None and limit < 1 for limit in (max_characters, max_uses)):
        raise InputError("A quota of characters or uses must be at least 1.")
    now = store.now()
    until = ledger.stamp(now + days * 86400)
    statement = (
        f"I am {speaker}. I allow {controller} to speak in my voice for {' and '.join(purposes)}, "
        f"until {spoken_date(now + days * 86400)}. I say so of my own will, and I may take it back "
        f"at any time. {checks.ALTERED + ' ' if may_alter else ''}"
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
        "steady": round(store.steady(), 3),
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
    if prompt_text is not None and (
        len(prompt_text) > MAX_PROMPT_TEXT or not normalise(prompt_text).strip()
    ):
        raise InputError(
            f"The prompt's text has {len(prompt_text)} characters; 1 to {MAX_PROMPT_TEXT} that can "
            "be read are taken."
        )
    arrived = store.now(), store.steady()  # the models' loading is no fault of the speaker's
    with _refusal_logged(store, session):
        _session(store, session, *arrived)
    with store.workspace() as folder:
        # What is checked is what is kept: a file could be exchanged between two readings of it.
        take = _copy(consent, "consent", folder)
        other = None if prompt is None else _copy(prompt, "prompt", folder)
        takes = [shot for shot in (take, other) if shot is not None]
        hashes = {shot.name: hashlib.sha256(shot.path.read_bytes()).hexdigest() for shot in takes}
        marks = marks or load_marks(store.home)
        ears = ears or load_ears()
        with _refusal_logged(store, session), store.transaction():
            store.check()
            started = _session(store, session, *arrived)
            used = {"session": session, "recordings": hashes}
            used["fingerprint"] = recording.pack(recording.fingerprint(take.audio))
            store.append("session-used", session, used)  # one recording only: it counts from here
        try:
            passed = _examine(store, started, take, other, hashes, ears, marks)
            return _take_in(store, started, take, other, prompt_text, hashes, passed, codec, ears)
        except RefusedError:
            raise
        except Exception as error:  # the session is used up: the ledger must say what became of it
            _refused(store, started, "broken-off", type(error).__name__, [], hashes)
            raise


def _copy(path: Path, name: str, folder: Path) -> Take:
    """Read a recording from a copy of our own; InputError when it is no readable audio."""
    path = Path(path)
    copy = folder / f"{name}{path.suffix}"
    try:
        for source, target in ((path, copy), (sidecar_of(path), sidecar_of(copy))):
            if source is path or source.exists():
                if source.stat().st_size > MAX_FILE:
                    raise InputError(
                        f"{path} is larger than {MAX_FILE >> 20} MiB: give a shorter recording."
                    )
                shutil.copyfile(source, target)
    except (OSError, shutil.Error) as error:
        why = getattr(error, "strerror", None) or "it is no file"
        raise InputError(f"{path} cannot be read ({why}).") from None
    try:
        return read_take(copy, name)
    except InputError as error:
        raise InputError(str(error).replace(str(copy), str(path))) from None


def _session(store: Store, session: str, now: float, steady: float) -> Entry:
    """The session's first row; RefusedError unless it waits for its recording."""
    started = store.entries("session-started", session) if session else []
    used = store.entries("session-used", session) if session else []
    again = " Start a new session."
    if not started:
        message = f"There is no session {session[:80]!r}: start one."
        raise RefusedError("session-unknown", message)
    if used:
        message = "A session takes one recording, and this one had it."
        raise RefusedError("session-used", message + again)
    # By the clock, and by one that cannot be set back; after a restart that one stands below.
    age = now - ledger.seconds(started[0].time)
    since = steady - started[0].content.get("steady", -math.inf)
    if age > VALID_SECONDS or not -1.0 <= since <= VALID_SECONDS:
        message = f"The words were shown {max(age, since):.0f} s ago and count for"
        raise RefusedError("session-expired", f"{message} {VALID_SECONDS:.0f} s.{again}")
    return started[0]


@contextlib.contextmanager
def _refusal_logged(store: Store, session: str) -> Iterator[None]:
    """Logs a refusal of the session itself, outside of whatever transaction it came up in."""
    try:
        yield
    except RefusedError as refusal:
        with store.transaction():
            named = session[:80].encode("utf-8", "replace").decode()
            details = {"session": named, "code": refusal.code, "checks": []}
            store.append("enrol-refused", f"e-{secrets.token_hex(16)}", details)
        raise


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
    sessions = store.entries("session-started")
    heard = store.entries("session-used")
    words = [entry.content["words"] for entry in sessions if entry.id != started.id]
    prints = [recording.unpack(e.content["fingerprint"]) for e in heard if e.id != started.id]
    scope, until = started.content["scope"], ledger.seconds(started.content["until"])
    claims = checks.claims_of(scope["purposes"], spoken_date(until), scope["may_alter"])
    done: list[Check] = []
    verdicts = checks.examine(
        consent,
        prompt,
        started.content["statement"],
        started.content["words"],
        words,
        prints,
        claims,
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


def spoken_date(time: float) -> str:
    """A date as it is read aloud: "the twenty second of December twenty twenty six"."""
    date = datetime.fromtimestamp(time, UTC)
    ending = {1: "st", 2: "nd", 3: "rd"}.get(date.day % 10 if date.day // 10 != 1 else 0, "th")
    return normalise(f"the {date.day}{ending} of {date:%B}, {date.year}").strip(" .")
