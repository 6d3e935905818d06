"""Signing keys and signatures: Ed25519 (RFC 8032) in compact JWS (RFC 7515), key ids by RFC 7638.

A key is one file, `<kid>.pem` (PKCS#8, mode 0600), encrypted when SAYSO_PASSPHRASE is set. The kid
is the thumbprint of the public key, so a file that was swapped or damaged cannot pass for the right
one. The JWS algorithm is EdDSA over Ed25519, named `EdDSA` (RFC 8037), as common libraries verify
it; `Ed25519`, its name in RFC 9864 and in what earlier versions signed, is read as well.
"""

import base64
import json
import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from joserfc import jws
from joserfc.jwk import OKPKey

from sayso.model.files import MOST_JSON, create_file, open_regular, read_bounded, sync_folder

from ..errors import StoreError

ALGORITHM, ALSO_READ = "EdDSA", "Ed25519"
COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")


BLOCK = re.compile(
    r"(?:Valid: (?P<start>[0-9T:.Z-]{24}) to (?P<end>[0-9T:.Z-]{24}|further notice)\n)?"
    r"(?P<pem>-----BEGIN PUBLIC KEY-----\n.*?-----END PUBLIC KEY-----\n)",
    re.S,
)


@dataclass(frozen=True)
class Public:
    """A public key, and from when to when it signs; "" is not known, or not ended."""

    key: Ed25519PublicKey
    span: tuple[str, str] = ("", "")


class Registry(jws.JWSRegistry):
    """One algorithm under two names; and payloads as long as the receipt of a large corpus.

    joserfc signs more than the 128,000 bytes it would read again.
    """

    max_payload_length = 16 * 2**20

    def get_alg(self, name: str):
        """As joserfc, which warns whoever runs a verb that RFC 9864 renames `EdDSA`."""
        if name not in (ALGORITHM, ALSO_READ):
            return super().get_alg(name)  # which refuses it
        return self.algorithms[name]


REGISTRY = Registry(algorithms=[ALGORITHM, ALSO_READ])


class SignatureError(Exception):
    """A token is malformed, changed or signed by another key (callers say whose it is)."""


def canonical(value: object) -> bytes:
    """JSON with sorted keys and no spaces, UTF-8: one value, one sequence of bytes."""
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode()


def passphrase() -> bytes | None:
    """What SAYSO_PASSPHRASE holds, or None when it is unset or empty."""
    return os.environ.get("SAYSO_PASSPHRASE", "").encode() or None


def next_passphrase() -> bytes | None:
    """The passphrase of a key that is made now: SAYSO_NEW_PASSPHRASE if set (empty is none)."""
    fresh = os.environ.get("SAYSO_NEW_PASSPHRASE")
    return passphrase() if fresh is None else fresh.encode() or None


def thumbprint(key: Ed25519PublicKey) -> str:
    """The kid of a public key: base64url SHA-256 of its JWK (RFC 7638)."""
    return OKPKey.import_key(key).thumbprint()


def public_pem(key: Ed25519PrivateKey | Ed25519PublicKey) -> str:
    """The public key as PEM text (SubjectPublicKeyInfo): all that a third party needs."""
    public = key.public_key() if isinstance(key, Ed25519PrivateKey) else key
    return public.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    ).decode()


def load_public(pem: str, name: str = "public key") -> Ed25519PublicKey:
    """Read a public key; StoreError naming `name` unless it is exactly an Ed25519 PEM."""
    try:
        key = serialization.load_pem_public_key(pem.encode())
    except Exception as error:  # OpenSSL raises many kinds on damaged input
        raise StoreError(f"{name} holds no readable PEM public key: get it again.") from error
    if not isinstance(key, Ed25519PublicKey) or public_pem(key) != pem:
        raise StoreError(f"{name} is not an unchanged Ed25519 public key: get it again.")
    return key


def dated_pem(pem: str, span: tuple[str, str]) -> str:
    """A public key with the times between which it signs (RFC 7468 lets text stand before it)."""
    return f"Valid: {span[0]} to {span[1] or 'further notice'}\n{pem}"


def load_publics(text: str, name: str = "public key") -> dict[str, Public]:
    """Read one or more public keys, as `sayso receipt key` prints them, by their kids.

    Raises:
        StoreError: The text holds anything but keys, and before each, perhaps, its times.
    """
    blocks = list(BLOCK.finditer(text))
    if not blocks or "".join(block[0] for block in blocks) != text:  # then it is one key, or none
        key = load_public(text, name)
        return {thumbprint(key): Public(key)}
    found = {}
    for block in blocks:
        key = load_public(block["pem"], name)
        end = block["end"] or ""
        found[thumbprint(key)] = Public(key, (block["start"] or "", "" if " " in end else end))
    return found


def create_key(folder: Path, secret: bytes | None) -> Ed25519PrivateKey:
    """Make a key and store it as `folder/<kid>.pem`, readable by its owner alone.

    Args:
        secret: The passphrase to encrypt it with, or None.
    """
    key = Ed25519PrivateKey.generate()
    encryption = (
        serialization.BestAvailableEncryption(secret) if secret else serialization.NoEncryption()
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )
    create_file(folder / f"{thumbprint(key.public_key())}.pem", pem)
    return key


