"""Receipts: who allowed what with a voice, signed; anyone with the public key can verify them.

A receipt is a compact JWS over canonical JSON. Its fields follow ISO/IEC TS 27560:2023 (consent
record: header, processing, parties, event) where that has a field, under that field's name; what it
does not have (voice, prompt hash, scope, checks, ledger anchor) stands under "sayso". `kantara`
gives the same facts as a Kantara Consent Receipt 1.1. No audio, codes or embedding is in a receipt:
only their hashes.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from torch import Tensor

from sayso.model.files import read_regular

from ..errors import RefusedError, StoreError
from ..store import keys
from ..store.ledger import seconds

KIND = "sayso-receipt"
SCHEMA = "ISO/IEC TS 27560:2023 + sayso-receipt/1"
ANY = "*"  # in a scope: any purpose or any user; never issued for a person's purposes
MAX_NAME = 200  # characters in a voice, purpose or user: longer ones are cut before they are logged
Basis = Literal["consent", "synthetic", "corpus"]
MAX_BYTES = 16 * 2**20  # of a receipt's file; a corpus receipt lists its sentences' hashes
LAWFUL_BASIS = {
    "consent": "consent",
    "synthetic": "none: no person's data",
    "corpus": "legitimate interest: published corpus, in benchmarks, the listed sentences only",
}


@dataclass(frozen=True)
class Scope:
    """What a voice may be used for; everything not named is refused.

    Args:
        purposes: Exact purposes, or ("*",) for a voice that is nobody's.
        users: Who may ask for audio, or ("*",) for anyone with access to the store.
        languages: BCP 47 tags.
        max_characters, max_uses: Quotas over the receipt's life; None is no limit.
        may_alter: Whether pitch and formants may be changed.
        texts: SHA-256 of the only sentences allowed (basis "corpus"), or None for free text.
    """

    purposes: tuple[str, ...]
    users: tuple[str, ...]
    languages: tuple[str, ...] = ("en",)
    max_characters: int | None = None
    max_uses: int | None = None
    may_alter: bool = False
    texts: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Check:
    """One check at enrolment: its score, the limit it had to meet, and what a score means."""

    name: str
    score: float
    limit: float
    note: str = ""


@dataclass(frozen=True)
class Receipt:
    """The facts of one consent. Times are UTC text as `ledger.stamp` writes it."""

    record_id: str
    voice: str
    basis: Basis
    principal: str
    controller: str
    statement: str
    transcript: str
    scope: Scope
    issued: str
    expires: str
    codes_sha256: str
    codec: str
    kid: str
    recordings: dict[str, str] = field(default_factory=dict)  # role -> SHA-256 of the audio file
    checks: tuple[Check, ...] = ()
    anchor: dict[str, str | int] | None = None  # the ledger's head when this was issued
    source: dict[str, str] | None = (
        None  # corpus name, licence, URL; or how a synthetic voice was made
    )

    def expired(self, now: float) -> bool:
        """Whether the receipt's time is over, or not yet begun, at `now` (seconds since 1970)."""
        return not seconds(self.issued) <= now < seconds(self.expires)

    def payload(self) -> dict:
        """The receipt as the JSON object that is signed."""
        scope = asdict(self.scope)
        data = {"pii_type": "voice", "sensitive_pii_category": "biometric"}
        return {
            "schema_version": SCHEMA,
            "record_id": self.record_id,
            "pii_principal_id": self.principal,
            "processing": {
                "privacy_notice": self.statement,
                "language": "en",
                "purposes": [
                    {
                        "purpose": purpose,
                        "purpose_type": "speech synthesis in the principal's voice",
                        "lawful_basis": LAWFUL_BASIS[self.basis],
                        "pii_information": [] if self.basis == "synthetic" else [data],
                    }
                    for purpose in self.scope.purposes
                ],
                "pii_controllers": [self.controller],
                "collection_method": COLLECTION[self.basis],
                "processing_method": "zero-shot text to speech, watermarked and signed (C2PA)",
                "storage_locations": ["the controller's own machine, encrypted per voice"],
                "retention_period": self.expires,
                "recipient_third_parties": [],
                "withdrawal_method": f"sayso revoke {self.voice}",
            },
            "party_identification": [
                {"party_id": self.principal, "party_role": "PII principal"},
                {"party_id": self.controller, "party_role": "PII controller"},
            ],
            "event": {
                "event_type": "explicit consent" if self.basis == "consent" else self.basis,
                "event_state": "given",
                "event_time": self.issued,
                "valid_until": self.expires,
                "entity_id": self.principal,
            },
            "sayso": {
                "voice": self.voice,
                "basis": self.basis,
                "prompt": {
                    "codes_sha256": self.codes_sha256,
                    "codec": self.codec,
                    "transcript": self.transcript,
                },
                "scope": {
                    name: list(v) if isinstance(v, tuple) else v for name, v in scope.items()
                },
                "recordings_sha256": self.recordings,
                "checks": [asdict(check) for check in self.checks],
                "ledger": self.anchor,
                "source": self.source,
                "kid": self.kid,
            },
        }


