"""What killed processes left in a store is finished or undone."""

import os
import shutil
from pathlib import Path

from filelock import FileLock, Timeout

from sayso.model.files import sync_folder

from ..provenance.c2pa import kept_path, sidecar_of
from . import keys, sealed
from .store import Store


def recover(store: Store) -> None:
    """Finish or undo what killed processes left."""
    with store.exclusive():
        kept = {voice.record_id for voice in store.voices() if not voice.revoked}
        for path in sealed.key_path(store.home, "").parent.glob("*.key"):
            if path.stem not in kept:
                keys.destroy(path)
        for path in store.home.glob(".ledger.head.*"):  # heads that were not put in place
            path.unlink()
        kid = store.last_key()
        for path in (store.home / "keys").glob("*.pem"):
            if path.stem != kid:
                keys.destroy(path)
        for grant_id, destination in store.journal():
            settle(store, grant_id, Path(destination))
        for folder in (store.home / "work").glob("*"):
            lock = FileLock(folder.with_suffix(".lock"), timeout=0)
            try:
                with lock:
                    shutil.rmtree(folder, ignore_errors=True)
            except Timeout:
                continue  # a living process works there
            folder.with_suffix(".lock").unlink(missing_ok=True)


def settle(store: Store, grant_id: str, destination: Path) -> None:
    """End one journalled release: moved into place if the ledger has it, else undone."""
    staged = staging_path(destination, grant_id)
    pairs = ((sidecar_of(staged), sidecar_of(destination)), (staged, destination))
    if store.entries("released", grant_id):
        for source, target in pairs:
            if source.exists():
                os.replace(source, target)
                sync_folder(target.parent)
    else:
        for source, _ in pairs:
            source.unlink(missing_ok=True)
        kept = kept_path(store.home, grant_id)
        for path in (kept, *kept.parent.glob(f".{kept.name}.*")):
            path.unlink(missing_ok=True)
    with store.transaction():
        store.close_release(grant_id)


def staging_path(destination: Path, grant_id: str) -> Path:
    """Where a release waits until the ledger has it: beside its destination, on the same disk."""
    return destination.with_name(f".sayso-{grant_id}.part")
