"""A codec that hears every prompt in one timbre, and what the model says in the prompt's own.

`timbre` measures and changes timbres; with a learnt decoder sound is made by that, not by WORLD.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import CheckpointError
from ..loudness import HIGHEST, as_loud, loudness
from .base import Codec, Pieces, Said, check_audio
from .decoder import PER_FRAME, Decoder
from .fargan import FEATURES
from .timbre import SpeechModel, Timbre, speaker_timbre
from .voice_edit import Alteration
from .world import Features, WorldCodec, alter, analyse, emphasise, to_rows

MOST_KNOWN = 16
"""Prompts of which a codec keeps what it heard."""


@dataclass
class HeardPrompt:
    """What was found in a prompt."""

    features: Features
    timbre: Timbre
    loudness: float | None = None
    """Once it was asked for."""


class TimbreCodec(Codec):
    """Two WORLD codecs with a timbre between them: a fine one for prompts, and that of the model's
    codes, all in the pivot. With a decoder that, not WORLD, makes sound of what the model says.

    Raises:
        CheckpointError: The parts are not of one model.
    """

    edits = True
    outlines = True
    stresses = True

    def __init__(
        self,
        prompts: WorldCodec,
        timbre: SpeechModel,
        neutral: WorldCodec,
        decoder: Decoder | None = None,
    ):
        super().__init__()
        if (
            any(codec.config.envelope != timbre.config.envelope for codec in (prompts, neutral))
            or prompts.config.hop != neutral.config.hop
            or prompts.sample_rate != neutral.sample_rate
            or (decoder is not None and decoder.config.features != neutral.config.width)
        ):
            raise CheckpointError("timbre and codec are not of one model: copy both from one run")
        self.prompts, self.timbre, self.neutral, self.decoder = prompts, timbre, neutral, decoder
        self.sample_rate, self.frame_rate = neutral.sample_rate, neutral.frame_rate
        self.codebooks, self.codebook_size = neutral.codebooks, neutral.codebook_size
        self._known: dict[bytes, HeardPrompt] = {}

    @classmethod
    def load(cls, prompts: Codec, folder: Path) -> "TimbreCodec":
        """The timbre in a folder, in `codec/` in it the model's codec, for prompts of another, and
        in `decoder/`, if that is there, what is heard of it.

        Raises:
            CheckpointError: A file is missing or damaged, or the parts are not of one model.
        """
        if not isinstance(prompts, WorldCodec):
            raise CheckpointError(f"{folder}: a timbre needs a WORLD codec, not {type(prompts)}")
        timbre, neutral = SpeechModel.load(folder), WorldCodec.load(folder / "codec")
        learnt = folder / "decoder"
        return cls(prompts, timbre, neutral, Decoder.load(learnt) if learnt.exists() else None)

    @property
    def identity(self) -> str:
        """The prompts' codec's."""
        return self.prompts.identity

    @property
    def parts(self) -> dict[str, str]:
        """Of the model's codec and of the timbre."""
        return {"codec": self.neutral.identity, "timbre": self.timbre.identity}

    @property
    def sound_parts(self) -> dict[str, str]:
        """Of the decoder."""
        return {} if self.decoder is None else {"decoder": self.decoder.identity}

    def encode(self, audio: Tensor) -> Tensor:
        """Audio (B, samples) -> prompt codes (B, K', T); raises InputError."""
        return self.prompts.encode(audio)

    def decode(self, codes: Tensor) -> Tensor:
        """Prompt codes (B, k, T) -> audio (B, samples); raises InputError."""
        return self.prompts.decode(codes)

    def entries(self) -> Tensor:
        """All entries of the model's codec, (K, codebook_size, D)."""
        return self.neutral.entries()

    def read(self, prompt: Tensor) -> Tensor:
        """Prompt codes (K', T) -> the model's (K, T), in the pivot; raises InputError."""
        if prompt.shape[1] == 0:
            return prompt.new_zeros(self.codebooks, 0)
        heard = self._heard(prompt)
        said = self.timbre.change(heard.features, heard.timbre, self.timbre.pivot)
        return self.neutral.quantize(said)

    def speak_all(self, said: Sequence[Said]) -> list[Tensor]:
        """As of `Codec`, each in its prompt's timbre: the decoder makes all of them in one batch;
        raises InputError."""
        if self.decoder is None:
            return [self.prompts.render(self.told(one), one.edit) for one in said]
        # around a louder word the rest stays as loud as it is without it
        plain = [one._replace(stressed=None) for one in said if one.stressed is not None]
        told = [self.told(one) for one in (*said, *plain)]
        for place, one in enumerate((*said, *plain)):
            if one.edit is not None and not one.edit.neutral:
                told[place] = alter(told[place], self.prompts.config, one.edit)
        rows = [torch.from_numpy(to_rows(each)) for each in told]
        symbols = [None if e.symbols is None else torch.from_numpy(e.symbols) for e in told]
        made = self.decoder.speak(rows, self.sample_rate, symbols)
        own = map(loudness, made[len(said) :])
        return [
            self._as_loud(audio, one.prompt, None if one.stressed is None else next(own))
            for audio, one in zip(made, said, strict=False)
        ]

    def in_pieces(self, prompt: Tensor) -> Pieces | None:
        """With a decoder, and to a prompt."""
        return DecodedPieces(self) if self.decoder is not None and prompt.shape[1] else None

    def told(self, one: Said, median: float | None = None) -> Features:
        """What was said, in the prompt's timbre, with its emphasis; `median` as of `voiced`."""
        said = self.voiced(one.codes, one.prompt, median)
        if one.symbols is not None:
            said = said._replace(symbols=one.symbols.cpu().numpy())
        if one.stressed is None:
            return said
        return emphasise(said, one.stressed.numpy(), self.prompts.config)

    def _as_loud(self, audio: Tensor, prompt: Tensor, own: float | None) -> Tensor:
        """The decoder's audio as loud as WORLD has the prompt: its own is what it was fitted to."""
        if prompt.shape[1] == 0:
            return audio
        return as_loud(audio, self.loudness(prompt), own)

    def loudness(self, prompt: Tensor) -> float:
        """How loud WORLD has a prompt (K', T)."""
        heard = self._heard(prompt)
        if heard.loudness is None:
            heard.loudness = loudness(self.prompts.render(heard.features))
        return heard.loudness

    def outline(self, codes: Tensor, prompt: Tensor) -> Tensor:
        """The model's codes (K, T) in a prompt's timbre: features (T, F); raises InputError."""
        return torch.from_numpy(to_rows(self.voiced(codes, prompt)))

    def hear(self, prompt: Tensor, edit: Alteration | None = None) -> Tensor:
        """A prompt (K', T) itself, edited: audio (samples,); raises InputError."""
        return self.prompts.hear(prompt, edit)

    def as_prompt(
        self, codes: Tensor, voice: Tensor | None = None, symbols: Tensor | None = None
    ) -> Tensor:
        """As of `Codec`: in the usual timbre, or in a voice half of the way from its timbre to that
        of what is said in it: a learnt decoder changes it, and all the way would cost words."""
        if voice is None:
            return self.prompts.quantize(self.voiced(codes, codes[:, :0]))
        heard = self._heard(voice)
        said = self.encode(self.speak(codes, voice, symbols=symbols)[None])[0]
        found = self.timbre.measure(self.prompts.features(said))
        between = Timbre(*((a + b) / 2 for a, b in zip(heard.timbre, found, strict=True)))
        moved = self.timbre.change(heard.features, heard.timbre, between)
        return self.prompts.quantize(moved)

    def voiced(self, codes: Tensor, prompt: Tensor, median: float | None = None) -> Features:
        """Features of the model's codes (K, T) in a prompt's timbre; for one of no frames in the
        usual one. `median` is of the log F0 of the whole utterance, where these are not all."""
        said = self.neutral.features(codes)
        wanted = self._heard(prompt).timbre if prompt.shape[1] else self.timbre.usual
        # The models keep the envelope of the pivot, but not quite its pitch, and that is heard.
        pivot = self.timbre.pivot
        median = self.timbre.measure_pitch(said)[0] if median is None else median
        old = pivot._replace(pitch=np.array([median, pivot.pitch[1]]))
        return self.timbre.change(said, old, wanted)

    def _heard(self, prompt: Tensor) -> HeardPrompt:
        """What is known of a prompt, kept: it is read once and heard in every take.

        From several threads, each with its own prompt: none may get another's.
        """
        key = prompt.cpu().numpy().tobytes()
        heard = self._known.get(key)
        if heard is None:
            features = self.prompts.features(prompt.cpu())
            heard = HeardPrompt(features, self.timbre.measure(features))
            if len(self._known) >= MOST_KNOWN:
                self._known = {}
            self._known[key] = heard
        return heard

    def speaker(self, recordings: Iterable[Tensor]) -> Timbre:
        """A speaker's timbre, measured in the first `TIMBRE_SECONDS` of recordings (1, samples)."""
        heard = (analyse(each[0].numpy(), self.neutral.config) for each in recordings)
        return speaker_timbre(heard, self.timbre, self.frame_rate)

    def model_codes(
        self, audio: Tensor, speaker: Timbre, edits: Sequence[Alteration] = ()
    ) -> list[Tensor]:
        """Codes (K, T) of audio (1, samples) in the pivot, then of copies; raises InputError."""
        check_audio(audio)
        heard = analyse(audio[0].cpu().numpy(), self.neutral.config)
        said = self.timbre.change(heard, speaker, self.timbre.pivot)
        return self.neutral.quantize_edited(said, edits)


