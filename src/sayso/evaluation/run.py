"""Speak a protocol's trials through the gate, judge them, and put the figures together.

    OUT/run.json           what was asked, of which model, judged by whom
    OUT/list.tsv           the protocol's list
    OUT/speech/ROW/ID.wav  what was said; both marks on it, and in the ledger of the store
    OUT/trials/ID.json     what was measured of one trial: a run that was stopped goes on behind it
    OUT/cache/             what judges said, by content
    OUT/results.json       all of it, once every trial is there

Recordings and the codec's copies of them are judged in memory.
The same sound has the same mark again, so a run that was stopped or split has the same figures.
"""

import hashlib
import itertools
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sayso.inference.recognisers import RATE
from sayso.inference.store.store import Store
from sayso.inference.synthesizer import Synthesizer
from sayso.model.audio import read_audio, resample
from sayso.model.corpora import published
from sayso.model.engine import ROWS
from sayso.model.errors import InputError
from sayso.model.files import MOST_LIST, read_json, write_json
from sayso.model.sampling import Sampling
from sayso.model.valle2 import ABLATIONS

from .metrics import Panel, Prompt, Sample, Values
from .protocols import Trial, check_files, list_hash, to_tsv
from .sound import Audio
from .speaking import Asked, Row, Said, folder_of, speak
from .summary import eq23, mark_nearest, oracle, summarise
from .voices import Voices, read_prompt, split_at, through, wave_of

RECORDINGS, CODEC = "recordings", "through the codec"
SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".opus")
VECTORS = ("own", "prompt's")


@dataclass(frozen=True)
class Plan:
    """What is asked of a run.

    Args:
        root: Where the paths of the trials start from.
        models: Row to model folder.
        files: Row to folder of another system's speech, ID.wav for each trial.
        corpus: Whose recordings the prompts are, as receipts name it: LibriSpeech, VCTK.
        takes: Samples of each sentence; with more than one Eq. 23 and an oracle have rows.
        baseline: Whether VALL-E's random sampling has a row, too.
        ablations: Whether each input that can be left out (Table 3) has a row without it.
        bar: SIM from which on Eq. 23 asks for words alone; the paper's .3 is of WavLM-TDNN.
        sampling: As each model's card says if None.
        together: Trials that are spoken in one batch, by their place in the list.
    """

    protocol: str
    trials: Sequence[Trial]
    root: Path
    models: Mapping[str, Path] = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)
    corpus: str = ""
    purpose: str = "benchmark"
    takes: int = 1
    seed: int = 0
    baseline: bool = False
    ablations: bool = False
    bar: float = 0.65
    sampling: Sampling | None = None
    device: str = "auto"
    precision: str = "fp32"
    together: int = ROWS


