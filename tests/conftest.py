"""Shared by all tests: real speech, and the same arithmetic on every machine."""

import time
from pathlib import Path

import pytest
import torch

from speech import KATHLEEN


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Two processes run the tests (see Makefile): more threads only fight."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def kathleen() -> Path:
    """A part of the Kathleen corpus, laid out as the whole."""
    return KATHLEEN


class Clock:
    """The store's clocks, standing where they are put."""

    def __init__(self):
        self.now = time.time()
        self.steady = 1000.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Sets the time of every store in this process; nothing public does."""
    from sayso.inference.store import clock as clocks

    clock = Clock()
    monkeypatch.setattr(clocks, "wall", lambda: clock.now)
    monkeypatch.setattr(clocks, "since_boot", lambda: clock.steady)
    return clock


@pytest.fixture(scope="module")
def no_bundled_voice(tmp_path_factory: pytest.TempPathFactory):
    """These stores hold what the test puts in; the voice that ships has a test of its own."""
    from sayso.inference.consent import (
        other_voices,  # here, as the tests of sampling need none of it
    )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(other_voices, "ASSETS", tmp_path_factory.mktemp("assets"))
        yield
