"""Voices over HTTP: a consent is asked for, checked, shown and taken back, as by the verbs."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, File, Request, UploadFile
from pydantic import BaseModel, ConfigDict, Field

from sayso.inference.consent.checks import MAX_FLAT, MAX_SECONDS, MIN_PEAK
from sayso.inference.consent.enrolment import NOT_LIVE, Enrolment, finish_enrolment
from sayso.inference.consent.receipt import ANY, Check, Receipt
from sayso.inference.consent.recording import RATE
from sayso.inference.consent.session import VALID_SECONDS, Session, start_enrolment
from sayso.inference.errors import RefusedError
from sayso.inference.nameless import held
from sayso.inference.outputs import Output
from sayso.inference.store import ledger

from .errors import ProblemError, problem_of
from .house import Desk, Hearing, caller, check_sees, house
from .tokens import SESSION, Token
from .uploads import decoded, unnamed

router = APIRouter()
DAY = 86400.0
Name = Annotated[str, Field(min_length=1, max_length=60)]
Caller = Annotated[Token, Depends(caller)]


class Consent(BaseModel):
    """What a speaker is asked for; all of it is read aloud."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={
            "examples": [{"speaker": "Ada", "purposes": ["research"], "days": 30}],
        },
    )
    speaker: Name
    purposes: list[Name] = Field(min_length=1, max_length=8)
    days: int = Field(30, ge=1, le=366)
    users: list[Name] | None = Field(
        None, max_length=8, description="Names of tokens; the caller's if left out."
    )
    controller: Name | None = Field(None, description="Who is responsible.")
    max_characters: int | None = Field(None, ge=1, le=10**9)
    max_uses: int | None = Field(None, ge=1, le=10**9)
    may_alter: bool = False


@router.get("/v1/me")
async def me(request: Request, token: Caller) -> dict:
    """Whose token this is, what it may do, and the limits it has to keep to."""
    settings = house(request).settings
    return {
        "name": token.name,
        "role": token.role,
        "expires": ledger.stamp(token.expires),
        "model": house(request).model_name,
        "controller": settings.controller,
        "limits": {
            "characters": settings.text,
            "requests_a_minute": settings.requests,
            "audio_seconds_a_day": settings.seconds,
            "upload_bytes": settings.body,
            "upload_seconds": settings.upload_seconds,
            "consent_seconds": MAX_SECONDS,
            "least_peak": MIN_PEAK,
            "longest_gap_ms": MAX_FLAT,
        },
    }


@router.get("/v1/voices")
async def voices(request: Request, token: Caller) -> dict:
    """The voices that the token may see, with what their receipts allow."""

    def found(desk: Desk) -> list[dict]:
        desk.store.check()
        return [
            _described(desk, each.voice, token)
            for each in desk.store.voices()
            if token.sees(each.voice)
        ]

    return {"object": "list", "data": await house(request).desk.ask(request, found)}


def _described(desk: Desk, voice: str, token: Token) -> dict:
    found = desk.store.voice(voice)
    assert found is not None
    said: dict[str, Any] = {"id": voice, "object": "voice", "own": token.owns(voice)}
    if found.revoked:
        return said | {"state": "revoked", "revoked": found.revoked}
    try:
        receipt = desk.gate.receipt(voice)
    except RefusedError as error:
        return said | {"state": error.code}
    now, scope = desk.store.now(), receipt.scope
    uses, characters = desk.store.used(receipt.record_id)
    for_user = ANY in scope.users or token.name in scope.users
    return said | {
        "state": "expired" if receipt.expired(now) else "valid",
        "basis": receipt.basis,
        "for_you": for_user,
        "speaker": receipt.principal,
        "controller": receipt.controller,
        "purposes": scope.purposes,
        "users": scope.users,
        "issued": receipt.issued,
        "expires": receipt.expires,
        "days_left": max(0, int((ledger.seconds(receipt.expires) - now) / DAY)),
        "may_alter": scope.may_alter,
        "uses": uses,
        "max_uses": scope.max_uses,
        "characters": characters,
        "max_characters": scope.max_characters,
    }


