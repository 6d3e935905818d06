"""Hear and judge a model while it trains: marked samples of benchmark prompts, through the gate.

`sayso train ar|nar --listen`, `--evaluate-every N`. Training itself can make no sound: it may not
import inference. The prompts are held-out utterances of the token files that are the corpus's own
by their hashes, as corpus voices that may say their own corpus's sentences; what is said are other
held-out texts. The samples stay in RUN/samples and RUN/judged, with both marks, and in the ledger
of the store; each voice is withdrawn when it has said its sentence.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from sayso.evaluation.metrics import Prompt, Sample, Values, resemblyzer, whisper
from sayso.evaluation.protocols import Trial
from sayso.evaluation.speaking import Asked, Row, Said, speak
from sayso.evaluation.voices import Voices, coded_prompt, wave_of
from sayso.inference.consent.other_voices import issue_corpus_voice
from sayso.inference.recognisers import Ears, load_ears
from sayso.inference.store.store import Store
from sayso.inference.synthesizer import Synthesizer
from sayso.model import corpora
from sayso.model.card import CARD
from sayso.model.errors import CorpusError, InputError, SaysoError
from sayso.model.files import unique
from sayso.model.printable import printable
from sayso.training.recipe import Recipe
from sayso.training.shards import batches
from sayso.training.tokens import VALIDATION, open_tokens

SAMPLES, JUDGED = 2, 20
LONGEST_PROMPT = 6.0  # seconds


class TokenVoices(Voices):
    """What one model speaks from: prompts out of token files.

    Args:
        prompts: Their rows, by the id of a trial.
    """

    def __init__(self, speaker: Synthesizer, prompts: dict[str, dict]):
        super().__init__(speaker, Path(), Path(), "")
        self.prompts = prompts

    @contextmanager
    def of(
        self, trial: Trial, prompt: Prompt | None, text: str
    ) -> Iterator[tuple[str, Prompt | None]]:
        """The id of a voice that may say `text`, and its prompt through the codec."""
        row, codec = self.prompts[trial.id], self.speaker.bundle.codec
        codes = codec.as_prompt(torch.tensor(row["codes"]).view(codec.codebooks, -1))
        corpus, voice = corpora.get(row["corpus"]).prompts or "", f"{trial.id}-{unique()}"
        whose = codec.identity, corpus, row["speaker"], [text]
        with self.speaker.store.passing(voice):  # it is for this one sentence
            issue_corpus_voice(self.speaker.store, voice, codes, row["text"], *whose)
            yield voice, coded_prompt(codec, codes, row["text"])


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
        for row in (row for batch in batches(shard) for row in batch.to_pylist()):
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
            f"{row['corpus']}; prepare those (docs/training.md) or train without --listen and "
            "--evaluate-every."
        )
    return [row]


def say_held_out(
    recipe: Recipe, step: int, most: int, folder: Path, weights: dict[str, Path]
) -> dict[str, tuple[Trial, Said]]:
    """Speak held-out sentences, each in the voice of the one before: CORPUS-NUMBER-step-STEP.wav.

    Args:
        most: Sentences; the same ones at every step.
        weights: Folders of `ar` or `nar` to speak with instead of what the run exported last.

    Raises:
        InputError: The run has not both models yet, or no prompt that may be used.
    """
    run = Path(recipe.run)
    parts = {"text": recipe.text.folder, "codec": recipe.codec.folder}
    if recipe.data.timbre is not None:
        parts["timbre"] = recipe.data.timbre
    parts |= {name: run / name for name in ("ar", "nar", CARD)} | weights
    missing = [part for part in ("ar", "nar") if not (Path(parts[part]) / "config.json").is_file()]
    if missing:
        raise InputError(f"{run} has no {' and no '.join(missing)} yet: nothing to listen to")
    rows = held_out_rows(recipe)
    if len(rows) < 2:
        raise InputError(
            f"no held-out speech that may be a prompt in {recipe.data.tokens}: of corpora whose "
            f"recordings are listed in {corpora.RECORDINGS}, and {LONGEST_PROMPT:g} s at most."
        )
    pairs = list(zip(rows[::2], rows[1::2], strict=False))[:most]
    trials = [
        Trial(f"{row['corpus']}-{number}-step-{step:08d}", row["speaker"], other["text"])
        for number, (row, other) in enumerate(pairs)
    ]
    with tempfile.TemporaryDirectory() as place, Store.open() as store:
        model = Path(place) / "model"
        model.mkdir()
        for name, target in parts.items():
            (model / name).symlink_to(Path(target).resolve())
        speaker = Synthesizer(model, store)
        voices = TokenVoices(
            speaker, {trial.id: row for trial, (row, _) in zip(trials, pairs, strict=True)}
        )
        row = Row("", voices, speaker.bundle.sampling, 1)
        asked = [Asked(trial, trial.text) for trial in trials]
        said = speak(asked, row, folder, "benchmark", 0)
    names = [trial.id.partition("-step-")[0] for trial in trials]
    return dict(zip(names, zip(trials, said, strict=True), strict=True))


def listen(recipe: Recipe, step: int) -> dict[str, Path]:
    """Speak with the weights a run exported last; returns the marked files by name.

    Raises:
        InputError: As of `say_held_out`, or nothing could be said.
    """
    found = say_held_out(recipe, step, SAMPLES, Path(recipe.run) / "samples", {})
    made = {name: said.takes[0] for name, (_, said) in found.items()}
    lost = [why for why in made.values() if isinstance(why, str)]
    if len(lost) == len(made):
        raise InputError(lost[0])
    return {name: path for name, path in made.items() if isinstance(path, Path)}


def judge(recipe: Recipe, step: int, weights: dict[str, Path], ears: Ears) -> dict[str, float]:
    """WER by Whisper tiny.en, and SIM (Resemblyzer, to the prompt through the codec).

    What did not end counts as lost words, and in no SIM. Arguments and errors as of
    `say_held_out`; of at most `JUDGED` sentences.
    """
    words, likeness = whisper("tiny.en", ears), resemblyzer(ears)
    found = say_held_out(recipe, step, JUDGED, Path(recipe.run) / "judged", weights)
    values: list[Values] = []
    for trial, said in found.values():
        [take] = said.takes
        if isinstance(take, str):
            values.append(words.lost(trial.text))
        else:
            sample = Sample(*wave_of(take), trial.text, coded=said.coded)
            values.append(words(sample) | likeness(sample))
    sims = [each["SIM-r"] for each in values if "SIM-r" in each]
    rate = sum(each["errors"] for each in values) / sum(each["words"] for each in values)
    return {"WER": rate} | ({"SIM": sum(sims) / len(sims)} if sims else {})


def listener(recipe: Recipe):
    """What training calls after it exported weights; it says why where there is nothing to hear."""

    def hear(step: int) -> dict[str, Path]:
        try:
            return listen(recipe, step)
        except SaysoError as error:
            print(printable(f"no sample at step {step}: {error}"), flush=True)
            return {}

    return hear


def judger(recipe: Recipe, part: str):
    """What training calls with weights of a part; it says why where it has no figures."""

    ears = load_ears()

    def ask(step: int, weights: Path) -> dict[str, float]:
        try:
            return judge(recipe, step, {part: weights}, ears)
        except SaysoError as error:
            print(printable(f"no figures at step {step}: {error}"), flush=True)
            return {}

    return ask
