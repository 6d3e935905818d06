"""Fits the detector of PerTh's mark on real speech and sets both marks' thresholds.

    python -m tools.fit_watermark filter     writes inference/watermark/perth_filter.safetensors
    python -m tools.fit_watermark null       scores every real clip into benchmarks/results/
    python -m tools.fit_watermark limits     sets the filter's thresholds from those scores
    python -m tools.fit_watermark keyed      scores real clips against outputs that they are not

Half of the readers fit the weights; the false positive rate is measured on the other half too.
"""

import argparse
import json
import math
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.attacks import ATTACKS, RATE
from benchmarks.clips import excerpt, is_fitted_on, real_clips
from benchmarks.results import RESULTS, read, write
from sayso.inference.watermark import perth_filter, sound, spread_spectrum
from sayso.inference.watermark.keyed import Keyed
from sayso.inference.watermark.perth import load_watermarker
from sayso.model.audio import read_audio, resample

FALSE_POSITIVES = 0.001
KEYED_NULL = "marks_null_keyed.json"
KEYED_COLUMNS = ["clip", "seconds", "tries", "likeness", "changed", "there", "anywhere"]
PATTERNS = 64  # of rows that are not there, looked for in each clip
FIT_ATTACKS = ("none", "noise 20 dB", "noise 10 dB", "Opus 16 kbit/s", "MP3 32 kbit/s")


def analysed(audio: np.ndarray | Tensor) -> perth_filter.Sums:
    host = audio.numpy() if isinstance(audio, Tensor) else audio
    return perth_filter.spectra(torch.from_numpy(resample(host, RATE, perth_filter.RATE)))


def whole(sums: perth_filter.Sums) -> Tensor:
    return perth_filter.at_speeds(sums.feature(0, len(sums.values)))  # (81, 256)


def fit_filter() -> None:
    rng = np.random.default_rng(4)
    marker = load_watermarker()
    one = perth_filter.SPEEDS.index(1.0)
    clips = [path for path in real_clips() if is_fitted_on(path)]
    clips = [p for p in clips if "librispeech" in str(p)] + clips[-1:200:-4]
    background, effects = [], []
    for number, path in enumerate(clips):
        audio = excerpt(path, 4, rng)
        marked = marker.embed(audio, RATE)
        for name in FIT_ATTACKS:
            if name.startswith(("Opus", "MP3")) and number % 3:
                continue  # starting ffmpeg is what takes time
            seed = int(rng.integers(1 << 31))
            plain = whole(analysed(ATTACKS[name](audio.numpy(), np.random.default_rng(seed))))
            with_mark = analysed(ATTACKS[name](marked.numpy(), np.random.default_rng(seed)))
            effects.append((name, whole(with_mark)[one] - plain[one]))
            background.append(plain[:: 5 if name == "none" else 20])
    rows = torch.cat(background)
    mean = rows.mean(0)
    centred = rows - mean
    covariance = centred.T @ centred / len(rows)
    per_attack = [torch.stack([e for n, e in effects if n == name]).mean(0) for name in FIT_ATTACKS]
    effect = torch.stack(per_attack).mean(0)
    ridge = 0.02 * covariance.diagonal().mean() * torch.eye(len(mean))
    weights = torch.linalg.solve(covariance + ridge, effect)
    weights = weights / (per_attack[0] @ weights)  # the clean mark at full strength gives 1
    for name, shift in zip(FIT_ATTACKS, per_attack, strict=True):
        print(f"{name:16s} mean {float(shift @ weights):.3f}")
    draft = perth_filter.MatchedFilter(mean, weights, (1.0, 0.0), (1.0, 1.0, 1.0, 1.0))
    spread = fit_spread(draft, clips)
    save(perth_filter.MatchedFilter(mean, weights, spread, (1.0, 1.0, 1.0, 1.0)))
    print("spread", spread)


def fit_spread(draft: perth_filter.MatchedFilter, clips: list[Path]) -> tuple[float, float]:
    """Real speech's variance against the length: a + b / seconds."""
    one = perth_filter.SPEEDS.index(1.0)
    values: dict[int, list[float]] = {2: [], 4: [], 8: [], 16: []}
    for path in clips:
        sums = analysed(read_audio(path, RATE)[0])
        for blocks, found in values.items():
            for start in range(0, len(sums.values) - blocks + 1, blocks):
                found.append(float(perth_filter.evidence(sums, draft, start, start + blocks)[one]))
    points = [(2 / blocks, float(np.var(found))) for blocks, found in values.items()]
    design = np.array([[1.0, inverse] for inverse, _ in points])
    a, b = np.linalg.lstsq(design, np.array([variance for _, variance in points]), rcond=None)[0]
    print(
        {blocks / 2: round(math.sqrt(v), 3) for blocks, (_, v) in zip(values, points, strict=True)}
    )
    return max(float(a), 1e-4), max(float(b), 0.0)


