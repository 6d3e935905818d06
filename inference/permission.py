"""What a voice's receipt allows: the checks of `Gate.authorise`, in their order, and of grants."""

import hashlib
import textwrap
from dataclasses import dataclass

from safetensors.torch import load as load_tensors
from torch import Tensor

from sayso.model.errors import InputError
from sayso.model.text.normalization import MAX_CHARACTERS, pieces

from .consent.other_voices import is_issuer
from .consent.receipt import ANY, MAX_NAME, Receipt, codes_digest
from .consent.receipt import read as read_receipt
from .errors import RefusedError, StoreError
from .store import keys, ledger
from .store.recovery import silent
from .store.sealed import Voice
from .store.store import Store

MAX_TEXT = 1_000_000
GRANT_SECONDS = 3600.0  # from authorise to release
GIVEN = ("granted", "part", "resumed")  # the rows that give one, the last two of long texts


@dataclass(frozen=True)
class Grant:
    """Leave to make one recording of one text in one voice.

    Args:
        text: What may be spoken; another text is another grant.
        codes: The prompt, (K, T) int64, made by the codec whose identity is `codec`.
        transcript: What the prompt says.
        may_alter: Whether pitch and formants may be changed.
    """

    id: str
    voice: str
    receipt_id: str
    purpose: str
    user: str
    text: str
    codes: Tensor
    transcript: str
    may_alter: bool
    codec: str


@dataclass(frozen=True)
class Asked:
    """What somebody wants to have said.

    Args:
        altered: Whether with another pitch, other formants or emphasis.
        codec: Identity of the codec that is to decode it; None asks for the prompt alone.
    """

    voice: str
    purpose: str
    user: str
    text: str
    language: str = "en"
    altered: bool = False
    codec: str | None = None


def allowed(store: Store, asked: Asked, counted: bool = True) -> tuple[Voice, Receipt]:
    """The voice and its receipt, if that allows what is asked.

    Args:
        counted: Whether it must be within the quotas; not if it was counted before.

    Raises:
        RefusedError: With the code of the first check that failed. Which users, purposes and
            languages would have been allowed is not said: that is for the speaker to tell.
        StoreError: The store cannot be trusted.
    """
    text, name = asked.text, asked.voice[:MAX_NAME]
    if not text.strip() or len(text) > MAX_TEXT or text != clean(text):
        raise RefusedError("text-unusable", f"A text of {len(text)} characters cannot be spoken.")
    found = store.voice(asked.voice)
    if found is None:
        raise RefusedError(
            "voice-unknown",
            f"No voice {name!r} is enrolled here: its speaker must enrol it first "
            "(sayso enrol start).",
        )
    if found.revoked:
        raise RefusedError(
            "voice-revoked", f"The voice {name!r} was withdrawn by {found.revoked}: it is silent."
        )
    receipt = signed_receipt(store, found)
    now, scope = store.now(), receipt.scope
    if receipt.expired(now):
        raise RefusedError(
            "receipt-expired",
            f"The receipt of {name!r} holds from {receipt.issued} to {receipt.expires}, and it is "
            f"{ledger.stamp(now)}: the speaker must enrol again.",
        )
    for what, value, given in (
        ("user", asked.user, scope.users),
        ("purpose", asked.purpose, scope.purposes),
        ("language", asked.language, scope.languages),
    ):
        if value not in given and (ANY not in given or not value.strip()):
            raise RefusedError(
                f"scope-{what}",
                f"The receipt of {name!r} does not allow the {what} {value[:MAX_NAME]!r}: ask "
                "its speaker what it does allow.",
            )
    if asked.altered and not scope.may_alter:
        raise RefusedError(
            "scope-alter",
            f"The receipt of {name!r} does not allow its pitch or formants to be changed, nor "
            "emphasis (*so*, _so_): leave them, or let the speaker enrol with --may-alter.",
        )
    if scope.texts is not None and hashlib.sha256(text.encode()).hexdigest() not in scope.texts:
        raise RefusedError(
            "scope-text", f"The receipt of {name!r} allows only the sentences of its corpus."
        )
    if asked.codec is not None and asked.codec != receipt.codec:
        raise RefusedError(
            "codec-mismatch",
            f"Voice {name!r} was enrolled with codec {receipt.codec[:12]}, this model has "
            f"{asked.codec[:12]}: enrol the voice with this model",
        )
    if counted:
        _within_quota(store, receipt, spoken_characters(text))
    return found, receipt


