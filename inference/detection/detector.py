"""The public detector: which marks a file carries, where, and how sure that is.

No mark found does not mean "recorded from life": marks can be removed, and other systems' speech
carries none of ours. PerTh's mark alone means "marked with PerTh", which others use too and anyone
can put on any recording; so can, by now, the one pattern of older stores. Only a trusted manifest,
or the sound and the mark of one output in the store's ledger, says that it was made here. Next to
the marks stands a hint, whether it sounds like our model (`classifier`). It decides nothing.
"""

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sayso.model.audio import read_audio, resample
from sayso.model.errors import InputError

from ..provenance.c2pa import Manifest, read_manifest, recall_manifest
from ..provenance.certificates import load_anchor
from ..store.released import released
from ..watermark.base import Trace
from ..watermark.ensemble import Found, Marks, load_audioseal_if_there
from ..watermark.fixed_pattern import FixedTrace
from ..watermark.keyed import KeyedTrace, load_keyed
from ..watermark.perth import PERTH_RATE, Perth, PerthTrace, load_watermarker
from .classifier import RATE as SYNTHETIC_RATE
from .classifier import Likeness, listen, load_synthetic


@dataclass(frozen=True)
class Detection:
    """What was found in one file.

    Attributes:
        found: The inaudible marks.
        manifest: The content credentials; only the state "trusted" says that they are ours.
        ledger_ids: Rows of the store's ledger whose outputs sound as the file does and whose marks
            it carries: they name it even when its manifest was stripped. Mostly one or none.
        older_ids: Rows without a fingerprint that the older pattern's bits stand for. That pattern
            can be copied: they may be, or not be, where the file is from.
        recalled: The store's copy of the manifest that the file has lost.
        likeness: Whether it sounds like our model; no mark, and `ours` does not ask it.
    """

    path: Path
    seconds: float
    found: Found
    manifest: Manifest
    likeness: Likeness
    ledger_ids: tuple[str, ...] = ()
    older_ids: tuple[str, ...] = ()
    recalled: Manifest | None = None

    @property
    def present(self) -> bool:
        """Whether any watermark is there."""
        return self.found.present

    @property
    def score(self) -> float:
        """The highest of the watermarks' scores, 0 to 1; from 0.5 on it counts as present."""
        return self.found.score

    @property
    def verdict(self) -> str:
        """ "ours", "marked", "unsure" (PerTh's mark and nothing beside it) or "unmarked".

        Some voices of other synthesisers sound by chance as if they had PerTh's filter on them.
        """
        if self.ours:
            return "ours"
        if not self.present:
            return "unmarked"
        traces = (self.found.keyed, self.found.fixed, self.found.audioseal)
        other = any(trace is not None and trace.present for trace in traces)
        signed = self.manifest.state == "valid" and self.manifest.ledger_id is not None
        return "marked" if other or signed or self.copied_from or self.alike else "unsure"

    @property
    def marked(self) -> bool:
        """Whether it is made with Sayso, or marked as if it were, by more than PerTh's mark."""
        return self.verdict in ("ours", "marked")

    @property
    def ours(self) -> bool:
        """Whether it was made here: a trusted manifest, or sound and mark of an output of ours."""
        return self.manifest.state == "trusted" or bool(self.ledger_ids)

    @property
    def alike(self) -> tuple[str, ...]:
        """Rows of the store that it sounds like, without their marks: washed, or said again."""
        return () if self.found.keyed is None else self.found.keyed.alike

    @property
    def copied_from(self) -> tuple[str, ...]:
        """Rows of the store whose keyed mark lies on this sound, which is not theirs."""
        return () if self.found.keyed is None else self.found.keyed.copied

    def to_json(self) -> dict[str, Any]:
        """For machines; the keys are stable, new ones may come."""
        return {
            "file": str(self.path),
            "seconds": round(self.seconds, 3),
            "verdict": self.verdict,
            "ours": self.ours,
            "watermark": {
                "present": self.present,
                "score": round(self.score, 4),
                "marks": {
                    name: _trace_json(trace, self.seconds)
                    for name, trace in self.found.named().items()
                    if trace is not None
                },
                "ledger_ids": list(self.ledger_ids),
                "older_ids": list(self.older_ids),
                "copied_from": list(self.copied_from),
                "sounds_like_ids": list(self.alike),
            },
            "c2pa": {
                "state": self.manifest.state,
                "ledger_id": self.manifest.ledger_id,
                "when": self.manifest.when,
                "reasons": list(self.manifest.reasons),
                "recalled": None
                if self.recalled is None
                else {"state": self.recalled.state, "ledger_id": self.recalled.ledger_id},
            },
            "sounds_like_ours": _likeness_json(self.likeness),
        }


