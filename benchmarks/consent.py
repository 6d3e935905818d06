"""Measure the consent checks: `python -m benchmarks.consent [PART ...]`.

Each part prints its figures and puts them into docs/consent.json; `speakers` also draws the DET
curve. What was measured on what is said in docs/consent.md. `purposes` takes about three minutes,
`natural` as many. Needs ../shared/corpora.
"""

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks import readings, statements
from sayso.inference.consent import challenge, checks, clauses
from sayso.inference.consent.recording import (
    RATE,
    Audio,
    fingerprint,
    flat_milliseconds,
    loneliest_click,
    longest_soft,
    overlap,
)
from sayso.inference.recognisers import (
    STRETCH,
    Ears,
    embedding,
    least_alike,
    load_ears,
    one_speaker,
    same_speaker,
)
from sayso.model.audio import read_audio

CLIPS = readings.KATHLEEN.parent / "librispeech-clips"
DOCS = Path(__file__).resolve().parents[1] / "docs"
POSSIBLE_PURPOSES = (
    *("ads", "war", "art", "sale", "sex", "news", "film", "jokes", "books", "radio", "lessons"),
    *("stories", "research", "training", "comedy", "museums", "advertising", "phone calls"),
    *("radio drama", "politics", "audio books", "language lessons"),
)


def readers() -> dict[str, Audio]:
    """LibriSpeech: one clip of each reader, by reader."""
    paths = sorted((CLIPS / "audio").iterdir())
    return {path.stem.split("-")[0]: read_audio(path, RATE)[0].numpy() for path in paths}


def sexes() -> dict[str, str]:
    lines = (CLIPS / "SPEAKERS.TXT").read_text().splitlines()
    rows = [line.split("|") for line in lines if not line.startswith(";")]
    return {row[0].strip(): row[1].strip() for row in rows}