COLLECTION = {
    "consent": "recording of fresh random words read aloud, made for this purpose",
    "synthetic": "generated by the model; no recording of a person",
    "corpus": "published speech corpus",
}


def issue(receipt: Receipt, key: Ed25519PrivateKey) -> str:
    """Sign a receipt: a compact JWS; StoreError if it names another key."""
    if receipt.kid != keys.thumbprint(key.public_key()):
        raise StoreError(
            f"Receipt {receipt.record_id} names another key than the one that signs it."
        )
    return keys.sign(keys.canonical(receipt.payload()), key, KIND)


def read(token: str, key: Ed25519PublicKey) -> Receipt:
    """The receipt in a token, if `key` signed it; RefusedError (receipt-signature) if not."""
    try:
        payload = keys.verify(token, key, KIND)
    except keys.SignatureError as error:
        raise RefusedError("receipt-signature", f"The receipt is not good: {error}.") from None
    return parse(payload)


def parse(payload: bytes) -> Receipt:
    """The receipt in a signed payload; RefusedError (receipt-malformed) if it is none."""
    try:
        data = json.loads(payload)
        extra = data["sayso"]
        prompt = extra["prompt"]
        scope: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in extra["scope"].items()
        }
        receipt = Receipt(
            record_id=data["record_id"],
            voice=extra["voice"],
            basis=extra["basis"],
            principal=data["pii_principal_id"],
            controller=data["processing"]["pii_controllers"][0],
            statement=data["processing"]["privacy_notice"],
            transcript=prompt["transcript"],
            scope=Scope(**scope),
            issued=data["event"]["event_time"],
            expires=data["event"]["valid_until"],
            codes_sha256=prompt["codes_sha256"],
            codec=prompt["codec"],
            kid=extra["kid"],
            recordings=extra["recordings_sha256"],
            checks=tuple(Check(**check) for check in extra["checks"]),
            anchor=extra["ledger"],
            source=extra["source"],
        )
        same = keys.canonical(receipt.payload()) == payload
        for time in (receipt.issued, receipt.expires):
            seconds(time)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        same = False
    if not same:
        raise RefusedError("receipt-malformed", f"This is no receipt of the kind {SCHEMA!r}.")
    return receipt


def verify_receipt(path: Path, public: str) -> Receipt:
    """Check a receipt file offline, with the issuer's public key (PEM text) alone.

    Expiry is not judged here: compare `expires` with the day that matters. Revocation cannot be
    known offline: ask the controller, or look for the record in the controller's ledger.

    Args:
        public: One or more keys, as `sayso receipt key` prints them: an issuer changes its key, and
            what a key signed outside of its time is not good.
    Raises:
        RefusedError: receipt-signature, receipt-malformed.
        InputError: The file cannot be read, or is larger than a receipt can be.
    """
    try:
        token = read_regular(path, MAX_BYTES).decode("ascii").removesuffix("\n")
    except UnicodeDecodeError:
        raise RefusedError("receipt-signature", f"{path} is not a receipt: not ASCII.") from None
    known = keys.load_publics(public)
    try:
        kid = keys.key_id(token)
    except keys.SignatureError as error:
        raise RefusedError("receipt-signature", f"The receipt is not good: {error}.") from None
    by = known.get(kid, next(iter(known.values())))
    receipt = read(token, by.key)
    if not keys.within(receipt.issued, by.span):
        raise RefusedError(
            "receipt-signature",
            f"The receipt is of {receipt.issued}, and its key was in use from {by.span[0]} to "
            f"{by.span[1]}: whoever signed it may have stolen the key.",
        )
    return receipt


def kantara(receipt: Receipt) -> dict:
    """The receipt's facts in the fields of a Kantara Consent Receipt 1.1 (unsigned view).

    Kantara knows consents only: a receipt of another basis has the consent type "NONE" here.
    """
    return {
        "version": "KI-CR-v1.1.0",
        "jurisdiction": "",
        "consentTimestamp": int(seconds(receipt.issued)),
        "collectionMethod": COLLECTION[receipt.basis],
        "consentReceiptID": receipt.record_id,
        "publicKey": receipt.kid,
        "language": "en",
        "piiPrincipalId": receipt.principal,
        "piiControllers": [{"piiController": receipt.controller}],
        "policyUrl": "",
        "services": [
            {
                "service": "Sayso speech synthesis",
                "purposes": [
                    {
                        "purpose": purpose,
                        "consentType": "EXPLICIT" if receipt.basis == "consent" else "NONE",
                        "piiCategory": [] if receipt.basis == "synthetic" else ["biometric"],
                        "primaryPurpose": True,
                        "termination": receipt.expires,
                        "thirdPartyDisclosure": False,
                    }
                    for purpose in receipt.scope.purposes
                ],
            }
        ],
        "sensitive": receipt.basis != "synthetic",
        "spiCat": [] if receipt.basis == "synthetic" else ["biometric"],
    }


def codes_digest(codes: Tensor) -> str:
    """SHA-256 over prompt codes (K, T): their shape, then every code as a little-endian int64."""
    shape = keys.canonical(list(codes.shape))
    return hashlib.sha256(
        shape + codes.cpu().contiguous().numpy().astype("<i8").tobytes()
    ).hexdigest()
