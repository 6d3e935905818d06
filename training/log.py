"""What a run writes down: a CSV with a line per step, and TensorBoard where it is installed."""

import csv
from pathlib import Path
from typing import Any

from sayso.model.audio import read_audio

RATE = 24_000  # Hz of samples in TensorBoard
COLUMNS = (
    *("step", "minutes", "loss", "level", "rate", "gradient_norm", "skipped"),
    *("frames_per_second", "loader_share", "matmul_share"),
    *("validation_loss", "text_gain", "validation_per_codebook"),
)


class Log:
    """The log of one model of a run; lines after the step resumed from are dropped."""

    def __init__(self, run: Path, part: str, step: int):
        path = run / "logs" / f"{part}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = []
        if path.is_file():
            kept = [row for row in read_log(path) if int(row["step"]) <= step]
        self.file = path.open("w", newline="")
        self.writer = csv.DictWriter(self.file, COLUMNS)
        self.writer.writeheader()
        self.writer.writerows({key: row.get(key) for key in COLUMNS} for row in kept)
        self.board = None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:  # it is only one more view of the CSV
            return
        self.board = SummaryWriter(str(run / "tensorboard" / part), purge_step=step + 1)

    def write(self, row: dict[str, Any]) -> None:
        """Adds a line; ``validation_per_codebook`` maps codebooks to losses."""
        flat = {key: f"{v:.6g}" if isinstance(v, float) else v for key, v in row.items()}
        each = row.get("validation_per_codebook") or {}
        if each:
            flat["validation_per_codebook"] = " ".join(f"{v:.4f}" for v in each.values())
        self.writer.writerow(flat)
        self.file.flush()
        if self.board is None:
            return
        for key, value in row.items():
            if isinstance(value, float | int) and key not in ("step", "loss", "level"):
                self.board.add_scalar(key, value, row["step"])
        self.board.add_scalar(f"loss/codebook {row['level']}", row["loss"], row["step"])
        for codebook, value in each.items():
            self.board.add_scalar(f"validation/codebook {codebook}", value, row["step"])

    def audio(self, name: str, path: Path, step: int) -> None:
        """Adds a sample, a marked WAV file."""
        if self.board is not None:
            self.board.add_audio(f"sample/{name}", read_audio(path, RATE), step, RATE)

    def close(self) -> None:
        """Writes everything out."""
        self.file.close()
        if self.board is not None:
            self.board.close()


def read_log(path: Path) -> list[dict[str, str]]:
    """The lines of a run's CSV by column; one that a kill cut short counts as never written."""
    with path.open(newline="") as lines:
        return [row for row in csv.DictReader(lines) if None not in row.values()]
