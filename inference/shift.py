"""Threads that are there only while there is work, and that take no core from each other.

Each thread in which PyTorch computes has helpers of its own (an OpenMP team): of several on two
cores they wait for each other at every small product, and a sentence takes half as long again.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from typing import Generic, TypeVar

import torch
from threadpoolctl import ThreadpoolController

T = TypeVar("T")


@cache
def _pools() -> ThreadpoolController:
    """The libraries that keep helpers, looked for once."""
    return ThreadpoolController()


@contextmanager
def alone() -> Iterator[None]:
    """Inside, PyTorch computes with the calling thread only; other threads keep their helpers."""
    torch.get_num_threads()  # PyTorch gives a thread its helpers when it is first asked
    with _pools().limit(limits=1, user_api="openmp"):
        yield


class Shift(Generic[T]):
    """A thread that is there only while there is work."""

    def __init__(
        self,
        name: str,
        work: Callable[[list[T]], bool],
        inside: Callable[[], AbstractContextManager[None]],
    ):
        """Do `work` with what is new, over and over while it says that some is left, `inside`."""
        self.name, self.work, self.inside = name, work, inside
        self._lock, self._new, self._there = threading.Lock(), list[T](), False

    def give(self, jobs: list[T]) -> None:
        """Something new, from any thread; what comes together is worked on together."""
        with self._lock:
            self._new += jobs
            if self._new and not self._there:
                self._there = True
                threading.Thread(target=self._run, name=self.name).start()

    def _run(self) -> None:
        left = False
        with self.inside():
            while True:
                with self._lock:
                    new, self._new = self._new, []
                    if not new and not left:
                        self._there = False
                        return
                left = self.work(new)
