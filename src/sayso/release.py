"""Make a model folder out of a training run: its parts, its card, and the voice `nobody`.

`python -m sayso.release runs/mini src/sayso/assets/mini`. The model invents nobody's prompt itself,
from text alone; its receipt (basis "synthetic") is signed with a key that is thrown away at once.
AR and NAR are stored in half precision (and computed with in single): half the download.
"""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import torch
import typer
from safetensors.torch import load_file, save_file

from sayso.inference.bundled import issue_bundled_voice
from sayso.inference.synthesizer import limit_seconds
from sayso.model.bundle import CARD, Bundle, load_bundle
from sayso.model.checkpoint import WEIGHTS
from sayso.model.errors import CheckpointError, UnfinishedError
from sayso.model.sampling import Sampling
from sayso.model.text import normalise
from sayso.training.card import read_card
from sayso.training.corpora import verify
from sayso.training.fit import FITTED_ON
from sayso.training.shards import file_hash

PARTS = ("text", "codec", "ar", "nar")
INVENTED = "I was never born, and this voice is not the voice of anyone."
VOICE = "nobody"
MOST_SEEDS = 20


def invent(bundle: Bundle, text: str) -> tuple[torch.Tensor, int]:
    """Codes (K, T) the model makes up for `text` with no prompt at all, and the seed that ended."""
    ids = bundle.tokenizer.encode(normalise(text))
    nothing = torch.zeros(bundle.codec.codebooks, 0, dtype=torch.long)
    limit = int(limit_seconds(text) * bundle.codec.frame_rate)
    for seed in range(MOST_SEEDS):
        generator = torch.Generator().manual_seed(seed)
        codes, first = bundle.generate([ids], [nothing], [limit], bundle.sampling, generator, [0])
        if bool(first.finished[0]) and codes[0].shape[1] >= bundle.codec.frame_rate:
            return codes[0], seed
    raise UnfinishedError(f"no seed below {MOST_SEEDS} ended within {limit} frames")


def release(run: Path, out: Path, top_p: float = Sampling().top_p) -> None:
    """Copy the run's parts to `out`, with how it speaks best, and give it the voice `nobody`."""
    for part in PARTS:
        shutil.rmtree(out / part, ignore_errors=True)
        shutil.copytree(run / part, out / part)
    card = read_card(run)
    fitted = json.loads((run / "codec" / FITTED_ON).read_text())
    verify(fitted["corpora"], run / "codec" / FITTED_ON)
    card["codec"] = {**card["codec"], "fitted_on": fitted["corpora"]}
    card["sampling"] = asdict(Sampling(top_p=top_p))
    for part in ("ar", "nar"):
        weights = out / part / WEIGHTS
        save_file({name: value.half() for name, value in load_file(weights).items()}, weights)
        card["models"][part] |= {"weights_sha256": file_hash(weights), "stored": "float16"}
    (out / CARD).write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n")
    bundle = load_bundle(out)
    if card["codec"]["identity"] != bundle.codec.identity:
        raise CheckpointError(f"{run}: the codec is not the one its models were trained with")
    codes, seed = invent(bundle, INVENTED)
    folder = out / "voices" / VOICE
    shutil.rmtree(folder, ignore_errors=True)
    issue_bundled_voice(folder, codes, normalise(INVENTED), bundle.codec.identity)
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    print(f"{out}: {size / 1e6:.1f} MB; {VOICE}: {codes.shape[1]} frames, seed {seed}")


if __name__ == "__main__":
    typer.run(release)
