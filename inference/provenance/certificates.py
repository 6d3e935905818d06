"""The signing authority of a store: a root and a leaf certificate, made on first use.

The keys (P-256, mode 0600) never leave the store; only the root certificate is handed out, for
reviewers to trust. What is there but damaged is an error, never silently replaced: a new root
would turn every file signed before into a stranger's.
"""

import datetime
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sayso.model.errors import InputError
from sayso.model.files import MOST_JSON, hand_out, read_bounded, read_regular, replace_file

from ..errors import MarkError

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
    """A root certificate from a PEM file, or from the folder of a CA; else MarkError."""
    path = Path(path)
    file = path / "root.pem" if path.is_dir() else path
    try:
        root = read_regular(file, MOST_JSON)
        x509.load_pem_x509_certificate(root)
    except (InputError, ValueError) as error:
        raise MarkError(f"{file} is not a readable PEM certificate ({error}).") from error
    return Anchor(root)


def export_ca(folder: Path, destination: Path) -> str:
    """Writes a store's root certificate for others to trust; returns its SHA-256 in hex.

    Args:
        folder: The store's `ca`.
    Raises:
        InputError: `destination` lies in the store, or cannot be written.
    """
    ca = ensure_ca(folder)
    hand_out(Path(folder).parent, Path(destination), ca.root)
    return x509.load_pem_x509_certificate(ca.root).fingerprint(hashes.SHA256()).hex()


def _why(error: Exception) -> str:
    if isinstance(error, InvalidSignature):
        return "the leaf certificate was not signed by the root"
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _make_ca(folder: Path) -> None:
    """Root and leaf, made in a folder beside and renamed into place: whole or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".ca-", dir=folder.parent))  # mode 0700
    try:
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name("Sayso local root")
        usage = _usage("key_cert_sign", "crl_sign")
        root = (
            _certificate(name, name, key.public_key(), key.public_key(), ROOT_DAYS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .sign(key, hashes.SHA256())
        )
        replace_file(draft / "root.key", _pem_key(key))
        replace_file(draft / "root.pem", root.public_bytes(serialization.Encoding.PEM))
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
    root = x509.load_pem_x509_certificate(read_bounded(folder / "root.pem", MOST_JSON))
    root_key = _load_key(folder / "root.key")
    key = ec.generate_private_key(ec.SECP256R1())
    leaf = (
        _certificate(
            _name("Sayso signer"), root.subject, key.public_key(), root_key.public_key(), LEAF_DAYS
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage("digital_signature"), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False
        )
        .sign(root_key, hashes.SHA256())
    )
    # One file for key and certificate, so that a crash cannot leave a pair that does not match.
    replace_file(folder / "leaf.pem", _pem_key(key) + leaf.public_bytes(serialization.Encoding.PEM))


def _load_ca(folder: Path) -> tuple[CA, datetime.datetime]:
    for name in FILES:
        if not (folder / name).is_file():
            raise ValueError(f"{name} is missing")
    for name in ("root.key", "leaf.pem"):
        mode = (folder / name).stat().st_mode & 0o777
        if mode & 0o077:
            raise ValueError(f"{name} is open to other users (mode {mode:o}): chmod 600 it")
    root = x509.load_pem_x509_certificate(read_bounded(folder / "root.pem", MOST_JSON))
    leaf = x509.load_pem_x509_certificate(read_bounded(folder / "leaf.pem", MOST_JSON))
    key = _load_key(folder / "leaf.pem")
    leaf.verify_directly_issued_by(root)
    if key.public_key() != leaf.public_key():
        raise ValueError("the key in leaf.pem does not belong to its certificate")
    pem = serialization.Encoding.PEM
    chain = leaf.public_bytes(pem) + root.public_bytes(pem)
    return CA(root.public_bytes(pem), chain, _pem_key(key)), leaf.not_valid_after_utc


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(read_bounded(path, MOST_JSON), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError(f"{path.name} is not an elliptic-curve key")
    return key


def _pem_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


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


def _usage(*allowed: str) -> x509.KeyUsage:
    names = (
        *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment"),
        *("key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
    )
    return x509.KeyUsage(**{name: name in allowed for name in names})
