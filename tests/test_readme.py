"""What README.md tells a newcomer to type: the first part runs, the rest is understood."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from sayso.cli import app

README = Path(__file__).resolve().parents[1] / "README.md"
RUN = {"speak --voice nobody", "detect", "voices", "enrol start"}
"""Beginnings of the commands that run here; training has tests of its own."""


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(), re.DOTALL)


def commands() -> list[list[str]]:
    """Arguments of every `sayso` command, in order."""
    lines = "\n".join(blocks("sh")).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("sayso ")]


def understood(arguments: list[str]) -> None:
    """Parse a command as the command line does, and run nothing."""
    command, name = typer.main.get_command(app), "sayso"
    while hasattr(command, "commands"):
        name, *arguments = arguments
        command = command.commands[name]  # type: ignore[attr-defined]
    command.make_context(name, list(arguments))


@pytest.mark.parametrize("arguments", commands(), ids=lambda arguments: " ".join(arguments[:2]))
def test_every_command_is_understood(arguments: list[str]):
    understood(arguments)


def test_a_wrong_command_is_not():
    with pytest.raises(Exception, match="No such option"):
        understood(["speak", "--voise", "nobody"])


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("readme")


def call(home: Path, arguments: list[str]) -> str:
    environment = {"SAYSO_HOME": str(home / "store"), "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=home, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_first_commands_run(home: Path):
    ran = [a for a in commands() if any(" ".join(a).startswith(start) for start in RUN)]
    assert len(ran) == len(RUN)
    printed = [call(home, ["-m", "sayso", *arguments]) for arguments in ran]
    assert (home / "morning.wav").stat().st_size > 20_000
    assert "watermark found" in printed[0] and "yes" in printed[1] and "nobody" in printed[2]


def test_the_python_example_runs(home: Path):
    (example,) = blocks("python")
    assert "verdict: marked" in call(home, ["-c", example])
