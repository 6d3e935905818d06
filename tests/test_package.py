"""The package as users get it: the wheel, and who may import whom."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SAY = ("--text", "So be it.", "--out")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    return next(out.glob("*.whl"))


def test_the_wheel_has_one_top_level_name_and_the_model(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"sayso"}
    for needed in (
        "sayso/py.typed",
        "sayso/model/ar.py",
        "sayso/model/corpora.yaml",
        "sayso/inference/gate.py",
        "sayso/assets/mini/ar/model.safetensors",
        "sayso/assets/mini/voices/nobody/receipt.jws",
    ):
        assert needed in names


def test_the_wheel_speaks_outside_the_repository(wheel, tmp_path):
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    code = (
        "import sayso, sys; assert sayso.__file__.startswith(sys.argv.pop(1)), sayso.__file__\n"
        "from sayso.cli import main; main()"
    )
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            code,
            str(site),
            "speak",
            "--voice",
            "nobody",
            "--text",
            "So be it.",
            "--out",
            str(tmp_path / "said.wav"),
        ],
        cwd=tmp_path,
        env={
            "PYTHONPATH": str(site),
            "SAYSO_HOME": str(tmp_path / "home"),
            "PATH": "/usr/bin:/bin",
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "said.wav").stat().st_size > 10_000


def test_the_sampling_tests_need_no_model_and_no_corpus():
    text = (ROOT / "tests" / "test_sampling.py").read_text()
    assert "kathleen" not in text
    assert "BUNDLED" not in text


def test_the_public_api_is_frozen():
    import sayso

    public = ["RefusedError", "Sampling", "SaysoError", "Store", "Synthesizer", "detect"]
    assert sayso.__all__ == public
    for name in public:
        assert getattr(sayso, name).__module__.startswith("sayso.")
    with pytest.raises(AttributeError):
        _ = sayso.decode  # type: ignore[attr-defined]
