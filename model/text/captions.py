"""What is said when: SubRip (.srt) and WebVTT (.vtt, W3C)."""

import re
from collections.abc import Iterable
from typing import NamedTuple


class Cue(NamedTuple):
    """What is said in a stretch of a sound."""

    start: int
    """Milliseconds, as the next."""
    stop: int
    text: str
    """One line."""


def srt(cues: Iterable[Cue]) -> str:
    """As SubRip."""
    blocks = [f"{n}\n{_span(cue, ',')}\n{cue.text}\n" for n, cue in enumerate(cues, 1)]
    return "\n".join(blocks)


def vtt(cues: Iterable[Cue]) -> str:
    """As WebVTT, in which & < > are written as in HTML."""
    blocks = ["WEBVTT\n"]
    for cue in cues:
        text = cue.text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        blocks.append(f"{_span(cue, '.')}\n{text}\n")
    return "\n".join(blocks)


def read_srt(text: str) -> list[Cue]:
    """What `srt` wrote."""
    found = re.findall(r"(\d+):(\d\d):(\d\d),(\d{3}) --> (\d+):(\d\d):(\d\d),(\d{3})\n(.*)", text)
    return [Cue(_milliseconds(each[:4]), _milliseconds(each[4:8]), each[8]) for each in found]


def _span(cue: Cue, point: str) -> str:
    return " --> ".join(
        f"{at // 3_600_000:02d}:{at // 60_000 % 60:02d}:{at // 1000 % 60:02d}{point}{at % 1000:03d}"
        for at in (cue.start, cue.stop)
    )


def _milliseconds(clock: Iterable[str]) -> int:
    hours, minutes, seconds, rest = map(int, clock)
    return ((hours * 60 + minutes) * 60 + seconds) * 1000 + rest
