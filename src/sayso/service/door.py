"""The door: size, token, rate and headers of every request, before any route sees it.

Who may call which route stands in `MAY`; one that is not in it nobody may.
"""

import time
from http import HTTPStatus

from fastapi import Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .errors import ProblemError, problem_of
from .house import House, caller
from .lines import StoppingError
from .tokens import ROLES

ALL = ROLES
MAY = {  # a route's method and path -> the roles that may call it
    ("POST", "/v1/audio/speech"): ("admin", "reviewer"),
    ("GET", "/v1/models"): ALL,
    ("GET", "/v1/models/{model}"): ALL,
    ("GET", "/v1/me"): ALL,
    ("GET", "/v1/voices"): ALL,
    ("POST", "/v1/consents"): ALL,
    ("POST", "/v1/consents/{session}/recording"): ALL,
    ("GET", "/v1/voices/{voice}/receipt"): ALL,
    ("DELETE", "/v1/voices/{voice}"): ALL,
    ("POST", "/v1/detect"): ALL,
    ("GET", "/v1/manifests/{ledger_id}"): ALL,
    ("GET", "/v1/keys"): ALL,
    ("GET", "/v1/root"): ALL,
    ("GET", "/v1/ledger/head"): ALL,
    ("POST", "/v1/ledger/check"): ALL,
    ("GET", "/v1/ledger"): ("admin", "reviewer"),
    ("GET", "/v1/ledger/verify"): ("admin", "reviewer"),
    ("GET", "/metrics"): ALL,
}
OPEN = ("/", "/healthz", "/readyz", "/openapi.json")
"""Without a token, as is the page below /page/."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def check_role(request: Request) -> None:
    """ProblemError unless the token's role may call this route."""
    path = request.scope["route"].path
    if path not in OPEN and caller(request).role not in MAY.get((request.method, path), ()):
        message = f"A {caller(request).role}'s token may not do this: ask for another."
        raise ProblemError(403, "token-role", message)


class Door:
    """The outermost layer, in plain ASGI: it can refuse before a body is read."""

    def __init__(self, app: ASGIApp, house: House):
        self.app, self.house = app, house

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let one request through, or answer it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status = 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                if self.house.settings.secure:
                    headers["Strict-Transport-Security"] = "max-age=31536000"
            await send(message)

        began = time.monotonic()
        try:
            limited = self._let_in(scope, receive)
            await self.app(scope, limited, sending)
        except Exception as error:
            if status:  # it broke off in the middle: so does the answer
                raise
            problem = problem_of(error)
            self.house.metrics.refused.labels(problem.code).inc()
            await problem.response()(scope, receive, sending)
        finally:
            route = getattr(scope.get("route"), "path", "none")  # else any address is a label
            self.house.metrics.answered.labels(route, str(status)).inc()
            if route == "/v1/audio/speech" and status == HTTPStatus.OK:
                self.house.metrics.spoke.observe(time.monotonic() - began)

    def _let_in(self, scope: Scope, receive: Receive) -> Receive:
        """Check token and rate; what is received is counted from here on."""
        headers, settings = Headers(scope=scope), self.house.settings
        upload = headers.get("content-type", "").startswith("multipart/")
        most = settings.body if upload else settings.json
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length[:20]) > most:
            raise _too_large(most)
        if scope["path"] not in OPEN and not scope["path"].startswith("/page/"):
            if self.house.stopping:
                raise StoppingError
            kind, _, shown = headers.get("authorization", "").partition(" ")
            if kind.lower() != "bearer" or not shown:
                message = "Send a token: Authorization: Bearer sayso-... (sayso token create)."
                raise ProblemError(401, "token-missing", message)
            token = self.house.tokens.check(shown.strip())
            self.house.tokens.count_request(token, settings.requests)
            scope.setdefault("state", {})["token"] = token
        received = 0

        async def limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > most:
                raise _too_large(most)
            return message

        return limited


def _too_large(most: int) -> HTTPException:
    """Of the one kind of error that leaves a half-read body as it is."""
    return HTTPException(413, f"At most {most} bytes are taken")
