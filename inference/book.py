"""A long text into a folder: one marked WAV for each part, with its manifest and transcripts.

A part is a stream (`Gate.let_out`) into a file that is not finished: all that lies on the disk is
marked, and in the ledger from its first sentence on. `book.json` in the folder says how far it is;
after an interruption the next sentence is said. What lies there is taken up again only if it is
what was written: each sentence is sealed with the store's key.
"""

import dataclasses
import hashlib
import hmac
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from sayso.model.audio import wav_header
from sayso.model.chapters import check_chapters
from sayso.model.errors import InputError
from sayso.model.files import MOST_JSON, check_outside, open_regular, read_regular, replace_file
from sayso.model.text.book import Part, parts_of, sentences_of
from sayso.model.text.captions import Cue, read_srt, srt, vtt

from .consent.session import login_name
from .long_grants import begin, grant_part
from .nobody import INVENTED, NOBODY, own_nobody
from .permission import Asked
from .provenance.c2pa import sidecar_of
from .saying import Manner, check_emphasis, limit_seconds, most_characters, own_seed
from .synthesizer import Synthesizer
from .whole import Bound

STATE = "book.json"
MOST_PART = 2**30
"""Bytes of a part: six hours."""
Tell = Callable[[int, int], None]
"""Told after each sentence: characters said and to say."""


def read_out(
    speaker: Synthesizer,
    text: str,
    voice: str,
    folder: Path,
    purpose: str,
    user: str | None,
    manner: Manner,
    resume: bool = False,
    tell: Tell = lambda said, all: None,
    whole: str = "",
) -> list[Path]:
    """Say a long text in an enrolled voice, into files `01-TITLE.wav`, `.wav.c2pa`, `.srt`, `.vtt`.

    The gate grants and counts the whole text once. Of the text a few sentences are in memory as
    sound. Everything may be interrupted at any time.

    Args:
        voice, purpose, user: As of `Synthesizer.speak`.
        folder: A new or empty one; with `resume`, that of the interrupted call.
        manner: Of `Synthesizer.manner`.
        whole: ".m4b" or ".ogg": one file of all chapters, too, `whole.m4b`; compressed, it is in
            memory as it is made.

    Returns:
        The parts' WAVs and the whole.

    Raises:
        InputError: The text cannot be spoken, or the folder does not fit; before anything is said.
        RefusedError, UnfinishedError, MarkError, StoreError: As of `Synthesizer.speak`.
    """
    check_outside(speaker.store.home, folder / STATE)
    if whole:
        check_chapters(whole)
    parts = parts_of(text)
    if not parts:
        raise InputError("The text has nothing that can be spoken: write at least one word.")
    # what cannot be spoken is refused before anything is granted
    spoken = [piece for part in parts for piece in sentences_of(part.text, 100)]
    emphasis = check_emphasis(speaker.bundle, spoken)
    digest = hashlib.sha256(text.encode()).hexdigest()
    if voice == NOBODY:
        voice = own_nobody(speaker.gate, speaker.bundle, limit_seconds(INVENTED))
    altered = manner.alteration.changes_voice or emphasis
    codec = speaker.bundle.codec.identity
    user = user if user is not None else login_name()
    asked = Asked(voice, purpose, user, text, altered=altered, codec=codec)
    state: dict[str, Any]
    if resume:
        state = _read_state(folder, digest, asked)
    else:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if any(folder.iterdir()):
                raise InputError(f"{folder} is not empty: give a new folder, or --resume.")
        except OSError as error:
            raise InputError(f"{folder} cannot be made ({error.strerror}): give another.") from None
        grant = speaker.gate.authorise(voice, purpose, user, text, altered=altered, codec=codec)
        begin(speaker.gate, grant)
        state = {
            "grant": grant.id,
            "text": digest,
            "voice": voice,
            "purpose": purpose,
            "user": user,
        }
        state |= {"done": [], "part": None}
        _write_state(folder, state)
    with speaker.store.alone(f"the text of {state['grant'][:40]}"):
        if resume:  # another may have gone on since
            state = _read_state(folder, digest, asked)
        return _go_on(speaker, parts, asked, folder, manner, state, tell, whole)


def _go_on(
    speaker: Synthesizer,
    parts: list[Part],
    asked: Asked,
    folder: Path,
    manner: Manner,
    state: dict[str, Any],
    tell: Tell,
    whole: str,
) -> list[Path]:
    length = sum(len(part.text) for part in parts)
    said = sum(len(part.text) for part in parts if part.number in state["done"])
    for part in parts:
        if part.number not in state["done"]:
            own = dataclasses.replace(manner, seed=own_seed(manner.seed, part.number, 0))
            _say_part(speaker, part, asked, folder, own, state, lambda n: tell(said + n, length))  # noqa: B023
            said += len(part.text)
    made = [folder / _name(part) for part in parts]
    return [*made, _bind(speaker, parts, asked, folder, manner, state, whole)] if whole else made


def _bind(
    speaker: Synthesizer,
    parts: list[Part],
    asked: Asked,
    folder: Path,
    manner: Manner,
    state: dict[str, Any],
    suffix: str,
) -> Path:
    """All parts in one file: as part 0, which is all of the text, it has a grant of its own."""
    out, gate, card = folder / f"whole{suffix}", speaker.gate, speaker.bundle.card_hash
    cues, start = list[Cue](), 0
    for part in parts:
        own = folder / _name(part)
        transcript = own.with_suffix(".srt")
        said = read_srt(read_regular(transcript, MOST_JSON).decode(errors="replace"))
        if not said:
            raise InputError(f"{transcript} has no line of what is said: it was changed.")
        cues += [Cue(start + cue.start, start + cue.stop, cue.text) for cue in said]
        start = cues[-1].stop
    bound = [Bound(part.number, folder / _name(part), part.title or "Beginning") for part in parts]
    grant = grant_part(gate, state["grant"], asked, 0, asked.text)
    made = gate.bind(grant, bound, out.name, card, speaker.marks, speaker.ca)
    gate.release(grant, made, out, manner.seed)
    _write_transcripts(out, cues)
    return out


