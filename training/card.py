"""The card beside a model's weights: what it was trained on, on what basis, how far, how well."""

import shutil
from pathlib import Path
from typing import Any

from sayso.model.card import CARD, read_card
from sayso.model.checkpoint import WEIGHTS
from sayso.model.errors import CheckpointError
from sayso.model.files import file_hash, unique, write_json

from .tokens import Tokens

MADE_WITH = ("codec", "tokenizer", "timbre")
"""What both models of a run must have in common."""


def write_card(
    run: Path,
    name: str,
    part: str,
    tokens: Tokens,
    figures: dict[str, Any],
    started_from: Path | None = None,
) -> None:
    """Puts one model (``ar`` or ``nar``) into the run's card.

    Args:
        run: Folder of the run; the weights are in ``run/part``.
        name: Name of the run.
        part: ``ar`` or ``nar``.
        tokens: What it was trained on.
        figures: What is known of the training: steps, minutes, losses.
        started_from: The model folder whose weights it began with: what these were trained on
            stays on the card.

    Raises:
        CheckpointError: The other model of the run was trained on other token files.
    """
    hours = tokens.frames / tokens.codec["frame_rate"] / 3600
    source = {
        "corpora": list(tokens.corpora),
        "tokens": tokens.manifests,
        "codec": tokens.codec,
        "tokenizer": tokens.tokenizer,
        **({} if tokens.timbre is None else {"timbre": {"identity": tokens.timbre}}),
        "hours": round(float(hours.sum()), 3),
        "hours_recorded": round(float(hours[tokens.recorded].sum()), 3),  # the rest: altered copies
    }
    card: dict[str, Any] = {"name": name, **source, "models": {}}
    if (run / CARD).is_file():
        old = read_card(run, replaced=part)
        others = {key: value for key, value in old["models"].items() if key != part}
        if others and any(old.get(key) != card.get(key) for key in MADE_WITH):
            raise CheckpointError(
                f"{run / CARD}: {', '.join(others)} was trained with another codec, tokenizer or "
                "timbre; train both models of a run on the same token files"
            )
        card["models"] = others
        if others:  # a corpus that went into either model stays on the card
            _join(card, old)
    weights = file_hash(run / part / WEIGHTS)
    trained_on = [entry["name"] for entry in tokens.corpora]
    card["models"][part] = {"weights_sha256": weights, "trained_on": trained_on, **figures}
    if started_from is not None:
        before = read_card(started_from.parent)
        _join(card, before)
        card["models"][part]["started_from"] = before["models"][started_from.name]
    write_json(run / CARD, card)


def share(run: Path, other: Path) -> None:
    """Takes the NAR of another run into a run: one NAR serves an AR of any group size.

    Args:
        run: Folder of the run that has none.
        other: Folder of the run that trained it.

    Raises:
        CheckpointError: The other run has none, this one has one, or they have not the same codec,
            tokenizer and timbre.
        CorpusError: A card names a corpus that is not listed, or was edited.
    """
    card, theirs = read_card(run), read_card(other)
    if "nar" not in theirs["models"]:
        raise CheckpointError(f"{other / CARD} names no nar; it has {list(theirs['models'])}")
    if (run / "nar").exists() or "nar" in card["models"]:
        raise CheckpointError(f"{run} has a nar of its own; move it away first")
    for key in MADE_WITH:
        if card.get(key) != theirs.get(key):
            raise CheckpointError(f"{other} was trained with another {key} than {run}")
    copy = run / f".nar.{unique()}"
    shutil.copytree(other / "nar", copy)
    copy.rename(run / "nar")
    _join(card, theirs)
    card["models"]["nar"] = {**theirs["models"]["nar"], "from": theirs["name"]}
    write_json(run / CARD, card)


def _join(card: dict[str, Any], other: dict[str, Any]) -> None:
    """Puts corpora and token files of another card onto this one, too."""
    known = {entry["name"] for entry in card["corpora"]}
    card["corpora"] += [entry for entry in other["corpora"] if entry["name"] not in known]
    card["tokens"] = {**other["tokens"], **card["tokens"]}
