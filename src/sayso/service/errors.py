"""What a client is told when something is refused: OpenAI's shape, with the gate's reason code."""

import json
import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from sayso.inference.errors import GoneError, MarkError, RefusedError, StoreError
from sayso.model.errors import InputError, SaysoError, UnfinishedError

from .lines import FullError, StoppingError
from .tokens import SpentError, TokenError

log = logging.getLogger("sayso.service")
TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
}
STATUS = {  # of the gate's codes; the others are 403, and an enrolment's checks 422
    "text-unusable": 400,
    "voice-unknown": 404,
    "session-unknown": 404,
    "session-used": 410,
    "session-expired": 410,
}
REMEDIES = {404: "See /openapi.json.", 405: "See /openapi.json.", 413: "Send less at once."}


class Json(JSONResponse):
    """JSON in ASCII: whatever a client sent can be said back to it."""

    def render(self, content: Any) -> bytes:
        """The bytes of the body."""
        return json.dumps(content, separators=(",", ":"), allow_nan=False).encode("ascii")


class ProblemError(Exception):
    """An answer that is no success.

    Args:
        more: Further fields of the error object.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        param: str | None = None,
        wait: float | None = None,
        more: dict[str, Any] | None = None,
    ):
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.param, self.wait, self.more = param, wait, more or {}

    def said(self) -> dict[str, Any]:
        """It as OpenAI's API says it."""
        kind = TYPES.get(self.status, "invalid_request_error")
        said = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return said | self.more

    def response(self) -> Json:
        """It as an answer."""
        headers = {"X-Sayso-Code": self.code}
        if self.wait is not None:
            headers["Retry-After"] = str(max(1, round(self.wait)))
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return Json({"error": self.said()}, self.status, headers)


def problem_of(error: Exception) -> ProblemError:
    """What a client is told of an error. No path of this machine, nothing of its inside."""
    match error:
        case ProblemError():
            return error
        case RefusedError():
            message = str(error).removesuffix(f" [{error.code}]")
            return ProblemError(STATUS.get(error.code, 403), error.code, message)
        case TokenError():
            return ProblemError(401, error.code, str(error))
        case SpentError():
            return ProblemError(429, error.code, str(error), wait=error.wait)
        case FullError():
            message = f"All places are taken: try again in {error.wait:.0f} s."
            return ProblemError(429, "queue-full", message, wait=error.wait)
        case StoppingError():
            return ProblemError(503, "stopping", "The service is being stopped.", wait=10)
        case GoneError():
            return ProblemError(499, "client-gone", "You left.")
        case UnfinishedError():
            return ProblemError(422, "unfinished", str(error).replace("--seed", "seed"))
        case MarkError():
            log.warning("a mark could not be made: %s", error)
            message = "The marks did not hold on this: nothing is sent. Say more, or another seed."
            return ProblemError(422, "mark-missing", message)
        case InputError():
            return ProblemError(400, "input", str(error))
        case StoreError() | SaysoError():
            log.error("%s: %s", type(error).__name__, error)
            return ProblemError(503, "store", "The store cannot be used now: tell its operator.")
        case RequestValidationError():
            first = error.errors()[0]
            param = ".".join(str(part) for part in first["loc"][1:]) or None
            known = first["type"] == "extra_forbidden"
            said = "This field is not known here." if known else f"{first['msg']}."
            return ProblemError(400, "unknown-field" if known else "field", said, param)
        case HTTPException():
            message = f"{error.detail}. {REMEDIES.get(error.status_code, '')}".strip()
            code = "body-too-large" if error.status_code == 413 else f"http-{error.status_code}"
            return ProblemError(error.status_code, code, message)
    log.error("unforeseen %s", type(error).__name__, exc_info=error)
    return ProblemError(500, "internal", "Something went wrong here; it was logged.")


def install(app: FastAPI) -> None:
    """Let every known error of the app leave as `problem_of` has it; the door has the others."""

    async def answer(request: Request, error: Exception) -> Json:
        problem = problem_of(error)
        request.app.state.house.metrics.refused.labels(problem.code).inc()
        return problem.response()

    own = (SaysoError, ProblemError, FullError, StoppingError)
    for kind in (*own, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, answer)
