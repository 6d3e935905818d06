"""The public detector: which marks a file carries, and how sure that is.

No mark found does not mean "recorded from life": marks can be removed, and other systems' speech
carries none of ours.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sayso.inference.audio import read_audio
from sayso.inference.provenance import Manifest, load_anchor, read_manifest
from sayso.inference.watermark import PERTH_RATE, THRESHOLD, Watermarker, load_watermarker


@dataclass(frozen=True)
class Detection:
    """What was found in one file.

    Attributes:
        score: 0 to 1; `present` is `score` against the calibrated threshold.
        manifest: The content credentials; only the state "trusted" says that they are ours.
    """

    path: Path
    seconds: float
    present: bool
    score: float
    manifest: Manifest

    @property
    def ours(self) -> bool:
        """Whether any layer shows the file to be made here."""
        return self.present or self.manifest.state == "trusted"

    def to_json(self) -> dict[str, Any]:
        return {
            "file": str(self.path),
            "seconds": round(self.seconds, 3),
            "watermark": {"present": self.present, "score": round(self.score, 4)},
            "c2pa": {
                "state": self.manifest.state,
                "ledger_id": self.manifest.ledger_id,
                "reasons": list(self.manifest.reasons),
            },
        }


def detect(
    path: str | Path,
    store_folder: str | Path | None = None,
    watermarker: Watermarker | None = None,
) -> Detection:
    """Looks for every mark in one file, of any format that can be read.

    Args:
        store_folder: Holds `ca/root.pem`, the root to trust; without it, our own manifests are
            "valid" at best.
        watermarker: One already loaded, for many files.
    Raises:
        InputError: The file cannot be read as audio.
        MarkError: The watermark's package is unusable, or the root certificate is.
    """
    path = Path(path)
    audio = read_audio(path, PERTH_RATE, allow_silence=True)[0]
    anchor = None
    if store_folder is not None and (Path(store_folder) / "ca").exists():
        anchor = load_anchor(Path(store_folder) / "ca")
    score = (watermarker or load_watermarker()).score(audio, PERTH_RATE)
    return Detection(
        path=path,
        seconds=len(audio) / PERTH_RATE,
        present=score >= THRESHOLD,
        score=score,
        manifest=read_manifest(path, anchor),
    )
