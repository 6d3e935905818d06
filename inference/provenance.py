"""C2PA content credentials: who made this file, signed by a certificate of our own making.

C2PA 2.x (https://c2pa.org) through c2pa-python. The authority (a root and a leaf it signs) is made
on first use in the store and never leaves it; only the root certificate is handed out, for
reviewers to trust. Without that root a good signature is "valid", not "trusted": anybody can make
an authority, so only "trusted" says that the file is ours.
"""

import contextlib
import datetime
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import c2pa
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sayso.model.errors import InputError, MarkError

State = Literal["trusted", "valid", "invalid", "none"]
TRAINED = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
OUR_LABEL = "org.sayso.generation"
"""The label of our assertion: ledger id, model card hash."""
TYPES = {".wav": "audio/wav", ".flac": "audio/flac", ".mp3": "audio/mpeg", ".m4a": "audio/mp4"}
SIGNED = (".wav", ".flac", ".mp3")
ROOT_DAYS, LEAF_DAYS = 7300, 1825
FILES = ("root.pem", "root.key", "leaf.pem")


@dataclass(frozen=True)
class Anchor:
    """A root certificate (PEM) that one chooses to trust."""

    root: bytes


@dataclass(frozen=True)
class CA(Anchor):
    """Our signing authority: the chain (leaf, then root, PEM) and the leaf's private key (PEM)."""

    chain: bytes
    key: bytes


@dataclass(frozen=True)
class Manifest:
    """What the content credentials of a file say.

    Attributes:
        state: "trusted": intact, and signed under the given root. "valid": intact, signed by
            somebody unknown. "invalid": changed after signing, or badly signed. "none": no
            manifest.
        ledger_id: As the manifest claims it; a fact only when `state` is "trusted".
        card_hash: SHA-256 of the model card, likewise.
        reasons: Codes of the failed checks (C2PA's own), or why nothing was read.
    """

    state: State
    ledger_id: str | None = None
    card_hash: str | None = None
    title: str | None = None
    generator: str | None = None
    reasons: tuple[str, ...] = ()


def ensure_ca(folder: Path) -> CA:
    """The authority in `folder`, made there on first use; an expired leaf is renewed.

    Raises:
        MarkError: The authority is there but unreadable, truncated, or its parts do not belong
            together; or its keys are open to other users. It is never silently replaced.
    """
    folder = Path(folder)
    try:
        if not folder.exists() or not any(folder.iterdir()):
            _make_ca(folder)
        ca, expiry = _load_ca(folder)
        if expiry < _now() + datetime.timedelta(days=1):
            _renew_leaf(folder)
            ca, _ = _load_ca(folder)
        return ca
    except (OSError, ValueError, TypeError, InvalidSignature) as error:
        raise MarkError(
            f"The signing authority in {folder} cannot be read ({_why(error)}). Restore it from a "
            "backup; or move the folder away: a new one is made, which others must then trust anew."
        ) from error


def load_anchor(path: Path) -> Anchor:
    """A root certificate from a PEM file, or from the folder of a CA, to check files against."""
    path = Path(path)
    file = path / "root.pem" if path.is_dir() else path
    try:
        root = file.read_bytes()
        x509.load_pem_x509_certificate(root)
    except (OSError, ValueError) as error:
        raise MarkError(f"{file} is not a readable PEM certificate ({error}).") from error
    return Anchor(root)


def export_ca(folder: Path, destination: Path) -> str:
    """Writes the root certificate for others to trust; returns its SHA-256 fingerprint in hex."""
    ca = ensure_ca(folder)
    Path(destination).write_bytes(ca.root)
    return x509.load_pem_x509_certificate(ca.root).fingerprint(hashes.SHA256()).hex()


def sign(
    audio_file: Path, out_file: Path, ca: CA, ledger_id: str, card_hash: str, title: str
) -> None:
    """Writes `audio_file` with our manifest in it to `out_file`, whole or not at all.

    The audio data stay as they are, bit for bit. `out_file`'s suffix must be .wav, .flac or .mp3.

    Raises:
        MarkError: The file cannot be signed.
    """
    audio_file, out_file = Path(audio_file), Path(out_file)
    suffix = audio_file.suffix.lower()
    if suffix not in SIGNED or out_file.suffix.lower() != suffix:
        raise MarkError(
            f"Cannot sign {audio_file.name} as {out_file.name}: one suffix, of {', '.join(SIGNED)}."
        )
    # Beside the destination, so that the last step is one atomic rename.
    handle, name = tempfile.mkstemp(suffix=suffix, prefix=".signing-", dir=out_file.parent)
    os.close(handle)
    try:
        definition = manifest_definition(ledger_id, card_hash, title, TYPES[suffix])
        with (
            _signer(ca) as signer,
            c2pa.Builder(json.dumps(definition)) as builder,
            audio_file.open("rb") as source,
            open(name, "w+b") as target,
        ):
            builder.sign(signer, TYPES[suffix], source, target)
        os.replace(name, out_file)
    except (c2pa.C2paError, OSError) as error:
        raise MarkError(f"{audio_file.name} could not be signed: {error}") from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)


