"""The checks on a consent recording, in order; the first that fails refuses, with its own code.

Every limit stands here with what it was measured on (benchmarks/consent.py measures them again;
docs/consent.md has the figures). A check says what it measured, not who is honest: a determined
forger with a good enough clone of a willing stranger's voice is not caught by any of them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from sayso.model.codecs.base import Codec

from .. import recognisers
from ..provenance.c2pa import held_manifest
from ..recognisers import Ears
from ..watermark.base import THRESHOLD as WATERMARK
from ..watermark.ensemble import Marks
from . import changes, recording
from .challenge import find_words
from .clauses import MAX_DOUBT, Reading, spoken
from .receipt import Check
from .recording import RATE
from .statement import Phrase
from .take import Take

MIN_SECONDS, MAX_SECONDS = 5.0, 90.0
MIN_PROMPT_SECONDS, MAX_PROMPT_SECONDS = 3.0, 30.0
MIN_PEAK = 1e-3  # -60 dBFS
MIN_SPEECH = 3.0  # seconds of speech
MIN_UNEVENNESS = 4.0  # dB; noise and tones are below 1, 95 % of LibriSpeech clips above 6
MAX_OVERLAP = 0.12  # of fingerprints; other clips reach 0.05, MP3 or half of the same 0.17 to 1
MIN_ONE_SPEAKER = 0.80
MIN_SAME_SPEAKER = 0.80  # 1 % of men pass for each other at .777, of women at .789: the stricter
MIN_STRETCH = 0.72  # of any 2.4 s of a prompt: 1 % of Kathleen's are below, no mixture is above
MIN_HEARD_AGAIN = 0.75  # through the codec and after changes (benchmarks/fooled.py)
MAX_SOFT = 2.0  # seconds in a prompt; 3 s of a second voice at -25 dB reach 1.98 and more
MAX_FLAT = 50.0  # ms of samples that stand still
MAX_CLICK = 20.0
MIN_QUALITY = 2.0  # DNSMOS, overall, of 5
QUALITY_SECONDS = 10
MOST_DOUBT = 999.0  # as it is written down: receipts hold finite numbers


@dataclass(frozen=True)
class Verdict:
    """One check's outcome.

    Args:
        code: The reason code if it failed.
        message: What was met and what to do, if it failed.
    """

    check: Check
    passed: bool
    code: str
    message: str


def check_sound(take: Take, least: float, most: float) -> Iterator[Verdict]:
    """Length, level, and that there is speech in it at all."""
    seconds, name = take.seconds, take.name
    yield Verdict(
        _check(f"{name} seconds", seconds, least),
        seconds >= least,
        "too-short",
        f"The {name} recording is {seconds:.1f} s long; at least {least:g} s are needed.",
    )
    yield Verdict(
        _check(f"{name} seconds", seconds, most),
        seconds <= most,
        "too-long",
        f"The {name} recording is {seconds:.0f} s long; at most {most:g} s are taken: record only "
        "what is asked for.",
    )
    peak = float(np.abs(take.raw - take.raw.mean()).max())
    yield Verdict(
        _check(f"{name} peak", peak, MIN_PEAK),
        peak >= MIN_PEAK,
        "silent",
        f"The {name} recording is silent (peak {peak:.1e}): check the microphone.",
    )
    speech = recording.speech_seconds(take.audio)
    uneven = recording.unevenness(take.audio)
    needed = min(MIN_SPEECH, least)
    yield Verdict(
        _check(f"{name} speech", speech, needed, "seconds"),
        speech >= needed and uneven >= MIN_UNEVENNESS,
        "not-speech",
        f"The {name} recording holds {speech:.1f} s of speech-like sound, its loudness varies by "
        f"{uneven:.1f} dB: that is noise, or too little speech. Record again in a quiet place.",
    )


def check_pauses(prompt: Take) -> Iterator[Verdict]:
    """That no stretch of the prompt is so soft that the comparison of voices passes over it."""
    soft = recording.longest_soft(prompt.audio)
    yield Verdict(
        _check("longest soft stretch of the prompt", soft, MAX_SOFT, "seconds 18 dB down"),
        soft <= MAX_SOFT,
        "prompt-pause",
        f"The prompt is silent or very soft for {soft:.1f} s: cut the pause out, or record again.",
    )


def check_known(take: Take, earlier: Sequence[NDArray[np.uint32]]) -> Iterator[Verdict]:
    """That no earlier session heard this recording, or a part of it."""
    own = recording.fingerprint(take.audio)
    most = max((recording.overlap(own, other) for other in earlier), default=0.0)
    yield Verdict(
        _check("overlap with earlier recordings", most, MAX_OVERLAP),
        most <= MAX_OVERLAP,
        "recording-known",
        f"{most:.0%} of this recording was heard in an earlier session: record afresh.",
    )


def check_marks(take: Take, marks: Marks) -> Iterator[Verdict]:
    """That the recording was not made by us, nor says that a generator made it."""
    found = marks.search(torch.from_numpy(take.audio), RATE)
    score = max(found.score, 0.0 if found.keyed is None else found.keyed.likeness)
    yield Verdict(
        _check(f"{take.name} watermark", score, WATERMARK),
        score < WATERMARK,
        "watermark-found",
        f"The {take.name} recording carries a generator's watermark (score {score:.2f}): consent "
        "is given by a person's own voice.",
    )
    manifest = held_manifest(take.file, take.path, lambda: take.beside, None)
    state = "somewhere else" if manifest.elsewhere else manifest.state
    yield Verdict(
        _check(f"{take.name} C2PA", float(state != "none"), 1.0),
        state == "none",
        "c2pa-found",
        f"The {take.name} recording carries content credentials ({state}): give the file as the "
        "microphone made it.",
    )


def check_words(
    heard: Reading,
    read: Sequence[Phrase],
    asked: Sequence[str],
    earlier: Sequence[Sequence[str]],
) -> Iterator[Verdict]:
    """That the session's words are said, in order, after its statement, and nothing else is."""
    whole = heard.found == len(asked)
    reused = not whole and any(len(find_words(heard.said, old)) == len(old) for old in earlier)
    yield Verdict(
        _check("words heard in order", heard.found, len(asked), "counted from the last"),
        whole,
        "words-reused" if reused else "words-wrong",
        "These are the words of an earlier session: read the ones just shown."
        if reused
        else f"Of the words shown, {heard.found} of {len(asked)} were heard in order from the end: "
        "start a new session and read them clearly, in a quiet place.",
    )
    yield Verdict(
        _check("negations heard", len(heard.denied), 0.0, "none may be"),
        not heard.denied,
        "statement-wrong",
        f"{' and '.join(map(repr, heard.denied))} was heard, and the statement has no such word: "
        "if you want this, read it as shown.",
    )
    for clause, found in heard.doubts(read).items():
        worst = max(found, key=lambda each: (not each.good, each.doubt - each.limit), default=None)
        doubt, limit = (0.0, MAX_DOUBT) if worst is None else (worst.doubt, worst.limit)
        yield Verdict(
            _check(f"{clause}: doubt", min(doubt, MOST_DOUBT), limit, "nats; 0 is as shown"),
            worst is None or worst.good,
            "statement-wrong",
            ""
            if worst is None
            else f"{worst.denied or worst.heard or 'Nothing'!r} was heard for "
            f"{worst.shown or 'nothing'!r} (where it says {clause}): read the whole statement as "
            "shown, and nothing else.",
        )


