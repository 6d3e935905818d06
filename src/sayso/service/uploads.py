"""Uploads: decoded in a bounded process of their own; the service's process sees samples alone.

What takes too much time or memory there, or is no audio, goes no further. Which format it is says
its content, never its name. What it leaves has no name on the disk. Run as a module, this is that
process.
"""

import asyncio
import json
import os
import secrets
import shutil
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from sayso.inference.nameless import unnamed as nameless
from sayso.model.errors import InputError

SECONDS = 20  # of CPU
WALL_SECONDS = 40.0
MEMORY = 2**30  # bytes of address space
AT_ONCE = 2  # such processes
NAME = "The file"
"""What errors call it."""
SUFFIXES = {"WAV": ".wav", "WAVEX": ".wav", "RF64": ".wav", "FLAC": ".flac", "MP3": ".mp3"}


@asynccontextmanager
async def spooled(folder: Path, *parts: tuple[str, bytes]) -> AsyncIterator[Path]:
    """A private folder with the given files in it (names are ours), gone afterwards."""
    place = folder / secrets.token_hex(8)
    place.mkdir(mode=0o700)
    try:
        for name, data in parts:
            (place / name).write_bytes(data)
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


@contextmanager
def unnamed(path: Path) -> Iterator[None]:
    """Lets an InputError say "The file" for a path of ours, which is nobody's business."""
    try:
        yield
    except InputError as error:
        raise InputError(str(error).replace(str(path), NAME)) from None


@dataclass(frozen=True)
class Upload:
    """What a file that somebody sent sounds like."""

    suffix: str
    """For what it holds."""
    sounds: dict[int, np.ndarray]
    """By rate in Hz, (samples,) float32, one channel."""


async def decoded(
    sent: BinaryIO,
    folder: Path,
    rates: tuple[int, ...],
    least: float,
    most: float,
    places: asyncio.Semaphore,
) -> Upload:
    """Decode an open file in a bounded process, and never in this one.

    Args:
        folder: On whose disk its samples lie meanwhile.
        least, most: Seconds.
        places: For `AT_ONCE` of them.
    Raises:
        InputError: It is no audio, too short or long, or takes too much time or memory.
    """
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    kept["OPENBLAS_NUM_THREADS"] = "1"
    pipe = asyncio.subprocess.PIPE
    with ExitStack() as files:
        left = {rate: files.enter_context(nameless(folder)) for rate in rates}
        numbers = {rate: file.fileno() for rate, file in left.items()}
        command = [sys.executable, "-m", "sayso.service.uploads", str(least), str(most)]
        command += [f"{rate}:{number}" for rate, number in numbers.items()]
        ways = {"stdin": sent, "stdout": pipe, "stderr": pipe, "pass_fds": [*numbers.values()]}
        async with places:
            child = await asyncio.create_subprocess_exec(*command, env=kept, **ways)
            try:
                out, _ = await asyncio.wait_for(child.communicate(), WALL_SECONDS)
            except TimeoutError:
                raise InputError(f"{NAME} takes too long to decode: export it again.") from None
            finally:
                if child.returncode is None:
                    child.kill()
                    await child.wait()
        try:
            found = json.loads(out)
        except ValueError:  # killed by one of its limits
            raise InputError(f"{NAME} takes too much time or memory to decode.") from None
        if "error" in found:
            raise InputError(found["error"])
        for file in left.values():
            file.seek(0)
        return Upload(found["suffix"], {r: np.fromfile(file, "<f4") for r, file in left.items()})


def main(least: float, most: float, left: dict[int, int]) -> None:
    """What the bounded process does: decode standard input, leave samples, print what it is.

    Args:
        least, most: Seconds.
        left: Descriptors of the files for its samples, by rate in Hz.
    """
    import resource

    rates, path = [*left], Path(NAME)
    size = int(4 * max(rates) * (most + 2))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    from sayso.model import decoding

    def suffix(sound: "decoding.Sound | decoding.FfmpegSound") -> str:
        if isinstance(sound, decoding.FfmpegSound):
            sent.seek(0)
            return ".m4a" if sent.read(8)[4:] == b"ftyp" else ""
        with decoding.open_sound(path, sent) as file:
            if file.format == "OGG":
                return ".opus" if file.subtype == "OPUS" else ".ogg"
            return SUFFIXES.get(file.format, "")

    with open(0, "rb", buffering=0) as sent:
        try:
            if not sent.seek(0, os.SEEK_END):
                raise InputError(f"{NAME} is empty (0 bytes).")
            found = decoding.read_mono(path, rates, least, most, True, sent)
            for rate, samples in found.items():
                with open(left[rate], "wb") as file:
                    samples.astype("<f4").tofile(file)
            kind = decoding.first_that_reads(suffix, path, 0.0, most, sent)
            print(json.dumps({"suffix": kind}))
        except InputError as error:
            print(json.dumps({"error": str(error)}))


if __name__ == "__main__":
    numbers = (each.split(":") for each in sys.argv[3:])
    main(float(sys.argv[1]), float(sys.argv[2]), {int(rate): int(file) for rate, file in numbers})
