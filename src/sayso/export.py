"""Make a model folder out of a training run: its parts, its card, and the voice `nobody`.

`sayso export runs/mini src/sayso/assets/mini`. The model invents nobody's prompt itself,
from text alone; its receipt (basis "synthetic") is signed with a key that is thrown away at once.
AR, NAR and a learnt decoder are stored in half precision (and computed with in single): half the
download.
"""

import shutil
from dataclasses import asdict
from pathlib import Path

from safetensors.torch import save_file

from sayso.inference.consent.other_voices import issue_bundled_voice
from sayso.inference.nobody import INVENTED, NOBODY, invent
from sayso.inference.saying import limit_seconds
from sayso.model.bundle import load_bundle
from sayso.model.card import CARD, read_card
from sayso.model.checkpoint import WEIGHTS, read_config, read_tensors
from sayso.model.codecs.encodec import PRETRAINED
from sayso.model.codecs.fargan_weights import MADE_BY
from sayso.model.codecs.load import load_codec
from sayso.model.codecs.voice_edit import Alteration
from sayso.model.corpora import verify
from sayso.model.errors import CheckpointError, InputError
from sayso.model.files import file_hash, read_json, unique, write_json
from sayso.model.printable import printable
from sayso.model.sampling import Sampling
from sayso.model.text.normalization import normalise
from sayso.model.valle2 import Extras
from sayso.training.fitting.residual import FITTED_ON

PARTS = ("text", "codec", "ar", "nar")


def fitted_on(codec: Path) -> list[dict] | str:
    """The corpora a codec was fitted on, checked against the list; of published weights a word.

    Raises:
        CheckpointError: The codec does not say which.
    """
    if read_config(codec).get("source") == PRETRAINED:
        return f"the published {PRETRAINED}, on data of Meta's choice"
    path = codec / FITTED_ON
    if not path.is_file():
        raise CheckpointError(f"{path} is missing: a codec whose corpora are unknown is not used")
    fitted = read_json(path)
    verify(fitted["corpora"], path)
    return fitted["corpora"]


def add_timbre(run: Path, out: Path, card: dict) -> None:
    """Copy the run's timbre part, if it has one, and name it in the card.

    Raises:
        CheckpointError: The models were trained on speech in the timbre of another.
    """
    if not (run / "timbre").is_dir():
        return
    shutil.copytree(run / "timbre", out / "timbre")
    fitted = read_json(run / "timbre" / FITTED_ON)
    learnt = out / "timbre" / "decoder" / WEIGHTS
    if learnt.is_file():
        halve(learnt)
    codec = load_codec(run / "codec", out / "timbre")
    identity = codec.parts["timbre"]
    if card.get("timbre", {}).get("identity", identity) != identity:
        raise CheckpointError(f"{run}: the timbre is not the one its models were trained with")
    card["timbre"] = {
        "identity": identity,
        "fitted_on": fitted_on(run / "timbre"),
        "pivot": fitted["pivot"],
        "share": fitted["share"],
        "prompts": {
            "identity": codec.identity,
            "fitted_on": fitted_on(run / "codec"),
        },
    }
    if codec.sound_parts:
        made = fitted_on(run / "timbre" / "decoder")
        own = {"identity": codec.sound_parts["decoder"], "fitted_on": made}
        card["decoder"] = {**own, "vocoder": MADE_BY}


def halve(weights: Path) -> None:
    """Store a file of weights in half precision."""
    save_file({name: value.half() for name, value in read_tensors(weights).items()}, weights)


def export(
    run: Path,
    out: Path,
    top_p: float = Sampling().top_p,
    threshold: float = Sampling().threshold,
    stay: float | None = None,
    guidance: float = 0.0,
    seed: int = 0,
    nobody: Alteration | None = None,
) -> None:
    """Copy a run's parts to `out`, with how it speaks best, and give it the voice `nobody`.

    What stood in `out` is replaced when all is done, or stays as it is.

    Args:
        run: Folder with text/, codec/, ar/, nar/, a card and perhaps timbre/.
        top_p, threshold, stay, guidance: How the model is asked by default.
        seed: Each gives nobody another voice.
        nobody: Takes it further away from those that the model learnt from.

    Raises:
        InputError: A part of the run is missing, `out` is no model folder or cannot be written.
        CheckpointError: The parts do not belong together, or a codec's corpora are unknown.
        CorpusError: A card names a corpus that is not listed, or was edited.
        UnfinishedError: The model does not end when it speaks.
    """
    missing = [name for name in (*PARTS, CARD) if not (run / name).exists()]
    if missing:
        raise InputError(
            f"{run} has no {' and no '.join(missing)}: train both models, and copy text/ and "
            "codec/ there from where the recipe has them"
        )
    known = {*PARTS, CARD, "timbre", "voices"}
    others = [path.name for path in out.iterdir()] if out.is_dir() else []
    if out.is_file() or out.resolve() == run.resolve() or not known.issuperset(others):
        raise InputError(f"{out} is there and is no model folder: give another, or remove it")
    try:
        sampling, _ = Sampling(top_p=top_p, threshold=threshold), Extras(stay, guidance)
    except ValueError as error:
        raise InputError(str(error)) from None
    draft = out.with_name(f".{out.name}.{unique()}")
    try:
        draft.mkdir(parents=True)
        said = _fill(
            run, draft, {**asdict(sampling), "stay": stay, "guidance": guidance}, seed, nobody
        )
        old = out.with_name(f"{draft.name}.old")
        if out.exists():
            out.rename(old)
        draft.rename(out)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise InputError(f"{out} could not be made: {error}") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    print(printable(f"{out}: {said}"))


def _fill(run: Path, out: Path, sampling: dict, seed: int, nobody: Alteration | None) -> str:
    """Make a model folder of a run; returns a line about it."""
    for part in PARTS:
        shutil.copytree(run / part, out / part)
    card = read_card(run)
    add_timbre(run, out, card)
    model_codec = run / "timbre" / "codec" if "timbre" in card else run / "codec"
    card["codec"] = {**card["codec"], "fitted_on": fitted_on(model_codec)}
    card["sampling"] = sampling
    for part in ("ar", "nar"):
        weights = out / part / WEIGHTS
        halve(weights)
        card["models"][part] |= {"weights_sha256": file_hash(weights), "stored": "float16"}
    write_json(out / CARD, card)
    bundle = load_bundle(out, "cpu")  # every machine gives nobody the same voice
    codes, seed = invent(bundle, limit_seconds(INVENTED), seed, nobody)
    how = {"seed": seed}
    if nobody is not None:
        how |= {"pitch": nobody.pitch, "formant": nobody.formant}
    write_json(out / CARD, {**card, NOBODY: how})
    folder = out / "voices" / NOBODY
    issue_bundled_voice(folder, codes, normalise(INVENTED), bundle.codec.identity)
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    issuer = file_hash(folder / "issuer.pem")
    return f"{size / 1e6:.1f} MB; {NOBODY}: {codes.shape[1]} frames, seed {seed}; issuer {issuer}"
