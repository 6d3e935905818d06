"""The learnt decoder of a model with a timbre, fitted by regression, an adversary and a listener.

Regression alone gives the mean of what may have been said, which sounds flat. A discriminator over
time and features that knows what the codes say (least squares, arXiv:1611.04076, with feature
matching as in arXiv:1910.06711) asks for one of the many. A listener then asks for phonemes that
can be told apart; what that makes rough is smoothed between this decoder and the one before.
"""

import copy
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import torch

from sayso.model import corpora
from sayso.model.codecs.decoder import Decoder
from sayso.model.errors import InputError
from sayso.model.files import write_json
from sayso.model.text.tokenizers import load_tokenizer

from ..held_out import HeldOut, held_out
from .decoder_examples import Example, gather, read_example
from .decoder_recipe import DecoderRecipe
from .decoder_run import Discriminator, Run, joined, set_scales
from .listener import fit_listener
from .residual import FITTED_ON


def fit_decoder(
    recipe: DecoderRecipe,
    model: Path,
    roots: dict[str, Path],
    out: Path,
    rule: HeldOut,
    report: Callable[[str], None] = print,
) -> Decoder:
    """Fit a decoder to corpora, without their held-out utterances, and save it in `out`.

    Its examples lie in `out/examples`, its checkpoints in `out/checkpoints`; a killed run goes on.

    Args:
        model: As of `gather`.
        roots: Name on the list of consented corpora -> the unpacked corpus.

    Raises:
        CorpusError: A corpus is not listed, or not where it should be.
        CheckpointError: The model, an example or a checkpoint is damaged.
        InputError: There is no timbre; and as of `fit_examples`.
        SaysoError: The loss is not finite.
        StoppedError: It was asked to end.
    """
    check_device(recipe.accelerator)
    for name in roots:
        corpora.get(name)
    paths = gather(model, roots, out / "examples", rule, recipe.most, report)
    symbols = load_tokenizer(model / "text").size
    examples = {path.stem: read_example(path) for path in paths}
    return fit_examples(recipe, examples, symbols, list(roots), out, rule, report)


def fit_examples(
    recipe: DecoderRecipe,
    examples: dict[str, Example],
    symbols: int,
    names: list[str],
    out: Path,
    rule: HeldOut,
    report: Callable[[str], None] = print,
) -> Decoder:
    """Fit a decoder to examples by name, as `gather` made them, and save it in `out`.

    Args:
        symbols: Text ids there are.
        names: The corpora that the examples are of.
        rule: What of these is not among the examples.

    Raises:
        CorpusError: A corpus is not listed.
        CheckpointError: A checkpoint is damaged.
        InputError: There is no GPU or too little speech, nothing says what is said, or the run is
            another one's.
        SaysoError: The loss is not finite.
        StoppedError: It was asked to end.
    """
    check_device(recipe.accelerator)
    entries = [corpora.get(name).to_json() for name in names]
    heard, unheard = [], []
    for name, each in examples.items():
        (unheard if held_out(name, recipe.held_out_every) else heard).append(each)
    if not heard or not unheard:
        raise InputError(f"{len(examples)} recordings are too few to learn from and to check with")
    if recipe.told and all(each.symbols is None for each in heard):
        raise InputError(f"no text of {', '.join(names)} can be aligned: set told to false")
    hours = sum(len(each.recorded) for each in heard) / 360_000
    report(f"{len(heard)} recordings, {hours:.2f} h; {len(unheard)} held out")
    torch.manual_seed(recipe.seed)
    device = torch.device(recipe.accelerator)
    config = dataclasses.replace(recipe.decoder, symbols=symbols if recipe.told else None)
    decoder = Decoder(config).to(device)
    set_scales(decoder, heard)
    judge = Discriminator(config.features, recipe.channels).to(device)
    made_from = {"recipe": dataclasses.asdict(recipe), "corpora": entries, "count": len(heard)}
    made_from = json.loads(json.dumps(made_from))
    run = Run(recipe, decoder, judge)
    run.train(recipe.steps, heard, unheard, out / "checkpoints", made_from, report)
    made = run.averaged()
    if recipe.told and recipe.clear_steps:
        listener = fit_listener(
            heard, unheard, symbols, recipe.listener_steps, recipe.seed, report
        ).to(device)
        # On from the averaged weights: they are what the next are compared with.
        clear = Run(recipe, copy.deepcopy(made), judge, listener)
        folder = out / "checkpoints" / "clear"
        clear.train(recipe.clear_steps, heard, unheard, folder, made_from, report)
        made = joined(recipe, made, clear.averaged(), heard, report)
    made = made.cpu().eval()
    made.save(out)
    settings = {"corpora": entries, "held_out": vars(rule), "hours": round(hours, 3)}
    steps = {"steps": recipe.steps, "clear_steps": recipe.clear_steps}
    write_json(out / FITTED_ON, settings | steps)
    return made


def check_device(accelerator: str) -> None:
    """Raises InputError where a GPU is asked for and there is none."""
    if accelerator == "cuda" and not torch.cuda.is_available():
        raise InputError("accelerator is cuda, and PyTorch finds no GPU here: set it to cpu")
