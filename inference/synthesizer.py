"""The one way from text to audio: authorise, generate, mark, look again, sign, record, release.

VALL-E 2, 3.4, inside the gate. What leaves is a file that carries both marks and stands in the
ledger, or a stream of which the same is true of each chunk; or an error and nothing.
"""

import secrets
from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event
from typing import Self

import torch
from torch import Tensor

from sayso.model.bundle import BUNDLED, Bundle, load_bundle
from sayso.model.codecs.voice_edit import Alteration
from sayso.model.errors import InputError
from sayso.model.files import check_outside
from sayso.model.sampling import Sampling
from sayso.model.text.book import sentences_of
from sayso.model.text.normalization import MAX_CHARACTERS, Piece, pieces

from .consent.session import login_name
from .errors import GoneError, MarkError
from .gate import Gate, Grant
from .nobody import INVENTED, NOBODY, own_nobody
from .provenance.certificates import ensure_ca
from .saying import TRIES, Manner, check_emphasis, limit_seconds, most_characters, speech_of
from .shift import alone
from .store.checking import vouch
from .store.releases import check_destination
from .store.store import Store
from .studio import Seat, Studio
from .watermark.ensemble import load_marks
from .watermark.spread_spectrum import HOP

MOST_CHARACTERS = 10_000
"""Of one text, as written or as spoken: about twelve minutes, all of which is held in memory."""
MOST_SAMPLES = 20  # of one sentence
SHORT_SECONDS = 1.0
"""Speech that may be too short for the marks: it is tried again like one without end."""
SEEDS = 2**32  # a fresh seed is one of so many


@dataclass(frozen=True)
class Spoken:
    """What `Synthesizer.speak` released."""

    path: Path
    """The marked file."""
    ledger_id: str
    """Its row in the ledger; also in the file's C2PA manifest."""
    seconds: float
    """Its length."""
    watermark_score: float
    """What the watermark detector said of the file before it was released (0..1)."""
    seed: int
    """Of the random draws; the ledger keeps it, too."""


@dataclass(frozen=True)
class Chunk:
    """A stretch of speech that has left in a stream, marked."""

    pcm: bytes
    """16-bit little-endian samples of one channel; empty in the last chunk."""
    sample_rate: int
    text: str
    """The sentences in it, as they were said."""
    start: float
    """Seconds of the stream before it."""
    ledger_id: str
    seed: int
    manifest: bytes = b""
    """In the last chunk: the C2PA manifest of `audio.wav_header` and all samples as one file."""