def score_null() -> None:
    """Scores all real clips with PerTh's detectors and keeps the scores."""
    marker = load_watermarker()
    rows = []
    for path in real_clips():
        audio = read_audio(path, RATE)[0]
        numbers = marker.statistics(audio, RATE)
        rows.append([path.stem, len(audio) / RATE, is_fitted_on(path), *numbers])
    columns = ["clip", "seconds", "fitted_on", "whole", "whole_any", "window", "window_any"]
    rounded = [[r[0], round(r[1], 2), r[2], *[round(v, 3) for v in r[3:]]] for r in rows]
    write("marks_null_perth.json", {"columns": columns, "rows": rounded})


def set_limits() -> None:
    """Sets the filter's thresholds from the kept scores: at most 1 clip in 1000 is over one."""
    rows = read("marks_null_perth.json")["rows"]
    values = np.array([row[3:] for row in rows], dtype=float)
    # Gumbel tails give each of the four numbers its share; one factor sets the measured rate.
    scale = values.std(0) * math.sqrt(6) / math.pi
    place = values.mean(0) - 0.5772 * scale
    limits = place - scale * math.log(-math.log(1 - FALSE_POSITIVES / 4))
    highest = np.sort((values / limits).max(1))[::-1]
    allowed = int(FALSE_POSITIVES * len(rows))
    limits = limits * highest[allowed] * 1.05  # a little above the first clip that must not pass
    over = (values >= limits).any(1)
    held_out = np.array([not row[2] for row in rows])
    print("limits", limits.round(3), "real clips over:", int(over.sum()), "of", len(rows))
    print("held out:", int(over[held_out].sum()), "of", int(held_out.sum()))
    fitted = perth_filter.load_filter()
    save(
        perth_filter.MatchedFilter(
            fitted.mean, fitted.weights, fitted.spread, tuple(limits.tolist())
        )
    )


def score_keyed(every: int) -> None:
    """Scores real clips against outputs that they are not, and says what limits would let pass.

    The outputs are every fourth real clip, as if it had been released. Goes on where it stopped.
    """
    clips = real_clips()
    outputs = [path for path in clips[::4] if path not in clips[::every]]
    powers = {path: power_of(path) for path in outputs}
    levels = {path: spread_spectrum.loudness(power, 1.0) for path, power in powers.items()}
    rows = [(path.stem, sound.fingerprint(own), path.stem) for path, own in levels.items()]
    mark = Keyed(bytes(range(32)), rows)
    done = read(KEYED_NULL)["rows"] if (RESULTS / KEYED_NULL).exists() else []
    seen = {row[0] for row in done}
    for path in clips[::every]:
        if path.stem in seen:
            continue
        power = power_of(path)
        seconds = len(power) * spread_spectrum.HOP / spread_spectrum.RATE
        plain, changed = mark.library.nearest(power, False), mark.library.nearest(power, True)
        there = [mark._there(power, place)[0] for place in (*plain[:4], *changed[:4])]
        anywhere = mark._anywhere(power, [f"row-{i}" for i in range(PATTERNS)])
        numbers = (plain[0].likeness, changed[0].likeness, max(there), max(anywhere))
        tries = mark.library.tries(seconds)
        done.append([path.stem, round(seconds, 2), round(tries), *[round(n, 3) for n in numbers]])
        write(KEYED_NULL, {"columns": KEYED_COLUMNS, "rows": done})
    values = np.array([row[3:] for row in done], dtype=float)
    print(len(done), "clips, means", values.mean(0).round(3), "deviations", values.std(0).round(3))
    print("highest", values.max(0).round(3))
    scale = values.std(0) * math.sqrt(6) / math.pi
    place = values.mean(0) - 0.5772 * scale
    for share in (FALSE_POSITIVES, FALSE_POSITIVES / 4):
        print(f"{share}: limits", (place - scale * math.log(-math.log(1 - share))).round(3))
    growth = np.polyfit(np.log([row[2] for row in done]), values[:, 0], 1)
    print("likeness against the logarithm of the tries:", growth.round(3))


def power_of(path: Path) -> Tensor:
    """A clip's power as the keyed mark looks at it."""
    audio = resample(read_audio(path, RATE)[0].numpy(), RATE, spread_spectrum.RATE)
    return spread_spectrum.spectrum_of(torch.from_numpy(audio))


def save(fitted: perth_filter.MatchedFilter) -> None:
    numbers = {"spread": fitted.spread, "limits": fitted.limits}
    tensors = {"mean": fitted.mean.contiguous(), "weights": fitted.weights.contiguous()}
    save_file(tensors, perth_filter.FITTED, metadata={"fitted": json.dumps(numbers)})


def main() -> None:
    parser = argparse.ArgumentParser(description="Fits and calibrates the marks' detectors.")
    parser.add_argument("what", choices=["filter", "null", "limits", "keyed"])
    parser.add_argument("--every", type=int, default=1, help="Take every n-th clip only.")
    given = parser.parse_args()
    torch.set_num_threads(1)
    with torch.inference_mode():
        if given.what == "keyed":
            score_keyed(given.every)
        else:
            {"filter": fit_filter, "null": score_null, "limits": set_limits}[given.what]()


if __name__ == "__main__":
    main()
