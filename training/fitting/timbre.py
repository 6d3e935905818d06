"""The timbre part fitted to corpora: speech in general by EM, a codec of speech in its pivot."""

import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch

from sayso.model import corpora
from sayso.model.codecs.timbre import SpeechModel, Timbre, TimbreConfig, speaker_timbre
from sayso.model.codecs.world import Features, WorldConfig, concatenate
from sayso.model.errors import InputError
from sayso.model.files import write_json

from ..held_out import HeldOut, trained_on
from .residual import FITTED_ON, usual_rule
from .world import fit_world, usable_features

ENOUGH_FRAMES = 20
"""Voiced and unvoiced ones that an utterance needs for its timbre to count."""


def fit_timbres(
    roots: dict[str, Path],
    out: Path,
    pivot: str,
    share: float = 0.5,
    rule: HeldOut | None = None,
    most: int = 120,
    codebooks: int = 4,
    report: Callable[[str], None] = lambda line: None,
) -> SpeechModel:
    """Fit the timbre part of a model to corpora, without their held-out utterances; save it.

    In ``out/codec`` is a codec of all their speech in the pivot, for the models' own codes.

    Args:
        roots: As of `fit_codec`.
        pivot: One of them, of one speaker: the model shall speak in a timbre between the usual one
            and this voice.
        share: Of that voice in it. With more, words are clearer and the prompt is less in them.
        rule: As of `fit_codec`.
        most: Utterances taken of each corpus for the timbres, evenly spread, as all are taken for
            speakers.
        codebooks: K of the codec.

    Raises:
        CorpusError: A corpus is not listed, or not where it should be.
        InputError: There is too little usable speech, or `pivot` is no corpus of one speaker.
    """
    if not 0 <= share <= 1:
        raise InputError(f"share {share}: it must be from 0 to 1")
    if pivot not in roots:
        raise InputError(f"pivot {pivot!r} is none of the corpora {list(roots)}")
    rule = rule or usual_rule(roots)
    utterances = trained_on(roots, rule)
    if len({utterance.speaker for utterance in utterances[pivot]}) > 1:
        raise InputError(f"pivot {pivot!r} has several speakers: name a corpus of one")
    entries = [corpora.get(name).to_json() for name in roots]
    config, heard, own = WorldConfig(), [], []
    for name in roots:
        found = [each for _, each in usable_features(utterances[name], config, report, most)]
        heard += found
        own = found if name == pivot else own
    model = fit_timbre(heard, TimbreConfig(config.envelope))
    voice = model.measure(concatenate(own))
    pairs = zip(model.usual, voice, strict=True)
    model.pivot = Timbre(*((1 - share) * a + share * b for a, b in pairs))
    model.save(out)
    settings = {"pivot": pivot, "share": share, "held_out": vars(rule), "utterances": len(heard)}
    write_json(out / FITTED_ON, {"corpora": entries, **settings})
    neutral = []
    for name in roots:
        spoken: dict[str, list[Features]] = {}
        for speaker, features in usable_features(utterances[name], config, report):
            spoken.setdefault(speaker, []).append(features)
        for theirs in spoken.values():
            own = speaker_timbre(theirs, model, 1000 / config.frame_ms)
            neutral += [model.change(features, own, model.pivot) for features in theirs]
    report(f"{len(neutral)} recordings in the pivot; fitting {codebooks} codebooks")
    codec = fit_world(neutral, WorldConfig(codebooks=codebooks))
    codec.save(out / "codec")
    write_json(out / "codec" / FITTED_ON, {"corpora": entries, "held_out": vars(rule)})
    return model


def fit_timbre(
    utterances: Iterable[Features], config: TimbreConfig, seed: int = 0, most_frames: int = 20_000
) -> SpeechModel:
    """Fit speech in general to utterances, each taken for a speaker of its own.

    Args:
        utterances: Output of `model.world.analyse`, one per utterance.
        seed: Equal seeds and utterances give equal models.
        most_frames: More are thinned at random, voiced and unvoiced each.

    Raises:
        InputError: No utterance has enough voiced and unvoiced frames, or all too few for classes.
    """
    from sklearn.mixture import GaussianMixture  # of the train extra, and slow to import

    heard = [(each, each.f0 > 0) for each in utterances]
    heard = [pair for pair in heard if min(pair[1].sum(), (~pair[1]).sum()) > ENOUGH_FRAMES]
    if sum(len(each.f0) for each, _ in heard) < 20 * config.classes:
        raise InputError(f"{len(heard)} utterances cannot fit {config.classes} classes of sounds")
    model, random = SpeechModel(config), np.random.default_rng(seed)
    logs = [np.log(each.f0[voiced]) for each, voiced in heard]
    pitch = [np.mean([np.median(row) for row in logs]), np.mean([row.std() for row in logs])]
    model.pitch.copy_(torch.tensor(pitch))
    for kind in (0, 1):
        rows = [each.envelope[voiced == kind] for each, voiced in heard]
        level, variance = [r.mean(0) for r in rows], [r.var(0) for r in rows]
        model.level[kind] = torch.from_numpy(np.mean(level, 0))
        model.spread[kind] = torch.from_numpy(np.sqrt(np.mean(variance, 0)))
        own = [(r - m) / np.sqrt(v + 1e-6) for r, m, v in zip(rows, level, variance, strict=True)]
        frames = random.permutation(np.concatenate(own))[:most_frames]
        mixture = GaussianMixture(
            config.classes,
            covariance_type="diag",
            reg_covar=1e-2,
            max_iter=40,
            random_state=seed,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it need not have converged to the last digit
            mixture.fit(frames)
        model.centres[kind] = torch.from_numpy(mixture.means_)
        model.variances[kind] = torch.from_numpy(np.asarray(mixture.covariances_))
        model.weights[kind] = torch.from_numpy(mixture.weights_)
    model.pivot = model.usual
    return model
