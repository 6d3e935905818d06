"""A codec fitted to corpora without gradients: WORLD's or FARGAN's features, and k-means."""

from collections.abc import Callable
from pathlib import Path

from sayso.model import corpora
from sayso.model.codecs.fargan_codec import FarganCodec, FarganConfig
from sayso.model.codecs.world import WorldCodec, WorldConfig
from sayso.model.errors import InputError
from sayso.model.files import write_json

from ..held_out import HeldOut, trained_on
from .fargan import fit_fargan
from .residual import FITTED_ON, usable_speech, usual_rule
from .world import fit_world, usable_features


def fit_codec(
    kind: str,
    roots: dict[str, Path],
    out: Path,
    rule: HeldOut | None = None,
    codebooks: int = 8,
    report: Callable[[str], None] = lambda line: None,
) -> WorldCodec | FarganCodec:
    """Fit a codec to corpora, without their held-out utterances, and save it in `out`.

    Args:
        kind: ``world`` or ``fargan``.
        roots: Name on the list of consented corpora -> the unpacked corpus.
        rule: What is held out; one utterance in 47 if None.
        codebooks: K.
        report: Takes a line now and then: it takes minutes.

    Raises:
        CorpusError: A corpus is not listed, or not where it should be.
        InputError: There is too little usable speech, or no such kind.
    """
    rule = rule or usual_rule(roots)
    entries = [corpora.get(name).to_json() for name in roots]
    utterances = [each for some in trained_on(roots, rule).values() for each in some]
    if kind == "world":
        config = WorldConfig(codebooks=codebooks)
        heard = [features for _, features in usable_features(utterances, config, report)]
        report(f"{len(heard)} recordings analysed; fitting {codebooks} codebooks")
        codec = fit_world(heard, config)
    elif kind == "fargan":
        blank = FarganCodec(FarganConfig(codebooks=codebooks))
        speech = usable_speech(utterances, blank.sample_rate, report)
        heard = [blank.analyse(audio)[0] for _, audio in speech]
        report(f"{len(heard)} recordings analysed; fitting {codebooks} codebooks")
        codec = fit_fargan(heard, blank.config)
    else:
        raise InputError(f"no codec of kind {kind!r} is fitted: it must be 'world' or 'fargan'")
    codec.save(out)
    write_json(out / FITTED_ON, {"corpora": entries, "held_out": vars(rule)})
    return codec
