"""The store's folder: where it is, and that it is one's own."""

import os
from pathlib import Path

import platformdirs

from ..errors import StoreError


def default_home() -> Path:
    """The store's folder where none is named: SAYSO_HOME, else the user's data folder.

    StoreError where this user has none.
    """
    if named := os.environ.get("SAYSO_HOME"):
        return Path(named)
    try:
        return Path(platformdirs.user_data_dir("sayso")).expanduser()
    except RuntimeError:
        raise StoreError(
            "There is no home folder to keep the store in: set SAYSO_HOME to a folder for it."
        ) from None


def check_folder(home: Path) -> None:
    """StoreError if others may put files into the store's folder in place of ours."""
    mode = home.stat().st_mode & 0o777
    if os.name == "posix" and mode & 0o022:
        raise StoreError(
            f"The store folder {home} may be written by other users (mode {mode:o}): chmod 700 it."
        )
