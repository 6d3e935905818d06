"""No verb opens a network connection: the kernel kills the process that asks for a socket."""

import json
import subprocess
import sys
from pathlib import Path

import c2pa
import pytest
import torch

from sayso.inference.provenance import c2pa as ours
from sayso.inference.provenance.certificates import ensure_ca
from sayso.model.audio import write_audio

JAIL = """
import ctypes, json, platform, struct, sys
number = {"x86_64": 41, "aarch64": 198}[platform.machine()]  # of the system call `socket`
steps = [(0x20, 0, 0, 0), (0x15, 0, 3, number), (0x20, 0, 0, 16), (0x15, 2, 0, 2), (0x15, 1, 0, 10),
         (0x06, 0, 0, 0x7FFF0000), (0x06, 0, 0, 0x80000000)]  # IPv4, IPv6: killed; else allowed
program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
holder = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(steps), ctypes.addressof(program)))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0  # no new privileges, which a filter asks for
assert libc.prctl(22, 2, holder, 0, 0) == 0, ctypes.get_errno()
"""
VERBS = """
import contextlib
from sayso.cli import app
codes = []
for arguments in json.loads(sys.argv[1]):
    print("sayso", *arguments, file=sys.stderr, flush=True)
    *arguments, out = arguments if ">" in arguments else [*arguments, "", "/dev/null"]
    try:
        with open(out, "w") as file, contextlib.redirect_stdout(file):
            codes.append(app(arguments[:-1], standalone_mode=False) or 0)
    except BaseException as error:
        codes.append(f"{type(error).__name__}: {error}")
print(json.dumps(codes))
"""
SENTENCE = "The cat sat on the mat."
linux = pytest.mark.skipif(sys.platform != "linux", reason="the jail is Linux's seccomp")


def jailed(program: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", JAIL + program, *arguments]
    env = {"PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(sys.path), **environment}
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def baits(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Files whose XMP says that their manifest is to be fetched from a web server."""
    folder = tmp_path_factory.mktemp("baits")
    authority = ensure_ca(folder / "ca")
    noise = torch.randn(24_000, generator=torch.Generator().manual_seed(1)) * 0.1
    for suffix in (".wav", ".flac", ".mp3"):
        write_audio(folder / f"plain{suffix}", noise, 24_000)
        definition = ours.manifest_definition("row", "0" * 64, "t", ours.TYPES[suffix])
        with (
            ours._signer(authority) as signer,
            c2pa.Builder(json.dumps(definition)) as builder,
            (folder / f"plain{suffix}").open("rb") as source,
            (folder / f"bait{suffix}").open("w+b") as target,
        ):
            builder.set_no_embed()
            builder.set_remote_url(f"http://127.0.0.1:9/manifest{suffix}")
            builder.sign(signer, ours.TYPES[suffix], source, target)
    return sorted(folder.glob("bait.*"))


@linux
def test_the_jail_kills():
    done = jailed("import socket; print('in'); socket.socket(socket.AF_INET)")
    assert done.returncode == -31, done.stderr  # SIGSYS
    assert jailed("import socket; socket.socket(socket.AF_UNIX)").returncode == 0


def test_a_manifest_elsewhere_is_not_fetched(baits: list[Path]):
    for bait in baits:
        found = ours.read_manifest(bait, None)
        assert found.state == "none" and "not fetched" in found.reasons[0]
        assert f"manifest{bait.suffix}" in found.reasons[0]


@linux
def test_no_verb_asks_for_a_socket(baits: list[Path], tmp_path: Path):
    out = {name: str(tmp_path / name) for name in ("a.wav", "ledger", "head", "ca", "key", "r")}
    verbs = [
        ["detect", "--json", *map(str, baits)],
        ["speak", "--voice", "nobody", "--text", SENTENCE, "--out", out["a.wav"]],
        ["detect", out["a.wav"]],
        ["voices"],
        [
            "enrol",
            "start",
            "--speaker",
            "Ada Example",
            "--controller",
            "Example Lab",
            "--purpose",
            "reading",
        ],
        ["receipt", "export", "nobody", out["r"]],
        ["receipt", "key", ">", out["key"]],
        ["receipt", "verify", out["r"], "--key", out["key"]],
        ["ledger", "head", ">", out["head"]],
        ["ledger", "verify", "--head", out["head"]],
        ["ledger", "export", out["ledger"]],
        ["ledger", "check", out["ledger"], "--key", out["key"]],
        ["ca", "export", out["ca"]],
        ["keys", "rotate"],
        ["revoke", "nobody"],
        ["corpora", "list"],
    ]
    done = jailed(VERBS, json.dumps(verbs), SAYSO_HOME=str(tmp_path / "home"), HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr[-3000:]
    codes = json.loads(done.stdout.splitlines()[-1])
    assert codes[7].startswith("RefusedError")  # nobody's receipt is not this store's
    assert [*codes[:7], *codes[8:]] == [4, *[0] * 14]
