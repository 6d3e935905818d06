"""Opens the codec stored in a folder, of whatever kind."""

from importlib import import_module
from pathlib import Path

from ..checkpoint import CONFIG, read_config
from ..errors import CheckpointError
from .base import Codec

KINDS = {  # `kind` in config.json -> module and class; imported when needed, as each has libraries
    "world": (".world", "WorldCodec"),
    "fargan": (".fargan_codec", "FarganCodec"),
    "encodec": (".encodec", "EncodecCodec"),
}


def load_codec(folder: Path, timbre: Path | None = None, device: str = "cpu") -> Codec:
    """The codec stored in a folder, by the `kind` in its `config.json`.

    Args:
        timbre: Folder of a timbre (`TimbreCodec`): the codec in `folder` is then that of prompts.

    Raises:
        CheckpointError: A file is missing, damaged, of an unknown kind, or does not fit.
    """
    kind = read_config(folder).get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise CheckpointError(f"{folder / CONFIG} has kind {kind!r}: it must be of {list(KINDS)}")
    module, name = KINDS[kind]
    codec = getattr(import_module(module, __package__), name).load(folder)
    if timbre is not None:
        from .timbre_codec import TimbreCodec  # WORLD's, too

        codec = TimbreCodec.load(codec, timbre)
    return codec.to(device)