def check_speakers(
    consent: NDArray[np.float32], prompt: NDArray[np.float32] | None
) -> Iterator[Verdict]:
    """That one person reads the consent, and that the prompt is the same person's voice."""
    one = recognisers.one_speaker(consent) if len(consent) else 0.0
    yield Verdict(
        _check("one speaker", one, MIN_ONE_SPEAKER, "cosine of the least fitting 3 s"),
        one >= MIN_ONE_SPEAKER,
        "speakers-several",
        f"More than one voice seems to speak (score {one:.2f}): only the speaker may be heard.",
    )
    if prompt is not None:
        alike = recognisers.same_speaker(consent, prompt) if len(prompt) else 0.0
        least = recognisers.least_alike(consent, prompt) if len(prompt) else 0.0
        yield Verdict(
            _check("prompt and consent alike", alike, MIN_SAME_SPEAKER, "cosine"),
            alike >= MIN_SAME_SPEAKER,
            "prompt-speaker",
            f"The prompt does not sound like the person who consents (score {alike:.2f}): both "
            "must be the same speaker's.",
        )
        yield Verdict(
            _check(
                "prompt and consent alike throughout", least, MIN_STRETCH, "least fitting 2.4 s"
            ),
            least >= MIN_STRETCH,
            "prompt-speaker",
            f"A part of the prompt does not sound like the person who consents (score {least:.2f}):"
            " only the speaker may be heard in it.",
        )


