"""Sayso: VALL-E 2 that speaks only on the speaker's say-so."""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sayso.inference.detection.detector import detect
    from sayso.inference.errors import RefusedError
    from sayso.inference.store.store import Store
    from sayso.inference.synthesizer import Synthesizer
    from sayso.model.errors import SaysoError
    from sayso.model.sampling import Sampling

# ONNX Runtime, which the checks of a consent use, else makes an id of this machine and sends events
# to its maker; it looks only before it is imported.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
# Weights and caches in pages of 2 MB: a step reads them a fifth faster. PyTorch looks when it first
# makes a tensor.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

__version__ = "0.1.0"
__all__ = ["RefusedError", "Sampling", "SaysoError", "Store", "Synthesizer", "detect"]

_HOME = {
    "RefusedError": "sayso.inference.errors",
    "Sampling": "sayso.model.sampling",
    "SaysoError": "sayso.model.errors",
    "Store": "sayso.inference.store.store",
    "Synthesizer": "sayso.inference.synthesizer",
    "detect": "sayso.inference.detection.detector",
}


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used: who trains needs no gate, and the reverse."""
    if name not in _HOME:
        raise AttributeError(f"module 'sayso' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
