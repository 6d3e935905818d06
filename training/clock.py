"""Time in a run: its minutes and learning rate, and what share of the machine it uses."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from lightning.fabric import Fabric

from .recipe import Optimisation
from .tasks import rate_factor


class Clock:
    """Counts minutes over all resumptions, and figures since the last validation."""

    def __init__(self, minutes: float, settings: Optimisation, fabric: Fabric):
        self.settings, self.fabric = settings, fabric
        dtype = torch.bfloat16 if settings.precision == "bf16-mixed" else torch.float32
        self.peak = matmul_rate(fabric.device, dtype)
        self.before, self.started = minutes, time.monotonic()  # measuring is not training
        self.restart()

    def restart(self) -> None:
        """Starts the figures anew."""
        self.since, self.waited, self.frames, self.operations = time.monotonic(), 0.0, 0, 0.0

    def minutes(self) -> float:
        """Of training so far; where they decide anything, those of the first process."""
        minutes = self.before + (time.monotonic() - self.started) / 60
        limited = self.settings.max_minutes is not None and self.fabric.world_size > 1
        return self.fabric.broadcast(minutes) if limited else minutes

    def over(self, step: int) -> bool:
        """Whether steps or minutes are used up."""
        limit = self.settings.max_minutes
        return step >= self.settings.steps or (limit is not None and self.minutes() >= limit)

    def rate_factor(self, step: int) -> float:
        """Share of the peak learning rate."""
        return rate_factor(self.settings, step, self.minutes())

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Counts the time inside as waiting for data."""
        started = time.monotonic()
        yield
        self.waited += time.monotonic() - started

    def count(self, frames: int, operations: float) -> None:
        """Counts a step: frames on all devices, floating-point operations on this one."""
        self.frames += frames
        self.operations += operations

    def figures(self) -> dict[str, float]:
        """Frames per second, share of time spent waiting, share of the measured matmul rate."""
        seconds = time.monotonic() - self.since
        return {
            "frames_per_second": self.frames / seconds,
            "loader_share": self.waited / seconds,
            "matmul_share": self.operations / seconds / self.peak,
        }


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations per second of a plain matrix product, measured: best of five."""
    size = 1024
    a = torch.randn(size, size, device=device).to(dtype)
    best = float("inf")
    for _ in range(5):
        if device.type == "cuda":
            torch.cuda.synchronize()
        started = time.perf_counter()
        b = a @ a
        float(b[0, 0])  # waits for the device
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best
