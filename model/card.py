"""The card beside a model's weights (``card.json``): read, and checked against what it names."""

import json
from pathlib import Path
from typing import Any

from . import corpora
from .checkpoint import WEIGHTS
from .errors import CheckpointError, CorpusError, InputError
from .files import MOST_JSON, file_hash, read_regular

CARD = "card.json"


def read_card(run: Path, replaced: str | None = None) -> dict[str, Any]:
    """The card of a run, its corpora checked against the list and its weights against their hash.

    Args:
        run: Folder of the card.
        replaced: A model whose weights are just being replaced and need not fit.

    Raises:
        CheckpointError: There is no card, or the weights are not those it names.
        CorpusError: The corpora of the card were edited, or are not on the list.
    """
    path = run / CARD
    if not path.exists():
        raise CheckpointError(f"{path} is missing; weights without a card are not used")
    try:
        card = json.loads(read_regular(path, MOST_JSON))
        models = dict(card["models"])
        named = {entry.name for entry in corpora.verify(card["corpora"], path)}
        used = {name for model in models.values() for name in _trained_on(model)}
        wanted = {part: model["weights_sha256"] for part, model in models.items()}
    except (InputError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path} is not a model card: {error}") from error
    if used != named:
        differing = ", ".join(sorted(used ^ named))
        raise CorpusError(f"{path}: the list of corpora was edited: {differing}")
    for part, digest in wanted.items():
        weights = run / part / WEIGHTS
        if part == replaced:
            continue
        if not weights.is_file() or file_hash(weights) != digest:
            raise CheckpointError(f"{weights} is not the file that {path} names; restore it")
    return card


def _trained_on(model: dict[str, Any]) -> set[str]:
    """The corpora of a model, and of the one whose weights it began with."""
    before = model.get("started_from")
    return set(model["trained_on"]) | (_trained_on(before) if before is not None else set())
