"""Content credentials on files, for tests: the gate signs what it releases in memory."""

from pathlib import Path

from sayso.inference.errors import MarkError
from sayso.inference.provenance.c2pa import BESIDE, sidecar_of, sign_audio
from sayso.inference.provenance.certificates import CA
from sayso.model.files import replace_file


def sign(
    audio_file: Path,
    out_file: Path,
    ca: CA,
    ledger_id: str,
    card_hash: str,
    title: str,
    sound: bytes = b"",
) -> bytes:
    """`sign_audio` from file to file, whole or not at all; a manifest beside it is written first.

    Returns:
        The manifest.
    Raises:
        MarkError: The file cannot be signed.
    """
    audio_file, out_file = Path(audio_file), Path(out_file)
    suffix = audio_file.suffix.lower()
    if out_file.suffix.lower() != suffix:
        raise MarkError(f"Cannot sign {audio_file.name} as {out_file.name}: give one suffix.")
    try:
        signed, manifest = sign_audio(
            audio_file.read_bytes(), suffix, ca, ledger_id, card_hash, title, sound
        )
        if suffix in BESIDE:
            replace_file(sidecar_of(out_file), manifest, 0o644)
        replace_file(out_file, signed, 0o644)
    except OSError as error:
        raise MarkError(f"{audio_file.name} could not be signed: {error}") from error
    return manifest