def _say_part(
    speaker: Synthesizer,
    part: Part,
    asked: Asked,
    folder: Path,
    manner: Manner,
    state: dict[str, Any],
    tell: Callable[[int], None],
) -> None:
    rate, out = speaker.bundle.codec.sample_rate, folder / _name(part)
    key = speaker.marks.keyed.key if speaker.marks.keyed else b""
    draft, header = out.with_name(f".{out.name}.part"), wav_header(rate)
    begun = state["part"] if state["part"] and state["part"]["stretches"] else None
    with _draft(draft, fresh=begun is None) as file:
        data = b"" if begun is None else _left(file, begun["stretches"], header, begun["tag"], key)
        again = begun["grant"] if begun else ""
        grant = grant_part(speaker.gate, state["grant"], asked, part.number, part.text, again, data)
        state["part"] = begun = begun or {"grant": grant.id, "stretches": [], "tag": ""}
        spoken, size = sentences_of(part.text, most_characters(speaker.bundle, grant)), len(data)
        del data
        first = begun["stretches"][-1]["sentences"] if begun["stretches"] else 0
        file.seek(size)
        file.truncate()
        if not size:
            file.write(header)
        for done, text, pcm in speaker.stretches(grant, spoken, manner, first):
            file.write(pcm)
            file.flush()
            os.fsync(file.fileno())
            begun["stretches"].append({"sentences": done, "bytes": len(pcm), "text": text})
            begun["tag"] = _tag(key, begun["tag"], pcm)
            _write_state(folder, state)
            tell(len(part.text) * done // len(spoken))
    card = speaker.bundle.card_hash
    made = speaker.gate.end_stream(grant, out.name, card, speaker.marks, speaker.ca, manner.seed)
    replace_file(sidecar_of(out), made.manifest, 0o644)
    _write_transcripts(out, _cues(begun["stretches"], rate))
    os.replace(draft, out)
    state |= {"done": [*state["done"], part.number], "part": None}
    _write_state(folder, state)


def _draft(draft: Path, fresh: bool) -> BinaryIO:
    """A part that is being written: what is looked at is what is gone on with.

    A link or anything else that somebody put in its place is not followed.
    """
    try:
        if fresh:
            draft.unlink(missing_ok=True)
        flags = os.O_RDWR | os.O_NOFOLLOW | (os.O_CREAT | os.O_EXCL if fresh else 0)
        return open_regular(draft, flags)
    except OSError as error:
        raise InputError(f"{draft} cannot be used ({error.strerror}).") from None


def _left(file: BinaryIO, stretches: list[dict], header: bytes, tag: str, key: bytes) -> bytes:
    """What has left of a part, if it is still what was written."""
    size = len(header) + sum(each["bytes"] for each in stretches)
    data = file.read(min(size, MOST_PART))  # a killed process may have written more: said again
    found, place = "", len(header)
    for each in stretches:
        found = _tag(key, found, data[place : place + each["bytes"]])
        place += each["bytes"]
    if not hmac.compare_digest(found, tag) or data[: len(header)] != header:
        raise InputError(f"{file.name} was changed: it is not taken up again. Begin anew.")
    return data


def _tag(key: bytes, before: str, pcm: bytes) -> str:
    return hmac.new(key, b"sayso book" + before.encode() + pcm, hashlib.sha256).hexdigest()


def _name(part: Part) -> str:
    title = re.sub(r"[^a-z0-9]+", "-", part.title.lower()).strip("-")[:40]
    return f"{part.number:02d}{'-' + title if title else ''}.wav"


def _cues(stretches: list[dict], sample_rate: int) -> list[Cue]:
    """What is said when in a part."""
    found, start = [], 0
    for each in stretches:
        stop = start + each["bytes"] // 2
        first, last = (round(place / sample_rate * 1000) for place in (start, stop))
        found.append(Cue(first, last, each["text"]))
        start = stop
    return found


def _write_transcripts(out: Path, cues: list[Cue]) -> None:
    for suffix, text in ((".srt", srt(cues)), (".vtt", vtt(cues))):
        replace_file(out.with_suffix(suffix), text.encode(), 0o644)


def _read_state(folder: Path, digest: str, asked: Asked) -> dict[str, Any]:
    file = folder / STATE
    try:
        state = json.loads(read_regular(file, MOST_JSON))
        own = [state[name] for name in ("text", "voice", "purpose", "user")]
        begun = state["part"] or {"grant": "", "stretches": [], "tag": ""}
        good = isinstance(state["grant"] + begun["grant"] + begun["tag"], str)
        numbers = [each[name] for each in begun["stretches"] for name in ("sentences", "bytes")]
        good &= all(type(number) is int and 0 < number < MOST_PART for number in numbers)
        if not good or not isinstance(state["done"], list):
            raise ValueError("it was changed")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{file} cannot be read ({error}): there is nothing to resume.") from None
    if own != [digest, asked.voice, asked.purpose, asked.user]:
        raise InputError(f"{file} is of another text, voice, purpose or user: give the same ones.")
    return state


def _write_state(folder: Path, state: dict[str, Any]) -> None:
    replace_file(folder / STATE, json.dumps(state).encode())
