"""Options that several verbs take."""

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[Path | None, typer.Option(help="Model folder; bundled by default.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, mps or auto: the fastest.")]
Precision = Annotated[
    str, typer.Option(help="Of the model's layers: fp32, bf16 or int8 (fewer bytes a step).")
]
Compiled = Annotated[
    bool, typer.Option("--compile", help="Compile the model's step at first (for GPUs).")
]
