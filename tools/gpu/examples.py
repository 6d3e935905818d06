"""A decoder's examples as whole numbers, small enough to travel: an eighth of what they are.

Columns of features are whole numbers of tenths of their deviations. Of what is said, only as the
models say it: the others are augmentation, and would take two thirds of the room.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sayso.model.codecs.base import NOTHING
from sayso.training.fitting.decoder_examples import Example

STEP = 0.1
"""Of a column's deviation: off by .05 at most, where a fitted decoder is off by .4."""
NAMES, TENSORS = "examples.json", "examples.safetensors"


def write_examples(folder: Path, examples: dict[str, Example], symbols: int) -> float:
    """Write examples by name; returns by how many deviations they are off, root mean square.

    Args:
        symbols: Text ids there are.
    """
    rows = {
        "said": torch.cat([each.said[-1] for each in examples.values()]),
        "recorded": torch.cat([each.recorded for each in examples.values()]),
    }
    tensors, off = {}, []
    for name, values in rows.items():
        mean, step = values.mean(0), STEP * values.std(0) + 1e-6
        whole = ((values - mean) / step).round().clamp(-127, 127)
        tensors |= {name: whole.to(torch.int8).T.contiguous()}  # a column's values like each other
        tensors |= {f"{name}.mean": mean, f"{name}.step": step}
        off.append(((whole * step + mean - values) / step * STEP).square().flatten())
    told = [each.symbols for each in examples.values()]
    lengths = [len(each.said[-1]) for each in examples.values()]
    unknown = [torch.full((length,), NOTHING) for length in lengths]
    ids = torch.cat([a if a is not None else b for a, b in zip(told, unknown, strict=True)])
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors | {"symbols": ids.short()}, folder / TENSORS)
    rows_of = {
        name: [length, ids is not None]
        for name, length, ids in zip(examples, lengths, told, strict=True)
    }
    (folder / NAMES).write_text(json.dumps({"symbols": symbols, "examples": rows_of}))
    return float(torch.cat(off).mean().sqrt())


def read_examples(folder: Path) -> tuple[dict[str, Example], int]:
    """What `write_examples` wrote, and how many text ids there are."""
    tensors = load_file(folder / TENSORS)
    names = json.loads((folder / NAMES).read_text())

    def column(name: str) -> Tensor:
        return tensors[name].T.float() * tensors[f"{name}.step"] + tensors[f"{name}.mean"]

    said, recorded, symbols = column("said"), column("recorded"), tensors["symbols"].long()
    examples, start = {}, 0
    for name, (length, told) in names["examples"].items():
        end = start + length
        ids = symbols[start:end] if told else None
        examples[name] = Example([said[start:end]], recorded[2 * start : 2 * end], ids)
        start = end
    return examples, names["symbols"]
