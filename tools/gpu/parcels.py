"""Folders as parcels, that travel: a manifest of hashes, and files of at most 16 MB beside it."""

import hashlib
import io
import json
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sayso.model import corpora
from sayso.model.errors import InputError
from sayso.model.files import MOST_JSON, file_hash, read_regular, replacing, write_json

MOST = 16 * 10**6
"""Bytes of a file."""


def pack(source: Path, folder: Path, name: str, names: list[str], smaller: bool = False) -> int:
    """Write all files under `source` as the parcel `name` in a folder, its manifest last.

    Args:
        names: The corpora that it is made from.
        smaller: Compress it (xz), which takes a minute for 40 MB.

    Returns:
        Bytes of its files.

    Raises:
        CorpusError: A corpus is not listed, or may not be trained on.
        InputError: There is nothing to pack.
    """
    entries = [corpora.get(each).to_json() for each in names]
    files = sorted(path for path in source.rglob("*") if path.is_file())
    if not files:
        raise InputError(f"{source} holds no file to pack")
    folder.mkdir(parents=True, exist_ok=True)
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w:xz" if smaller else "w") as tar:
        for path in files:
            tar.add(path, str(path.relative_to(source)))
    data = whole.getbuffer()
    pieces = []
    for number, start in enumerate(range(0, len(data), MOST)):
        piece = data[start : start + MOST]
        with replacing(folder / f"{name}.{number:03d}") as part:
            part.write_bytes(piece)
        pieces.append({"file": f"{name}.{number:03d}", "sha256": hashlib.sha256(piece).hexdigest()})
    hashes = {str(path.relative_to(source)): file_hash(path) for path in files}
    write_json(folder / f"{name}.json", {"corpora": entries, "pieces": pieces, "files": hashes})
    return len(data)


def unpack(folder: Path, name: str, into: Path) -> list[str]:
    """Put a parcel's files into a folder, if all are whole; returns the names of its corpora.

    Raises:
        CorpusError: It names a corpus that is not listed, or was edited.
        InputError: The parcel is not there, or a file of it differs from its manifest.
    """
    path = folder / f"{name}.json"
    try:
        manifest: dict[str, Any] = json.loads(read_regular(path, MOST_JSON))
        entries, pieces, hashes = (manifest[key] for key in ("corpora", "pieces", "files"))
        whole = b"".join(read_regular(folder / Path(each["file"]).name, MOST) for each in pieces)
        start = 0
        for each in pieces:
            piece = whole[start : start + MOST]
            start += MOST
            if hashlib.sha256(piece).hexdigest() != each["sha256"]:
                raise InputError(f"{folder / each['file']} differs from {path}: pack or fetch anew")
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is no manifest of a parcel ({error})") from error
    listed = corpora.verify(entries, path)
    into.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=into.parent) as place:
        with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
            tar.extractall(place, filter="data")
        for file, expected in hashes.items():
            if not (Path(place) / file).is_file() or file_hash(Path(place) / file) != expected:
                raise InputError(f"{file} of {path} differs from its manifest: pack or fetch anew")
        for file in hashes:
            (into / file).parent.mkdir(parents=True, exist_ok=True)
            (Path(place) / file).replace(into / file)
    return [each.name for each in listed]
