"""Speech, as OpenAI's clients ask for it: `Synthesizer.speak` and `stream` behind a line.

What is sent is the marked file that was released. `pcm`, and `wav` as events, leave sentence by
sentence, each marked and looked at before; their manifest, as that of `opus`, is at
/v1/manifests/{ledger_id}.
"""

import base64
import json
import secrets
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from threading import Event
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from sayso.inference.errors import RefusedError
from sayso.inference.provenance.c2pa import sidecar_of
from sayso.inference.store.recovery import silent
from sayso.inference.synthesizer import Spoken, Synthesizer
from sayso.model.audio import wav_header
from sayso.model.codecs.voice_edit import Alteration
from sayso.model.errors import SaysoError
from sayso.model.files import MOST_WEIGHTS, read_bounded

from .errors import ProblemError, problem_of
from .house import Desk, House, caller, check_sees, house
from .tokens import Token
from .uploads import unnamed

router = APIRouter()
TYPES = {"wav": "audio/wav", "flac": "audio/flac", "mp3": "audio/mpeg", "opus": "audio/ogg"}
EVENTS = "text/event-stream"
LIVE = ("sse", "wav")
"""Of files, only a WAV can begin before its end is known."""
MOST_SAMPLES = 5
PIECE = 2**15  # bytes of audio in one event
PACE = 14.0  # characters a second, to reckon what a text will take
NO_INSTRUCTIONS = "This model takes no instructions: it says the text in the voice as it is."


class Voice(BaseModel):
    """A voice as newer clients may name it."""

    model_config = ConfigDict(extra="forbid", strict=True)
    id: str = Field(max_length=200)


class Speech(BaseModel):
    """What is to be said."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={
            "examples": [
                {
                    "model": "sayso-mini",
                    "input": "Good morning. The bus was late again today.",
                    "voice": "nobody",
                    "response_format": "wav",
                }
            ]
        },
    )
    model: str = Field(max_length=200)
    input: str = Field(description="Its greatest length is a limit of the service.")
    voice: Annotated[str, Field(max_length=200)] | Voice
    response_format: Literal["mp3", "opus", "flac", "wav", "pcm"] = Field(
        "mp3", description="pcm: 16 bit, little-endian, one channel, at X-Sayso-Sample-Rate."
    )
    speed: float = Field(1.0, ge=0.5, le=2.0)
    stream_format: Literal["audio", "sse"] = "audio"
    instructions: str | None = Field(None, description="Refused: this model takes none.")
    seed: int | None = Field(None, ge=0, lt=2**63, description="Of the draws; fresh if left out.")
    samples: int = Field(
        1,
        ge=1,
        le=MOST_SAMPLES,
        description="Of each sentence; the best is sent. Each counts for the seconds of a day.",
    )
    purpose: str = Field("research", max_length=200, description="The receipt must allow it.")


@dataclass(frozen=True)
class Said:
    """A released file, and what the ledger says of it."""

    data: bytes
    kind: str
    rate: int
    spoken: Spoken


@router.post(
    "/v1/audio/speech",
    response_class=Response,
    responses={
        200: {
            "content": {kind: {} for kind in (*TYPES.values(), "audio/pcm", EVENTS)},
            "description": "Marked synthetic speech.",
        }
    },
)
async def speak(
    request: Request, asked: Speech, token: Annotated[Token, Depends(caller)]
) -> Response:
    """Say a text in an enrolled voice, if the voice's receipt allows it; marked, or not at all."""
    home = house(request)
    voice = asked.voice if isinstance(asked.voice, str) else asked.voice.id
    _check(home, asked)
    check_sees(token, voice)
    if asked.response_format == "pcm" or (asked.stream_format, asked.response_format) == LIVE:
        return await _streamed(request, asked, voice, token)
    about = _reckoned(asked)
    home.tokens.spend_seconds(token, about, home.settings.seconds, asked.samples)
    took, gone = 0.0, Event()
    try:
        said = await home.speaking.ask(
            request,
            lambda synthesizer: say(home, synthesizer, asked, voice, token.name, gone),
            gone=gone,
        )
        took = said.spoken.seconds
    finally:
        home.tokens.spend_seconds(token, took - about, float("inf"), asked.samples)
    home.metrics.audio.inc(took)
    home.tokens.check_still(token)
    spoken = said.spoken
    headers = _headers(spoken.ledger_id, spoken.seed, said.rate)
    headers["X-Sayso-Seconds"] = f"{took:.3f}"
    if asked.stream_format == "sse":
        return StreamingResponse(events(said, asked), 200, headers, EVENTS)
    return Response(said.data, 200, headers, said.kind)


