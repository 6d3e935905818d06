"""What left the store, for a reader who only looks: the detector changes nothing."""

import sqlite3
from contextlib import closing
from pathlib import Path

from ..errors import StoreError
from .database import FILE


def released_ids(home: Path) -> list[str]:
    """The ids of all files that the store's ledger says have left; changes nothing.

    Raises:
        StoreError: The ledger cannot be read.
    """
    file = Path(home) / FILE
    if not file.is_file():
        return []
    try:
        address = f"{file.resolve().as_uri()}?mode=ro"
        with closing(sqlite3.connect(address, uri=True)) as database:
            rows = database.execute("SELECT id FROM ledger WHERE event = 'released'").fetchall()
        return [row[0] for row in rows]
    except sqlite3.Error as error:
        raise StoreError(f"{file} cannot be read ({error}).") from error
