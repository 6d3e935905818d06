"""Shared by all tests: real speech, and the same arithmetic on every machine."""

from pathlib import Path

import pytest
import torch

from speech import KATHLEEN


@pytest.fixture(scope="session", autouse=True)
def few_threads():
    """Two slow cores: more threads only fight."""
    torch.set_num_threads(2)


@pytest.fixture(scope="session")
def kathleen() -> Path:
    """A part of the Kathleen corpus, laid out as the whole."""
    return KATHLEEN


@pytest.fixture(scope="module")
def no_bundled_voice(tmp_path_factory: pytest.TempPathFactory):
    """These stores hold what the test puts in; the voice that ships has a test of its own."""
    from sayso.inference.consent import (
        other_voices,  # here, as the tests of sampling need none of it
    )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(other_voices, "ASSETS", tmp_path_factory.mktemp("assets"))
        yield
