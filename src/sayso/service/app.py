"""The app: every route is one of the library's verbs, behind the door, and one page."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import Depends, FastAPI, Request
from fastapi.responses import FileResponse, Response
from fastapi.security import HTTPBearer
from fastapi.staticfiles import StaticFiles
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

import sayso

from . import marks, speech, voices
from .door import Door, check_role
from .errors import Json, install
from .house import House, Settings, house

PAGE = Path(__file__).parent / "page"
ABOUT = """Speech in the voice of somebody who said so. All of it is synthetic, and marked as such:
an inaudible watermark and a signed C2PA manifest. Every refusal has a reason code, in `error.code`.
"""


def create_app(settings: Settings) -> FastAPI:
    """The app over one model and one store; opened when it starts.

    Raises:
        InputError: The service's folder cannot be used.
    """
    home = House(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        try:
            for line in home.lines:  # one after the other: the first may have to make the store
                await asyncio.wrap_future(line.begin())
            yield
        finally:
            await asyncio.to_thread(home.close)

    app = FastAPI(
        title="Sayso",
        version=sayso.__version__,
        description=ABOUT,
        docs_url=None,  # they load scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
        default_response_class=Json,
        dependencies=[Depends(HTTPBearer(auto_error=False)), Depends(check_role)],
    )
    app.state.house = home
    install(app)
    for part in (speech, voices, marks):
        app.include_router(part.router)

    @app.get("/healthz")
    async def healthz() -> dict:
        """That the process answers."""
        return {"status": "up"}

    @app.get("/readyz")
    async def readyz(request: Request) -> Json:
        """That it would speak."""
        ready = house(request).ready
        return Json({"ready": ready}, 200 if ready else 503)

    @app.get("/metrics", response_class=Response)
    async def metrics(request: Request) -> Response:
        """Numbers for Prometheus; of this process alone."""
        data = generate_latest(house(request).metrics.registry)
        return Response(data, media_type=CONTENT_TYPE_LATEST)

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        """The page."""
        return FileResponse(PAGE / "index.html")

    app.mount("/page", StaticFiles(directory=PAGE), name="page")
    app.add_middleware(Door, house=home)
    return app
