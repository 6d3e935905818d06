"""Every verb on machines with one thing wrong: it does its work, or says in one line what to mend.

    python -m benchmarks.machines [FAULT ...]

Each case is a fork of this process, in a store and a folder of its own. It fails with a traceback,
with no line or more than one that says what is wrong, with a half-written file, or with a store
that `ledger verify` calls bad afterwards. Root may write anywhere: run it as somebody else, or
without CAP_DAC_OVERRIDE.
"""

import argparse
import os
import pwd
import resource
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import sayso.cli
import sayso.demo
import sayso.export
import sayso.inference.consent.enrolment
import sayso.inference.consent.microphone
import sayso.inference.detection.report
import sayso.training.commands
import sayso.training.fitting.bpe
from sayso.inference.gate import Gate
from sayso.inference.store.checking import verify
from sayso.inference.store.store import Store
from sayso.inference.synthesizer import Synthesizer
from sayso.model.printable import printable

SAID = "He said so."
LOG = "step,minutes,loss,level,rate,gradient_norm,skipped\n1,0.1,2.5,0,0.001,1.5,0\n"
NAMES = ("LOGNAME", "USER", "LNAME", "USERNAME")


class Place(NamedTuple):
    """Where one case happens: its store, its folder for output, and what others made before."""

    home: Path
    out: Path
    given: Path


def verbs(place: Place) -> dict[str, list[str]]:
    """Name to arguments; each verb that is quick, with the output names that people choose."""
    speak = ["speak", "--voice", "nobody", "--text", SAID, "--seed", "1", "--out"]
    asked = ["--controller", "Example Lab", "--purpose", "research"]
    out, given, pem = place.out, place.given, str(place.given / "pem")
    return {
        "voices": ["voices"],
        "speak": [*speak, str(out / "a.wav")],
        "speak .opus": [*speak, str(out / "a.opus")],
        "speak .WAV": [*speak, str(out / "a.WAV")],
        "speak .wave": [*speak, str(out / "a.wave")],
        "speak without a suffix": [*speak, str(out / "a")],
        "speak relative, odd": [*speak, os.fsdecode(b"-\xff \n\x1b[2J'$.wav")],
        "detect": ["detect", str(given / "made.wav")],
        "detect --json": ["detect", "--json", str(given / "made.wav")],
        "detect --pictures": ["detect", str(given / "made.wav"), "--pictures", str(out / "png")],
        "revoke": ["revoke", "nobody"],
        "enrol start": ["enrol", "start", "--speaker", "Zoë Müller", *asked],
        "enrol finish": ["enrol", "finish", "--session", "s-0", "--consent", str(given / "key")],
        "receipt export": ["receipt", "export", "nobody", str(out / "receipt")],
        "receipt verify": ["receipt", "verify", str(given / "receipt"), "--key", pem],
        "receipt key": ["receipt", "key"],
        "ledger verify": ["ledger", "verify"],
        "ledger head": ["ledger", "head"],
        "ledger export": ["ledger", "export", str(out / "ledger.jsonl")],
        "ledger check": ["ledger", "check", str(given / "ledger"), "--key", str(given / "key")],
        "ca export": ["ca", "export", str(out / "root.pem")],
        "keys rotate": ["keys", "rotate"],
        "corpora list": ["corpora", "list"],
        "train text": ["train", "text", "--out", str(out / "text")],
        "train codec": ["train", "codec", "--root", "kathleen=.", "--out", str(out / "codec")],
        "train report": ["train", "report", str(out / "run")],
        "export": ["export", str(given), str(out / "model")],
        "enrol record": ["enrol", "record", str(out / "said.wav"), "--seconds", "0.1"],
        "demo": ["demo", "--out", str(out / "demo")],
        "--help": ["--help"],
    }


# --- what is wrong: each is done in the child, before the verb ---


def nothing(place: Place) -> None:
    """The control: every verb must do its work."""


def no_home(place: Place) -> None:
    """No HOME, no SAYSO_HOME, no passwd entry, as in many containers."""
    no_passwd(place)
    for name in ("HOME", "SAYSO_HOME", "XDG_DATA_HOME"):
        os.environ.pop(name, None)