class Detector:
    """Everything that is needed to look at many files, loaded once.

    Args:
        store: The store's folder, or a PEM file with a root certificate, or None. Without a root
            our own manifests are "valid" at best; without the store's key there is no keyed mark.
        perth: One already loaded.
    Raises:
        InputError: There is no such folder or file.
        MarkError: The watermark's package, the key or the root certificate is unusable.
        CheckpointError: The network that knows our model's speech is missing or damaged.
    """

    def __init__(self, store: str | Path | None = None, perth: Perth | None = None):
        folder = Path(store) if store is not None else None
        self.anchor = None
        if folder is not None and not (folder.is_file() or folder.is_dir()):
            raise InputError(f"{folder} is neither a store nor a root certificate: give one.")
        if folder is not None and folder.is_dir() and not os.access(folder, os.R_OK | os.X_OK):
            raise InputError(f"The store {folder} cannot be read: its owner must look, or give it.")
        if folder is not None and (folder.is_file() or (folder / "ca").exists()):
            self.anchor = load_anchor(folder if folder.is_file() else folder / "ca")
        self.home = folder if folder is not None and folder.is_dir() else None
        keyed = None
        if self.home is not None:
            keyed = load_keyed(self.home, create=False, rows=released(self.home))
        self.marks = Marks(perth or load_watermarker(), keyed, load_audioseal_if_there())
        self.synthetic = load_synthetic()

    def detect(self, path: str | Path, audio: Tensor | None = None) -> Detection:
        """Looks for every mark in one file; InputError if it cannot be read as audio.

        Args:
            audio: (samples,) float32 at `PERTH_RATE`, where somebody has decoded the file already.
        """
        path = Path(path)
        if audio is None:
            audio = read_audio(path, PERTH_RATE, allow_silence=True)[0]
        found = self.marks.search(audio, PERTH_RATE)
        rows = () if found.keyed is None else found.keyed.rows
        older: list[str] = []
        if self.marks.keyed and found.fixed and found.fixed.payload is not None:
            older = self.marks.keyed.fixed.rows(found.fixed.payload, self.marks.keyed.older)
        manifest, recalled = read_manifest(path, self.anchor), None
        if self.home and len(rows) == 1 and manifest.state != "trusted":  # lost, or a stranger's
            recalled = recall_manifest(path, self.home, rows[0], self.anchor)
        narrow = torch.from_numpy(resample(audio.numpy(), PERTH_RATE, SYNTHETIC_RATE))
        likeness = listen(self.synthetic, narrow)
        seconds = len(audio) / PERTH_RATE
        return Detection(path, seconds, found, manifest, likeness, rows, tuple(older), recalled)


def detect(
    path: str | Path, store_folder: str | Path | None = None, watermarker: Perth | None = None
) -> Detection:
    """Looks for every mark in one file; see `Detector` for the arguments and errors."""
    return Detector(store_folder, watermarker).detect(path)


def _trace_json(trace: Trace, seconds: float) -> dict[str, Any]:
    where = trace.where()
    if trace.present and not trace.windows:
        where = [(0.0, seconds)]  # too short to be looked at in parts
    out: dict[str, Any] = {
        "present": trace.present,
        "score": round(trace.score, 4),
        "speed": trace.speed,
        "where": [[round(a, 2), round(b, 2)] for a, b in where],
    }
    if isinstance(trace, PerthTrace):
        out["network"] = round(trace.network, 4)
    if isinstance(trace, KeyedTrace):
        out["likeness"] = round(trace.likeness, 4)
    if isinstance(trace, FixedTrace):
        out["payload"] = trace.payload
    return out


def _likeness_json(likeness: Likeness) -> dict[str, Any]:
    silent = math.isnan(likeness.log_odds)
    return {
        "hint": likeness.like_ours,
        "log_odds": None if silent else round(likeness.log_odds, 3),
        "threshold": likeness.threshold,
        "knows_bundled_model": likeness.current,
        "note": "no mark and no proof; error rates in docs/detector.md",
    }
