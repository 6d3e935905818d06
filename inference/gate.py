"""The gate: all sound in a voice passes `authorise` before it is made and `release` after.

`authorise` reads receipt, revocation and quota from the ledger each time; nothing is cached, so
what one process revokes holds in every other from its next call. Its answer is a one-use grant that
lives an hour. Grants, refusals and releases are all ledger rows. The order of the checks is the
order below.
"""

import contextlib
import hashlib
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load as load_tensors
from torch import Tensor

from sayso.model.errors import InputError

from .consent.other_voices import bundled_folders, install_bundled_voice
from .consent.receipt import ANY, MAX_NAME, Receipt, codes_digest
from .consent.receipt import read as read_receipt
from .errors import RefusedError, StoreError
from .provenance.c2pa import BESIDE, keep_manifest, sidecar_of
from .store import keys, ledger
from .store.recovery import recover, settle, staging_path
from .store.store import Store, Voice

GRANT_SECONDS = (
    3600.0  # from authorise to release; an unused grant then no longer counts to the quota
)
MAX_TEXT = 1_000_000


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
class Output:
    """One recording ever released in a voice."""

    ledger_id: str
    time: str
    path: str
    sha256: str
    purpose: str
    user: str


class Gate:
    """The one door to a voice. It keeps no state of its own: `store` is all there is."""

    def __init__(self, store: Store):
        """Guard `store`: end what a killed process left in it, bring in the voices that ship."""
        self.store = store
        recover(store)
        for folder in bundled_folders():
            install_bundled_voice(store, folder)

    def authorise(
        self,
        voice: str,
        purpose: str,
        user: str,
        text: str,
        language: str = "en",
        altered: bool = False,
        codec: str | None = None,
    ) -> Grant:
        """Ask to speak `text` in `voice`: a grant, or RefusedError with a reason code.

        `altered` asks to change its pitch or formants, too. `codec` is the identity of the codec
        that is to decode it; None asks for the prompt alone.

        Codes: text-unusable, voice-unknown, voice-revoked, receipt-signature, receipt-malformed,
        receipt-mismatch, receipt-expired, scope-purpose, scope-user, scope-language, scope-alter,
        scope-text, codec-mismatch, quota-uses, quota-characters, prompt-changed. A store that
        cannot be trusted raises StoreError.
        """
        asked = {"voice": _short(voice), "purpose": _short(purpose), "user": _short(user)}
        salt = secrets.token_hex(32)
        asked |= {
            "language": _short(language),
            "text_salt": salt,
            "text_commitment": ledger.commit_to(salt, _clean(text)),
            "altered": altered,
        }
        grant_id = f"g-{secrets.token_hex(16)}"
        try:
            with self.store.transaction():
                self.store.check()
                found, receipt = self._allowed(voice, purpose, user, text, language, altered, codec)
                details = asked | {"receipt_id": receipt.record_id, "characters": len(text)}
                codes = _unpack_prompt(self.store.grant(found, grant_id, details), receipt)
        except RefusedError as refusal:
            with self.store.transaction():
                details = asked | {"code": refusal.code, "characters": len(text)}
                self.store.append("refused", f"r-{secrets.token_hex(16)}", details)
            raise
        scope = receipt.scope
        return Grant(
            id=grant_id,
            voice=voice,
            receipt_id=receipt.record_id,
            purpose=purpose,
            user=user,
            text=text,
            codes=codes,
            transcript=receipt.transcript,
            may_alter=scope.may_alter,
            codec=receipt.codec,
        )

    def release(
        self, grant: Grant, produced: Path, destination: Path, manifest: bytes = b""
    ) -> str:
        """Let one recording out: log it, then move it into place; whole or not at all.

        Args:
            grant: From `authorise`; it is used up.
            produced: The finished file, marks and all; it is gone afterwards.
            destination: Where it goes; a file there is replaced.
            manifest: Its C2PA manifest: kept in the store for a file that loses its own, and put
                beside one that cannot hold it (`sidecar_of`).
        Returns:
            The ledger id, which is `grant.id`.
        Raises:
            RefusedError: grant-unknown, grant-used, grant-expired, voice-revoked, receipt-expired.
            InputError: `produced` or the destination's folder cannot be used.
        """
        destination = Path(os.path.abspath(destination))
        if str(destination) != _clean(str(destination)):
            raise InputError(f"The file name {_clean(str(destination))!r} is not UTF-8: rename it.")
        staged = staging_path(destination, grant.id)
        with self.store.exclusive():
            with self.store.transaction():
                self.store.check()
                refused = self._usable(grant)
                if refused is None:
                    self.store.open_release(grant.id, destination)
            if refused is not None:
                raise refused
            try:
                digest = _stage(produced, staged)
                if manifest:
                    keep_manifest(self.store.home, grant.id, manifest)
                    if destination.suffix.lower() in BESIDE:
                        _write(sidecar_of(staged), manifest)
                with self.store.transaction():
                    details = {
                        "voice": grant.voice,
                        "receipt_id": grant.receipt_id,
                        "purpose": grant.purpose,
                        "user": grant.user,
                        "path": str(destination),
                        "sha256": digest,
                    }
                    if manifest:
                        details["manifest_sha256"] = hashlib.sha256(manifest).hexdigest()
                    self.store.append("released", grant.id, details)
            finally:  # the ledger decides which way it goes, here as after a crash
                settle(self.store, grant.id, destination)
            with contextlib.suppress(OSError):
                produced.unlink()
        return grant.id

    def revoke(self, voice: str, reason: str = "") -> list[Output]:
        """Withdraw a voice: from the next call in every process nothing more is spoken in it.

        Its recordings, codes and embedding are deleted by destroying the key that encrypts them;
        receipt and ledger stay as the proof. Revoking twice is no error.

        Returns:
            Every output ever released in that voice.
        """
        self.store.check()
        self.store.forget(voice, {"reason": _short(reason)})
        return self.outputs(voice)

    def outputs(self, voice: str) -> list[Output]:
        """Every output ever released in a voice, oldest first."""
        events = self.store.entries("released", voice=voice)
        return [
            Output(e.id, e.time, *(e.content[k] for k in ("path", "sha256", "purpose", "user")))
            for e in events
        ]

    def receipt(self, voice: str) -> Receipt:
        """A voice's receipt, its signature checked; RefusedError if there is no good one."""
        self.store.check()
        found = self.store.voice(voice)
        if found is None:
            raise RefusedError("voice-unknown", f"No voice {voice[:MAX_NAME]!r} is enrolled here.")
        return self._receipt(found)

    def _allowed(
        self,
        voice: str,
        purpose: str,
        user: str,
        text: str,
        language: str,
        altered: bool,
        codec: str | None,
    ) -> tuple[Voice, Receipt]:
        if not text.strip() or len(text) > MAX_TEXT or text != _clean(text):
            raise RefusedError(
                "text-unusable", f"A text of {len(text)} characters cannot be spoken."
            )
        found = self.store.voice(voice)
        if found is None:
            raise RefusedError(
                "voice-unknown",
                f"No voice {voice[:MAX_NAME]!r} is enrolled here: its speaker must enrol it first "
                "(sayso enrol start).",
            )
        if found.revoked:
            raise RefusedError(
                "voice-revoked",
                f"The voice {voice!r} was withdrawn by {found.revoked}: it is silent.",
            )
        receipt = self._receipt(found)
        now, scope = self.store.now(), receipt.scope
        if receipt.expired(now):
            raise RefusedError(
                "receipt-expired",
                f"The receipt of {voice!r} holds from {receipt.issued} to {receipt.expires}, and "
                f"it is {ledger.stamp(now)}: the speaker must enrol again.",
            )
        asked = (
            ("purpose", purpose, scope.purposes),
            ("user", user, scope.users),
            ("language", language, scope.languages),
        )
        for name, value, allowed in asked:
            if value not in allowed and (ANY not in allowed or not value.strip()):
                raise RefusedError(
                    f"scope-{name}",
                    f"The receipt of {voice!r} allows the {name} {', '.join(allowed)}; "
                    f"asked was {value[:MAX_NAME]!r}.",
                )
        if altered and not scope.may_alter:
            raise RefusedError(
                "scope-alter",
                f"The receipt of {voice!r} does not allow its pitch or formants to be changed: "
                "leave them, or let the speaker enrol with --may-alter.",
            )
        if scope.texts is not None and hashlib.sha256(text.encode()).hexdigest() not in scope.texts:
            raise RefusedError(
                "scope-text", f"The receipt of {voice!r} allows only the sentences of its corpus."
            )
        if codec is not None and codec != receipt.codec:
            raise RefusedError(
                "codec-mismatch",
                f"Voice {voice!r} was enrolled with codec {receipt.codec[:12]}, this model has "
                f"{codec[:12]}: enrol the voice with this model",
            )
        self._within_quota(receipt, len(text), now)
        return found, receipt

    def _receipt(self, found: Voice) -> Receipt:
        """The signed receipt of a voice; a bundled issuer is believed for nobody's voices alone."""
        issuer = found.issuer
        if not issuer:
            try:
                issuer = self.store.public_keys()[keys.key_id(found.token)]
            except (KeyError, keys.SignatureError):
                raise RefusedError(
                    "receipt-signature",
                    f"The receipt of {found.voice!r} is not signed by this store.",
                ) from None
        receipt = read_receipt(found.token, keys.load_public(issuer))
        if receipt.voice != found.voice or receipt.record_id != found.record_id:
            raise RefusedError(
                "receipt-mismatch", f"The receipt of {found.voice!r} is of another voice."
            )
        if found.issuer and receipt.basis != "synthetic":
            raise RefusedError(
                "receipt-signature", "A bundled issuer may vouch for synthetic voices only."
            )
        return receipt

    def _within_quota(self, receipt: Receipt, characters: int, now: float) -> None:
        scope = receipt.scope
        if scope.max_uses is None and scope.max_characters is None:
            return
        events = self.store.entries(voice=receipt.voice)
        released = {entry.id for entry in events if entry.event == "released"}
        counted = [
            entry.content["characters"]
            for entry in events
            if entry.event == "granted"
            and entry.content["receipt_id"] == receipt.record_id
            and (entry.id in released or now < ledger.seconds(entry.time) + GRANT_SECONDS)
        ]
        if scope.max_uses is not None and len(counted) >= scope.max_uses:
            raise RefusedError(
                "quota-uses",
                f"All {scope.max_uses} uses of {receipt.voice!r} are taken: enrol again.",
            )
        if scope.max_characters is not None and sum(counted) + characters > scope.max_characters:
            raise RefusedError(
                "quota-characters",
                f"{scope.max_characters - sum(counted)} of {scope.max_characters} characters of "
                f"{receipt.voice!r} are left; the text has {characters}.",
            )

    def _usable(self, grant: Grant) -> RefusedError | None:
        """Why a grant cannot be used now (logged as a refusal), or None."""
        events = self.store.entries(id=grant.id)
        given = next((entry for entry in events if entry.event == "granted"), None)
        named = {"voice": grant.voice, "purpose": grant.purpose, "user": grant.user}
        named["receipt_id"] = grant.receipt_id
        found = self.store.voice(grant.voice)
        now = self.store.now()
        try:
            if (
                not grant.id
                or given is None
                or any(given.content[key] != value for key, value in named.items())
                or ledger.commit_to(given.content["text_salt"], _clean(grant.text))
                != given.content["text_commitment"]
            ):
                raise RefusedError("grant-unknown", f"The gate never gave the grant {grant.id!r}.")
            if any(entry.event == "released" for entry in events):
                raise RefusedError("grant-used", f"The grant {grant.id!r} was used: ask again.")
            if now >= ledger.seconds(given.time) + GRANT_SECONDS:
                raise RefusedError(
                    "grant-expired", f"The grant {grant.id!r} is older than {GRANT_SECONDS:.0f} s."
                )
            if found is None or found.revoked:
                raise RefusedError(
                    "voice-revoked", f"The voice {grant.voice!r} was withdrawn meanwhile."
                )
            receipt = self._receipt(found)
            if receipt.record_id != grant.receipt_id or receipt.expired(now):
                raise RefusedError(
                    "receipt-expired", f"The receipt of {grant.voice!r} ended meanwhile."
                )
        except RefusedError as refusal:
            details = {name: _short(value) for name, value in named.items()}
            details |= {"code": refusal.code, "grant": _short(grant.id)}
            self.store.append("refused", f"r-{secrets.token_hex(16)}", details)
            return refusal
        return None


def _unpack_prompt(data: bytes, receipt: Receipt) -> Tensor:
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


def _clean(text: str) -> str:
    """A text without what UTF-8 cannot write (file names and arguments may hold such)."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _short(name: str) -> str:
    """A name as it is logged."""
    return _clean(name[:MAX_NAME])


def _stage(produced: Path, staged: Path) -> str:
    """Copy a finished file beside its destination, through to the disk; returns its SHA-256."""
    try:
        data = produced.read_bytes()
    except OSError as error:
        raise InputError(f"{produced} cannot be read ({error.strerror}).") from None
    _write(staged, data)
    return hashlib.sha256(data).hexdigest()


def _write(path: Path, data: bytes) -> None:
    try:
        with open(path, "xb") as target:
            target.write(data)
            target.flush()
            os.fsync(target.fileno())
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({error.strerror}): choose a folder that exists and may be "
            "written to."
        ) from None