def shard_of(text: str = "", environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """Which part of how many this process does: "i/n", or as torchrun or SLURM started it.

    Raises:
        InputError: The text is no such part.
    """
    if not text:
        for rank, size in (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS")):
            if rank in environment and size in environment:
                return int(environment[rank]), int(environment[size])
        return 0, 1
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if not found or int(found[1]) >= int(found[2]):
        raise InputError(f"--shard {text!r}: give i/n with i from 0 to n - 1, such as 0/2")
    return int(found[1]), int(found[2])


def take_own_gpu(environment: Mapping[str, str] = os.environ) -> None:
    """Of several processes that torchrun or SLURM started on a machine, each has one GPU."""
    local = environment.get("LOCAL_RANK", environment.get("SLURM_LOCALID"))
    if local is not None and torch.cuda.is_available():
        torch.cuda.set_device(int(local) % torch.cuda.device_count())


class Run:
    """A plan, the folder it fills, and who judges."""

    def __init__(self, plan: Plan, out: Path, panel: Panel, store: Store):
        """Open OUT, or go on with it.

        Raises:
            InputError: OUT holds another run, a recording is missing, or no sample is asked for.
            CorpusError: The prompts' corpus is not one for prompts.
        """
        self.plan, self.out, self.panel, self.store = plan, out, panel, store
        if plan.takes < 1:
            raise InputError(f"{plan.takes} samples of each sentence: give at least 1")
        prompts = any(trial.prompt for trial in plan.trials)
        if prompts and plan.models:
            if not plan.corpus:
                raise InputError("these prompts are recordings: give --corpus, or enrolled voices")
            published(plan.corpus)
        self.speakers = {
            name: Synthesizer(path, store, plan.device, plan.precision)
            for name, path in plan.models.items()
        }
        self.rows: list[Row] = []
        for name, speaker in self.speakers.items():
            given = plan.models[name], plan.root, plan.corpus
            voices, how = Voices(speaker, *given), plan.sampling or speaker.bundle.sampling
            self.rows.append(Row(name, voices, how, plan.takes))
            if plan.baseline:
                self.rows.append(Row(f"{name}, random", voices, replace(how, method="random"), 1))
            for part in ABLATIONS if plan.ablations else ():
                less = Voices(speaker.ablated(part), *given)
                self.rows.append(Row(f"{name}, no {part}", less, how, 1))
        self.asked = self._asked(check_files(plan.trials, plan.root))
        (out / "trials").mkdir(parents=True, exist_ok=True)
        before = out / "run.json"
        if before.is_file() and read_json(before, MOST_LIST) != self.asked:
            raise InputError(f"{out} holds another run, see {before}: choose another folder")
        write_json(before, self.asked)
        (out / "list.tsv").write_text(to_tsv(plan.trials), encoding="utf-8")
        self._prompt = lru_cache(64)(read_prompt)

    def work(self, shard: int = 0, of: int = 1) -> Iterator[str]:
        """Do this process's trials that are not done; yields a line about each.

        A group of trials is spoken together, row by row; one that was cut off is, as a whole, anew:
        its sound is the same again.
        """
        size, trials = self.plan.together, self.plan.trials
        for start in range(0, len(trials), size)[shard::of]:
            group = trials[start : start + size]
            left = [trial for trial in group if not self._place(trial).is_file()]
            asked: list[Asked] = []
            for trial in group if left else ():
                try:
                    asked.append(self._ask(trial))
                except InputError as error:
                    write_json(self._place(trial), {"rows": {}, "time": {}, "left out": str(error)})
                    yield f"{trial.id}: {error}"
            how = self.plan.purpose, self.plan.seed
            said = [speak(asked, r, folder_of(self.out, r.name), *how) for r in self.rows]
            for index, each in enumerate(asked):
                if each.trial not in left:
                    continue
                own = {row.name: of[index] for row, of in zip(self.rows, said, strict=True)}
                done = self._judged(each, own)
                write_json(self._place(each.trial), done)
                yield f"{each.trial.id}: {_line(done['rows'])}"

    def results(self) -> dict[str, Any] | None:
        """All figures, written as OUT/results.json; None while trials are missing.

        Raises:
            InputError: No trial could be used.
        """
        places = [self._place(trial) for trial in self.plan.trials]
        if not all(place.is_file() for place in places):
            return None
        done = [read_json(place) for place in places]
        pairs = [(t, d) for t, d in zip(self.plan.trials, done, strict=True) if d["rows"]]
        if not pairs:
            raise InputError(f"nothing could be said, such as {done[0]['left out']}")
        rows = _rows(self.asked, [each["rows"] for _, each in pairs], self.plan.bar)
        speakers = [trial.speaker for trial, _ in pairs]
        mark_nearest(rows, speakers)
        known = {t.id: d["left out"] for t, d in zip(self.plan.trials, done, strict=True)}
        found = {
            "run": self.asked,
            "order": list(rows),
            "rows": summarise(rows, speakers),
            "left out": {id: why for id, why in known.items() if why},
            "trials": [
                asdict(trial) | {"rows": {row: _plain(values[i]) for row, values in rows.items()}}
                for i, (trial, _) in enumerate(pairs)
            ],
            "time": _times([each["time"] for _, each in pairs]),
        }
        write_json(self.out / "results.json", found)
        return found

    def _asked(self, recordings: dict[str, str]) -> dict[str, Any]:
        plan = self.plan
        return {
            "protocol": plan.protocol,
            "list": list_hash(plan.trials),
            "recordings": hashlib.sha256(json.dumps(recordings).encode()).hexdigest(),
            "corpus": plan.corpus,
            "seed": plan.seed,
            "together": plan.together,
            "precision": plan.precision,
            "bar": plan.bar,
            "rows": {
                row.name: {
                    "card": row.voices.speaker.bundle.card_hash,
                    "sampling": asdict(row.sampling),
                    "takes": row.takes,
                }
                for row in self.rows
            },
            "files": {name: str(folder) for name, folder in plan.files.items()},
            "metrics": self.panel.named(),
        }

    def _place(self, trial: Trial) -> Path:
        return self.out / "trials" / f"{trial.id}.json"

    def _ask(self, trial: Trial) -> Asked:
        """InputError where the text cannot be split behind the prompt."""
        if not trial.prompt:
            return Asked(trial, trial.text)
        path = self.plan.root / trial.prompt
        prompt = self._prompt(path, trial.prompt_text, trial.seconds)
        if not trial.seconds:
            return Asked(trial, trial.text, prompt)
        said, text = split_at(read_audio(path, RATE)[0].numpy(), trial.text, trial.seconds)
        return Asked(trial, text, Prompt(prompt.audio, said), prompt.audio)

    def _judged(self, asked: Asked, said: Mapping[str, Said]) -> dict[str, Any]:
        """All rows of one trial, judged."""
        trial, prompt = asked.trial, asked.prompt
        done: dict[str, Any] = {"rows": {}, "time": {}, "left out": ""}
        if trial.recording:
            wave, rate = wave_of(self.plan.root / trial.recording)
            sample = Sample(wave, rate, trial.text, prompt)
            done["rows"][RECORDINGS] = [self._judge(sample)]
            for speaker in itertools.islice(self.speakers.values(), 1):
                codec = speaker.bundle.codec
                copy = through(codec, resample(wave, rate, codec.sample_rate))
                sample = Sample(copy, codec.sample_rate, trial.text, prompt)
                done["rows"][CODEC] = [self._judge(sample)]
        for name, folder in self.plan.files.items():
            there = [p for s in SUFFIXES if (p := folder / f"{trial.id}{s}").is_file()]
            done["rows"][name] = [
                self._judge(Sample(*wave_of(there[0]), trial.text, prompt))
                if there
                else self._lost(trial.text, f"{trial.id} is not in {folder}")
            ]
        lead = 0.0 if asked.before is None else len(asked.before) / RATE
        for row, (takes, coded, cost) in said.items():
            done["rows"][row] = values = [
                self._lost(trial.text, take)
                if isinstance(take, str)
                else self._judge(_sample(take, trial.text, asked.before, prompt, coded))
                for take in takes
            ]
            seconds = sum(v["seconds"] - lead for v in values if "seconds" in v)
            done["time"][row] = {"work": cost, "speech": seconds}
        return done

    def _judge(self, sample: Sample) -> Values:
        found = self.panel(sample) | {"unfinished": 0}
        return {k: round(v, 6) if isinstance(v, float) else v for k, v in found.items()}

    def _lost(self, text: str, why: str) -> Values:
        return self.panel.lost(text) | {"unfinished": 1, "why": why}


def _sample(
    path: Path, text: str, before: Audio | None, prompt: Prompt | None, coded: Prompt | None
) -> Sample:
    """What was said, behind what it goes on from."""
    wave, rate = wave_of(path)
    if before is not None:
        wave = np.concatenate([resample(before, RATE, rate), wave])
    return Sample(wave, rate, text, prompt, coded)


def _rows(
    asked: dict[str, Any], done: Sequence[dict[str, list[Values]]], bar: float
) -> dict[str, list[Values]]:
    """Row to values, in the order of the table; of several takes the first, the best, the oracle.

    A trial without a row (no recording of it) takes the row away: rows are of the same trials.
    """
    order = [RECORDINGS, CODEC, *asked["files"], *asked["rows"]]
    rows: dict[str, list[Values]] = {}
    for name in order:
        takes = [each[name] for each in done if name in each]
        if len(takes) < len(done):
            continue
        rows[name] = [dict(each[0]) for each in takes]
        if len(takes[0]) > 1:
            rows[f"{name}, best of {len(takes[0])} by Eq. 23"] = [dict(eq23(t, bar)) for t in takes]
            rows[f"{name}, best of {len(takes[0])} by each metric (oracle)"] = [
                oracle(each) for each in takes
            ]
    return rows


def _plain(values: Values) -> Values:
    return {key: value for key, value in values.items() if key not in VECTORS}


def _times(done: Sequence[dict[str, dict[str, float]]]) -> dict[str, float]:
    """Seconds of work per second of speech of each row, marks and all."""
    found = {}
    for row in done[0]:
        work, speech = (sum(each[row][part] for each in done) for part in ("work", "speech"))
        found[row] = round(work / speech, 3) if speech else 0.0
    return found


def _line(rows: dict[str, list[Values]]) -> str:
    """A few words for whoever waits."""
    heard = {row: values[0].get("heard") or values[0].get("why") for row, values in rows.items()}
    return "; ".join(f"{row} {words!r}" for row, words in heard.items())
