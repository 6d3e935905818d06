"""What killed processes left in a store is finished or undone, and never stops anybody.

What cannot be done now is told once, noted in the ledger, and tried again at the next opening.
"""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from sayso.model.errors import SaysoError
from sayso.model.files import MOST_JSON, read_bounded

from . import keys, sealed
from .releases import deliver, undo, was_given
from .store import Store


def recover(store: Store) -> list[str]:
    """Finish or undo what killed processes left.

    Returns:
        What could not be done, each in a sentence; a file on its way out is named once.
    """
    if store.read_only:
        return []
    notes: list[str] = []
    steps: list[Callable[[Store], Iterator[str]]] = [_keys, _releases, _work]
    try:
        with store.exclusive():
            for step in steps:
                try:
                    notes += step(store)
                except OSError as error:
                    notes.append(f"The store cannot be tidied up: {error}.")
    except SaysoError as error:
        notes.append(f"The store cannot be tidied up: {error}")
    return notes


def stuck(store: Store, grant_id: str, path: str, why: Exception) -> str:
    """Note once in the ledger that a released file waits; what to tell, "" if it was told."""
    if store.entries("release-stuck", grant_id):
        return ""
    with store.transaction():
        store.append("release-stuck", grant_id, {"path": path, "why": str(why)})
    return (
        f"{path} cannot be written ({why}). It was released, and is kept sealed until it can be: "
        "mend its folder, and any use of Sayso puts it there."
    )


def _keys(store: Store) -> Iterator[str]:
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
    yield from ()


def _releases(store: Store) -> Iterator[str]:
    for grant_id, destination in store.journal():
        released = store.entries("released", grant_id)
        try:
            if not was_given(store, grant_id):
                yield f"The journal of releases names {grant_id[:40]!r}, which was never granted."
            elif not released:
                undo(store, grant_id, Path(destination))
            elif silent(store, released[-1].content["voice"]):
                with store.transaction():
                    store.append("release-dropped", grant_id, {"path": destination})
                undo(store, grant_id, Path(destination))
            else:
                deliver(store, grant_id)
        except (OSError, SaysoError) as error:
            if note := stuck(store, grant_id, destination, error):
                yield note


def silent(store: Store, voice: str) -> bool:
    """Whether a voice was revoked, or is none."""
    found = store.voice(voice)
    return found is None or bool(found.revoked)


def _work(store: Store) -> Iterator[str]:
    waiting = {grant_id for grant_id, _ in store.journal()}
    for path in (store.home / "work").glob("*"):
        if path.suffix == ".sealed":
            if path.stem not in waiting:
                path.unlink(missing_ok=True)
            continue
        lock = FileLock(path.with_suffix(".lock"), timeout=0)
        try:
            with lock:
                if path.suffix == ".voice":
                    _end_voice(store, path)
                shutil.rmtree(path, ignore_errors=True)  # of an enrolment by an older version
        except Timeout:
            continue  # a living process works there
        except SaysoError as error:
            yield f"A voice that was enrolled for one sentence cannot be ended: {error}"
        path.with_suffix(".lock").unlink(missing_ok=True)


def _end_voice(store: Store, note: Path) -> None:
    """Revoke a voice whose process died before it could (`Store.passing`)."""
    voice = read_bounded(note, MOST_JSON).decode(errors="replace")
    if store.voice(voice) is not None:
        store.forget(voice, {"reason": "its process ended before it had said its sentence"})
    note.unlink()
