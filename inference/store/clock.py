"""The store's two clocks: the time, and one that setting the time does not change."""

import hashlib
import os
import time
from pathlib import Path

from sayso.model.files import MOST_JSON, read_bounded


def wall() -> float:
    """Seconds since 1970: a function of its own, so that a test can set the clock."""
    return time.time()


def since_boot() -> float:
    """Seconds since this machine started, behind a number that stands for this start of it.

    Setting the time does not change it; another start, or a time namespace (whose clock anybody
    may set who may make one), is far off on this scale, so that no interval spans two of them.
    """
    boot = getattr(time, "CLOCK_BOOTTIME", None)  # Linux
    passed = time.monotonic() if boot is None else time.clock_gettime(boot)
    number = int.from_bytes(hashlib.sha256(boot_id().encode()).digest()[:4], "big")
    return passed + 1000.0 * number


def boot_id() -> str:
    """The id of this start of the machine and of the time namespace; "" where there are none."""
    try:
        boot = read_bounded(Path("/proc/sys/kernel/random/boot_id"), MOST_JSON).decode().strip()
        return f"{boot} {os.readlink('/proc/self/ns/time')}"
    except OSError:
        return ""
