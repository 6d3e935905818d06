"""Make a model folder out of a training run: its parts, its card, and the voice `nobody`.

`sayso export runs/mini src/sayso/assets/mini`. The model invents nobody's prompt itself,
from text alone; its receipt (basis "synthetic") is signed with a key that is thrown away at once.
AR and NAR are stored in half precision (and computed with in single): half the download.
"""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from sayso.inference.consent.other_voices import issue_bundled_voice
from sayso.inference.synthesizer import limit_seconds
from sayso.model.bundle import Bundle, load_bundle
from sayso.model.card import CARD, read_card
from sayso.model.checkpoint import WEIGHTS, read_config
from sayso.model.codecs.encodec import PRETRAINED
from sayso.model.codecs.load import load_codec
from sayso.model.corpora import verify
from sayso.model.errors import CheckpointError, UnfinishedError
from sayso.model.files import file_hash
from sayso.model.printable import printable
from sayso.model.sampling import Sampling
from sayso.model.text.normalization import normalise
from sayso.model.valle2 import Extras
from sayso.training.fitting.residual import FITTED_ON

PARTS = ("text", "codec", "ar", "nar")
INVENTED = "I was never born, and this voice is not the voice of anyone."
VOICE = "nobody"
MOST_SEEDS = 20


def invent(bundle: Bundle, text: str, first_seed: int = 0) -> tuple[torch.Tensor, int]:
    """Prompt codes (K', T) the model makes up for `text` with none at all, and the seed that ended.

    Raises:
        UnfinishedError: It did not end for any of `MOST_SEEDS` seeds.
    """
    ids = bundle.tokenizer.encode(normalise(text))
    nothing = torch.zeros(bundle.codec.codebooks, 0, dtype=torch.long)
    limit = int(limit_seconds(text) * bundle.codec.frame_rate)
    for seed in range(first_seed, first_seed + MOST_SEEDS):
        random = bundle.model.generator(seed)
        codes, finished = bundle.model.generate(
            [ids], [nothing], [limit], bundle.sampling, random, [0]
        )
        if finished[0] and codes[0].shape[1] >= bundle.codec.frame_rate:
            return bundle.codec.as_prompt(codes[0]), seed
    raise UnfinishedError(f"no seed from {first_seed} to {seed} ended within {limit} frames")


def fitted_on(codec: Path) -> list[dict] | str:
    """The corpora a codec was fitted on, checked against the list; of published weights a word."""
    if read_config(codec).get("source") == PRETRAINED:
        return f"the published {PRETRAINED}, on data of Meta's choice"
    path = codec / FITTED_ON
    if not path.is_file():
        raise CheckpointError(f"{path} is missing: a codec whose corpora are unknown is not used")
    fitted = json.loads(path.read_text())
    verify(fitted["corpora"], path)
    return fitted["corpora"]


def add_timbre(run: Path, out: Path, card: dict) -> None:
    """Copy the run's timbre part, if it has one, and name it in the card.

    Raises:
        CheckpointError: The models were trained on speech in the timbre of another.
    """
    shutil.rmtree(out / "timbre", ignore_errors=True)
    if not (run / "timbre").is_dir():
        return
    shutil.copytree(run / "timbre", out / "timbre")
    fitted = json.loads((run / "timbre" / FITTED_ON).read_text())
    codec = load_codec(run / "codec", run / "timbre")
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


def export(
    run: Path,
    out: Path,
    top_p: float = Sampling().top_p,
    threshold: float = Sampling().threshold,
    stay: float | None = None,
    guidance: float = 0.0,
    seed: int = 0,
) -> None:
    """Copy the run's parts to `out`, with how it speaks best, and give it the voice `nobody`.

    Every `seed` gives nobody another voice.
    """
    for part in PARTS:
        shutil.rmtree(out / part, ignore_errors=True)
        shutil.copytree(run / part, out / part)
    card = read_card(run)
    add_timbre(run, out, card)
    model_codec = run / "timbre" / "codec" if "timbre" in card else run / "codec"
    card["codec"] = {**card["codec"], "fitted_on": fitted_on(model_codec)}
    sampling, extras = Sampling(top_p=top_p, threshold=threshold), Extras(stay, guidance)
    card["sampling"] = {**asdict(sampling), "stay": extras.stay, "guidance": extras.guidance}
    for part in ("ar", "nar"):
        weights = out / part / WEIGHTS
        save_file({name: value.half() for name, value in load_file(weights).items()}, weights)
        card["models"][part] |= {"weights_sha256": file_hash(weights), "stored": "float16"}
    (out / CARD).write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n")
    bundle = load_bundle(out, "cpu")  # every machine gives nobody the same voice
    codes, seed = invent(bundle, INVENTED, seed)
    folder = out / "voices" / VOICE
    shutil.rmtree(folder, ignore_errors=True)
    issue_bundled_voice(folder, codes, normalise(INVENTED), bundle.codec.identity)
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    print(
        printable(f"{out}: {size / 1e6:.1f} MB; {VOICE}: {codes.shape[1]} frames, seed {seed}"),
        f"issuer {file_hash(folder / 'issuer.pem')}",
    )