def no_passwd(place: Place) -> None:
    """A user id that no file knows, and no name in the environment."""
    for name in NAMES:
        os.environ.pop(name, None)

    def unknown(uid: int):
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    pwd.getpwuid = unknown


def home_unwritable(place: Place) -> None:
    """HOME can be read alone, and no SAYSO_HOME is set."""
    os.environ["HOME"] = str(locked(place.out.parent / "user"))
    for name in ("SAYSO_HOME", "XDG_DATA_HOME"):
        os.environ.pop(name, None)


def home_a_file(place: Place) -> None:
    """SAYSO_HOME names a file."""
    os.environ["SAYSO_HOME"] = str(place.given / "key")


def ascii_terminal(place: Place) -> None:
    """A terminal that can show nothing but ASCII, strictly."""
    sys.stdout, sys.stderr = (
        open(n, "w", closefd=False, encoding="ascii", errors="strict")  # noqa: SIM115
        for n in (1, 2)
    )


def closed_pipe(place: Place) -> None:
    """`sayso ... | true`: who reads has gone."""
    read, write = os.pipe()
    os.close(read)
    os.dup2(write, 1)


def no_stdout(place: Place) -> None:
    """`sayso ... >&-`."""
    os.close(1)
    sys.stdout = None


def stdout_full(place: Place) -> None:
    """`sayso ... > /dev/full`."""
    os.dup2(os.open("/dev/full", os.O_WRONLY), 1)


def no_room(place: Place) -> None:
    """No regular file can be written any more, wherever it lies: EFBIG for ENOSPC."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def little_room(place: Place) -> None:
    """Only files below 20 kB: some of what is written gets through."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))


def out_unwritable(place: Place) -> None:
    """The folder for output can be read alone."""
    place.out.chmod(0o500)


def out_missing(place: Place) -> None:
    """There is no folder for output."""
    shutil.rmtree(place.out)


def store_unwritable(place: Place) -> None:
    """The store and all in it can be read alone, as on a mount."""
    for path in (*place.home.rglob("*"), place.home):
        path.chmod(0o500 if path.is_dir() else 0o400)


def store_unreadable(place: Place) -> None:
    """The store is another user's."""
    place.home.chmod(0)


def store_file_unreadable(place: Place) -> None:
    """One file of the store is another user's."""
    (place.home / "sayso.db").chmod(0)


def no_folder(place: Place) -> None:
    """The working directory was deleted."""
    folder = tempfile.mkdtemp()
    os.chdir(folder)
    os.rmdir(folder)


def no_temporary(place: Place) -> None:
    """No TMPDIR and nothing else for temporary files."""
    os.environ["TMPDIR"] = "/nowhere"
    tempfile.tempdir = None
    tempfile._candidate_tempdir_list = lambda: ["/nowhere"]  # pyright: ignore


FAULTS: tuple[Callable[[Place], None], ...] = (
    nothing, no_home, no_passwd, home_unwritable, home_a_file, ascii_terminal, closed_pipe,
    no_stdout, stdout_full, no_room, little_room, out_unwritable, out_missing, store_unwritable,
    store_unreadable, store_file_unreadable, no_folder, no_temporary,
)  # fmt: skip
REFUSED = {"speak .wave", "speak without a suffix", "speak relative, odd", "enrol finish"}
REFUSED |= {"train codec", "export", "enrol record"}  # no corpus, no run, no microphone
"""Verbs that are to fail on any machine."""
QUIET = {"closed_pipe", "no_stdout", "stdout_full"}
"""Faults of the standard output: nothing can be said there."""


def locked(folder: Path) -> Path:
    """A folder that can be read alone."""
    folder.mkdir(exist_ok=True)
    folder.chmod(0o500)
    return folder


def prepare(folder: Path, spoken: bool = True) -> None:
    """A store, the papers that it handed out, and perhaps a file that it released."""
    home, given = folder / "home", folder / "given"
    given.mkdir()
    with Store.open(home) as store:
        bundled = Gate(store).store.voice("nobody")
        if spoken:
            made = given / "made.wav"
            Synthesizer(store=store).speak(SAID, "nobody", made, user="someone", seed=1)
        assert bundled is not None
        (given / "receipt").write_text(bundled.token)
        (given / "pem").write_text(bundled.issuer)
        (given / "key").write_text("".join(store.public_keys().values()))
    run(["ledger", "export", str(given / "ledger")], Place(home, given, given))


