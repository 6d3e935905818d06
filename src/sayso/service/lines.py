"""Lines: one thread each, with what it works on, and a bounded queue before it.

A store belongs to the thread that opened it, and a model says one thing at a time.
"""

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

from starlette.requests import Request

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


class GoneError(Exception):
    """The client left before it was answered."""


class Line(Generic[T]):
    """One worker thread.

    Args:
        make: Opens what it works on, in its thread.
        most: Requests that may wait or be worked on.
    """

    def __init__(self, name: str, make: Callable[[], T], most: int):
        self.name, self.most = name, most
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=f"sayso-{name}")
        self._open: set[Future] = set()
        self._make = make
        self._made: T | None = None
        self._took = 1.0  # seconds, a running mean

    def __len__(self) -> int:
        """Requests that wait or are worked on."""
        return len(self._open)

    @property
    def ready(self) -> bool:
        """Whether it can begin at once what it is asked."""
        return self._made is not None

    def begin(self) -> Future:
        """Open what it works on, now."""
        return self._pool.submit(self._opened)

    def _opened(self) -> T:
        if self._made is None:
            self._made = self._make()
        return self._made

    async def ask(self, request: Request, work: Callable[[T], R], stay: bool = False) -> R:
        """Do `work` in the thread, unless its client leaves before it is begun.

        Args:
            stay: Wait for work that has begun even if the client left: it needs the caller's files.
        Raises:
            FullError: Too many wait.
            GoneError: The client left.
        """
        if len(self._open) >= self.most:
            raise FullError(max(1.0, self._took * self.most))

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
        while not (await asyncio.wait({answer}, timeout=LOOK_SECONDS))[0]:
            gone = await request.is_disconnected()
            if gone and (future.cancel() or not stay):  # what has begun ends unheard
                raise GoneError
        return answer.result()

    async def flow(
        self, request: Request, work: Callable[[T], Iterator[R]]
    ) -> AsyncGenerator[R, None]:
        """What `work` yields in the thread, piece by piece; it is closed when its client leaves.

        Errors as of `ask`.
        """
        loop, pieces, gone = asyncio.get_running_loop(), asyncio.Queue[R](), threading.Event()

        def pump(made: T) -> None:
            found = work(made)
            for piece in found:
                loop.call_soon_threadsafe(pieces.put_nowait, piece)
                if gone.is_set() and isinstance(found, Generator):
                    found.close()

        done = asyncio.ensure_future(self.ask(request, pump))
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

    def close(self) -> None:
        """Refuse what has not begun and wait for what has."""
        self._pool.shutdown(wait=True, cancel_futures=True)
