"""Lines: a few threads each, each with what it works on, and a bounded queue before them.

A store belongs to the thread that opened it.
"""

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

from starlette.requests import Request

from sayso.inference.errors import GoneError

T = TypeVar("T")
R = TypeVar("R")
LOOK_SECONDS = 0.5  # between two looks whether the client is still there


class FullError(Exception):
    """There is no place in a line.

    Args:
        wait: Seconds after which it is worth asking again.
    """

    def __init__(self, wait: float):
        super().__init__(f"wait {wait:.0f} s")
        self.wait = wait


class StoppingError(Exception):
    """The service ends before this is begun."""


class Line(Generic[T]):
    """Worker threads.

    Args:
        make: Opens what it works on, in each of its threads.
        most: Requests that may wait.
        threads: Requests that are worked on at once.
    """

    def __init__(self, name: str, make: Callable[[], T], most: int, threads: int = 1):
        self.name, self.most, self.threads = name, most, threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=f"sayso-{name}")
        self._open: set[Future] = set()
        self._make = make
        self._own = threading.local()
        self.ready = False  # whether it can begin at once what it is asked
        self._took = 1.0  # seconds, a running mean

    def __len__(self) -> int:
        """Requests that wait or are worked on."""
        return len(self._open)

    def begin(self) -> Future:
        """Open what it works on, now."""
        return self._pool.submit(self._opened)

    def _opened(self) -> T:
        if not hasattr(self._own, "made"):
            self._own.made = self._make()
            self.ready = True
        return self._own.made

    async def ask(
        self,
        request: Request,
        work: Callable[[T], R],
        stay: bool = False,
        gone: threading.Event | None = None,
    ) -> R:
        """Do `work` in a thread, unless its client leaves before it is begun.

        Args:
            stay: Wait for work that has begun even if the client left: it needs the caller's files.
            gone: Set when nobody waits for it any more, for work that looks at it.
        Raises:
            FullError: Too many wait.
            GoneError: The client left.
            StoppingError: The service ends before this is begun.
        """
        if len(self._open) >= self.most + self.threads:
            raise FullError(max(1.0, self._took * self.most / self.threads))

        def timed() -> R:
            began = time.monotonic()
            try:
                return work(self._opened())
            finally:
                self._took += 0.2 * (time.monotonic() - began - self._took)

        future = self._pool.submit(timed)
        self._open.add(future)
        future.add_done_callback(self._open.discard)
        answer = asyncio.wrap_future(future)
        answer.add_done_callback(lambda each: each.cancelled() or each.exception())  # seen
        try:
            while not (await asyncio.wait({answer}, timeout=LOOK_SECONDS))[0]:
                left = await request.is_disconnected()
                if left and (future.cancel() or not stay):  # what has begun ends unheard
                    raise GoneError("The client left.")
            if future.cancelled():
                raise StoppingError
            return answer.result()
        finally:
            future.cancel()
            if gone is not None:
                gone.set()

    async def go_on(self, work: Callable[[T], R]) -> R:
        """Do `work`, a part of what has begun: it takes nobody's place, and is not refused."""
        return await asyncio.wrap_future(self._pool.submit(lambda: work(self._opened())))

    async def flow(
        self, request: Request, work: Callable[[T, threading.Event], Iterator[R]]
    ) -> AsyncGenerator[R, None]:
        """What `work` yields in the thread, piece by piece; told when its client has left.

        Errors as of `ask`.
        """
        loop, pieces, gone = asyncio.get_running_loop(), asyncio.Queue[R](), threading.Event()

        def pump(made: T) -> None:
            for piece in work(made, gone):
                loop.call_soon_threadsafe(pieces.put_nowait, piece)

        done = asyncio.ensure_future(self.ask(request, pump, gone=gone))
        waits = asyncio.ensure_future(pieces.get())
        try:
            while (await asyncio.wait({waits, done}, return_when=asyncio.FIRST_COMPLETED))[0]:
                if not waits.done():
                    break
                yield waits.result()
                waits = asyncio.ensure_future(pieces.get())
            waits.cancel()
            await done
            while not pieces.empty():  # came with its end
                yield pieces.get_nowait()
        finally:
            gone.set()
            waits.cancel()
            done.cancel()

    def refuse(self) -> None:
        """Refuse what has not begun; from any thread."""
        for future in [*self._open]:
            future.cancel()

    def close(self) -> None:
        """Refuse what has not begun and wait for what has."""
        self._pool.shutdown(wait=True, cancel_futures=True)