def check_heard_again(
    consent: NDArray[np.float32], prompt: Take, codec: Codec, ears: Ears
) -> Iterator[Verdict]:
    """That the prompt is the same person's as the model hears it, and after small changes."""
    for name, audio in changes.heard_again(prompt.audio, codec).items():
        windows = ears.voices(audio)
        alike = recognisers.same_speaker(consent, windows) if len(windows) else 0.0
        yield Verdict(
            _check(f"prompt and consent alike {name}", alike, MIN_HEARD_AGAIN, "cosine"),
            alike >= MIN_HEARD_AGAIN,
            "prompt-fragile",
            f"Heard {name}, the prompt does not sound like the person who consents (score "
            f"{alike:.2f}): leave out --prompt, and the consent recording is the prompt.",
        )


def check_cuts(take: Take) -> Iterator[Verdict]:
    """That the recording runs through: no gaps pasted in, no hard cuts."""
    flat = recording.flat_milliseconds(take.raw)
    yield Verdict(
        _check("longest digital silence", flat, MAX_FLAT, "ms"),
        flat <= MAX_FLAT,
        "spliced",
        f"The recording stands still for {flat:.0f} ms, as if it were put together: record in one "
        "go, with noise suppression off.",
    )
    click = recording.loneliest_click(take.raw)
    yield Verdict(
        _check("sharpest lone click", click, MAX_CLICK),
        click <= MAX_CLICK,
        "spliced",
        f"The recording has a click like a cut (score {click:.0f}): record in one go.",
    )


def check_quality(take: Take, ears: Ears) -> Iterator[Verdict]:
    """That the speech is good enough to be a prompt (DNSMOS P.835, arXiv:2110.01763)."""
    score = ears.quality(take.audio[: QUALITY_SECONDS * RATE])
    yield Verdict(
        _check(f"{take.name} quality", score, MIN_QUALITY, "DNSMOS overall, 1 to 5"),
        score >= MIN_QUALITY,
        "quality-low",
        f"The {take.name} recording's quality is {score:.1f} of 5; {MIN_QUALITY:g} is needed: "
        "less noise, closer to the microphone.",
    )


def examine(
    consent: Take,
    prompt: Take | None,
    read: Sequence[Phrase],
    asked: Sequence[str],
    earlier_words: Sequence[Sequence[str]],
    earlier_prints: Sequence[NDArray[np.uint32]],
    ears: Ears,
    marks: Marks,
    codec: Codec,
) -> Iterator[Verdict]:
    """All checks, cheap ones first. The caller stops at the first that failed."""
    yield from check_sound(consent, MIN_SECONDS, MAX_SECONDS)
    if prompt is not None:
        yield from check_sound(prompt, MIN_PROMPT_SECONDS, MAX_PROMPT_SECONDS)
        yield from check_pauses(prompt)
    yield from check_known(consent, earlier_prints)
    for take in (consent, prompt):
        if take is not None:
            yield from check_marks(take, marks)
    yield from check_cuts(consent)
    voices = ears.voices(consent.audio)
    yield from check_speakers(voices, None if prompt is None else ears.voices(prompt.audio))
    if prompt is not None:
        yield from check_heard_again(voices, prompt, codec, ears)
    yield from check_words(spoken(consent.audio, read, asked, ears), read, asked, earlier_words)
    yield from check_quality(consent, ears)
    if prompt is not None:
        yield from check_quality(prompt, ears)


def _check(name: str, score: float, limit: float, note: str = "") -> Check:
    return Check(name, round(float(score), 4), float(limit), note)
