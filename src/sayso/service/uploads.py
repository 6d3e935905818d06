"""Uploads: decoded in a bounded process of their own; the service's process sees samples alone.

What takes too much time or memory there, or is no audio, goes no further. Which format it is says
its content, never its name. Run as a module, this is that process.
"""

import asyncio
import json
import os
import secrets
import shutil
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sayso.model.errors import InputError

SECONDS = 20  # of CPU
WALL_SECONDS = 40.0
MEMORY = 2**30  # bytes of address space
AT_ONCE = 2  # such processes
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
        raise InputError(str(error).replace(str(path), "The file")) from None


@dataclass(frozen=True)
class Upload:
    """A file that somebody sent, and what it sounds like."""

    path: Path
    """Named after what it holds."""
    sounds: dict[int, np.ndarray]
    """By rate in Hz, (samples,) float32, one channel."""


async def decoded(
    path: Path, rates: tuple[int, ...], least: float, most: float, places: asyncio.Semaphore
) -> Upload:
    """Decode a file in a bounded process, and never in this one.

    Args:
        least, most: Seconds.
        places: For `AT_ONCE` of them.
    Raises:
        InputError: It is no audio, too short or long, or takes too much time or memory.
    """
    command = [sys.executable, "-m", "sayso.service.uploads", str(path), str(least), str(most)]
    command += map(str, rates)
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    kept["OPENBLAS_NUM_THREADS"] = "1"
    pipe = asyncio.subprocess.PIPE
    async with places:
        child = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe, env=kept
        )
        try:
            out, _ = await asyncio.wait_for(child.communicate(), WALL_SECONDS)
        except TimeoutError:
            raise InputError("The file takes too long to decode: export it again.") from None
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()
    try:
        found = json.loads(out)
    except ValueError:  # killed by one of its limits
        raise InputError("The file takes too much time or memory to decode.") from None
    if "error" in found:
        with unnamed(path):
            raise InputError(found["error"])
    named = path.with_suffix(found["suffix"])
    path.rename(named)
    sounds = {rate: np.fromfile(_samples(path, rate), "<f4") for rate in rates}
    return Upload(named, sounds)


def _samples(path: Path, rate: int) -> Path:
    """Where the bounded process leaves what it decoded."""
    return path.with_name(f"{path.name}-{rate}.f32")


def main(path: Path, least: float, most: float, rates: list[int]) -> None:
    """What the bounded process does: decode all of `path`, leave samples, print what it is."""
    import resource

    size = int(4 * max(rates) * (most + 2))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    from sayso.model.decoding import FfmpegSound, Sound, first_that_reads, open_sound, read_mono
    from sayso.model.files import open_regular

    def suffix(sound: Sound | FfmpegSound) -> str:
        if isinstance(sound, FfmpegSound):
            with open_regular(path) as file:
                return ".m4a" if file.read(8)[4:] == b"ftyp" else ""
        with open_sound(path) as file:
            if file.format == "OGG":
                return ".opus" if file.subtype == "OPUS" else ".ogg"
            return SUFFIXES.get(file.format, "")

    try:
        found = read_mono(path, rates, least, most, allow_silence=True)
        for rate, sound in found.items():
            sound.astype("<f4").tofile(_samples(path, rate))
        print(json.dumps({"suffix": first_that_reads(suffix, path, 0.0, most)}))
    except InputError as error:
        print(json.dumps({"error": str(error)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]), list(map(int, sys.argv[4:])))
