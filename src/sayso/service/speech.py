"""Speech, as OpenAI's clients ask for it: `Synthesizer.speak` behind a line.

What is sent is the marked file that was released. `pcm` is the samples of a released WAV: it
carries the watermark, and its manifest is at /v1/manifests/{ledger_id}, as that of `opus` is.
"""

import base64
import io
import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import soundfile
from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from sayso.inference.synthesizer import Spoken, Synthesizer
from sayso.model.codecs.voice_edit import Alteration

from .errors import ProblemError
from .house import House, caller, check_sees, house
from .tokens import Token
from .uploads import unnamed

router = APIRouter()
TYPES = {"wav": "audio/wav", "flac": "audio/flac", "mp3": "audio/mpeg", "opus": "audio/ogg"}
MOST_SAMPLES = 5
PIECE = 2**15  # bytes of audio in one event
PACE = 14.0  # characters a second, to reckon what a text will take
REFUSED_FIELDS = {
    "instructions": "This model takes no instructions: it says the text in the voice as it is.",
    "pitch": "Pitch is not changed here: see sayso speak --pitch.",
}


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
    samples: int = Field(1, ge=1, le=MOST_SAMPLES, description="The best of so many is sent.")
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
            "content": {kind: {} for kind in (*TYPES.values(), "audio/pcm", "text/event-stream")},
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
    about = 1.0 + len(asked.input) / PACE / asked.speed
    home.tokens.spend_seconds(token, about, home.settings.seconds)
    took = 0.0
    try:
        said = await home.speaking.ask(
            request, lambda synthesizer: say(home, synthesizer, asked, voice, token.name)
        )
        took = said.spoken.seconds
    finally:
        home.tokens.spend_seconds(token, took - about, float("inf"))
    home.metrics.audio.inc(took)
    headers = {
        "X-Sayso-Ledger-Id": said.spoken.ledger_id,
        "X-Sayso-Seed": str(said.spoken.seed),
        "X-Sayso-Seconds": f"{took:.3f}",
        "X-Sayso-Sample-Rate": str(said.rate),
        "X-Sayso-Synthetic": "yes",
    }
    if asked.stream_format == "sse":
        return StreamingResponse(events(said, asked), 200, headers, "text/event-stream")
    return Response(said.data, 200, headers, said.kind)


def _check(home: House, asked: Speech) -> None:
    if asked.model != home.model_name:
        message = f"The model here is {home.model_name!r}."
        raise ProblemError(404, "model-unknown", message, "model")
    for name, why in REFUSED_FIELDS.items():
        if getattr(asked, name, None):
            raise ProblemError(400, "field-refused", why, name)
    if len(asked.input) > home.settings.text:
        message = f"The text has {len(asked.input)} characters; at most {home.settings.text} are "
        raise ProblemError(400, "text-too-long", message + "taken at once: send it in parts.")


def say(home: House, synthesizer: Synthesizer, asked: Speech, voice: str, user: str) -> Said:
    """Speak into the spool and take the released file out of it: bytes, or an error and nothing."""
    pcm = asked.response_format == "pcm"
    suffix = "wav" if pcm else asked.response_format
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
            )
        data = out.read_bytes()
    finally:
        for path in (out, Path(f"{out}.c2pa")):
            path.unlink(missing_ok=True)
    rate = synthesizer.bundle.codec.sample_rate
    if not pcm:
        return Said(data, TYPES[suffix], rate, spoken)
    samples, rate = soundfile.read(io.BytesIO(data), dtype="int16")
    return Said(samples.astype("<i2").tobytes(), f"audio/pcm;rate={rate}", rate, spoken)


def events(said: Said, asked: Speech) -> Iterator[bytes]:
    """The finished file in pieces, as server-sent events: a voice is not heard before its marks."""
    for start in range(0, len(said.data), PIECE):
        piece = base64.b64encode(said.data[start : start + PIECE]).decode()
        yield _event({"type": "speech.audio.delta", "audio": piece})
    tokens = len(asked.input.encode())
    usage = {"input_tokens": tokens, "output_tokens": 0, "total_tokens": tokens}
    done = {"type": "speech.audio.done", "usage": usage, "ledger_id": said.spoken.ledger_id}
    yield _event(done)


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