class Synthesizer:
    """A model and a store, ready to speak for whoever the store's receipts allow."""

    def __init__(
        self,
        model: Path = BUNDLED,
        store: Store | None = None,
        device: str = "auto",
        precision: str = "fp32",
        compiled: bool = False,
    ):
        """Open a model folder and a store (the default one if none is given).

        Args:
            device: Of the language model: cpu, cuda, mps or auto, the fastest there is.
            precision, compiled: As of `load_bundle`.

        Raises:
            CheckpointError: The model folder is incomplete or damaged.
            InputError: There is no such device here, or not in this precision.
            MarkError: The watermark or the signing authority cannot be used.
            StoreError: The store is unreadable.
        """
        self.store = store if store is not None else Store.open()
        # Marks before the model: without them there is nothing this class may do.
        self.marks = load_marks(self.store.home)
        self.ca = ensure_ca(self.store.home / "ca")
        vouch(self.store)
        self.gate = Gate(self.store)
        self.bundle: Bundle = load_bundle(model, device, precision, compiled)
        self.studio = Studio(self.bundle)

    def beside(self, store: Store, seat: Seat | None = None) -> Self:
        """One for another thread, with the same models: `store` is this one's, opened anew there.

        Args:
            seat: That of the thread, where all speak in `studio.Rounds`.

        Raises:
            StoreError: The store is unreadable.
        """
        other = copy(self)
        other.store, other.gate, other.studio = store, Gate(store), seat or self.studio
        return other

    def ablated(self, part: str) -> Self:
        """One with the same weights that is not told a part (`valle2.ABLATIONS`, Table 3)."""
        other = copy(self)
        other.bundle = replace(self.bundle, model=self.bundle.model.ablated(part))
        other.studio = Studio(other.bundle)
        return other

    def speak(
        self,
        text: str,
        voice: str,
        out: Path,
        purpose: str = "research",
        user: str | None = None,
        seed: int | None = None,
        sampling: Sampling | None = None,
        alteration: Alteration | None = None,
        samples: int = 1,
        gone: Event | None = None,
        again: bool = False,
    ) -> Spoken:
        """Say `text` in an enrolled voice, into the file `out` (.wav, .flac, .mp3, .ogg, .opus).

        .ogg and .opus cannot hold a manifest: theirs is written beside them, `OUT.c2pa`.

        Args:
            voice: Id of a voice in the store; "nobody" is bundled, and made up by a model of one's
                own when it is first asked for.
            purpose: What the speech is for; the voice's receipt must allow it.
            user: Who asks; the login name if None.
            seed: Of the random draws; seed, text, voice, device and precision make the codes. A
                fresh one if None: with a known one anybody can say it again without a mark.
            sampling: As the model's card says if None; the paper's where it says nothing.
            alteration: Speed, pitch and formants; pitch and formants (and `*emphasis*` in the
                text) only if the receipt allows it, and all only with a codec that can (WORLD).
            samples: Of each sentence, 1 to 20; the best is kept (Eq. 23, `ranking.best`). More than
                one needs the `enrol` extra for its recogniser and speaker encoder.
            gone: Set, by another thread, when nobody waits for it any more.
            again: Whether what sounds the same gets the same mark again, as an evaluation wants it.

        Raises:
            GoneError: Nobody does; nothing is released.
            InputError: The text, the output path, the seed or the number of samples cannot be used.
            RefusedError: The voice's receipt does not allow this call.
            UnfinishedError: A sentence failed in three tries: no end within its limit, silence, or
                speech too short for its words. It is named.
            MarkError: A mark could not be made, or was not found in the result.
            StoreError: The store is unreadable or was changed.
        """
        out = Path(out)
        check_destination(out)
        check_outside(self.store.home, out)
        manner = self.manner(seed, sampling, alteration, samples)
        grant, spoken = self._ask(text, voice, purpose, user, manner)
        seed = manner.seed
        try:
            rate, card = self.bundle.codec.sample_rate, self.bundle.card_hash
            for try_ in range(TRIES):
                manner = replace(manner, seed=seed + try_)
                sounds = speech_of(self.studio, grant, spoken, manner, gone=gone)
                audio = torch.cat([sound for sound, _ in sounds])
                _check_wanted(gone)
                try:
                    how = self.marks, self.ca, again
                    made = self.gate.mark(grant, audio, rate, out.name, card, *how)
                    break
                except MarkError:  # another take of a single word may hold them
                    if try_ == TRIES - 1 or len(audio) > SHORT_SECONDS * rate:
                        raise
            _check_wanted(gone)
            ledger_id = self.gate.release(grant, made, out, manner.seed)
        except BaseException:
            self.gate.give_back(grant)
            raise
        seconds = len(audio) / self.bundle.codec.sample_rate
        return Spoken(out, ledger_id, seconds, made.score, manner.seed)

    def stream(
        self,
        text: str,
        voice: str,
        purpose: str = "research",
        user: str | None = None,
        seed: int | None = None,
        sampling: Sampling | None = None,
        alteration: Alteration | None = None,
        samples: int = 1,
        name: str = "stream.wav",
        gone: Event | None = None,
    ) -> Iterator[Chunk]:
        """Say `text` in an enrolled voice, sentence by sentence: each leaves as soon as it can, of
        the first, if it is long, a piece (its text comes with that).

        Every chunk carries both watermarks, found in it again before it leaves; a sentence too
        short for them leaves with the next. The ledger says "streamed" before the first does, and
        "released" when the last has, with the whole sound; closed before, "stream-cut". Receipt
        and revocation are looked up for each chunk. The last one has no samples, but the manifest,
        which the store keeps, too.

        Nothing is done before the first chunk is asked for: refusals come then. Arguments and
        errors as of `speak` (gone: it is a stream cut short), and:

        Args:
            name: In the ledger and the manifest.
        """
        manner = self.manner(seed, sampling, alteration, samples)
        grant, spoken = self._ask(text, voice, purpose, user, manner)
        rate, card = self.bundle.codec.sample_rate, self.bundle.card_hash
        start, hurried = 0.0, replace(manner, hurry=True)
        try:
            for _, said, pcm in self.stretches(grant, spoken, hurried, gone=gone):
                yield Chunk(pcm, rate, said, start, grant.id, manner.seed)
                start += len(pcm) / 2 / rate
            made = self.gate.end_stream(grant, name, card, self.marks, self.ca, manner.seed)
        except BaseException:  # GeneratorExit, too: whoever listened went away
            self.gate.cut(grant, self.marks)
            raise
        yield Chunk(b"", rate, "", start, grant.id, manner.seed, made.manifest)

    def stretches(
        self,
        grant: Grant,
        spoken: list[Piece],
        manner: Manner,
        first: int = 0,
        gone: Event | None = None,
    ) -> Iterator[tuple[int, str, bytes]]:
        """Let the sentences of a grant out, from number `first` on: see `Gate.let_out`.

        Returns:
            How many are said by now, the words of this stretch, and its samples.
        """
        rate = self.bundle.codec.sample_rate
        held, texts = list[Tensor](), list[str]()
        sounds = speech_of(self.studio, grant, spoken[first:], manner, first, gone)
        index, new = first, True
        for sound, ended in sounds:
            _check_wanted(gone)
            texts += [spoken[index].text] * new
            new = ended
            for again in range(1, 1 + TRIES):
                audio = torch.cat([*held, sound])
                cut = len(audio) if ended else len(audio) // HOP * HOP  # no gap within a sentence
                audio, rest = audio[:cut], audio[cut:]
                try:
                    with alone():  # what comes next is made meanwhile
                        pcm = self.gate.let_out(grant, audio, rate, self.marks, manner.seed)
                except MarkError:
                    if index + 1 < len(spoken) or not ended:
                        held.append(sound)
                        break  # with the next sentence it will hold them
                    if again == TRIES or len(sound) > SHORT_SECONDS * rate:
                        raise
                    more = replace(manner, seed=manner.seed + again)
                    [(sound, _)] = speech_of(self.studio, grant, spoken[index:], more, index, gone)
                    continue
                yield index + ended, " ".join(texts), pcm
                held, texts = [rest], []
                break
            index += ended

    def manner(
        self,
        seed: int | None = None,
        sampling: Sampling | None = None,
        alteration: Alteration | None = None,
        samples: int = 1,
    ) -> Manner:
        """How to speak, by the arguments of `speak`; InputError likewise."""
        if seed is not None and not 0 <= seed < 2**63:
            raise InputError(f"seed {seed}: give 0 to {2**63 - 1}")
        alteration = alteration or Alteration()
        if not 1 <= samples <= MOST_SAMPLES:
            raise InputError(f"{samples} samples: give 1 to {MOST_SAMPLES}")
        ears = self.studio.ears if samples > 1 else None
        self.bundle.codec.check_edit(alteration)
        seed = secrets.randbelow(SEEDS) if seed is None else seed
        return Manner(seed, sampling or self.bundle.sampling, alteration, samples, ears)

    def _ask(
        self, text: str, voice: str, purpose: str, user: str | None, manner: Manner
    ) -> tuple[Grant, list[Piece]]:
        """The gate's grant of a text, and its sentences."""
        # what cannot be spoken is refused before anything is granted
        emphasis = check_emphasis(self.bundle, _sentences(text))
        if voice == NOBODY:
            voice = own_nobody(self.gate, self.bundle, limit_seconds(INVENTED))
        grant = self.gate.authorise(
            voice,
            purpose,
            user if user is not None else login_name(),
            text,
            altered=manner.alteration.changes_voice or emphasis,
            codec=self.bundle.codec.identity,
        )
        try:
            return grant, _sentences(text, most_characters(self.bundle, grant))
        except BaseException:
            self.gate.give_back(grant)
            raise


def _sentences(text: str, most: int | None = None) -> list[Piece]:
    """The sentences of a text, those of a long one by paragraphs, as `read_out` has them."""
    said, size = list[Piece](), len(text)
    if size <= MOST_CHARACTERS:
        said = pieces(text, most) if size <= MAX_CHARACTERS else sentences_of(text, most)
        size = sum(len(piece.text) for piece in said)
    if size > MOST_CHARACTERS:
        raise InputError(
            f"text of {size} characters: at most {MOST_CHARACTERS} are said at once; a longer one "
            "goes into a folder (sayso speak --file)"
        )
    return said


def _check_wanted(gone: Event | None) -> None:
    if gone is not None and gone.is_set():
        raise GoneError("whoever asked is gone: nothing more is said")
