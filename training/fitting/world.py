"""What is fitted without gradients: a WORLD codec (k-means), timbres (EM), a BPE vocabulary."""

import contextlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer as HFTokenizer
from tokenizers import decoders, models, pre_tokenizers, trainers
from torch import Tensor

from sayso.model import corpora
from sayso.model.codecs.timbre import SpeechModel, Timbre, TimbreConfig
from sayso.model.codecs.world import (
    Features,
    WorldCodec,
    WorldConfig,
    analyse,
    concatenate,
    to_rows,
)
from sayso.model.errors import InputError
from sayso.model.files import write_json
from sayso.model.text.tokenizers import BPE, normalise

from ..prepare import Filters, Unusable, read_speech, speaker_timbre
from ..readers import read_corpus
from ..split import held_out

FITTED_ON = "corpora.json"
"""Beside a fitted codec: the corpora it was fitted on, as on the list, for the model card."""
HELD_OUT_EVERY = 47
ENOUGH_FRAMES = 20
"""Voiced and unvoiced ones that an utterance needs for its timbre to count."""


def fit_codec(
    roots: dict[str, Path],
    out: Path,
    held_out_every: dict[str, int] | None = None,
    codebooks: int = 8,
    report: Callable[[str], None] = lambda line: None,
) -> WorldCodec:
    """Fit a WORLD codec to corpora, without their held-out utterances, and save it in `out`.

    Args:
        roots: Name on the list of consented corpora -> the unpacked corpus.
        held_out_every: One utterance in this many of a corpus is held out, by the hash of its id;
            47 where a corpus is not named.
        codebooks: K.
        report: Takes a line now and then: it takes minutes.

    Raises:
        CorpusError: A corpus is not listed, or not where it should be.
        InputError: There is too little usable speech.
    """
    config = WorldConfig(codebooks=codebooks)
    every = {name: (held_out_every or {}).get(name, HELD_OUT_EVERY) for name in roots}
    entries = [corpora.get(name).to_json() for name in roots]
    heard = [features for _, features in _features(roots, config, every, report)]
    report(f"{len(heard)} recordings analysed; fitting {codebooks} codebooks")
    codec = fit_world(heard, config)
    codec.save(out)
    write_json(out / FITTED_ON, {"corpora": entries, "held_out_every": every})
    return codec


