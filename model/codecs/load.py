"""Opens the codec stored in a folder, of whatever kind."""

from pathlib import Path

from ..checkpoint import CONFIG, read_config
from ..errors import CheckpointError
from .base import Codec


def load_codec(folder: Path) -> Codec:
    """The codec stored in a folder, by the `kind` in its `config.json`.

    Raises:
        CheckpointError: A file is missing, damaged, of an unknown kind, or does not fit.
    """
    kind = read_config(folder).get("kind")
    # Imported here because each kind needs libraries that the other does without.
    if kind == "world":
        from .world import WorldCodec

        return WorldCodec.load(folder)
    if kind == "fargan":
        from .fargan_codec import FarganCodec

        return FarganCodec.load(folder)
    if kind == "encodec":
        from .encodec import EncodecCodec

        return EncodecCodec.load(folder)
    known = "'world', 'fargan' or 'encodec'"
    raise CheckpointError(f"{folder / CONFIG} has kind {kind!r}: it must be {known}")
