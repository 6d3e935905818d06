"""Hear a model while it trains: marked samples of benchmark prompts, spoken through the gate.

`sayso train ar|nar --listen`. Training itself can make no sound: it may not import inference. The
prompts are held-out utterances of the token files that are the corpus's own by their hashes, as
corpus voices that may say their own corpus's sentences; what is said are other held-out texts. The
samples stay in RUN/samples, with both marks, and in the ledger of the store; each voice is
withdrawn when it has said its sentence.
"""

import tempfile
from pathlib import Path

import pyarrow.parquet as pq
import torch

from sayso.inference.consent.other_voices import issue_corpus_voice
from sayso.inference.store.store import Store
from sayso.inference.synthesizer import Synthesizer
from sayso.model import corpora
from sayso.model.card import CARD
from sayso.model.errors import CheckpointError, CorpusError, InputError, SaysoError
from sayso.model.files import unique
from sayso.model.printable import printable
from sayso.training.recipe import Recipe
from sayso.training.tokens import VALIDATION, open_tokens

SAMPLES = 2
LONGEST_PROMPT = 6.0  # seconds


def held_out_rows(recipe: Recipe) -> list[dict]:
    """Held-out utterances that can be prompts, of corpora whose utterances are listed.

    Raises:
        InputError: The token files are of a format without hashes.
        CorpusError: An utterance is not on its corpus's list.
    """
    folders = [Path(each) for each in recipe.data.tokens]
    tokens = open_tokens(folders, recipe.data.corpora, recipe.data.held_out)
    short = tokens.frames <= LONGEST_PROMPT * tokens.codec["frame_rate"]
    chosen = set(tokens.names[(tokens.split == VALIDATION) & short])
    rows = []
    for shard in (shard for shards in tokens.shards for shard in shards):
        for row in pq.read_table(shard).to_pylist():
            if f"{row['corpus']}/{row['id']}" in chosen and corpora.get(row["corpus"]).prompts:
                rows += _checked(row, shard)
    return rows


def _checked(row: dict, shard: Path) -> list[dict]:
    """The row if it is the corpus's own; none where the corpus's are not listed."""
    known = corpora.recordings(row["corpus"])
    if not known:
        return []
    if "sha256" not in row:
        raise InputError(
            f"{shard} has no hashes of its recordings: prepare it again to hear its prompts."
        )
    if f"{row['sha256']}  {row['id']}" not in known:
        raise CorpusError(
            f"{shard}: recording, speaker or text of {row['id']} is none that is listed of "
            f"{row['corpus']}; prepare those (docs/training.md) or train without --listen."
        )
    return [row]


def listen(recipe: Recipe, step: int) -> dict[str, Path]:
    """Speak with the weights a run exported last; returns the marked files by name.

    Raises:
        InputError: The run has not both models yet, or no prompt that may be used.
    """
    run = Path(recipe.run)
    missing = [part for part in ("ar", "nar") if not (run / part / "config.json").is_file()]
    if missing:
        raise InputError(f"{run} has no {' and no '.join(missing)} yet: nothing to listen to")
    rows = held_out_rows(recipe)
    if len(rows) < 2:
        raise InputError(
            f"no held-out speech that may be a prompt in {recipe.data.tokens}: of corpora whose "
            f"recordings are listed in {corpora.RECORDINGS}, and {LONGEST_PROMPT:g} s at most."
        )
    folder = run / "samples"
    folder.mkdir(exist_ok=True)
    made = {}
    with tempfile.TemporaryDirectory() as place, Store.open() as store:
        model = Path(place) / "model"
        model.mkdir()
        parts = {"text": recipe.text.folder, "codec": recipe.codec.folder}
        if recipe.data.timbre is not None:
            parts["timbre"] = recipe.data.timbre
        parts |= {name: run / name for name in ("ar", "nar", CARD)}
        for name, target in parts.items():
            (model / name).symlink_to(Path(target).resolve())
        speaker = Synthesizer(model, store)
        codec = speaker.bundle.codec
        for number in range(min(SAMPLES, len(rows) // 2)):
            prompt, target = rows[2 * number], rows[2 * number + 1]
            codes = codec.as_prompt(torch.tensor(prompt["codes"]).view(codec.codebooks, -1))
            name = f"{prompt['corpus']}-{number}"
            voice = f"{name}-{unique()}"
            issue_corpus_voice(
                store,
                voice,
                codes,
                prompt["text"],
                codec.identity,
                corpora.get(prompt["corpus"]).prompts or "",
                prompt["speaker"],
                [target["text"]],
            )
            out = folder / f"{name}-step-{step:08d}.wav"
            try:
                speaker.speak(target["text"], voice, out, purpose="benchmark", seed=0)
            finally:  # it was for this one sentence
                speaker.gate.revoke(voice, f"a sample of step {step}")
            made[name] = out
    return made


def listener(recipe: Recipe):
    """What training calls after it exported weights; it says why where there is nothing to hear."""

    def hear(step: int) -> dict[str, Path]:
        try:
            return listen(recipe, step)
        except (InputError, CheckpointError, SaysoError) as error:
            print(printable(f"no sample at step {step}: {error}"), flush=True)
            return {}

    return hear
