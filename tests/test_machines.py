"""Machines with one thing wrong: a verb does its work, or says in one line what to mend.

The whole matrix of verbs and faults is `python -m benchmarks.machines`.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.machines import FAULTS, Place, case, prepare

VERBS = "enrol start", "train text"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("machine")
    prepare(folder, spoken=False)
    return folder


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_one_line_and_nothing_half(base: Path, fault: Callable[[Place], None]):
    assert [wrong for verb in VERBS if (wrong := case(base, fault, verb))] == []


def test_no_id_of_the_machine_is_made_for_anybody(tmp_path: Path):
    """ONNX Runtime sends events to its maker unless it is told not to before it is imported."""
    pytest.importorskip("onnxruntime", reason="the extra enrol is absent")
    env = {name: value for name, value in os.environ.items() if "TELEMETRY" not in name}
    env |= {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    program = "import sayso, onnxruntime"
    subprocess.run([sys.executable, "-c", program], env=env, check=True)
    assert list(tmp_path.rglob("*")) == []
