"""The keyed mark: a pattern of its own for every output, from the store's key and a name.

The name is the ledger id, or for speech that is to be made again (`again`) one that hangs on the
sound, so that no two sounds share a pattern.

A pattern that is the same in all outputs is learnt from a few of them by whoever has their unmarked
originals, and can then be put on any recording, or taken off. Here what is learnt from one output
is of no use for the next. The detector cannot try every pattern at every speed: the ledger keeps a
fingerprint of each output (`sound`), and only the patterns of rows that sound alike are looked for,
where the fingerprint says. So a pattern that was copied onto another sound never names its row; it
is told as copied. Stores made before have files with one pattern for all: see `fixed_pattern`.
"""

import hashlib
import hmac
import json
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sayso.model.audio import resample
from sayso.model.files import MOST_JSON, create_file, read_bounded, unique

from ..errors import MarkError
from . import spread_spectrum as spread
from .base import THRESHOLD, Stretch, Trace, at_rate, check_audio, to_rate
from .fixed_pattern import FixedPattern, FixedTrace
from .sound import STEP, Library, Place, fingerprint
from .spread_spectrum import BANDS, CELL, HOP, RATE

KEY_FILE = "marks/weave.key"
"""Under the store's folder."""
CELLS = 256
"""Cells (10.9 s) until a pattern comes again."""
FRAMES = CELLS * CELL
LIMIT, LIMIT_COPIED = 5.0, 7.0
"""Evidence for a pattern where the fingerprint says it is; and anywhere, of all rows tried."""
COPIES = 256
"""The newest rows whose patterns are looked for in a file that sounds like no row."""
SOUND, SOUND_CHANGED, SOUND_GROWTH = 2.15, 2.5, 0.1
"""Likeness to a row that names it: as it is, at another speed, and more per factor e of tries."""
NEAR = 8  # rows of one sound whose patterns are tried
REFINED = tuple(0.004 * i for i in range(-4, 5))  # speeds around the fingerprint's
SHORTEST = 150
"""Frames (1.6 s): a shorter file tells too little of its sound to call its mark copied."""
SLACK = 12  # frames around the fingerprint's place


Row = tuple[str, bytes | None, str]


@dataclass(frozen=True)
class KeyedTrace(Trace):
    """What was found of the store's outputs; `score` is of the patterns of the rows named.

    Attributes:
        rows: Ledger ids of the outputs in it: it sounds like them and carries their patterns.
        alike: A row that it sounds like, whose pattern is not there: washed off, or the same text
            said again, perhaps elsewhere (two seeds often give the same sound).
        likeness: How much it sounds like the likest row; from half on it counts as its sound.
        copied: Rows whose pattern lies on this sound, which is not theirs: somebody put it there.
    """

    rows: tuple[str, ...] = ()
    alike: tuple[str, ...] = ()
    likeness: float = 0.0
    copied: tuple[str, ...] = ()