@router.post("/v1/consents", status_code=201)
async def start_consent(request: Request, asked: Consent, token: Caller) -> dict:
    """Begin a session: what is to be read aloud, and until when."""
    controller = asked.controller or house(request).settings.controller
    if controller is None:
        message = "Name the controller: the person, lab or project that is responsible."
        raise ProblemError(400, "controller-missing", message, "controller")

    def started(desk: Desk) -> Session:
        return start_enrolment(
            desk.store,
            asked.speaker,
            controller,
            tuple(asked.purposes),
            asked.days,
            tuple(asked.users) if asked.users else (token.name,),
            asked.max_characters,
            asked.max_uses,
            asked.may_alter,
        )

    session = await house(request).desk.ask(request, started)
    house(request).tokens.give(token.name, f"{SESSION}{session.id}")
    return {
        "id": session.id,
        "object": "consent",
        "statement": session.statement,
        "words": session.words,
        "text": session.text,
        "deadline": session.expires,
        "seconds": VALID_SECONDS,
    }


@router.post("/v1/consents/{session}/recording", status_code=201)
async def finish_consent(
    request: Request,
    session: str,
    file: Annotated[UploadFile, File(description="The recording.")],
    token: Caller,
) -> dict:
    """Check the recording of a session: a voice and its receipt, or the check that refused it.

    A session takes one recording. A file that is no audio does not use it up.
    """
    home = house(request)
    if not token.began(session):
        raise ProblemError(404, "session-unknown", "There is no such session of yours: start one.")
    most, rates = home.settings.upload_seconds, (RATE, home.codec_rate)
    sent = held(home.spool, await file.read())  # without a name: it is a person's voice
    upload = await decoded(sent, home.spool, rates, 0.0, most, home.trying)
    path, sounds = Path(f"recording{upload.suffix}"), upload.sounds

    def finished(hearing: Hearing) -> Enrolment | ProblemError:
        try:
            store, codec, ears = hearing.store, hearing.codec, hearing.ears
            with unnamed(path):
                how = {"ears": ears, "decoded": sounds, "file": sent}
                taken = finish_enrolment(store, session, path, codec, **how)
        except RefusedError as error:
            return _refused(hearing, session, error)
        home.tokens.give(token.name, taken.voice)
        return taken

    taken = await home.hearing.ask(request, finished)
    if isinstance(taken, ProblemError):
        raise taken
    return {
        "voice": taken.voice,
        "expires": taken.receipt.expires,
        "checks": _checks(taken.receipt.checks),
        "receipt": taken.token,
        "note": f"The voice came from {NOT_LIVE['consent']}",
    }


def _refused(hearing: Hearing, session: str, error: RefusedError) -> ProblemError:
    """A refusal with the scores up to it; those of the session itself have none."""
    problem = problem_of(error)
    rows = [
        row.content
        for row in hearing.store.entries("enrol-refused")[-20:]
        if row.content.get("session") == session and row.content["checks"]
    ]
    if error.code.startswith("session-") or not rows:
        return problem
    checks = _checks(tuple(Check(**check) for check in rows[-1]["checks"]))
    checks[-1]["passed"] = False
    return ProblemError(422, problem.code, problem.message, "file", more={"checks": checks})


def _checks(found: tuple[Check, ...]) -> list[dict[str, Any]]:
    return [dataclasses.asdict(check) | {"passed": True} for check in found]


@router.get("/v1/voices/{voice}/receipt")
async def receipt(request: Request, voice: str, token: Caller) -> dict:
    """A voice's signed receipt, what it says, and what was made under it."""
    check_sees(token, voice)

    def found(desk: Desk) -> tuple[Receipt, str, dict, list[Output]]:
        held = desk.gate.receipt(voice)
        kept = desk.store.voice(voice)
        assert kept is not None
        made = desk.gate.outputs(voice) if token.owns(voice) else []
        return held, kept.token, _described(desk, voice, token), made

    held, signed, described, made = await house(request).desk.ask(request, found)
    said = {"receipt": signed, "payload": held.payload(), "outputs": list(map(_output, made))}
    return described | said


@router.delete("/v1/voices/{voice}")
async def revoke(request: Request, voice: str, token: Caller) -> dict:
    """Take a consent back: silent from the next call on, its data destroyed; what was made."""
    if not token.owns(voice):
        message = "A voice is taken back by its speaker's token, or by an admin's."
        raise ProblemError(403, "token-voice", message)

    def taken_back(desk: Desk) -> list[Output]:
        if desk.store.voice(voice) is None:
            raise RefusedError("voice-unknown", f"No voice {voice[:80]!r} is enrolled here.")
        return desk.gate.revoke(voice, f"through the service, by {token.name}")

    made = await house(request).desk.ask(request, taken_back)
    return {"voice": voice, "state": "revoked", "outputs": list(map(_output, made))}


def _output(made: Output) -> dict[str, str]:
    """One output as a client is told of it: where the spool lies is no business of theirs."""
    told = dataclasses.asdict(made)
    del told["path"]
    return told
