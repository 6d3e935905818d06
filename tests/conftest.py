"""Shared by all tests: where the shared corpora are, and the same arithmetic on every machine."""

from pathlib import Path

import pytest
import torch

SHARED = Path(__file__).resolve().parents[1].parent / "shared"


@pytest.fixture(scope="session", autouse=True)
def few_threads():
    """Two slow cores: more threads only fight."""
    torch.set_num_threads(2)


@pytest.fixture(scope="session")
def kathleen() -> Path:
    """The Kathleen corpus, or a loud skip."""
    folder = SHARED / "corpora" / "kathleen"
    if not (folder / "metadata.tsv").is_file():
        pytest.skip(f"no shared corpora: {folder} is missing")
    return folder


@pytest.fixture(scope="module")
def no_bundled_voice(tmp_path_factory: pytest.TempPathFactory):
    """These stores hold what the test puts in; the voice that ships has a test of its own."""
    from sayso.inference.consent import (
        other_voices,  # here, as the tests of sampling need none of it
    )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(other_voices, "ASSETS", tmp_path_factory.mktemp("assets"))
        yield
