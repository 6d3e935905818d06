"""C2PA content credentials: who made this file, signed by a certificate of our own making.

C2PA 2.x (https://c2pa.org) through c2pa-python, with the certificates of `authority`. Without the
root a good signature is "valid", not "trusted": anybody can make an authority, so only "trusted"
says that the file is ours.
"""

import base64
import dataclasses
import datetime
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, BinaryIO, Literal

import c2pa

from sayso.model.errors import InputError
from sayso.model.files import open_regular, read_bounded, read_regular, replace_file

from ..errors import MarkError
from .certificates import CA, Anchor

State = Literal["trusted", "valid", "invalid", "none"]
TRAINED = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
OUR_LABEL = "org.sayso.generation"
"""The label of our assertion: ledger id, model card hash."""
TYPES = {
    ".wav": "audio/wav",
    ".flac": "audio/flac",
    ".mp3": "audio/mpeg",
    ".m4a": "audio/mp4",
    ".m4b": "audio/mp4",
    ".ogg": "audio/ogg",
    ".opus": "audio/ogg",
}
SIGNED = (".wav", ".flac", ".mp3")
"""These carry the manifest inside them, as .m4b does, which only `Gate.bind` makes."""
BESIDE = (".ogg", ".opus")
"""C2PA has no place in these; their manifest stands in a file beside them."""
MOST_SIDECAR = 2**24
"""Bytes of a manifest beside a file."""
MOST_SIGNED = 2**31
"""Bytes of a file that is signed in memory."""
ELSEWHERE = "Remote: must fetch remote manifests from url "
"""What C2PA says of a file that only names a URL, which is never followed."""
NOT_FETCHED = "not fetched: "
SOFT_BINDING = "org.sayso.sound.1"
"""The fingerprint's name as a C2PA soft binding: it leads back to the ledger row."""


@dataclass(frozen=True)
class Manifest:
    """What the content credentials of a file say.

    Attributes:
        state: "trusted": intact, and signed under the given root. "valid": intact, signed by
            somebody unknown. "invalid": changed after signing, or badly signed. "none": no
            manifest.
        ledger_id: As the manifest claims it; a fact only when `state` is "trusted".
        card_hash: SHA-256 of the model card, likewise.
        when: The signing machine's clock as the file was made; nobody else vouches for it.
        reasons: Codes of the failed checks (C2PA's own), or why nothing was read.
    """

    state: State
    ledger_id: str | None = None
    card_hash: str | None = None
    when: str | None = None
    title: str | None = None
    generator: str | None = None
    reasons: tuple[str, ...] = ()

    @property
    def elsewhere(self) -> bool:
        """Whether the file names a URL to fetch a manifest from, which is not done."""
        return any(reason.startswith(NOT_FETCHED) for reason in self.reasons)


def sign_audio(
    audio: bytes,
    suffix: str,
    ca: CA,
    ledger_id: str,
    card_hash: str,
    title: str,
    sound: bytes = b"",
) -> tuple[bytes, bytes]:
    """Signs a file in memory; the audio data stay as they are, bit for bit.

    Args:
        suffix: Of the file's name, one of `TYPES`.
        sound: Its fingerprint, stated in the manifest as its soft binding.
    Returns:
        The file with our manifest in it, and the manifest itself (see `keep_manifest`). Ogg and
        Opus have no place for a manifest: the file is as it was, the manifest goes beside it.
    Raises:
        MarkError: The file cannot be signed.
    """
    suffix = suffix.lower()
    if suffix not in TYPES:
        raise MarkError(f"Cannot sign {suffix} files; use {', '.join(TYPES)}.")
    definition = manifest_definition(ledger_id, card_hash, title, TYPES[suffix], sound)
    if suffix in BESIDE:
        return audio, _signed(io.BytesIO(audio), io.BytesIO(), "", definition, ca)
    target = io.BytesIO()
    manifest = _signed(io.BytesIO(audio), target, TYPES[suffix], definition, ca)
    return target.getvalue(), manifest