EARLY_PITCH = math.log(2) / 12
"""Log F0 by which the median of a long sentence's first two seconds is over that of all of it, as
pitch falls; with EARLY_LOUD means of sentences in several voices (docs/log.md)."""
EARLY_LOUD = 10 ** (-1.0 / 20)
"""Likewise, its loudness over that of its first two seconds."""
EARLY_LEAST = 10 ** (-2.0 / 20)
"""Of the prompt's loudness: a beginning of less is a pause, and says nothing of what comes."""
SETTLED = 2
"""Frames before the last settled one that still hang on what comes: FARGAN looks a frame ahead, and
so does a resampler."""


class DecodedPieces:
    """As of `Pieces`: pitch and level are measured once, in what the first piece is made of.

    FARGAN begins anew with every piece; what it is told of the pieces before is kept, so that it
    says the same again.
    """

    def __init__(self, codec: TimbreCodec):
        self.codec = codec
        self.kept, self.tail = torch.zeros(0, FEATURES), torch.zeros(0)
        self.median, self.gain, self.sent = None, 0.0, 0

    def add(self, said: Said, frames: int | None = None) -> Tensor:
        """As of `Pieces`."""
        codec, decoder, last = self.codec, self.codec.decoder, frames is None
        assert decoder is not None
        if self.median is None and not last:
            early = codec.timbre.measure_pitch(codec.neutral.features(said.codes))[0]
            self.median = float(early) - EARLY_PITCH
        told = codec.told(said, self.median)
        ids = None if told.symbols is None else torch.from_numpy(told.symbols)[None]
        with torch.inference_mode():
            rows = decoder(torch.from_numpy(to_rows(told))[None].to(decoder.mean_in), ids)[0]
        rows = torch.cat([self.kept, rows[len(self.kept) :]])
        audio = decoder.heard([rows], codec.sample_rate)[0]
        if not self.gain:
            wanted, own = codec.loudness(said.prompt), loudness(audio)
            if not last:
                own = max(own, EARLY_LEAST * wanted) * EARLY_LOUD
            self.gain = wanted / own if own else 1.0
        per_frame = codec.sample_rate / codec.frame_rate
        end = len(audio) if frames is None else round((frames - SETTLED) * per_frame)
        piece = audio[self.sent : end].clone()
        if len(self.tail):  # rounded otherwise among more frames: 65 dB lower, but seen
            share = torch.linspace(0, 1, len(self.tail))
            piece[: len(share)] = self.tail * (1 - share) + piece[: len(share)] * share
        self.tail = audio[end : end + int(per_frame)]
        before, peak = self.gain, float(piece.abs().max())
        self.gain = min(before, HIGHEST / max(peak, 1e-9))  # turned down softly, not clipped
        gains = torch.full_like(piece, self.gain)
        if self.sent:
            ramp = min(len(piece), codec.sample_rate // 20)
            gains[:ramp] = torch.linspace(before, self.gain, ramp)
        self.kept, self.sent = rows[: (frames or 0) * PER_FRAME], end
        return piece * gains
