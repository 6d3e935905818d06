"""A session: what a speaker is shown, and that its recording comes in time, once."""

import dataclasses
import getpass
import math
import secrets
from dataclasses import dataclass
from typing import Any

from sayso.model.errors import InputError

from ..errors import RefusedError
from ..store import ledger
from ..store.ledger import Entry
from ..store.store import Store
from .challenge import draw_words, tokens
from .receipt import ANY, Scope
from .statement import Terms, check_terms, phrases, text_of

VALID_SECONDS = 120.0
MAX_DAYS = 366
MAX_QUOTA = 10**9  # larger numbers are not read aloud by anyone


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


def login_name() -> str:
    """Who runs this process; InputError where the system has no name for them."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # Python before 3.13, and from then on
        raise InputError("This machine has no name for who asks: give one (--user).") from None


def start_enrolment(
    store: Store,
    speaker: str,
    controller: str,
    purposes: tuple[str, ...],
    days: int,
    users: tuple[str, ...] | None = None,
    max_characters: int | None = None,
    max_uses: int | None = None,
    may_alter: bool = False,
) -> Session:
    """Open a session; its words count for `VALID_SECONDS` from now, once.

    Args:
        speaker: The name of the person who will speak, as they say it.
        controller: Who is responsible: a person, lab or project.
        purposes: What the voice may be used for, in words that can be read aloud.
        days: How long the consent holds, 1 to 366.
        users: Who may use the voice; the login name if None.
        may_alter: Whether pitch and formants may be changed.
    Raises:
        InputError: Something that cannot be read aloud, or a number out of range.
    """
    users = (login_name(),) if users is None else tuple(users)
    if not purposes or not users or ANY in users or not all(user.strip() for user in users):
        raise InputError("Name each purpose and each user: a person's consent is never for all.")
    if not 1 <= days <= MAX_DAYS:
        raise InputError(f"{days} days: a consent holds 1 to {MAX_DAYS} days.")
    if any(
        limit is not None and not 1 <= limit <= MAX_QUOTA for limit in (max_characters, max_uses)
    ):
        raise InputError(f"A quota of characters or uses must be at least 1, at most {MAX_QUOTA}.")
    now = store.now()
    until = ledger.stamp(now + days * 86400)
    scope = Scope(tuple(purposes), users, ("en",), max_characters, max_uses, may_alter)
    terms = terms_of(speaker, controller, vars(scope), until)
    check_terms(terms)
    statement = text_of(phrases(terms))
    words, session_id = draw_words(tokens(statement)), f"s-{secrets.token_hex(16)}"
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


def terms_of(speaker: str, controller: str, scope: dict[str, Any], until: str) -> Terms:
    """What a session's row in the ledger says is consented to."""
    return Terms(
        speaker=speaker,
        controller=controller,
        purposes=tuple(scope["purposes"]),
        users=tuple(scope["users"]),
        until=ledger.seconds(until),
        max_uses=scope["max_uses"],
        max_characters=scope["max_characters"],
        may_alter=scope["may_alter"],
    )


def waiting(store: Store, session: str, now: float, steady: float) -> Entry:
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