def rates(
    genuine: NDArray[np.float64], impostor: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Limits, false accepts and false rejects at each."""
    limits = np.linspace(0.3, 1.0, 1401)
    accepts = np.array([(impostor >= limit).mean() for limit in limits])
    rejects = np.array([(genuine < limit).mean() for limit in limits])
    return limits, accepts, rejects


def speakers() -> dict[str, Any]:
    """All pairs of readers as impostors; two halves of each clip as genuine."""
    ears, sex = load_ears(), sexes()
    voices = {name: ears.voices(audio) for name, audio in readers().items()}
    voices = {name: windows for name, windows in voices.items() if len(windows)}
    names = list(voices)
    whole = np.array([embedding(voices[name]) for name in names])
    sexed = np.array([sex[name] for name in names])
    first, second = np.triu_indices(len(names), 1)
    pairs = (whole @ whole.T)[first, second].astype(np.float64)
    halves = {
        name: float(embedding(part[: len(part) // 2]) @ embedding(part[len(part) // 2 :]))
        for name, part in voices.items()
        if len(part) >= 4
    }
    kathleen = _kathleen(ears)
    own = np.array([embedding(part) for part in kathleen])
    alike = (own @ own.T)[np.triu_indices(len(own), 1)].astype(np.float64)
    least = np.array([least_alike(a, b) for a in kathleen for b in kathleen if a is not b])
    figures: dict[str, Any] = {"readers": len(names), "limit": checks.MIN_SAME_SPEAKER}
    curves = {}
    for label, kept in (
        ("men", (sexed[first] == "M") & (sexed[second] == "M")),
        ("women", (sexed[first] == "F") & (sexed[second] == "F")),
        ("mixed", sexed[first] != sexed[second]),
        ("all", np.ones(len(pairs), bool)),
    ):
        same = np.array(
            [
                score
                for name, score in halves.items()
                if label in ("all", "mixed") or sex[name] == {"men": "M", "women": "F"}[label]
            ]
        )
        limits, accepts, rejects = rates(same, pairs[kept])
        curves[label] = (accepts, rejects)
        figures[label] = {
            "impostor pairs": int(kept.sum()),
            "accepted at the limit": float((pairs[kept] >= checks.MIN_SAME_SPEAKER).mean()),
            "limit for 1 %": float(limits[np.argmax(accepts <= 0.01)]),
            "genuine pairs": len(same),
            "genuine refused at the limit": float((same < checks.MIN_SAME_SPEAKER).mean()),
        }
    figures["Kathleen, 20 s against 20 s"] = {
        "pairs": len(alike),
        "lowest": float(alike.min()),
        "refused at the limit": float((alike < checks.MIN_SAME_SPEAKER).mean()),
        "refused for a part": float((least < checks.MIN_STRETCH).mean()),
    }
    _draw(curves)
    both = list(voices.values())
    return figures | {"one speaker": _one_speaker(both), "mixed prompts": _mixed(both)}


def _kathleen(ears: Ears) -> list[NDArray[np.float32]]:
    names = list(readings.transcripts())[::6]
    groups = [names[start : start + 6] for start in range(0, len(names) - 5, 6)]
    audio = [np.concatenate([readings.clip(name) for name in group]) for group in groups[:20]]
    return [ears.voices(part) for part in audio]


def _one_speaker(voices: list[NDArray[np.float32]]) -> dict[str, float]:
    rng = np.random.default_rng(0)
    long = [windows for windows in voices if len(windows) >= 12]
    one = np.array([one_speaker(windows) for windows in long])
    two = []
    for _ in range(1000):
        first, second = rng.choice(len(long), 2, replace=False)
        cut = int(rng.integers(5, len(long[first]) - 3))
        two.append(one_speaker(np.concatenate([long[first][:cut], long[second][: 18 - cut]])))
    return {
        "limit": checks.MIN_ONE_SPEAKER,
        "one speaker refused": float((one < checks.MIN_ONE_SPEAKER).mean()),
        "two speakers accepted": float((np.array(two) >= checks.MIN_ONE_SPEAKER).mean()),
    }


def _mixed(voices: list[NDArray[np.float32]]) -> dict[str, float]:
    """Prompts that go on in another's voice (2.4 s at least), against the first one's consent."""
    rng = np.random.default_rng(0)
    long = [windows for windows in voices if len(windows) >= 14]
    own = [(windows[: len(windows) // 2], windows[len(windows) // 2 + 1 :]) for windows in long]
    mean, least = [], []
    for _ in range(1500):
        first, second = rng.choice(len(long), 2, replace=False)
        consent, rest = own[first]
        share = int(rng.integers(STRETCH, len(rest) + 1))
        prompt = np.concatenate([rest, long[second][:share]])
        mean.append(same_speaker(consent, prompt))
        least.append(least_alike(consent, prompt))
    passed = np.array(mean) >= checks.MIN_SAME_SPEAKER
    whole = np.array([least_alike(consent, rest) for consent, rest in own])
    return {
        "mixtures": len(mean),
        "accepted by the mean alone": float(passed.mean()),
        "accepted": float((passed & (np.array(least) >= checks.MIN_STRETCH)).mean()),
        "one voice": len(own),
        "one voice refused": float((whole < checks.MIN_STRETCH).mean()),
    }


def _draw(curves: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 5.4))
    for label, (accepts, rejects) in curves.items():
        shown = (accepts > 0) & (rejects > 0)
        axes.plot(probits(accepts[shown]), probits(rejects[shown]), label=label)
    ticks = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4]
    for axis, name in ((axes.xaxis, "impostors accepted"), (axes.yaxis, "genuine refused")):
        axis.set_ticks(probits(ticks), [f"{tick:.1%}" for tick in ticks])
        axis.set_label_text(name)
    low, limit, high = probits([0.0005, 0.01, 0.4])
    axes.axvline(limit, color="grey", linewidth=0.8, linestyle=":")
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
    axes.set_title(
        "Same speaker? 251 LibriSpeech readers, all pairs\n(genuine: halves of one clip)"
    )
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(DOCS / "consent-det.png", dpi=110)


def probits(shares: Iterable[float]) -> list[float]:
    """Normal deviates of shares between 0 and 1: the scale of DET curves (Martin et al., 1997)."""
    return [NormalDist().inv_cdf(min(max(float(share), 1e-6), 1 - 1e-6)) for share in shares]


def cuts() -> dict[str, Any]:
    """Cut and gap scores of whole recordings and of pasted ones; fingerprints of other readers."""
    rng = np.random.default_rng(1)
    natural = {"LibriSpeech": list(readers().values())}
    names = list(readings.transcripts())
    natural["Kathleen"] = [readings.clip(name) for name in names[::4]]
    pool = natural["Kathleen"]

    def pasted(gap: float) -> Audio:
        parts = []
        for _ in range(8):
            clip = pool[rng.integers(len(pool))]
            size = min(int(rng.uniform(0.4, 1.2) * RATE), len(clip) - 1)
            start = int(rng.integers(0, len(clip) - size))
            parts += [clip[start : start + size], np.zeros(int(gap * RATE), np.float32)]
        return np.concatenate(parts)

    groups = natural | {
        "pasted with gaps": [pasted(0.2) for _ in range(200)],
        "pasted, hard cuts": [pasted(0.0) for _ in range(200)],
    }
    figures: dict[str, Any] = {
        name: {
            "recordings": len(group),
            "refused for standing still": _share(group, flat_milliseconds, checks.MAX_FLAT),
            "refused for a click": _share(group, loneliest_click, checks.MAX_CLICK),
        }
        for name, group in groups.items()
    }
    prints = [fingerprint(audio) for audio in natural["LibriSpeech"]]
    others = [overlap(a, b) for place, a in enumerate(prints) for b in prints[:place]]
    figures["fingerprints"] = {
        "pairs of other recordings": len(others),
        "highest overlap": max(others),
        "over the limit": float((np.array(others) > checks.MAX_OVERLAP).mean()),
    }
    return figures


def soft() -> dict[str, Any]:
    """Pauses in recordings as prompts, and 3 s of another voice that is too soft to be compared."""
    clips = list(readers().values())
    names = list(readings.transcripts())[::12]
    pairs = list(zip(names[::2], names[1::2], strict=False))
    two = [np.concatenate([readings.clip(name) for name in pair]) for pair in pairs]
    figures: dict[str, Any] = {
        name: {"recordings": len(group), "refused": _share(group, longest_soft, checks.MAX_SOFT)}
        for name, group in (("LibriSpeech", clips), ("Kathleen", two))
    }
    long = [audio for audio in clips if len(audio) > 13 * RATE]
    for decibels in (-20, -25, -30):
        mixed = []
        for place, audio in enumerate(long):
            other = long[(place + 3) % len(long)][: 3 * RATE]
            other = other * np.sqrt(np.square(audio).mean() / np.square(other).mean())
            mixed.append(np.concatenate([audio[len(audio) // 2 :], other * 10 ** (decibels / 20)]))
        figures[f"another voice at {decibels} dB"] = {
            "recordings": len(mixed),
            "refused": _share(mixed, longest_soft, checks.MAX_SOFT),
        }
    return figures


def _share(group: list[Audio], measure: Any, limit: float) -> float:
    return float(np.mean([measure(audio) > limit for audio in group]))


def purposes() -> dict[str, Any]:
    """How often a purpose that nobody said may have been what was said, by its number of sounds."""
    ears, rng = load_ears(), np.random.default_rng(3)
    clips = [audio[: 10 * RATE] for audio in list(readers().values())[::10]]
    clips += [readings.clip(name) for name in list(readings.transcripts())[::44]]
    passed: dict[int, list[bool]] = {}
    for audio in clips:
        hearing = ears.hear(audio)
        for purpose in POSSIBLE_PURPOSES:
            width = len(purpose.split())
            start = int(rng.integers(max(1, len(hearing.words) - width)))
            doubt = hearing.doubt(start, start + width, purpose)
            size = sum(len(challenge.sounds(token)) for token in purpose.split())
            limit = clauses.Difference("", purpose, "", doubt).limit
            passed.setdefault(size, []).append(doubt <= limit)
    return {
        "clips": len(clips),
        "by sounds": {str(size): float(np.mean(passed[size])) for size in sorted(passed)},
        "tries by sounds": {str(size): len(passed[size]) for size in sorted(passed)},
    }


def natural() -> dict[str, Any]:
    """How often a word of the list is heard where it was really read, in whole sentences."""
    ears, pool = load_ears(), set(challenge.word_list())
    places = [
        (name, word)
        for name, said in readings.transcripts().items()
        for word in dict.fromkeys(said)
        if word in pool
    ]
    texts = {name: challenge.tokens(ears.transcribe(readings.clip(name))) for name, _ in places}
    missed = [word for name, word in places if not challenge.find_words(texts[name], [word])]
    rate = 1 - len(missed) / len(places)
    return {
        "sentences": len(texts),
        "words read": len(places),
        "words heard": rate,
        "five words heard, if independent": rate**5,
        "missed": missed,
    }


PARTS = {
    "speakers": speakers,
    "cuts": cuts,
    "soft": soft,
    "statements": statements.judged,
    "purposes": purposes,
    "natural": natural,
}


def main() -> None:
    """Measure some parts, or all."""
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", help=", ".join(PARTS), metavar="PART")
    asked = parser.parse_args().parts
    if unknown := set(asked) - set(PARTS):
        parser.error(f"{sorted(unknown)} is none of {', '.join(PARTS)}")
    path = DOCS / "consent.json"
    for name in asked or PARTS:
        figures = PARTS[name]()
        print(name, json.dumps(figures, indent=2), flush=True)
        known = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(known | {name: figures}, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