def _features(
    roots: dict[str, Path],
    config: WorldConfig,
    every: dict[str, int],
    report: Callable[[str], None],
    most: int | None = None,
) -> Iterator[tuple[str, Features]]:
    """Speaker and features of each utterance that is used, or of `most` per corpus."""
    filters = Filters(min_seconds=0.5, max_seconds=20.0)
    for name, root in roots.items():
        utterances = read_corpus(name, root)
        utterances = utterances[:: max(1, len(utterances) // most)] if most else utterances
        for number, utterance in enumerate(utterances):
            if number % 200 == 0:
                report(f"{name}: {number} of {len(utterances)} recordings analysed")
            if held_out(utterance.id, every[name]):
                continue
            try:
                audio = read_speech(utterance.path, config.sample_rate, filters)
            except Unusable:
                continue
            yield utterance.speaker, analyse(audio[0].numpy(), config)


def fit_world(
    utterances: Iterable[Features],
    config: WorldConfig,
    iterations: int = 20,
    seed: int = 0,
    most_frames: int = 400_000,
) -> WorldCodec:
    """Fit mean, scale and residual codebooks to utterances: about 100 s for 300k frames.

    Every feature is centred. Log F0, voicing and aperiodicity are brought to the standard
    deviation the config names; of the envelope coefficients the root of their own is kept (see
    `scale`). Each codebook is then fitted to what the ones before it left over.

    Args:
        utterances: Output of `model.world.analyse`, one per utterance.
        iterations: Lloyd steps per codebook.
        seed: Equal seeds and utterances give equal codecs.
        most_frames: More are thinned at random.

    Raises:
        InputError: Fewer frames than a codebook has entries.
    """
    rows = np.concatenate([to_rows(features) for features in utterances])
    if len(rows) < config.codebook_size:
        raise InputError(f"{len(rows)} frames cannot fit {config.codebook_size} codebook entries")
    generator = torch.Generator().manual_seed(seed)
    frames = torch.from_numpy(rows).float()
    if len(frames) > most_frames:
        frames = frames[torch.randperm(len(frames), generator=generator)[:most_frames]]
    codec = WorldCodec(config)
    codec.mean.copy_(frames.mean(0))
    codec.scale.copy_(scale(frames, config))
    residual = (frames - codec.mean) * codec.scale
    for level in range(config.codebooks):
        entries = kmeans(residual, config.codebook_size, iterations, generator)
        codec.codebook(level).copy_(entries)
        residual -= entries[nearest(residual, entries)]
    return codec


def scale(frames: Tensor, config: WorldConfig) -> Tensor:
    """The factor (D,) of each feature of frames (N, D).

    With none on the envelope, distance would be log spectral distance, of which loudness and tilt
    are most. Divided by the root of its spread, every coefficient keeps half of its say (in
    decades) and the whole its variance: Whisper hears 17 % of words wrongly, not 24 %, when
    codebook 0 stands alone (docs/log.md).
    """
    voicing = config.envelope + 1
    voiced = frames[:, voicing] > 0.5
    # Pitch counts where it is heard; a corpus without voice or with one pitch must not divide by 0.
    spread = frames.std(0)
    spread[voicing - 1] = frames[voiced, voicing - 1].std() if voiced.sum() > 1 else 1.0
    weight = torch.ones_like(spread)
    envelope = spread[: config.envelope].clamp_min(1e-6)
    even = envelope.rsqrt()
    weight[: config.envelope] = even * (envelope.norm() / (envelope * even).norm())
    weight[voicing - 1] = config.f0_weight
    weight[voicing] = config.voicing_weight
    weight[voicing + 1 :] = config.aperiodicity_weight
    weight[voicing - 1 :] /= spread[voicing - 1 :].clamp_min(1e-3)
    return weight


def nearest(points: Tensor, entries: Tensor) -> Tensor:
    """Index of the nearest entry (C, D) for each point (N, D): (N,)."""
    bias = entries.pow(2).sum(1) / 2
    return torch.cat(
        [torch.addmm(bias, p, entries.t(), alpha=-1).argmin(1) for p in points.split(8192)]
    )


def kmeans(points: Tensor, count: int, iterations: int, generator: torch.Generator) -> Tensor:
    """Lloyd's algorithm from random points: `count` entries (count, D) for points (N, D).

    An entry that loses all its points moves to a random one.
    """

    def pick(number: int) -> Tensor:
        return points[torch.randperm(len(points), generator=generator)[:number]]

    entries = pick(count)
    for _ in range(iterations):
        index = nearest(points, entries)
        sizes = torch.bincount(index, minlength=count)
        entries = torch.zeros_like(entries).index_add_(0, index, points)
        entries /= sizes.clamp_min(1)[:, None]
        empty = sizes == 0
        entries[empty] = pick(int(empty.sum()))
    return entries


def fit_timbres(
    roots: dict[str, Path],
    out: Path,
    pivot: str,
    share: float = 0.5,
    held_out_every: dict[str, int] | None = None,
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
        held_out_every: As of `fit_codec`.
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
    if len({utterance.speaker for utterance in read_corpus(pivot, roots[pivot])}) > 1:
        raise InputError(f"pivot {pivot!r} has several speakers: name a corpus of one")
    every = {name: (held_out_every or {}).get(name, HELD_OUT_EVERY) for name in roots}
    entries = [corpora.get(name).to_json() for name in roots]
    config, heard, own = WorldConfig(), [], []
    for name, root in roots.items():
        found = [each for _, each in _features({name: root}, config, every, report, most)]
        heard += found
        own = found if name == pivot else own
    model = fit_timbre(heard, TimbreConfig(config.envelope))
    voice = model.measure(concatenate(own))
    pairs = zip(model.usual, voice, strict=True)
    model.pivot = Timbre(*((1 - share) * a + share * b for a, b in pairs))
    model.save(out)
    settings = {"pivot": pivot, "share": share, "held_out_every": every, "utterances": len(heard)}
    write_json(out / FITTED_ON, {"corpora": entries, **settings})
    neutral = []
    for name, root in roots.items():
        spoken: dict[str, list[Features]] = {}
        for speaker, features in _features({name: root}, config, every, report):
            spoken.setdefault(speaker, []).append(features)
        for theirs in spoken.values():
            own = speaker_timbre(theirs, model, 1000 / config.frame_ms)
            neutral += [model.change(features, own, model.pivot) for features in theirs]
    report(f"{len(neutral)} recordings in the pivot; fitting {codebooks} codebooks")
    codec = fit_world(neutral, WorldConfig(codebooks=codebooks))
    codec.save(out / "codec")
    write_json(out / "codec" / FITTED_ON, {"corpora": entries, "held_out_every": every})
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


def fit_text(roots: dict[str, Path], size: int) -> BPE:
    """BPE over the normalised transcripts of listed corpora; what cannot be spoken is left out."""
    texts = []
    for name, root in roots.items():
        for utterance in read_corpus(name, root):
            with contextlib.suppress(InputError):
                texts.append(normalise(utterance.text))
    return BPE(fit_bpe(texts, size))


def fit_bpe(texts: Sequence[str], size: int) -> HFTokenizer:
    """A byte-pair vocabulary of at most `size` tokens over normalised texts.

    Bytes are the base alphabet, so no text is ever out of vocabulary.

    Raises:
        InputError: `size` does not hold the 256 bytes, or there is no text.
    """
    if size < 256 or not texts:
        raise InputError(f"BPE of size {size} on {len(texts)} texts: needs 256 bytes and a text")
    tokenizer = HFTokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer
