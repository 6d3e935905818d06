"""What a run writes down: a CSV with a line per step, TensorBoard where it is installed, and
Weights & Biases where the recipe asks for it."""

import csv
import io
import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from sayso.model.audio import read_audio
from sayso.model.errors import InputError
from sayso.model.files import read_utf8

RATE = 24_000  # Hz of samples in TensorBoard
COLUMNS = (
    *("step", "minutes", "loss", "level", "rate", "gradient_norm", "skipped"),
    *("frames_per_second", "loader_share", "matmul_share"),
    *("validation_loss", "text_gain", "validation_per_codebook"),
    *("WER", "SIM"),
)


class Log:
    """The log of one model of a run; lines after the step resumed from are dropped.

    Raises:
        InputError: Weights & Biases is asked for and not installed.
    """

    def __init__(self, run: Path, part: str, step: int, wandb: bool = False):
        self.open = ExitStack()
        self.wandb = _wandb(run, part) if wandb else None
        if self.wandb is not None:
            self.open.enter_context(self.wandb.experiment)
        path = run / "logs" / f"{part}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = []
        if path.is_file():
            kept = [row for row in read_log(path) if int(row["step"]) <= step]
        self.file = self.open.enter_context(path.open("w", newline=""))
        self.writer = csv.DictWriter(self.file, COLUMNS)
        self.writer.writeheader()
        self.writer.writerows({key: row.get(key) for key in COLUMNS} for row in kept)
        self.board = None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:  # it is only one more view of the CSV
            return
        self.board = SummaryWriter(str(run / "tensorboard" / part), purge_step=step + 1)
        self.open.callback(self.board.close)

    def write(self, row: dict[str, Any]) -> None:
        """Adds a line; ``validation_per_codebook`` maps codebooks to losses."""
        flat = {key: f"{v:.6g}" if isinstance(v, float) else v for key, v in row.items()}
        each = row.get("validation_per_codebook") or {}
        if each:
            flat["validation_per_codebook"] = " ".join(f"{v:.4f}" for v in each.values())
        self.writer.writerow(flat)
        self.file.flush()
        values = {
            key: value
            for key, value in row.items()
            if isinstance(value, float | int) and key not in ("step", "loss", "level")
        }
        values[f"loss/codebook {row['level']}"] = row["loss"]
        values |= {f"validation/codebook {codebook}": value for codebook, value in each.items()}
        if self.board is not None:
            for key, value in values.items():
                self.board.add_scalar(key, value, row["step"])
        if self.wandb is not None:
            self.wandb.log_metrics(values, row["step"])

    def audio(self, name: str, path: Path, step: int) -> None:
        """Adds a sample, a marked WAV file."""
        if self.board is not None:
            self.board.add_audio(f"sample/{name}", read_audio(path, RATE), step, RATE)

    def close(self) -> None:
        """Writes everything out."""
        self.open.close()


def _wandb(run: Path, part: str) -> Any:
    """Lightning's logger, into RUN/wandb; nothing is sent unless WANDB_MODE says online."""
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    offline = os.environ.get("WANDB_MODE", "offline") != "online"
    try:
        from lightning.pytorch.loggers import WandbLogger

        name = run.resolve().name
        logger = WandbLogger(f"{name} {part}", run, offline=offline, project="sayso", group=name)
    except ModuleNotFoundError as error:
        raise InputError(f"wandb: true needs pip install 'sayso[wandb]' ({error})") from None
    return logger


def read_log(path: Path) -> list[dict[str, str]]:
    """The lines of a run's CSV by column; one that a kill cut short counts as never written.

    Raises:
        InputError: It is no CSV, or cannot be read.
    """
    try:
        rows = list(csv.DictReader(io.StringIO(read_utf8(path), newline="")))
    except csv.Error as error:
        raise InputError(f"{path} is no log ({error}): remove it") from None
    whole = [row for row in rows if None not in row.values() and {*COLUMNS[:7]} <= {*row}]
    return [row for row in whole if row["step"].isdecimal() and row["level"].isdecimal()]
