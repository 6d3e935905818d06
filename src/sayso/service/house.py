"""What the service holds while it runs: its settings, tokens, metrics and lines."""

import asyncio
import shutil
import threading
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from fastapi import Request
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from sayso.inference.detection.detector import Detector
from sayso.inference.gate import Gate
from sayso.inference.recognisers import Ears, load_ears
from sayso.inference.store.store import Store
from sayso.inference.synthesizer import Synthesizer
from sayso.inference.watermark.perth import Perth, load_watermarker
from sayso.model.bundle import BUNDLED
from sayso.model.codecs.base import Codec
from sayso.model.codecs.load import load_codec
from sayso.model.engine import ROWS

from .errors import ProblemError
from .lines import Line
from .tokens import Token, Tokens, service_folder
from .uploads import AT_ONCE


@dataclass(frozen=True)
class Settings:
    """How the service runs; each limit is a flag of `sayso serve`.

    Args:
        home: The store; None for the default one.
        controller: Who is responsible for consents that name nobody; None asks for it.
        body, json: Bytes of a request with a file, and of any other.
        text: Characters of one request.
        requests: A minute, of one token.
        seconds: Of audio a day, of one token.
        upload_seconds: Of audio in an upload.
        queue: Requests that wait in each line.
        secure: Whether it is reached through TLS.
    """

    model: Path = BUNDLED
    home: Path | None = None
    device: str = "auto"
    precision: str = "fp32"
    compiled: bool = False
    controller: str | None = None
    body: int = 32 * 2**20
    json: int = 2**18
    text: int = 4096
    requests: int = 120
    seconds: float = 3600.0
    upload_seconds: float = 600.0
    queue: int = 16
    secure: bool = False

    @property
    def folder(self) -> Path:
        """Of the service's own files."""
        return service_folder(self.home)


class Desk:
    """The store, for what takes milliseconds."""

    def __init__(self, settings: Settings):
        self.store = Store.open(settings.home)
        self.gate = Gate(self.store)


class Hearing(Desk):
    """The store and what a consent is checked with."""

    def __init__(self, settings: Settings):
        super().__init__(settings)
        self.codec: Codec = load_codec(settings.model / "codec")
        self._ears: Ears | None = None

    @property
    def ears(self) -> Ears:
        """Loaded for the first consent."""
        self._ears = self._ears or load_ears()
        return self._ears


class Looking(Desk):
    """The store and the detector's parts."""

    def __init__(self, settings: Settings):
        super().__init__(settings)
        self.perth: Perth = load_watermarker()

    def detector(self) -> Detector:
        """One that knows every row up to now."""
        return Detector(self.store.home, self.perth)


class Metrics:
    """What /metrics tells: numbers, no names and no texts."""

    def __init__(self) -> None:
        self.registry = own = CollectorRegistry()
        labels = ["route", "status"]
        self.answered = Counter("sayso_requests", "Answers.", labels, registry=own)
        self.refused = Counter("sayso_refusals", "By reason code.", ["code"], registry=own)
        self.audio = Counter("sayso_audio_seconds", "Speech released.", registry=own)
        self.waiting = Gauge("sayso_line_length", "Requests in a line.", ["line"], registry=own)
        spans = (0.5, 1, 2, 5, 10, 20, 40, 80)
        about = "From asking to the finished file."
        self.spoke = Histogram("sayso_speak_seconds", about, buckets=spans, registry=own)


@dataclass
class House:
    """Everything that the routes share; made before the app starts, opened when it does."""

    settings: Settings
    tokens: Tokens = field(init=False)
    metrics: Metrics = field(default_factory=Metrics)
    stopping: bool = False

    def __post_init__(self) -> None:
        settings = self.settings
        self.tokens = Tokens(settings.folder)
        self.spool = settings.folder / "spool"
        self.spool.mkdir(mode=0o700, exist_ok=True)
        self.trying = asyncio.Semaphore(AT_ONCE)
        self.began = int(time.time())
        most = settings.queue
        self._speaker: Synthesizer | None = None
        self._opening = threading.Lock()
        self.speaking: Line[Synthesizer] = Line("speak", self._synthesizer, most, ROWS)
        self.desk: Line[Desk] = Line("desk", lambda: Desk(settings), 8 * most)
        self.hearing: Line[Hearing] = Line("enrol", lambda: Hearing(settings), most)
        self.looking: Line[Looking] = Line("look", lambda: Looking(settings), most)
        self.lines = (self.speaking, self.desk, self.hearing, self.looking)
        for line in self.lines:
            self.metrics.waiting.labels(line.name).set_function(partial(len, line))

    def _synthesizer(self) -> Synthesizer:
        settings, store = self.settings, Store.open(self.settings.home)
        with self._opening:
            if self._speaker is not None:
                return self._speaker.beside(store)
            self._speaker = _speaker(settings, store)
            return self._speaker

    @property
    def codec_rate(self) -> int:
        """Hz of what the model's codec takes; only while the app runs."""
        assert self._speaker is not None  # opened before anything is served
        return self._speaker.bundle.codec.sample_rate

    @property
    def model_name(self) -> str:
        """Of the one model that is served."""
        return f"sayso-{self.settings.model.resolve().name}"

    @property
    def ready(self) -> bool:
        """Whether it speaks."""
        return self.speaking.ready and self.desk.ready and not self.stopping

    def refuse(self) -> None:
        """Refuse what has not begun, from now on."""
        self.stopping = True
        for line in self.lines:
            line.refuse()

    def close(self) -> None:
        """Finish what has begun, refuse the rest."""
        self.refuse()
        for line in self.lines:
            line.close()


def prepare(settings: Settings) -> None:
    """Open everything once, so that what is wrong is said before anybody is served.

    That also puts released files of killed processes into the spool; they are removed from it, for
    nobody waits for them.

    Raises:
        SaysoError: As `Synthesizer` says.
    """
    with Store.open(settings.home) as store:
        _speaker(settings, store)
    shutil.rmtree(settings.folder / "spool", ignore_errors=True)


def _speaker(settings: Settings, store: Store) -> Synthesizer:
    how = settings.device, settings.precision, settings.compiled
    return Synthesizer(settings.model, store, *how)


def house(request: Request) -> House:
    """The house of a request's app."""
    return request.app.state.house


def caller(request: Request) -> Token:
    """Whose token a request came with; the door has checked it."""
    return request.state.token


def check_sees(token: Token, voice: str) -> None:
    """ProblemError unless a token may use a voice; whether there is such a voice is not told."""
    if not token.sees(voice):
        message = "This token is not for that voice: ask whoever made it."
        raise ProblemError(403, "token-voice", message, "voice")
