"""Uploads: tried in a bounded process of their own before anything of ours looks at them.

What takes too much time or memory there, or is no audio, never reaches the service's process. Which
format it is says its content, never its name. Run as a module, this is that process.
"""

import asyncio
import json
import os
import secrets
import shutil
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from sayso.model.errors import InputError

SECONDS = 20  # of CPU
WALL_SECONDS = 40.0
MEMORY = 2**30  # bytes of address space
MOST_FILE = 2**20  # bytes that it may write
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


async def tried(path: Path, most_seconds: float, places: asyncio.Semaphore) -> Path:
    """Decode a file once in a bounded process; its path, renamed after what it holds.

    Args:
        places: For `AT_ONCE` of them.
    Raises:
        InputError: It is no audio, too long, or takes too much time or memory.
    """
    command = [sys.executable, "-m", "sayso.service.uploads", str(path), str(most_seconds)]
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
    return named


def main(path: Path, most_seconds: float) -> None:
    """What the bounded process does: decode all of `path`, keep nothing, print what it is."""
    import resource

    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (MOST_FILE, MOST_FILE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    from sayso.model.decoding import FfmpegSound, Sound, first_that_reads, open_sound

    def whole(sound: Sound | FfmpegSound) -> str:
        for _ in sound.blocks():
            pass
        if isinstance(sound, FfmpegSound):
            with path.open("rb") as file:
                return ".m4a" if file.read(8)[4:] == b"ftyp" else ""
        with open_sound(path) as file:
            if file.format == "OGG":
                return ".opus" if file.subtype == "OPUS" else ".ogg"
            return SUFFIXES.get(file.format, "")

    try:
        print(json.dumps({"suffix": first_that_reads(whole, path, 0.0, most_seconds)}))
    except InputError as error:
        print(json.dumps({"error": str(error)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