def load_key(folder: Path, kid: str) -> Ed25519PrivateKey:
    """Read `folder/<kid>.pem`; StoreError naming the file when it is missing, locked or changed."""
    path = folder / f"{kid}.pem"
    remedy = "Restore it from a backup, or start a new store with another SAYSO_HOME."
    try:
        pem = read_bounded(path, MOST_JSON)
        check_private(path)
    except OSError as error:
        raise StoreError(
            f"The signing key {path} cannot be read ({error.strerror}). {remedy}"
        ) from None
    secret = passphrase() if b"ENCRYPTED" in pem else None
    if b"ENCRYPTED" in pem and secret is None:
        raise StoreError(f"The signing key {path} is locked: set SAYSO_PASSPHRASE.")
    try:
        key = serialization.load_pem_private_key(pem, secret)
    except Exception as error:  # OpenSSL raises many kinds on damaged input; all mean the same here
        raise StoreError(
            f"The signing key {path} cannot be opened: SAYSO_PASSPHRASE is wrong, or the file was "
            f"changed. {remedy}"
        ) from error
    if (
        not isinstance(key, Ed25519PrivateKey)
        or thumbprint(key.public_key()) != kid
        or not _is_canonical_pem(pem, key, encrypted=secret is not None)
    ):
        raise StoreError(f"The signing key {path} was changed. {remedy}")
    return key


def _is_canonical_pem(pem: bytes, key: Ed25519PrivateKey, encrypted: bool) -> bool:
    """Whether the file is byte for byte as written: PEM readers forgive changes, we do not."""
    if not encrypted:
        return pem == key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    label = b"ENCRYPTED PRIVATE KEY"
    body = pem.removeprefix(b"-----BEGIN " + label + b"-----\n")
    body = body.removesuffix(b"-----END " + label + b"-----\n")
    try:
        der = base64.b64decode(body.replace(b"\n", b""), validate=True)
    except ValueError:
        return False
    text = base64.b64encode(der)
    lines = [text[start : start + 64] for start in range(0, len(text), 64)]
    return pem == b"\n".join(
        [b"-----BEGIN " + label + b"-----", *lines, b"-----END " + label + b"-----", b""]
    )


def within(time: str, span: tuple[str, str]) -> bool:
    """Whether a time (`ledger.stamp`) lies in a key's: from the first, before the second, "" open.

    A receipt may be dated a little before the row that brought its key in: both are of one moment.
    """
    return span[0] <= time and (not span[1] or time <= span[1])


def sign(payload: bytes, key: Ed25519PrivateKey, kind: str) -> str:
    """Sign `payload`: a compact JWS whose header names the kid and the kind of document (`typ`).

    StoreError where the payload is too long.
    """
    header = {"alg": ALGORITHM, "kid": thumbprint(key.public_key()), "typ": kind}
    if len(payload) * 4 // 3 >= Registry.max_payload_length:
        raise StoreError(f"{len(payload)} bytes cannot be signed as one {kind}: give fewer.")
    return jws.serialize_compact(header, payload, OKPKey.import_key(key), registry=REGISTRY)


def key_id(token: str) -> str:
    """The kid that a token claims, not yet verified; SignatureError if it has none."""
    if not COMPACT.fullmatch(token):
        raise SignatureError("it is not a compact JWS")
    try:
        kid = jws.extract_compact(token.encode(), registry=REGISTRY).headers()["kid"]
    except Exception as error:  # a stranger's bytes (a list, ten thousand brackets ...)
        raise SignatureError("its header cannot be read") from error
    return str(kid)


def verify(token: str, key: Ed25519PublicKey, kind: str) -> bytes:
    """The payload of a token of this kind signed by this key, else SignatureError.

    The token must be spelled exactly as signing spells it: base64 lets several spellings of the
    last character mean the same bytes, and a changed file is a changed file.
    """
    if key_id(token) != thumbprint(key):
        raise SignatureError("it was signed by another key")
    try:
        found = jws.deserialize_compact(token, OKPKey.import_key(key), registry=REGISTRY)
    except Exception as error:  # likewise; nothing but a good signature passes
        raise SignatureError("its signature does not fit") from error
    for part in token.split("."):
        data = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
        if base64.urlsafe_b64encode(data).rstrip(b"=").decode() != part:
            raise SignatureError("it was re-spelled")
    if found.protected.get("typ") != kind or set(found.protected) != {"alg", "kid", "typ"}:
        raise SignatureError(f"it is not a {kind}")
    return found.payload


def check_private(path: Path) -> None:
    """StoreError if a secret file is open to other users (somebody copied or changed it)."""
    mode = path.stat().st_mode & 0o777
    if os.name == "posix" and mode & 0o077:
        raise StoreError(f"{path} is open to other users (mode {mode:o}): chmod 600 it.")


def destroy(path: Path) -> None:
    """Overwrite a secret file where it lies, then remove it; no error if it is gone already.

    On copy-on-write file systems, flash drives and backups an old copy of the bytes may survive.
    """
    try:
        if path.is_file() and not path.is_symlink():  # what it leads to is another's
            with open_regular(path, os.O_RDWR | os.O_NOFOLLOW) as file:
                size = min(os.fstat(file.fileno()).st_size, MOST_JSON)
                os.pwrite(file.fileno(), secrets.token_bytes(size), 0)
                os.fsync(file.fileno())
        path.unlink()
    except FileNotFoundError:
        return
    sync_folder(path.parent)
