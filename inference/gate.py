"""The gate: all sound in a voice passes `authorise` before it is made and `release` after.

`authorise` reads receipt, revocation and quota from the ledger each time, so that what one process
revokes holds in every other from its next call. Its answer is a one-use grant that lives an hour
and in this process: what is released was marked here, under it. Grants, refusals and releases are
all ledger rows.
"""

import base64
import hashlib
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from sayso.model.audio import wav_header
from sayso.model.errors import InputError, SaysoError

from .consent.other_voices import bundled_folders, install_bundled_voice
from .consent.receipt import MAX_NAME, Receipt
from .errors import RefusedError
from .finishing import Marked, Sent, finish, finish_stream, finish_stretch
from .outputs import Output, outputs_of
from .permission import (
    Asked,
    Grant,
    allowed,
    clean,
    named,
    short,
    signed_receipt,
    spoken_characters,
    unpack_prompt,
    unusable,
)
from .provenance.c2pa import CA, keep_manifest
from .store import ledger, releases
from .store.recovery import recover, stuck
from .store.store import Store
from .watermark.ensemble import Marks
from .whole import Bound, finish_whole


class Gate:
    """The one door to a voice.

    Attributes:
        notes: What could not be finished or brought in when it opened, in sentences to show.
    """

    def __init__(self, store: Store):
        """Guard `store`: end what a killed process left in it, bring in the voices that ship.

        Neither stops anybody: what fails is in `notes`, and a voice that is missing for it is
        refused when it is asked for.
        """
        self.store, self._work = store, store.home / "work"
        self.notes = recover(store)
        self._marked: dict[str, str] = {}  # grant of this process -> what was marked under it
        self._streams: dict[str, Sent] = {}  # grant -> what has left under it, piece by piece
        for folder in [] if store.read_only else bundled_folders():
            try:
                install_bundled_voice(store, folder)
            except SaysoError as error:
                self.notes.append(str(error))

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
        receipt-mismatch, receipt-expired, scope-user, scope-purpose, scope-language, scope-alter,
        scope-text, codec-mismatch, quota-uses, quota-characters, prompt-changed. A store that
        cannot be trusted raises StoreError.
        """
        asked = Asked(voice, purpose, user, text, language, altered, codec)
        salt, grant_id = secrets.token_hex(32), f"g-{secrets.token_hex(16)}"
        details = {"voice": short(voice), "purpose": short(purpose), "user": short(user)} | {
            "language": short(language),
            "text_salt": salt,
            "text_commitment": ledger.commit_to(salt, clean(text)),
            "altered": altered,
            "characters": spoken_characters(text),
        }
        try:
            with self.store.transaction():
                self.store.check()
                found, receipt = allowed(self.store, asked)
                data = self.store.grant(found, grant_id, details | {"receipt_id": found.record_id})
                codes = unpack_prompt(data, receipt)
        except RefusedError as refusal:
            self.store.log_refusal(details | {"code": refusal.code})
            raise
        self._marked[grant_id] = ""
        return Grant(
            id=grant_id,
            voice=voice,
            receipt_id=receipt.record_id,
            purpose=purpose,
            user=user,
            text=text,
            codes=codes,
            transcript=receipt.transcript,
            may_alter=receipt.scope.may_alter,
            codec=receipt.codec,
        )

    def mark(
        self,
        grant: Grant,
        audio: Tensor,
        sample_rate: int,
        name: str,
        card_hash: str,
        marks: Marks,
        ca: CA,
        again: bool = False,
    ) -> Marked:
        """Make the file that may be released under a grant, in memory; see `finishing.finish`.

        Args:
            audio: (samples,) float.
            name: The file's name: its suffix is the format.
            again: Whether the same samples are to have the same mark whenever they are made.
        Raises:
            RefusedError: grant-unknown: this process was not given it.
            MarkError: A mark could not be made, or was not found in the result.
        """
        self._check_own(grant)
        suffix = Path(name).suffix
        made = finish(audio, sample_rate, grant.id, suffix, name, card_hash, marks, ca, again)
        self._marked[grant.id] = _digest(made)
        return made

    def bind(
        self, grant: Grant, parts: Sequence[Bound], name: str, card_hash: str, marks: Marks, ca: CA
    ) -> Marked:
        """As `mark`, of the parts of a long text that have left; see `whole.finish_whole`."""
        self._check_own(grant)
        try:
            made = finish_whole(self.store, grant, parts, name, card_hash, marks, ca)
        except RefusedError as refusal:
            self.store.log_refusal(named(grant) | {"code": refusal.code, "grant": grant.id})
            raise
        self._marked[grant.id] = _digest(made)
        return made

    def _check_own(self, grant: Grant) -> None:
        if grant.id not in self._marked:
            raise RefusedError("grant-unknown", f"The grant {grant.id!r} is not this process's.")

    def release(
        self, grant: Grant, made: Marked, destination: Path, seed: int | None = None
    ) -> str:
        """Let one recording out: log it, then put it into place; whole or not at all.

        Args:
            grant: From `authorise`; it is used up.
            made: From `mark`, under this grant; nothing else passes.
            destination: Where it goes; a file there is replaced. A manifest that has no room
                inside is put beside it; the store keeps one, too.
            seed: Of the random draws that made it; kept in the ledger.
        Returns:
            The ledger id, which is `grant.id`.
        Raises:
            RefusedError: grant-unknown, grant-used, grant-expired, voice-revoked, receipt-expired,
                audio-unmarked.
            InputError: The destination cannot be used. If it went wrong after the file was logged,
                it is kept sealed and delivered later.
        """
        destination = Path(os.path.abspath(destination))
        with self.store.exclusive():
            with self.store.transaction():
                self.store.check()
                refused = unusable(self.store, grant)
                if self._marked.get(grant.id) != _digest(made) or made.grant_id != grant.id:
                    refused = refused or RefusedError(
                        "audio-unmarked", "This is not what this process marked under that grant."
                    )
                if refused is None:
                    releases.check_place(destination)
                    self.store.open_release(grant.id, destination)
            if refused is not None:
                self.store.log_refusal(named(grant) | {"code": refused.code, "grant": grant.id})
                raise refused
            digest = hashlib.sha256(made.audio).hexdigest()
            details = _details(grant, made, digest, str(destination), seed)
            try:
                key = releases.begin(self.store, grant.id, made.audio, made.manifest)
                with self.store.transaction():
                    self.store.release_with(grant.id, key, details)
            except BaseException:
                if not self.store.entries("released", grant.id):
                    releases.undo(self.store, grant.id, destination)
                raise
            self._marked.pop(grant.id)
            try:
                releases.deliver(self.store, grant.id)
            except OSError as error:
                raise InputError(stuck(self.store, grant.id, str(destination), error)) from None
        return grant.id

    def let_out(
        self, grant: Grant, audio: Tensor, sample_rate: int, marks: Marks, seed: int | None = None
    ) -> bytes:
        """Mark the next stretch of a stream, and let it leave: 16-bit samples, little-endian.

        The ledger says "streamed" before the first one leaves, with its sound. Receipt and
        revocation are looked up for each.

        Args:
            audio: (samples,) float, all of a stream at one rate.
        Raises:
            RefusedError: As of `release`; nothing of it leaves.
            MarkError: A mark could not be made, or was not found in it.
        """
        self._check_own(grant)
        sent = self._streams.get(grant.id) or Sent(self._work, wav_header(sample_rate))
        start = sent.samples
        stretch, sound = finish_stretch(audio, sample_rate, grant.id, start, marks)
        with self.store.transaction():
            self.store.check()
            refused = unusable(self.store, grant, streamed=start > 0)
            if refused is None and not start:
                details = {"sound": base64.b64encode(sound).decode(), "seed": seed}
                self.store.append("streamed", grant.id, named(grant) | details)
        if refused is not None:
            self.store.log_refusal(named(grant) | {"code": refused.code, "grant": grant.id})
            raise refused
        sent.add(stretch)
        self._streams[grant.id] = sent
        return stretch

    def end_stream(
        self,
        grant: Grant,
        name: str,
        card_hash: str,
        marks: Marks,
        ca: CA,
        seed: int | None = None,
    ) -> Marked:
        """What left as one WAV (`audio.wav_header`, then all stretches), logged as released.

        Its manifest is kept in the store.

        Raises:
            MarkError: It cannot be signed; the ledger then says that the stream was cut.
        """
        try:
            sent = self._streams[grant.id]
            made = finish_stream(sent, grant.id, name, card_hash, marks, ca)
            keep_manifest(self.store.home, grant.id, made.manifest)
            with self.store.transaction():
                details = _details(grant, made, sent.hash.hexdigest(), name, seed)
                self.store.append("released", grant.id, details)
        except BaseException:
            self.cut(grant, marks)
            raise
        self._marked.pop(grant.id)
        self._streams.pop(grant.id)
        return made

    def cut(self, grant: Grant, marks: Marks) -> None:
        """End a stream where it is: the ledger keeps the sound of what left. Else give it back."""
        sent = self._streams.pop(grant.id, None)
        if sent is None:
            return self.give_back(grant)
        self._marked.pop(grant.id, None)
        sound = marks.fingerprint(sent.blocks(), sent.sample_rate)
        details = named(grant) | {"sound": base64.b64encode(sound).decode()}
        with self.store.transaction():
            self.store.append("stream-cut", grant.id, details)

    def take_up(self, grant_id: str, data: bytes) -> None:
        """Go on with a grant that the ledger says was given, and with what has left under it."""
        self._marked[grant_id] = ""
        if data:
            self._streams[grant_id] = Sent(self._work, data)

    def give_back(self, grant: Grant) -> None:
        """Give up a grant under which nothing was released: it counts to no quota any more."""
        if self._marked.pop(grant.id, None) is None:
            return
        with self.store.transaction():
            events = {entry.event for entry in self.store.entries(id=grant.id)}
            if events == {"granted"}:
                self.store.append("given-back", grant.id, {"voice": grant.voice})

    def revoke(self, voice: str, reason: str = "") -> list[Output]:
        """Withdraw a voice: from the next call in every process nothing more is spoken in it.

        Its recordings, codes and embedding are deleted by destroying the key that encrypts them;
        receipt and ledger stay as the proof. Revoking twice is no error.

        Returns:
            Every output ever released in that voice.
        """
        self.store.check()
        self.store.forget(voice, {"reason": short(reason)})
        self.notes += recover(self.store)  # what waited for its place is dropped
        return self.outputs(voice)

    def outputs(self, voice: str) -> list[Output]:
        """Every output that ever left in a voice, see `outputs.outputs_of`."""
        return outputs_of(self.store, voice)

    def receipt(self, voice: str) -> Receipt:
        """A voice's receipt, its signature checked; RefusedError if there is no good one."""
        self.store.check()
        found = self.store.voice(voice)
        if found is None:
            raise RefusedError("voice-unknown", f"No voice {voice[:MAX_NAME]!r} is enrolled here.")
        return signed_receipt(self.store, found)


def _details(grant: Grant, made: Marked, digest: str, path: str, seed: int | None) -> dict:
    """What the ledger says of an output."""
    pattern = {"pattern": made.pattern} if made.pattern else {}
    return (
        named(grant)
        | pattern
        | {
            "path": path,
            "sha256": digest,
            "manifest_sha256": hashlib.sha256(made.manifest).hexdigest(),
            "sound": base64.b64encode(made.sound).decode(),
            "seed": seed,
        }
    )


def _digest(made: Marked) -> str:
    return hashlib.sha256(
        made.pattern.encode() + made.sound + made.manifest + made.audio
    ).hexdigest()