async def _streamed(request: Request, asked: Speech, voice: str, token: Token) -> Response:
    """Sentence by sentence: a refusal comes before the first, as an answer of its own."""
    home, about = house(request), _reckoned(asked)
    home.tokens.spend_seconds(token, about, home.settings.seconds, asked.samples)
    chunks = home.speaking.flow(
        request,
        lambda synthesizer, gone: synthesizer.stream(
            asked.input,
            voice,
            asked.purpose,
            token.name,
            asked.seed,
            alteration=Alteration(speed=asked.speed),
            samples=asked.samples,
            name=f"speech-{secrets.token_hex(8)}.wav",
            gone=gone,
        ),
    )
    try:
        first = await anext(chunks)
        await _check_still(home, token, first.ledger_id)
    except BaseException:
        await chunks.aclose()
        home.tokens.spend_seconds(token, -about, float("inf"), asked.samples)
        raise
    headers = _headers(first.ledger_id, first.seed, first.sample_rate)
    sse = asked.stream_format == "sse"

    async def pieces() -> AsyncIterator[bytes]:
        """What leaves, until the client does."""
        took = len(first.pcm) / 2 / first.sample_rate
        try:
            head = b"" if asked.response_format == "pcm" else wav_header(first.sample_rate)
            yield _delta(head + first.pcm) if sse else head + first.pcm
            async for chunk in chunks:
                await _check_still(home, token, first.ledger_id)
                took += len(chunk.pcm) / 2 / first.sample_rate
                if chunk.pcm:
                    yield _delta(chunk.pcm) if sse else chunk.pcm
            if sse:
                yield _done(asked, first.ledger_id)
        except SaysoError as error:  # it began as a success: only events can say so now
            if not sse:
                raise
            yield _event({"type": "error", "error": problem_of(error).said()})
        finally:
            await chunks.aclose()
            home.tokens.spend_seconds(token, took - about, float("inf"), asked.samples)
            home.metrics.audio.inc(took)

    kind = EVENTS if sse else f"audio/pcm;rate={first.sample_rate}"
    return StreamingResponse(pieces(), 200, headers, kind)


async def _check_still(home: House, token: Token, ledger_id: str) -> None:
    """TokenError or RefusedError if a stream's token or voice was revoked since it began.

    The gate has looked when a chunk was made; one may have waited for a client that reads slowly.
    """
    home.tokens.check_still(token)

    def look(desk: Desk) -> None:
        voice = desk.store.entries("granted", ledger_id)[-1].content["voice"]
        if silent(desk.store, voice):
            raise RefusedError("voice-revoked", f"The voice {voice!r} was withdrawn meanwhile.")

    await home.desk.go_on(look)


def _reckoned(asked: Speech) -> float:
    """Seconds of audio that a text will take, about."""
    return 1.0 + len(asked.input) / PACE / asked.speed


def _headers(ledger_id: str, seed: int, rate: int) -> dict[str, str]:
    return {
        "X-Sayso-Ledger-Id": ledger_id,
        "X-Sayso-Seed": str(seed),
        "X-Sayso-Sample-Rate": str(rate),
        "X-Sayso-Synthetic": "yes",
    }


def _check(home: House, asked: Speech) -> None:
    if asked.model != home.model_name:
        message = f"The model here is {home.model_name!r}."
        raise ProblemError(404, "model-unknown", message, "model")
    if asked.instructions:
        raise ProblemError(400, "field-refused", NO_INSTRUCTIONS, "instructions")
    if len(asked.input) > home.settings.text:
        message = f"The text has {len(asked.input)} characters; at most {home.settings.text} are "
        raise ProblemError(400, "text-too-long", message + "taken at once: send it in parts.")


def say(
    home: House, synthesizer: Synthesizer, asked: Speech, voice: str, user: str, gone: Event
) -> Said:
    """Speak into the spool and take the released file out of it: bytes, or an error and nothing."""
    suffix = asked.response_format
    out = home.spool / f"speech-{secrets.token_hex(8)}.{suffix}"
    try:
        with unnamed(out):
            spoken = synthesizer.speak(
                asked.input,
                voice,
                out,
                asked.purpose,
                user,
                asked.seed,
                alteration=Alteration(speed=asked.speed),
                samples=asked.samples,
                gone=gone,
            )
        data = read_bounded(out, MOST_WEIGHTS)
    finally:
        for path in (out, sidecar_of(out)):
            path.unlink(missing_ok=True)
    return Said(data, TYPES[suffix], synthesizer.bundle.codec.sample_rate, spoken)


def events(said: Said, asked: Speech) -> Iterator[bytes]:
    """A finished file in pieces, as server-sent events."""
    for start in range(0, len(said.data), PIECE):
        yield _delta(said.data[start : start + PIECE])
    yield _done(asked, said.spoken.ledger_id)


def _delta(data: bytes) -> bytes:
    return _event({"type": "speech.audio.delta", "audio": base64.b64encode(data).decode()})


def _done(asked: Speech, ledger_id: str) -> bytes:
    size = len(asked.input)  # in characters: this model has no tokens to count
    usage = {"input_tokens": size, "output_tokens": 0, "total_tokens": size}
    return _event({"type": "speech.audio.done", "usage": usage, "ledger_id": ledger_id})


def _event(content: dict) -> bytes:
    return f"data: {json.dumps(content)}\n\n".encode()


@router.get("/v1/models")
async def models(request: Request) -> dict:
    """The one model that is served."""
    return {"object": "list", "data": [_model(house(request))]}


@router.get("/v1/models/{model}")
async def model(request: Request, model: str) -> dict:
    """The same by its name."""
    if model != house(request).model_name:
        raise ProblemError(404, "model-unknown", f"The model is {house(request).model_name!r}.")
    return _model(house(request))


def _model(home: House) -> dict:
    return {"id": home.model_name, "object": "model", "created": home.began, "owned_by": "sayso"}
