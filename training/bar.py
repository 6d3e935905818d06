"""How far prepare is: a bar in a terminal, a line per shard elsewhere (logs, several processes)."""

import sys
import time

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn


class Bar:
    """Takes what prepare reports after each shard; used as a context."""

    def __init__(self, rank: int, world: int):
        self.name = "prepare" if world == 1 else f"prepare {rank + 1}/{world}"
        self.started = time.monotonic()
        self.progress = None
        if world == 1 and sys.stdout.isatty():
            self.progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("shards, {task.fields[hours]:.2f} h done, {task.fields[left]}"),
            )
            self.task = self.progress.add_task(self.name, total=None, hours=0.0, left="")

    def __enter__(self) -> "Bar":
        if self.progress is not None:
            self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.progress is not None:
            self.progress.stop()

    def report(self, made: int, done: int, shards: int, hours: float) -> None:
        """Called by prepare after each shard; those that earlier runs made took no time."""
        left = ""
        if made:
            minutes = (time.monotonic() - self.started) / made * (shards - done) / 60
            left = f"{minutes:.0f} min left"
        if self.progress is not None:
            self.progress.update(
                self.task, completed=done, total=shards, hours=hours, left=left, refresh=True
            )
        elif made or done == shards:
            line = f"{self.name}: shard {done} of {shards}, {hours:.3f} h"
            print(", ".join([line, left] if left else [line]), flush=True)
