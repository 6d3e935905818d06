"""Readings of any text in a real voice, put together from Kathleen's aligned recordings.

Nobody here can read a session's fresh words aloud, so genuine readings are built: each phrase is
cut from a sentence that this one reader really spoke (longest run of words first), and joined with
the room's own noise. Joins cost the recogniser more than a natural reading does, so what is
accepted of these is a lower bound. Alignment: pocketsphinx, forced, on the transcript.
"""

import re
from functools import cache
from pathlib import Path

import numpy as np
import pocketsphinx

from sayso.inference.consent.challenge import pronunciations, tokens
from sayso.inference.consent.recording import RATE, Audio
from sayso.model.audio import read_audio

KATHLEEN = Path(__file__).resolve().parents[2] / "shared" / "corpora" / "kathleen"
MARGIN = 0.01  # seconds kept on each side of a cut
LAST_MARGIN = 0.2  # more after a word that ends its sentence: its sound dies away
FADE = 0.008
PAUSE = 0.35


@cache
def transcripts() -> dict[str, tuple[str, ...]]:
    """Sentence id to its words, lower case."""
    lines = (KATHLEEN / "metadata.tsv").read_text().splitlines()[1:]
    pairs = (line.split("\t", 1) for line in lines)
    return {name: tuple(re.findall(r"[a-z']+", text.lower())) for name, text in pairs}


@cache
def clip(name: str) -> Audio:
    """One sentence, (samples,) at 16 kHz."""
    return read_audio(KATHLEEN / "audio" / f"{name}.flac", RATE)[0].numpy()


@cache
def aligned(name: str) -> tuple[tuple[str, float, float], ...]:
    """(word, start, end) in seconds of one sentence; empty when it cannot be aligned."""
    words = transcripts()[name]
    if any(word not in pronunciations() for word in words):
        return ()
    decoder = pocketsphinx.Decoder(loglevel="FATAL", samprate=RATE, beam=1e-80, pbeam=1e-80)
    pcm = (np.clip(clip(name), -1, 1) * 32767).astype("<i2").tobytes()
    decoder.set_align_text(" ".join(words))
    decoder.start_utt()
    decoder.process_raw(pcm, full_utt=True)
    decoder.end_utt()
    if decoder.hyp() is None:
        return ()
    found = [
        (re.sub(r"\(\d+\)$", "", seg.word), seg.start_frame / 100, (seg.end_frame + 1) / 100)
        for seg in decoder.seg()
        if not seg.word.startswith(("<", "["))
    ]
    return tuple(found) if tuple(word for word, *_ in found) == words else ()


def cuttings(text: list[str], rng: np.random.Generator) -> list[Audio] | None:
    """Phrases that make up `text`, longest first; None when a word is not to be had."""
    pieces, place = [], 0
    while place < len(text):
        for width in range(len(text) - place, 0, -1):
            around = (text[place - 1 : place] or [""])[0], (text[place + width :] or [""])[0]
            piece = _cut(tuple(text[place : place + width]), rng, around=around)
            if piece is not None:
                pieces.append(piece)
                place += width
                break
        else:
            return None
    return pieces


@cache
def _holders(phrase: tuple[str, ...]) -> tuple[tuple[str, int], ...]:
    """Sentences with a phrase, and where it begins there."""
    width = len(phrase)
    return tuple(
        (name, start)
        for name, words in transcripts().items()
        for start in range(len(words) - width + 1)
        if words[start : start + width] == phrase
    )


def _fit(around: tuple[str, str], name: str, start: int, stop: int) -> int:
    """How well a phrase's neighbours in a sentence sound like those it is to have: 0 to 2."""
    words = ("", *transcripts()[name], "")
    before, after = words[start], words[stop + 1]
    same = [_sound(before, -1) == _sound(around[0], -1), _sound(after, 0) == _sound(around[1], 0)]
    return sum(same)


def _sound(word: str, place: int) -> str:
    return pronunciations()[word][0][place] if word in pronunciations() else ""


def _cut(
    phrase: tuple[str, ...],
    rng: np.random.Generator,
    last: bool = False,
    around: tuple[str, str] = ("", ""),
) -> Audio | None:
    """A take of a phrase, as it is said beside such neighbours; None when there is none."""
    width = len(phrase)
    holders = [
        (name, start)
        for name, start in _holders(phrase)
        if not last or start + width == len(transcripts()[name])
    ]
    order = [holders[i] for i in rng.permutation(len(holders))]
    for name, start in sorted(order, key=lambda at: -_fit(around, at[0], at[1], at[1] + width)):
        times = aligned(name)
        if times:
            begin, end = times[start][1] - MARGIN, times[start + width - 1][2] + MARGIN
            end += LAST_MARGIN if last else 0.0
            piece = clip(name)[max(0, int(begin * RATE)) : int(end * RATE)].copy()
            fade = int(FADE * RATE)
            ramp = np.linspace(0, 1, fade, dtype=np.float32)
            piece[:fade] *= ramp
            piece[-fade:] *= ramp[::-1]
            return piece
    return None


def room(seconds: float, rng: np.random.Generator) -> Audio:
    """The noise of Kathleen's room: white noise shaped as the first 50 ms of her clips are."""
    names = list(transcripts())[:20]
    quiet = np.concatenate([clip(name)[: RATE // 20] for name in names])
    spectrum = np.abs(np.fft.rfft(quiet.reshape(20, -1), axis=1)).mean(axis=0)
    white = rng.standard_normal(int(seconds * RATE) + RATE)
    shaped = np.convolve(white, np.fft.fftshift(np.fft.irfft(spectrum)), "same")[: len(white)]
    level = np.sqrt(np.square(quiet).mean()) / np.sqrt(np.square(shaped).mean())
    return (shaped[: int(seconds * RATE)] * level).astype(np.float32)


def reading(
    statement: list[str], words: list[str], rng: np.random.Generator, last: bool = False
) -> Audio | None:
    """A reading of statement and words, with a person's pauses; None if it cannot be had.

    Args:
        statement: Its words; each stretch between signs (`spoken_stretches`) is one item.
        last: Only takes of the words that end a sentence and stand before a pause, as in a list.
    """
    parts = [room(0.3, rng)]
    for stretch in statement:
        pieces = cuttings(stretch.split(), rng)
        if pieces is None:
            return None
        parts += [*pieces, room(PAUSE, rng)]
    for word in words:
        single = _cut((word,), rng, last)
        if single is None:
            return None
        parts += [room(PAUSE, rng), single]
    audio = np.concatenate([*parts, room(0.3, rng)])
    return audio + room(len(audio) / RATE, rng)[: len(audio)]


def stretches(text: str) -> list[str]:
    """What stands between the signs of a text, as it is spoken."""
    return [" ".join(tokens(part)) for part in re.split(r"[.,:;?!]", text) if tokens(part)]


def readable_words(pool: tuple[str, ...], last: bool = False) -> list[str]:
    """Those of a word list that this reader spoke somewhere and that can be cut out."""
    spoken = {word for words in transcripts().values() for word in words}
    rng = np.random.default_rng(0)
    return [word for word in pool if word in spoken and _cut((word,), rng, last) is not None]
