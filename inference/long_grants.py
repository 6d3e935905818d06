"""Long texts: granted and counted once as a whole, spoken part by part, over days if need be.

Each part is a stream with a ledger row of its own ("part", then "streamed" and "released"), for
which receipt and revocation are looked up again. It may be taken up where another process left it.
"""

import secrets

from sayso.model.text.book import parts_of

from .errors import RefusedError
from .gate import Gate, Grant
from .permission import Asked, allowed, clean, named, unpack_prompt, unusable
from .store import ledger

LONG_SECONDS = 7 * 86_400.0
"""From the grant of a long text to its last part."""
MOST_TRIES = 20  # of one part
NAMED = ("voice", "purpose", "user")


def begin(gate: Gate, grant: Grant) -> None:
    """Use a grant for a text in parts: it counts from now on, whatever comes of it.

    Raises:
        RefusedError: It cannot be used.
    """
    with gate.store.transaction():
        gate.store.check()
        refused = unusable(gate.store, grant)
        if refused is None:
            gate.store.append("long", grant.id, named(grant))
    if refused is not None:
        raise refused


def grant_part(
    gate: Gate, whole: str, asked: Asked, number: int, text: str, again: str = "", data: bytes = b""
) -> Grant:
    """Leave to stream one part of a long text.

    Args:
        whole: Id of its grant, see `begin`.
        asked: What was asked for then, with the whole text.
        number: Of the part, from 1, as `parts_of` the whole has it; 0 is all of the text.
        text: Its own, by that number.
        again: Id of this part's grant, if it was begun before.
        data: What has left under that: `audio.wav_header` and samples.

    Raises:
        RefusedError: As of `Gate.authorise`, but for quotas; grant-unknown, grant-used,
            grant-expired.
    """
    store, salt = gate.store, secrets.token_hex(32)
    own = {0: asked.text} | {part.number: part.text for part in parts_of(asked.text)}
    grant_id = again or f"g-{secrets.token_hex(16)}"
    try:
        with store.transaction():
            store.check()
            found, receipt = allowed(store, asked, counted=False)
            rows = store.entries(id=whole)
            if [row.event for row in rows] != ["granted", "long"] or not _same(rows[0], asked.text):
                raise RefusedError("grant-unknown", f"{whole[:40]!r} is no grant of this text.")
            given = rows[0].content
            changed = any(given[name] != getattr(asked, name) for name in NAMED)
            if changed or (asked.altered and not given["altered"]):
                raise RefusedError("grant-unknown", f"{whole[:40]!r} was given for something else.")
            if store.now() >= ledger.seconds(rows[0].time) + LONG_SECONDS:
                raise RefusedError("grant-expired", f"The grant {whole!r} is older than a week.")
            before = [
                row
                for row in store.entries("part", voice=asked.voice)
                if (row.content["of"], row.content["number"]) == (whole, number)
            ]
            mine = next((row for row in before if row.id == again), None)
            if text != own.get(number) or (again and (mine is None or not _same(mine, text))):
                raise RefusedError("grant-unknown", f"Part {number} is not one of this text.")
            if not again and len(before) >= MOST_TRIES:
                raise RefusedError("grant-used", f"Part {number} was begun {MOST_TRIES} times.")
            details = {"of": whole, "number": number, "text_salt": salt}
            details |= {"text_commitment": ledger.commit_to(salt, clean(text))}
            details |= {name: given[name] for name in (*NAMED, "receipt_id")}
            event = "resumed" if again else "part"
            codes = unpack_prompt(store.grant(found, grant_id, details, event), receipt)
    except RefusedError as refusal:
        store.log_refusal({"voice": asked.voice, "code": refusal.code, "grant": whole})
        raise
    gate.take_up(grant_id, data)
    return Grant(
        grant_id,
        asked.voice,
        receipt.record_id,
        asked.purpose,
        asked.user,
        text,
        codes,
        receipt.transcript,
        receipt.scope.may_alter,
        receipt.codec,
    )


def _same(row: ledger.Entry, text: str) -> bool:
    """Whether a row was given for a text."""
    salt, commitment = row.content["text_salt"], row.content["text_commitment"]
    return ledger.commit_to(salt, clean(text)) == commitment
