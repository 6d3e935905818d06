"""A process that speaks for long holds little beside what it needs: glibc's heaps, oneDNN's cache.

glibc keeps a heap for each thread that allocates and gives back only its end (mallopt(3)). oneDNN,
and PyTorch in front of it, keep what was made for each new shape, up to 1,024 of each as it comes
and up to 300 KB apiece. Each sentence has shapes of its own, and they lie among what was freed.
"""

import ctypes
import os

MALLOC = {-8: 2, -3: 2**22, -1: 2**25}
"""glibc's M_ARENA_MAX, M_MMAP_THRESHOLD and M_TRIM_THRESHOLD, as `mallopt` numbers them."""
CACHES = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "128", "LRU_CACHE_CAPACITY": "128"}
"""oneDNN's of the process and PyTorch's of each thread: a step of 1 to 16 rows, whose shapes come
again, has some 80."""


def hold_little() -> None:
    """Bound both for this process, before torch is used; a capacity that is set stays."""
    for name, capacity in CACHES.items():
        os.environ.setdefault(name, capacity)
    own = ctypes.CDLL(None)
    if hasattr(own, "mallopt"):
        for option, value in MALLOC.items():
            own.mallopt(option, value)