def sign_stream(
    wav: BinaryIO, ca: CA, ledger_id: str, card_hash: str, title: str, sound: bytes
) -> bytes:
    """The manifest of a WAV of unknown length, to stand beside it; arguments as of `sign_audio`."""
    definition = manifest_definition(ledger_id, card_hash, title, TYPES[".wav"], sound)
    return _signed(wav, io.BytesIO(), "", definition, ca)


def _signed(
    source: BinaryIO, target: BinaryIO, kind: str, definition: dict[str, Any], ca: CA
) -> bytes:
    """The manifest, put into the target too where there is a kind that has room; else MarkError."""
    try:
        with _signer(ca) as signer, c2pa.Builder(json.dumps(definition)) as builder:
            if not kind:
                builder.set_no_embed()
            # What has no known form is hashed as it is; C2PA would not have a WAV without a length.
            return builder.sign(signer, kind or TYPES[".ogg"], source, target)
    except (c2pa.C2paError, OSError) as error:
        raise MarkError(f"{definition['title']} could not be signed: {error}") from error


def sidecar_of(path: Path) -> Path:
    """Where the manifest of a file that cannot hold one stands: `speech.opus.c2pa`."""
    return Path(path).with_name(Path(path).name + ".c2pa")


def read_manifest(path: Path, ca: Anchor | None) -> Manifest:
    """The manifest inside or beside a file, checked against a root (a CA is one) if given.

    InputError if there is no file.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"There is no file {path}.")

    def beside() -> bytes | None:
        there = sidecar_of(path).is_file()
        return read_regular(sidecar_of(path), MOST_SIDECAR) if there else None

    try:
        with open_regular(path) as file:
            return held_manifest(file, path, beside, ca)
    except (InputError, OSError) as error:
        return Manifest("invalid", reasons=(str(error),))


def held_manifest(
    file: BinaryIO, name: Path, beside: Callable[[], bytes | None], ca: Anchor | None
) -> Manifest:
    """As `read_manifest`, of an open file with a name, and of what stands beside it, if asked."""
    suffix = name.suffix.lower()
    if suffix in BESIDE:
        if (sidecar := beside()) is None:
            return Manifest("none", reasons=(f"no {sidecar_of(name).name} beside it",))
        return check_manifest(file, suffix, sidecar, ca)
    found = check_manifest(file, suffix, None, ca)
    if found.state in ("none", "invalid") and (sidecar := beside()) is not None:  # a stream's
        found = check_manifest(file, suffix, sidecar, ca)
    return found


def check_manifest(
    audio: BinaryIO, suffix: str, sidecar: bytes | None, ca: Anchor | None
) -> Manifest:
    """The manifest inside an open file, or the one given, checked against a root if given."""
    if suffix not in TYPES:
        return Manifest("none", reasons=(f"C2PA has no form for {suffix or 'this'} files",))
    try:
        audio.seek(0)
        with _context(ca) as context:
            reader = c2pa.Reader.try_create(TYPES[suffix], audio, sidecar, context=context)
            if reader is None:
                return Manifest("none")
            with reader:
                return _manifest(json.loads(reader.json()))
    except (c2pa.C2paError, OSError) as error:
        if (where := str(error)).startswith(ELSEWHERE):
            return Manifest("none", reasons=(NOT_FETCHED + where.removeprefix(ELSEWHERE),))
        # Something is there (or the container is broken) that C2PA cannot make sense of.
        return Manifest("invalid", reasons=(str(error),))


def keep_manifest(home: Path, ledger_id: str, manifest: bytes) -> None:
    """Keeps a manifest in the store, for when a file has lost it; else MarkError."""
    file = kept_path(home, ledger_id)
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_file(file, manifest)
    except OSError as error:
        raise MarkError(f"The manifest cannot be kept as {file}: {error}.") from error


def recall_manifest(path: Path, home: Path, ledger_id: str, ca: Anchor | None) -> Manifest | None:
    """The kept manifest of a ledger row for a file whose own was stripped; None if none was kept.

    Its audio has changed since, so its hash cannot match: "trusted" or "valid" here speaks of the
    manifest's signature and content alone. That it belongs to this audio rests on its sound.
    """
    file = kept_path(home, ledger_id)
    if not file.is_file():
        return None
    try:
        kept = read_bounded(file, MOST_SIDECAR)
        with (
            _context(ca) as context,
            open_regular(Path(path)) as audio,
            c2pa.Reader("audio/wav", audio, kept, context=context) as reader,
        ):
            found = json.loads(reader.json())
        results = found["validation_results"]["activeManifest"]
        failed = {str(failure["code"]) for failure in results["failure"]}
        passed = {str(success["code"]) for success in results["success"]}
    except (c2pa.C2paError, OSError, KeyError) as error:
        return Manifest("invalid", reasons=(f"{file.name}: {error}",))
    wrong = failed - {"assertion.dataHash.mismatch", "signingCredential.untrusted"}
    state: State = "trusted" if "signingCredential.trusted" in passed else "valid"
    if wrong or "claimSignature.validated" not in passed:
        state = "invalid"
    return dataclasses.replace(_manifest(found), state=state, reasons=tuple(sorted(failed)))


def manifest_definition(
    ledger_id: str, card_hash: str, title: str, kind: str, sound: bytes = b""
) -> dict[str, Any]:
    """The manifest before signing: made by a trained model, when, with ledger id and card hash."""
    agent = {"name": "Sayso", "version": _version()}
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    created = {"action": "c2pa.created", "when": now.replace("+00:00", "Z")}
    created |= {"digitalSourceType": TRAINED, "softwareAgent": agent}
    ours = {"ledger_id": ledger_id, "model_card_sha256": card_hash}
    assertions: list[dict[str, Any]] = [
        {"label": "c2pa.actions", "data": {"actions": [created]}},
        {"label": OUR_LABEL, "data": ours},
    ]
    if sound:
        blocks = [{"scope": {}, "value": base64.b64encode(sound).decode()}]
        binding = {"alg": SOFT_BINDING, "blocks": blocks}
        assertions.append({"label": "c2pa.soft-binding", "data": binding})
    return {
        "claim_generator_info": [agent],
        "title": title,
        "format": kind,
        "assertions": assertions,
    }


def _manifest(found: dict[str, Any]) -> Manifest:
    active = found.get("manifests", {}).get(found.get("active_manifest"), {})
    data, when = {}, None
    for assertion in active.get("assertions", []):
        if assertion.get("label") == OUR_LABEL:
            data = assertion.get("data", {})
        if str(assertion.get("label", "")).startswith("c2pa.actions"):
            when = next((a.get("when") for a in assertion["data"].get("actions", [])), None)
    results = found.get("validation_results", {}).get("activeManifest", {})
    reasons = tuple(str(failure.get("code")) for failure in results.get("failure", []))
    state = str(found.get("validation_state", "Invalid")).lower()
    known: dict[str, State] = {"trusted": "trusted", "valid": "valid"}
    generator = (active.get("claim_generator_info") or [{}])[0].get("name")
    return Manifest(
        state=known.get(state, "invalid"),
        ledger_id=data.get("ledger_id"),
        card_hash=data.get("model_card_sha256"),
        when=when,
        title=active.get("title"),
        generator=generator,
        reasons=reasons,
    )


def kept_path(home: Path, ledger_id: str) -> Path:
    """Where the store keeps the manifest of a ledger row."""
    # The id may come from a manifest that a stranger wrote: it must not lead out of the folder.
    name = "".join(c for c in ledger_id if c.isalnum() or c in "-_")
    return Path(home) / "manifests" / f"{name or 'unnamed'}.c2pa"


def _context(ca: Anchor | None) -> c2pa.Context:
    trust = {"trust_anchors": ca.root.decode()} if ca else {}
    # A file may name a URL to fetch its manifest, or its certificate's state, from: never followed.
    verify = {"verify_trust": ca is not None, "remote_manifest_fetch": False, "ocsp_fetch": False}
    return c2pa.Context(c2pa.Settings.from_dict({"trust": trust, "verify": verify}))


def _signer(ca: CA) -> c2pa.Signer:
    info = c2pa.C2paSignerInfo(alg=b"es256", sign_cert=ca.chain, private_key=ca.key, ta_url=None)
    return c2pa.Signer.from_info(info)


def _version() -> str:
    try:
        return version("sayso")
    except PackageNotFoundError:
        return "unknown"
