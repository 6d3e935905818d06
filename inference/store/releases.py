"""Files on their way out: sealed in the store until the ledger has them, then put in their place.

A release is journalled, sealed under a key that only memory has, and logged in one transaction with
that key; only then can anybody, `recovery` after a crash included, open and deliver it. So no
unreleased sound is ever on the disk, and a released file arrives whatever happens.
"""

import contextlib
import hashlib
import os
import stat
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sayso.model.errors import InputError
from sayso.model.files import create_file, read_bounded, replace_file, sync_folder, unique

from ..errors import StoreError
from ..provenance.c2pa import BESIDE, SIGNED, kept_path, sidecar_of
from .database import FILE, RESTORE
from .sealed import seal, unseal
from .store import Store

MOST_BYTES = 2**31 - 2**20  # AES-GCM takes no more at once


def check_place(destination: Path) -> None:
    """InputError unless a file, what stands beside it and their drafts can be put there."""
    try:
        str(destination).encode()
    except UnicodeEncodeError:
        raise InputError(f"The file name {str(destination)!r} is not UTF-8: rename it.") from None
    staged = staging_path(destination, f"g-{unique() * 2}")
    names = [destination, staged]
    if destination.suffix.lower() in BESIDE:
        names += [sidecar_of(path) for path in names]
    try:
        if not os.access(destination.parent, os.W_OK | os.X_OK):
            raise InputError(f"{destination.parent} cannot be written: choose a folder that can.")
        for path in names:
            with contextlib.suppress(FileNotFoundError):
                if stat.S_ISDIR(os.lstat(path).st_mode):
                    raise InputError(f"{path} is a folder: give another file name.")
    except (OSError, ValueError) as error:
        raise _unwritable(destination, error) from None


def begin(store: Store, grant_id: str, audio: bytes, manifest: bytes) -> bytes:
    """Seal a journalled file; returns the key, which is nowhere else.

    Raises:
        InputError: It is too long, or the store's disk is full.
    """
    if len(audio) + len(manifest) > MOST_BYTES:
        raise InputError(f"{len(audio)} bytes cannot be released as one file: say less at once.")
    key = AESGCM.generate_key(256)
    data = len(manifest).to_bytes(8, "big") + manifest + audio
    try:
        create_file(sealed_path(store.home, grant_id), seal(key, grant_id, data))
    except OSError as error:
        raise _unwritable(sealed_path(store.home, grant_id), error) from None
    return key


def deliver(store: Store, grant_id: str) -> None:
    """Put a released file in its place, and forget that it was on its way.

    Raises:
        OSError: Its place cannot be written; the file stays sealed in the store.
        StoreError: What was sealed was changed.
    """
    content = store.entries("released", grant_id)[-1].content
    destination = Path(content["path"])
    staged, waiting = staging_path(destination, grant_id), sealed_path(store.home, grant_id)
    key = store.release_key(grant_id)
    if key and waiting.exists():
        try:
            data = unseal(key, grant_id, read_bounded(waiting, MOST_BYTES + 2**20))
        except Exception as error:  # InvalidTag, or a short file
            raise StoreError(f"{waiting} was changed. {RESTORE}") from error
        size = 8 + int.from_bytes(data[:8], "big")
        manifest, audio = data[8:size], data[size:]
        if hashlib.sha256(audio).hexdigest() != content["sha256"]:
            raise StoreError(f"{waiting} is not what {FILE} says was released. {RESTORE}")
        if manifest:
            kept = kept_path(store.home, grant_id)
            kept.parent.mkdir(mode=0o700, exist_ok=True)
            for draft in kept.parent.glob(f".{kept.name}.*"):  # of a process that died at it
                draft.unlink()
            replace_file(kept, manifest)
            if destination.suffix.lower() in BESIDE:
                _put(manifest, sidecar_of(staged), sidecar_of(destination))
        _put(audio, staged, destination)
    else:  # by a version that staged its files beside their destination
        for source, target in (
            (sidecar_of(staged), sidecar_of(destination)),
            (staged, destination),
        ):
            if source.exists():
                os.replace(source, target)
                sync_folder(target.parent)
    _forget(store, grant_id)


def undo(store: Store, grant_id: str, destination: Path) -> None:
    """Drop a file that does not go out; OSError if what an older version staged cannot be."""
    staged, kept = staging_path(destination, grant_id), kept_path(store.home, grant_id)
    for path in (staged, sidecar_of(staged)):
        try:
            path.unlink(missing_ok=True)
        except NotADirectoryError:
            continue  # so it is not there either
    if not store.entries("released", grant_id):
        for path in (kept, *kept.parent.glob(f".{kept.name}.*")):
            path.unlink(missing_ok=True)
    _forget(store, grant_id)


def was_given(store: Store, grant_id: str) -> bool:
    """Whether the ledger knows a grant, of a text or of a part of it."""
    return any(entry.event in ("granted", "part") for entry in store.entries(id=grant_id))


def sealed_path(home: Path, grant_id: str) -> Path:
    """Where a file waits, sealed."""
    return home / "work" / f"{grant_id}.sealed"


def staging_path(destination: Path, grant_id: str) -> Path:
    """Where a file is written in full, beside its destination, before it takes its place."""
    return destination.with_name(f".sayso-{grant_id}.part")


def _put(data: bytes, staged: Path, target: Path) -> None:
    staged.unlink(missing_ok=True)
    try:
        create_file(staged, data, 0o666)
        os.replace(staged, target)
    except BaseException:
        staged.unlink(missing_ok=True)
        raise
    sync_folder(target.parent)


def _forget(store: Store, grant_id: str) -> None:
    with store.transaction():
        store.close_release(grant_id)
    sealed_path(store.home, grant_id).unlink(missing_ok=True)


def _unwritable(path: Path, error: Exception) -> InputError:
    why = getattr(error, "strerror", None) or error
    return InputError(
        f"{path} cannot be written ({why}): choose a folder that exists and may be written to, "
        "and a shorter name if it is long."
    )


def check_destination(out: Path) -> None:
    """InputError unless `out` can become a signed audio file."""
    if out.suffix.lower() not in SIGNED + BESIDE:
        raise InputError(f"{out}: the suffix must be one of {', '.join(SIGNED + BESIDE)}")
    place = Path(os.path.abspath(out))
    try:
        if not place.parent.is_dir():
            raise InputError(f"{place.parent} does not exist: make the folder first")
        check_place(place)
    except OSError as error:
        raise InputError(f"{out} cannot be written ({error.strerror}).") from None