def run(
    verb: list[str], place: Place, fault: Callable[[Place], None] = nothing
) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of one verb in a fork that a fault has struck."""
    pipes = [os.pipe(), os.pipe()]
    child = os.fork()
    if child == 0:
        status = 99
        try:
            for number, (_, write) in enumerate(pipes, 1):
                os.dup2(write, number)
            sys.stdout, sys.stderr = (open(n, "w", closefd=False) for n in (1, 2))  # noqa: SIM115
            os.environ["SAYSO_HOME"] = str(place.home)
            os.chdir(place.out)
            sys.argv = ["sayso", *verb]
            fault(place)
            sayso.cli.main()
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else 98
        except BaseException:
            traceback.print_exc()
        finally:
            try:
                if sys.stdout is not None:
                    sys.stdout.flush()
                sys.stderr.flush()
            except BrokenPipeError:
                pass
            except OSError:
                status = 120  # as Python's own end does
            os._exit(status)
    said = []
    for read, write in pipes:
        os.close(write)
        with open(read, "rb") as file:
            said.append(file.read().decode(errors="replace"))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said[0], said[1]


def faulty(fault: str, verb: str, found: tuple[int, str, str], place: Place) -> str:
    """What is wrong with how a verb ended, or "" """
    status, _, error = found
    if fault == "nothing" and (status == 0) == (verb in REFUSED):
        return f"status {status} where nothing is wrong: {error.strip()[-200:]!r}"
    if "Traceback" in error or status < 0 or status in (98, 99, 120):
        return f"status {status}, traceback: {error.strip().splitlines()[-1:]}"
    lines = [line for line in error.splitlines() if line.startswith("sayso: ")]
    if status not in (0, 4) and len(lines) != 1 and fault not in QUIET:
        return f"status {status}, {len(lines)} lines: {error.strip()[-200:]!r}"
    for path in [place.out, *place.out.parent.rglob("*")] if place.out.exists() else []:
        path.chmod(0o700) if path.is_dir() else path.chmod(0o600)
    left = [
        str(p)
        for p in place.out.rglob("*")
        if p.name.startswith(".") or (p.is_file() and not p.stat().st_size)
    ]
    left += [path.name for path in place.home.glob(".*")]
    if left:
        return f"left behind: {left}"
    try:
        with Store.open(place.home) as store:
            verify(store, None)
    except Exception as broken:
        return f"the store is broken: {broken!r}"
    return ""


def case(base: Path, fault: Callable[[Place], None], name: str) -> str:
    """One verb under one fault; what is wrong, or "" """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as made:
        folder = Path(made)
        place = Place(folder / "home", folder / "out", base / "given")
        shutil.copytree(base / "home", place.home)
        (place.out / "run" / "logs").mkdir(parents=True)
        (place.out / "run" / "logs" / "ar.csv").write_text(LOG)
        found = run(verbs(place)[name], place, fault)
        wrong = faulty(fault.__name__, name, found, place)
        line = (found[2].strip() or found[1].strip()).splitlines()[-1:] or [""]
        sign = "FAIL" if wrong else "ok  "
        print(printable(f"{sign} {fault.__name__:22} {name:24} {found[0]:3} {line[0][:230]}"))
        return wrong


def main() -> None:
    """Run the matrix, or some of its faults."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("faults", nargs="*", help="names of faults; all by default")
    parser.add_argument("--verbs", nargs="*", help="names of verbs; all by default")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as made:
        base = Path(made)
        prepare(base)
        wrong = []
        for fault in FAULTS:
            if asked.faults and fault.__name__ not in asked.faults:
                continue
            for name in verbs(Place(base, base, base)):
                if asked.verbs and name not in asked.verbs:
                    continue
                if found := case(base, fault, name):
                    wrong.append(f"{fault.__name__}, {name}: {found}")
        print(f"{len(wrong)} cases wrong")
        for line in wrong:
            print(printable(line))
        sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