def signed_receipt(store: Store, found: Voice) -> Receipt:
    """The receipt of a voice, signed by a key of this store while that key was in use.

    A bundled issuer is believed for nobody's voices alone, and only one that ships with Sayso.

    Raises:
        RefusedError: receipt-signature, receipt-malformed, receipt-mismatch.
    """
    name, span = found.voice, ("", "")
    if found.issuer:
        public = found.issuer
        if not is_issuer(public):
            raise RefusedError(
                "receipt-signature", f"The issuer of {name!r} does not ship with Sayso."
            )
    else:
        try:
            kid = keys.key_id(found.token)
            public, span = store.public_keys()[kid], store.key_spans()[kid]
        except (KeyError, keys.SignatureError):
            raise RefusedError(
                "receipt-signature", f"The receipt of {name!r} is not signed by this store."
            ) from None
    receipt = read_receipt(found.token, keys.load_public(public))
    if not keys.within(receipt.issued, span):
        raise RefusedError(
            "receipt-signature", f"The receipt of {name!r} was signed by a key not in use then."
        )
    if receipt.voice != found.voice or receipt.record_id != found.record_id:
        raise RefusedError("receipt-mismatch", f"The receipt of {name!r} is of another voice.")
    if found.issuer and receipt.basis != "synthetic":
        raise RefusedError(
            "receipt-signature", "A bundled issuer may vouch for synthetic voices only."
        )
    return receipt


def unusable(store: Store, grant: Grant, streamed: bool = False) -> RefusedError | None:
    """Why a grant cannot be used now, or None; in a transaction.

    Args:
        streamed: Whether a part of what it allows has left.
    """
    rows = store.entries(id=grant.id)
    given = next((entry for entry in reversed(rows) if entry.event in GIVEN), None)
    now = store.now()
    if (
        not grant.id
        or given is None
        or any(given.content[key] != value for key, value in named(grant).items())
        or ledger.commit_to(given.content["text_salt"], clean(grant.text))
        != given.content["text_commitment"]
    ):
        return RefusedError("grant-unknown", f"The gate never gave the grant {grant.id!r}.")
    if [entry.event for entry in rows if entry.event not in GIVEN] != ["streamed"] * streamed:
        return RefusedError("grant-used", f"The grant {grant.id!r} was used: ask again.")
    if now >= ledger.seconds(given.time) + GRANT_SECONDS:
        return RefusedError(
            "grant-expired", f"The grant {grant.id!r} is older than {GRANT_SECONDS:.0f} s."
        )
    if silent(store, grant.voice):
        return RefusedError("voice-revoked", f"The voice {grant.voice!r} was withdrawn meanwhile.")
    found = store.voice(grant.voice)
    assert found is not None
    try:
        receipt = signed_receipt(store, found)
    except RefusedError as refusal:
        return refusal
    if receipt.record_id != grant.receipt_id or receipt.expired(now):
        return RefusedError("receipt-expired", f"The receipt of {grant.voice!r} ended.")
    return None


def named(grant: Grant) -> dict[str, str]:
    """What the ledger says of a grant in each of its rows."""
    logged = {"voice": grant.voice, "purpose": grant.purpose, "user": grant.user}
    return {name: short(value) for name, value in logged.items()} | {"receipt_id": grant.receipt_id}


def _within_quota(store: Store, receipt: Receipt, characters: int) -> None:
    """Grants count from when they are given until they are given back, released or not."""
    scope, (uses, spoken) = receipt.scope, store.used(receipt.record_id)
    if scope.max_uses is not None and uses >= scope.max_uses:
        raise RefusedError(
            "quota-uses", f"All {scope.max_uses} uses of {receipt.voice!r} are taken: enrol again."
        )
    if scope.max_characters is not None and spoken + characters > scope.max_characters:
        raise RefusedError(
            "quota-characters",
            f"{max(scope.max_characters - spoken, 0)} of {scope.max_characters} characters of "
            f"{receipt.voice!r} are left; the text, as it is spoken, has {characters}.",
        )


def spoken_characters(text: str) -> int:
    """Characters of a text as written or as spoken, the greater: "777,777" is long to say."""
    if len(text) > MAX_TEXT:  # refused in any case
        return len(text)
    whole = len(text) <= MAX_CHARACTERS
    return max(len(text), sum(map(_said, [text] if whole else textwrap.wrap(text, MAX_CHARACTERS))))


def _said(text: str) -> int:
    try:
        return len(" ".join(piece.text for piece in pieces(text)).rstrip("."))
    except InputError:  # nothing speaks it
        return len(text)


def clean(text: str) -> str:
    """A text without what UTF-8 cannot write (file names and arguments may hold such)."""
    return text.encode("utf-8", "replace").decode("utf-8")


def short(name: str) -> str:
    """A name as it is logged."""
    return clean(name[:MAX_NAME])


def unpack_prompt(data: bytes, receipt: Receipt) -> Tensor:
    """Prompt codes (K, T) int64 out of their bytes.

    Raises:
        RefusedError: prompt-changed: they are not those of the receipt.
        StoreError: They are no codes.
    """
    try:
        codes = load_tensors(data)["codes"].long()
    except Exception as error:  # authentic, but no tensor: a store made wrongly
        raise StoreError(f"The prompt of {receipt.voice!r} cannot be read ({error}).") from None
    if codes.ndim != 2 or codes_digest(codes) != receipt.codes_sha256:
        raise RefusedError(
            "prompt-changed", f"The prompt of {receipt.voice!r} is not the one in its receipt."
        )
    return codes
