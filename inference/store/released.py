"""What left the store, for a reader who only looks: the detector changes nothing."""

import base64
import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path

from ..errors import StoreError
from .database import FILE, connect, remedy


def released(home: Path) -> list[tuple[str, bytes | None, str]]:
    """What the keyed mark looks for of all that left, oldest first; changes nothing.

    Ledger id, fingerprint (None where a file left before there were any), the pattern's name.

    Raises:
        StoreError: The ledger cannot be read.
    """
    file = Path(home) / FILE
    if not file.is_file():
        return []
    try:
        with closing(_look_at(file)) as database:
            found = database.execute(
                "SELECT l.id, d.content FROM ledger l JOIN details d ON d.seq = l.seq "
                "WHERE l.event IN ('released', 'streamed', 'stream-cut') ORDER BY l.seq"
            ).fetchall()
        # Of a stream the last word counts: it knows more of its sound.
        details = {row: json.loads(content) for row, content in found}
        return [
            (
                row,
                base64.b64decode(own["sound"]) if own.get("sound") else None,
                own.get("pattern", row),
            )
            for row, own in details.items()
        ]
    except (sqlite3.Error, ValueError) as error:
        raise StoreError(f"{file} cannot be read ({error}). {remedy(error)}") from error


def _look_at(file: Path) -> sqlite3.Connection:
    if not os.access(file.parent, os.W_OK):  # a backup, a mount: no room for SQLite's own files
        return connect(file, writable=False)
    return sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)
