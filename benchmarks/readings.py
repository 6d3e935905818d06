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
import soundfile

from sayso.inference.audio import resample
from sayso.inference.recording import RATE, Audio
from sayso.inference.words import pronunciations

KATHLEEN = Path(__file__).resolve().parents[2] / "shared" / "corpora" / "kathleen"
MARGIN, WORD_MARGIN = 0.01, 0.03  # seconds kept on each side of a phrase, of a single word
FADE = 0.008
TAKES = 3  # of the longest takes of a word one is drawn: who reads a list does not mumble


@cache
def transcripts() -> dict[str, tuple[str, ...]]:
    """Sentence id to its words, lower case."""
    lines = (KATHLEEN / "metadata.tsv").read_text().splitlines()[1:]
    pairs = (line.split("\t", 1) for line in lines)
    return {name: tuple(re.findall(r"[a-z']+", text.lower())) for name, text in pairs}


@cache
def clip(name: str) -> Audio:
    """One sentence, (samples,) at 16 kHz."""
    audio, rate = soundfile.read(KATHLEEN / "audio" / f"{name}.flac", dtype="float32")
    return resample(audio, rate, RATE)


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
            piece = _cut(tuple(text[place : place + width]), rng)
            if piece is not None:
                pieces.append(piece)
                place += width
                break
        else:
            return None
    return pieces


def _cut(phrase: tuple[str, ...], rng: np.random.Generator) -> Audio | None:
    width = len(phrase)
    holders = [
        (name, start)
        for name, words in transcripts().items()
        for start in range(len(words) - width + 1)
        if words[start : start + width] == phrase
    ]
    order = rng.permutation(len(holders))
    margin = MARGIN
    if width == 1:
        margin = WORD_MARGIN
        spans = [aligned(name)[start] if aligned(name) else ("", 0, 0) for name, start in holders]
        longest = np.argsort([begin - end for _, begin, end in spans], kind="stable")[:TAKES]
        order = rng.permutation(longest)
    for index in order:
        name, start = holders[index]
        times = aligned(name)
        if times:
            first, last = times[start][1] - margin, times[start + width - 1][2] + margin
            piece = clip(name)[max(0, int(first * RATE)) : int(last * RATE)].copy()
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


def reading(statement: list[str], words: list[str], rng: np.random.Generator) -> Audio | None:
    """A reading of statement and words, with pauses around the words; None if it cannot be had."""
    pieces = cuttings(statement, rng)
    singles = [cuttings([word], rng) for word in words]
    if pieces is None or any(single is None for single in singles):
        return None
    parts = [room(0.3, rng)]
    for piece in pieces:
        parts += [piece, room(0.05, rng)]
    for single in singles:
        parts += [room(0.35, rng), *(single or [])]
    audio = np.concatenate([*parts, room(0.3, rng)])
    return audio + room(len(audio) / RATE, rng)[: len(audio)]


def readable_words(pool: tuple[str, ...]) -> list[str]:
    """Those of a word list that this reader spoke somewhere and that can be cut out."""
    spoken = {word for words in transcripts().values() for word in words}
    rng = np.random.default_rng(0)
    return [word for word in pool if word in spoken and _cut((word,), rng) is not None]