class Keyed:
    """The keyed mark of one store.

    Args:
        key: 32 bytes, see `ensure_key`.
        rows: The released outputs to look for, oldest first: ledger id, fingerprint (None for a row
            that has the fixed pattern of older stores), and the name of the pattern.
    """

    name = "keyed"

    def __init__(self, key: bytes, rows: Sequence[Row] = ()):
        self.key = key
        known = [(row, sound) for row, sound, _ in rows if sound]
        self.rows = [row for row, _ in known]
        self.patterns = {row: pattern for row, _, pattern in rows}
        self.library = Library([sound for _, sound in known])
        self.older = [row for row, sound, _ in rows if not sound]
        self.fixed = FixedPattern(key)

    @torch.inference_mode()
    def embed(
        self,
        audio: Tensor,
        sample_rate: int,
        pattern: str,
        decibels: float = spread.DECIBELS,
        start: int = 0,
    ) -> Tensor:
        """Marks (samples,) with the pattern of a name.

        Args:
            decibels: How much louder or softer the cells are made.
            start: Samples of the same output before these: the pattern goes on.

        Raises:
            MarkError: The audio is silent or holds NaN.
        """
        check_audio(audio)
        if float(audio.abs().max()) == 0:
            raise MarkError("There is nothing to mark: the audio is silent.")
        host = torch.from_numpy(resample(audio.numpy(), sample_rate, RATE))
        host = torch.nn.functional.pad(host, (0, max(0, spread.WINDOW - len(host))))
        frame = round(start * RATE / sample_rate / HOP)
        marked = spread.embed(host, self.chips(pattern), frame, decibels)
        return audio + to_rate(marked - host, RATE, sample_rate, len(audio))

    @torch.inference_mode()
    def score(self, audio: Tensor, sample_rate: int, pattern: str) -> float:
        """How strong one pattern is in (samples,) at its own speed, 0 to 1."""
        power = self._power(audio, sample_rate)
        evidence = 0.0 if power is None else self._anywhere(power, [pattern])[0]
        return _to_score(evidence / LIMIT)

    @torch.inference_mode()
    def search(self, audio: Tensor, sample_rate: int, seconds: float = 0.0) -> KeyedTrace:
        """Which outputs are in (samples,), at speeds from 0.8 to 1.25, and whether marked.

        Args:
            seconds: Of the whole file, where `audio` is a piece of it.

        Raises:
            MarkError: The audio holds NaN.
        """
        power = self._power(audio, sample_rate)
        if power is None or not self.rows:
            return KeyedTrace(0.0)
        tries = self.library.tries(max(seconds, len(audio) / sample_rate))
        best, likeness = KeyedTrace(0.0), 0.0
        for changed, limit in ((False, SOUND), (True, SOUND_CHANGED)):
            places = self.library.nearest(power, changed)
            likeness = max(likeness, places[0].likeness / (limit + SOUND_GROWTH * math.log(tries)))
            found = self._named(power, places, limit + SOUND_GROWTH * math.log(tries))
            best = max(best, found, key=lambda trace: (trace.score, bool(trace.alike)))
            if best.rows:
                break
        if best.rows or len(power) < SHORTEST:
            return replace(best, likeness=_to_score(likeness))
        newest = self.rows[-COPIES:]
        evidence = self._anywhere(power, [self.patterns[row] for row in newest])
        copied = tuple(row for row, z in zip(newest, evidence, strict=True) if z >= LIMIT_COPIED)
        return replace(best, likeness=_to_score(likeness), copied=copied)

    @torch.inference_mode()
    def search_fixed(self, audio: Tensor, sample_rate: int) -> FixedTrace:
        """Looks for the one pattern of older stores' files; MarkError for NaN."""
        power = self._power(audio, sample_rate)
        return FixedTrace(0.0) if power is None else self.fixed.search(power)

    def fingerprint(self, blocks: Iterable[Tensor], sample_rate: int) -> bytes:
        """What the ledger keeps of an output, to find it again; it comes in blocks (samples,).

        Raises:
            MarkError: It is silent or holds NaN.
        """
        bands = spread.bands_of(at_rate(blocks, sample_rate, RATE))
        if float(bands.max()) == 0:
            raise MarkError("A silent file has no fingerprint.")
        return fingerprint(spread.levels_of(bands))

    def again(self, audio: Tensor, sample_rate: int) -> str:
        """The name of the pattern that (samples,) get whenever this store marks them.

        As a deterministic signature draws its nonce (RFC 6979, 3.2): from the key and what is
        signed. Another sound, if by one bit, has another one, and only the key tells which.
        """
        sound = hashlib.sha256(audio.numpy().astype("<f4").tobytes()).digest()
        seed = b"sayso keyed again 1" + sample_rate.to_bytes(4, "big") + sound
        return "a-" + hmac.new(self.key, seed, hashlib.sha256).hexdigest()[:32]

    def chips(self, pattern: str) -> Tensor:
        """The pattern of a name, (CELLS, BANDS) of -1 and 1."""
        seed = hmac.new(self.key, b"sayso keyed 2" + pattern.encode(), hashlib.sha256).digest()
        data = hashlib.shake_256(seed).digest(CELLS * BANDS // 8)
        bits = np.unpackbits(np.frombuffer(data, np.uint8)).astype(np.float32)
        return torch.from_numpy(2 * bits - 1).reshape(CELLS, BANDS)

    def _named(self, power: Tensor, places: list[Place], limit: float) -> KeyedTrace:
        """The rows of those places that are like enough, and the mark of the best."""
        near = [place for place in places[:NEAR] if place.likeness >= limit]
        if not near:
            return KeyedTrace(0.0)
        tried = [(*self._there(power, place), place) for place in near]
        evidence, speed, place = max(tried, key=lambda one: one[0])
        rows = [self.rows[one.row] for z, _, one in tried if z >= LIMIT]
        windows = tuple(
            Stretch(start * HOP / RATE, stop * HOP / RATE, _to_score(alike / limit))
            for start, stop, alike in self.library.along(power, place)
        )
        speed = 1.0 if abs(speed - 1) < REFINED[-1] else round(speed, 4)
        alike = () if rows else (self.rows[near[0].row],)
        return KeyedTrace(_to_score(evidence / LIMIT), speed, windows, tuple(rows), alike)

    def _there(self, power: Tensor, place: Place) -> tuple[float, float]:
        """Evidence for a row's pattern where its fingerprint lies, and the exact speed."""
        middle = sum(place.window) / 2  # frames at the file's own pace
        row_middle = middle * place.speed + place.shift
        half = FRAMES / 2 / place.speed
        begin = max(0, int(middle - min(half, row_middle / place.speed)))
        ahead = (int(self.library.lengths[place.row]) * STEP - row_middle) / place.speed
        part = power[begin : int(middle + max(1.0, min(half, ahead)))]
        wave, size = _wave(self.chips(self.patterns[self.rows[place.row]]))
        best = (-math.inf, place.speed)
        for more in REFINED:
            speed = place.speed * (1 + more)
            levels = spread.loudness(part, speed if place.pitched else 1.0)
            z = _correlate(spread.whitened(spread.at_speed(levels, speed)), wave, size)
            first = round(row_middle - (middle - begin) * speed)
            near = torch.arange(first - SLACK, first + SLACK + 1) % FRAMES
            best = max(best, (float(z[near].max()), speed))
        return best

    def _anywhere(self, power: Tensor, patterns: Sequence[str]) -> list[float]:
        """Evidence for each pattern at its own speed and any offset."""
        rest = spread.whitened(spread.loudness(power, 1.0))
        return [float(_correlate(rest, *_wave(self.chips(name))).max()) for name in patterns]

    def _power(self, audio: Tensor, sample_rate: int) -> Tensor | None:
        """(T, bins), or None for silence."""
        check_audio(audio)
        if float(audio.abs().max()) == 0:
            return None
        return spread.spectrum_of(torch.from_numpy(resample(audio.numpy(), sample_rate, RATE)))


def load_keyed(home: Path, create: bool = True, rows: Sequence[Row] = ()) -> Keyed | None:
    """The keyed mark of the store in `home`; None if it has no key yet and none is to be made.

    Args:
        rows: See `Keyed`.

    Raises:
        MarkError: The key is unreadable.
    """
    file = Path(home) / KEY_FILE
    if not create and not file.exists():
        return None
    return Keyed(ensure_key(file) if create else load_key(file), rows)


def ensure_key(file: Path) -> bytes:
    """The store's key for this mark, made on first use (32 random bytes, mode 0600).

    Raises:
        MarkError: The key is there but unreadable, or not 32 bytes, or open to other users.
    """
    file = Path(file)
    try:
        if not file.exists():
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            content = {"kind": "weave", "version": 1, "key": os.urandom(32).hex()}
            draft = file.with_name(f".{file.name}.{unique()}")
            create_file(draft, json.dumps(content).encode())
            try:
                os.link(draft, file)  # fails if another process was first; then its key is used
            finally:
                os.unlink(draft)
    except FileExistsError:
        pass
    except OSError as error:
        raise MarkError(f"The key of the keyed mark cannot be made: {error}.") from error
    return load_key(file)


def load_key(file: Path) -> bytes:
    """The key of the keyed mark, 32 bytes.

    Raises:
        MarkError: Saying what is wrong with the file.
    """
    try:
        if file.stat().st_mode & 0o077:
            raise ValueError("open to other users: chmod 600 it")
        stored = json.loads(read_bounded(file, MOST_JSON))
        key = bytes.fromhex(stored["key"])
        if stored["kind"] != "weave" or stored["version"] != 1 or len(key) != 32:
            raise ValueError("not a key of this version")
        return key
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MarkError(
            f"The key of the keyed mark, {file}, cannot be used ({error}). Restore it from a "
            "backup; or move it away: a new one is made, which does not find older marks."
        ) from error


def _wave(chips: Tensor) -> tuple[Tensor, Tensor]:
    """A pattern's spectrum over time, (FRAMES // 2 + 1, BANDS), and each band's mean square."""
    left = spread.template(chips)
    return torch.fft.rfft(left, dim=0), left.square().mean(0)


def _correlate(rest: Tensor, wave: Tensor, size: Tensor) -> Tensor:
    """How a pattern fits (T, BANDS) at each offset, (FRAMES,), in rough standard deviations."""
    product = (torch.fft.rfft(spread.fold(rest, FRAMES), dim=0).conj() * wave).sum(1)
    scale = float((rest.square().sum(0) * size).sum())
    # frames within a cell say the same: / 2
    return torch.fft.irfft(product) / (2.0 * math.sqrt(max(scale, 1e-9)))


def _to_score(over_limit: float) -> float:
    return min(max(THRESHOLD * over_limit, 0.0), 1.0)
