"""One compressed file with chapters in its metadata (.m4b, .ogg), by the `ffmpeg` program.

Chapters as players know them: MP4's own, and in Ogg the comments of
https://wiki.xiph.org/Chapter_Extension.
"""

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, NamedTuple

from .errors import InputError

ENCODERS = {
    ".m4b": ["-c:a", "aac", "-b:a", "96k", "-f", "ipod"],
    ".ogg": ["-map_metadata:s:a", "1:g", "-c:a", "libvorbis", "-q:a", "6", "-f", "ogg"],
}
SECONDS = 3600.0
"""After so long ffmpeg hangs: it takes some seconds for an hour of speech."""


class Chapter(NamedTuple):
    """A stretch of a sound."""

    title: str
    start: int
    """Samples, as the next."""
    stop: int


def check_chapters(suffix: str) -> None:
    """InputError unless a file of this suffix can be made here."""
    if suffix not in ENCODERS:
        raise InputError(f"One file of all chapters is {' or '.join(ENCODERS)}, not {suffix!r}.")
    if not shutil.which("ffmpeg"):
        raise InputError(
            f"One {suffix} of all chapters is made by the ffmpeg program, which is not installed: "
            "install it, or do without --whole."
        )


def encode_chapters(
    samples: IO[bytes], sample_rate: int, chapters: Sequence[Chapter], suffix: str, folder: Path
) -> bytes:
    """A file of one channel, in memory. On the way it has no name: nobody finds it after a kill.

    Args:
        samples: A file, with 16-bit samples from where it stands to its end.
        sample_rate: Hz.
        suffix: One of `ENCODERS`.
        folder: On whose disk it is made.

    Raises:
        InputError: ffmpeg is absent or fails, with its last words.
    """
    check_chapters(suffix)
    command = ["ffmpeg", "-v", "error", "-y", "-f", "s16le", "-ar", str(sample_rate), "-ac", "1"]
    command += ["-i", "pipe:0", "-f", "ffmetadata"]
    try:
        with tempfile.TemporaryFile(dir=folder) as notes, tempfile.TemporaryFile(dir=folder) as out:
            notes.write(_metadata(chapters, sample_rate).encode())
            notes.seek(0)
            command += ["-i", f"file:/dev/fd/{notes.fileno()}", "-map", "0:a", "-map_metadata", "1"]
            command += ["-map_chapters", "1", *ENCODERS[suffix], f"file:/dev/fd/{out.fileno()}"]
            done = subprocess.run(
                command,
                stdin=samples,
                capture_output=True,
                timeout=SECONDS,
                check=False,
                pass_fds=(notes.fileno(), out.fileno()),
            )
            if done.returncode != 0:
                said = done.stderr.decode(errors="replace").strip().splitlines()
                last = said[-1] if said else "no reason given"
                raise InputError(f"ffmpeg could not make the {suffix} of all chapters: {last}")
            out.seek(0)
            return out.read()
    except subprocess.TimeoutExpired:
        raise InputError(f"ffmpeg took more than {SECONDS:.0f} s for the {suffix}.") from None
    except OSError as error:
        raise InputError(f"The {suffix} cannot be made ({error.strerror}).") from None


def _metadata(chapters: Sequence[Chapter], sample_rate: int) -> str:
    """As ffmpeg's own FFMETADATA: Ogg's comments first, as they belong to the whole."""
    comments, sections = [], []
    for number, (title, start, stop) in enumerate(chapters, 1):
        name = "".join(f"\\{sign}" if sign in "=;#\\\n" else sign for sign in title)
        whole, milliseconds = divmod(round(start / sample_rate * 1000), 1000)
        clock = f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}.{milliseconds:03d}"
        comments += [f"CHAPTER{number:03d}={clock}", f"CHAPTER{number:03d}NAME={name}"]
        sections += ["[CHAPTER]", f"TIMEBASE=1/{sample_rate}", f"START={start}", f"END={stop}"]
        sections.append(f"title={name}")
    return "\n".join([";FFMETADATA1", *comments, *sections, ""])
