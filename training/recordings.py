"""Where an utterance's sound is: an audio file, a stretch of one, or a row of a Parquet file."""

import functools
import hashlib
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from sayso.model.audio import cut_off, read_samples
from sayso.model.decoding import open_sound
from sayso.model.errors import InputError
from sayso.model.files import open_regular

AUDIO_COLUMN = "audio"
"""Of Hugging Face's data sets: a struct of the file's bytes and its name."""
AUDIO_SUFFIX = r"\.[A-Za-z0-9]{1,5}"


@dataclass(frozen=True)
class Recording:
    """One utterance's sound."""

    path: Path
    row: tuple[int, int] | None = None
    """Row group, and row in it, of a Parquet file."""
    start: float = 0.0
    """Seconds into the file."""
    seconds: float | None = None
    """Its length; None: to the end."""


def samples_of(recording: Recording) -> tuple[np.ndarray, int, bool]:
    """(samples, channels) float32 as recorded, the rate in Hz, and whether some of it is missing.

    Raises:
        InputError: It cannot be decoded, or is not there.
    """
    if recording.row is not None:
        return _row(recording.path, *recording.row)
    if recording.seconds is not None:
        return _stretch(recording.path, recording.start, recording.seconds)
    return _whole(recording.path)


def bytes_hash(recording: Recording) -> Any:
    """SHA-256, to go on with, of the bytes of its file or row; None for a stretch of a file.

    The file of a stretch may hold a whole book, and would be read once for each of its utterances.
    """
    if recording.row is not None:
        group, row = recording.row
        return hashlib.sha256(_row_group(recording.path, group)[row][0] or b"")
    if recording.seconds is not None:
        return None
    with open_regular(recording.path) as file:
        return hashlib.file_digest(file, "sha256")


def _whole(path: Path) -> tuple[np.ndarray, int, bool]:
    audio, rate = read_samples(path)
    return audio, rate, cut_off(path, len(audio))


def _stretch(path: Path, start: float, seconds: float) -> tuple[np.ndarray, int, bool]:
    try:
        with open_sound(path) as file:
            first, size = round(start * file.samplerate), round(seconds * file.samplerate)
            file.seek(min(first, file.frames))
            audio = file.read(size, "float32", always_2d=True)
            return audio, file.samplerate, len(audio) < size
    except (OSError, soundfile.LibsndfileError) as error:
        raise InputError(f"{path} cannot be decoded: {error}") from None


def _row(path: Path, group: int, row: int) -> tuple[np.ndarray, int, bool]:
    data, name = _row_group(path, group)[row]
    if not data:
        raise InputError(f"{path}, row {row} of group {group}, holds no audio")
    with tempfile.TemporaryDirectory() as place:
        suffix = Path(name or "").suffix
        file = Path(place) / f"audio{suffix if re.fullmatch(AUDIO_SUFFIX, suffix) else ''}"
        file.write_bytes(data)
        return _whole(file)


@functools.lru_cache(maxsize=2)
def _row_group(path: Path, group: int) -> list[tuple[bytes | None, str | None]]:
    """Bytes and file name of each row; neighbours are asked for one after the other."""
    from .shards import batches  # with pyarrow, of the extra `train`

    try:
        found = [
            each
            for batch in batches(path, [AUDIO_COLUMN], group, rows=1)
            for each in batch.column(0).to_pylist()
        ]
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}") from None
    return [(each and each["bytes"], each and each["path"]) for each in found]