def read_manifest(path: Path, ca: Anchor | None) -> Manifest:
    """The manifest inside a file, checked against a root if one is given (a CA is one)."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"There is no file {path}.")
    kind = TYPES.get(path.suffix.lower())
    if kind is None:
        return Manifest("none", reasons=(f"C2PA has no form for {path.suffix or 'this'} files",))
    try:
        with _context(ca) as context, path.open("rb") as file:
            reader = c2pa.Reader.try_create(kind, file, context=context)
            if reader is None:
                return Manifest("none")
            with reader:
                return _manifest(json.loads(reader.json()))
    except c2pa.C2paError as error:
        # Something is there (or the container is broken) that C2PA cannot make sense of.
        return Manifest("invalid", reasons=(str(error),))


def manifest_definition(ledger_id: str, card_hash: str, title: str, kind: str) -> dict[str, Any]:
    """The manifest before signing: created by a trained model, with the ledger id and card hash."""
    agent = {"name": "Sayso", "version": _version()}
    created = {"action": "c2pa.created", "digitalSourceType": TRAINED, "softwareAgent": agent}
    return {
        "claim_generator_info": [agent],
        "title": title,
        "format": kind,
        "assertions": [
            {"label": "c2pa.actions", "data": {"actions": [created]}},
            {"label": OUR_LABEL, "data": {"ledger_id": ledger_id, "model_card_sha256": card_hash}},
        ],
    }


def _manifest(found: dict[str, Any]) -> Manifest:
    active = found.get("manifests", {}).get(found.get("active_manifest"), {})
    ours = next((a for a in active.get("assertions", []) if a.get("label") == OUR_LABEL), {})
    data = ours.get("data", {})
    results = found.get("validation_results", {}).get("activeManifest", {})
    reasons = tuple(str(failure.get("code")) for failure in results.get("failure", []))
    state = str(found.get("validation_state", "Invalid")).lower()
    known: dict[str, State] = {"trusted": "trusted", "valid": "valid"}
    generator = (active.get("claim_generator_info") or [{}])[0].get("name")
    return Manifest(
        state=known.get(state, "invalid"),
        ledger_id=data.get("ledger_id"),
        card_hash=data.get("model_card_sha256"),
        title=active.get("title"),
        generator=generator,
        reasons=reasons,
    )


def _context(ca: Anchor | None) -> c2pa.Context:
    trust = {"trust_anchors": ca.root.decode()} if ca else {}
    return c2pa.Context(
        c2pa.Settings.from_dict({"trust": trust, "verify": {"verify_trust": ca is not None}})
    )


def _signer(ca: CA) -> c2pa.Signer:
    info = c2pa.C2paSignerInfo(alg=b"es256", sign_cert=ca.chain, private_key=ca.key, ta_url=None)
    return c2pa.Signer.from_info(info)


def _version() -> str:
    try:
        return version("sayso")
    except PackageNotFoundError:
        return "unknown"


# -- the authority ---------------------------------------------------------------------------------


def _why(error: Exception) -> str:
    if isinstance(error, InvalidSignature):
        return "the leaf certificate was not signed by the root"
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc)


def _make_ca(folder: Path) -> None:
    """Root and leaf, made in a folder beside and renamed into place: whole or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".ca-", dir=folder.parent))  # mode 0700
    try:
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name("Sayso local root")
        usage = _usage(key_cert_sign=True, crl_sign=True)
        root = (
            _certificate(name, name, key.public_key(), key.public_key(), ROOT_DAYS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .sign(key, hashes.SHA256())
        )
        _write(draft / "root.key", _pem_key(key))
        _write(draft / "root.pem", root.public_bytes(serialization.Encoding.PEM))
        _renew_leaf(draft)
        try:
            draft.rename(folder)
        except OSError:
            if not any(folder.iterdir()):  # else another process was first: its is used
                raise
    except OSError as error:
        raise MarkError(f"The signing authority cannot be made in {folder}: {error}.") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _renew_leaf(folder: Path) -> None:
    root = x509.load_pem_x509_certificate((folder / "root.pem").read_bytes())
    root_key = _load_key(folder / "root.key")
    key = ec.generate_private_key(ec.SECP256R1())
    leaf = (
        _certificate(
            _name("Sayso signer"), root.subject, key.public_key(), root_key.public_key(), LEAF_DAYS
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False
        )
        .sign(root_key, hashes.SHA256())
    )
    # One file for key and certificate, so that a crash cannot leave a pair that does not match.
    _write(folder / "leaf.pem", _pem_key(key) + leaf.public_bytes(serialization.Encoding.PEM))


def _load_ca(folder: Path) -> tuple[CA, datetime.datetime]:
    for name in FILES:
        if not (folder / name).is_file():
            raise ValueError(f"{name} is missing")
    for name in ("root.key", "leaf.pem"):
        mode = (folder / name).stat().st_mode & 0o777
        if mode & 0o077:
            raise ValueError(f"{name} is open to other users (mode {mode:o}): chmod 600 it")
    root = x509.load_pem_x509_certificate((folder / "root.pem").read_bytes())
    leaf = x509.load_pem_x509_certificate((folder / "leaf.pem").read_bytes())
    key = _load_key(folder / "leaf.pem")
    leaf.verify_directly_issued_by(root)
    if key.public_key() != leaf.public_key():
        raise ValueError("the key in leaf.pem does not belong to its certificate")
    pem = serialization.Encoding.PEM
    chain = leaf.public_bytes(pem) + root.public_bytes(pem)
    return CA(root.public_bytes(pem), chain, _pem_key(key)), leaf.not_valid_after_utc


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError(f"{path.name} is not an elliptic-curve key")
    return key


def _pem_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _write(path: Path, data: bytes) -> None:
    """Atomically, readable by nobody else."""
    draft = path.with_name(f".{path.name}.new")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)


def _name(common: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "XX"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Sayso"),
            x509.NameAttribute(NameOID.COMMON_NAME, common),
        ]
    )


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    issuer_key: ec.EllipticCurvePublicKey,
    days: int,
) -> x509.CertificateBuilder:
    start = _now() - datetime.timedelta(minutes=5)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False
        )
    )


def _usage(
    digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )
