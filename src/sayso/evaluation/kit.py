"""A listening test out of a run: CMOS and SMOS pages that anybody opens, and what answers say.

CMOS (-3 to 3): how much more natural one row is than another; SMOS (1 to 5): how much like the
prompt (VALL-E 2, 4.2). Rater r hears the pair i in the order given by (i + r) mod 2, which also
says whose sample is compared with the prompt: every pair is heard both ways round. Tasks are
shuffled by the rater's number. Files are copies, byte for byte, marks and all; levels are matched
by the players. Some tasks have a known answer: `PASSES`. The rule, fixed before anybody listens: a
rater who fails more than `MOST_FAILED` of these is left out.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from sayso.inference.recognisers import RATE
from sayso.model.audio import read_audio
from sayso.model.errors import InputError
from sayso.model.files import MOST_JSON, MOST_LIST, read_json, read_regular, read_utf8, write_json

from .run import RECORDINGS, SUFFIXES
from .sound import level
from .speaking import said_in

PAGE = Path(__file__).with_name("kit.html")
MOST_FAILED = 0.25
CHECKS = 3
"""Of each kind."""
PASSES = {
    "same": (-1, 1),  # one file twice
    "text": (-3, -1),  # the second says something else than is written
    "self": (4, 5),  # the prompt beside itself
}
SCALES = {"cmos": (-3, 3), "smos": (1, 5)}


def make_kit(run: Path, rows: tuple[str, str], out: Path, root: Path, most: int = 20) -> Path:
    """Write a folder to hand out, OUT/index.html with its sounds; OUT.key.json stays at home.

    Args:
        run: Folder of a run that is done.
        rows: The second is compared with the first: `recordings`, or a row that was spoken.
        root: Where the trials' recordings are.
        most: Pairs of each kind.

    Raises:
        InputError: The run is not done, has no such row, or too few sounds of both.
    """
    if not (run / "results.json").exists():
        raise InputError(f"{run} has no results.json: let the run end first")
    found = read_json(run / "results.json", MOST_LIST)
    both: list[tuple[dict, list[Path]]] = []
    for trial in found["trials"]:
        paths = [_sound(run, found, row, trial, root) for row in rows]
        if all(path is not None for path in paths):
            both.append((trial, [path for path in paths if path is not None]))
    if len(both) < 2 * CHECKS:
        raise InputError(f"{len(both)} trials have sound of {rows}, {2 * CHECKS} are needed")
    most = min(most, len(both))
    both = [both[i * len(both) // most] for i in range(most)]
    tasks, sounds = _tasks(both, root), {}
    (out / "audio").mkdir(parents=True, exist_ok=True)
    loud = {path: _level(path) for task in tasks for path in task["files"]}
    for task in tasks:
        for place, path in enumerate(task["files"]):
            name = hashlib.sha256(f"{found['run']['list']} {path}".encode()).hexdigest()[:16]
            sounds[path] = f"audio/{name}{path.suffix}"
            shutil.copyfile(path, out / sounds[path])
            volume = 10 ** ((min(loud.values()) - loud[path]) / 20)
            task["files"][place] = [sounds[path], round(volume, 4)]
    identity = hashlib.sha256(json.dumps(tasks).encode()).hexdigest()[:16]
    page = Template(read_utf8(PAGE))
    data = json.dumps({"kit": identity, "tasks": tasks}).replace("<", "\\u003c")
    (out / "index.html").write_text(page.substitute(data=data), encoding="utf-8")
    key = out.with_name(f"{out.name}.key.json")
    kinds = {task["id"]: task["kind"] for task in tasks}
    rule = f"more than {MOST_FAILED:.0%} of the checks failed: left out"
    write_json(key, {"kit": identity, "rows": list(rows), "tasks": kinds, "rule": rule})
    return key


def _tasks(both: Sequence[tuple[dict, list[Path]]], root: Path) -> list[dict[str, Any]]:
    """CMOS pairs, SMOS pairs where there are prompts, and checks spread over them."""
    tasks: list[dict[str, Any]] = []
    for i, (trial, paths) in enumerate(both):
        tasks.append(_task(f"cmos-{i}", "cmos", trial["text"], paths))
    prompted = [(trial, paths) for trial, paths in both if trial["prompt"]]
    for i, (trial, paths) in enumerate(prompted):
        tasks.append(_task(f"smos-{i}", "smos", "", [root / trial["prompt"], *paths]))
    for i in range(CHECKS):
        (trial, paths), (_, others) = both[i], both[i + CHECKS]
        tasks.append(_task(f"same-{i}", "same", trial["text"], [paths[i % 2]] * 2))
        tasks.append(_task(f"text-{i}", "text", trial["text"], [paths[0], others[0]]))
    for i, (trial, _) in enumerate(prompted[:CHECKS]):
        tasks.append(_task(f"self-{i}", "self", "", [root / trial["prompt"]] * 2))
    return tasks


def _task(id: str, kind: str, text: str, files: Sequence[Path]) -> dict[str, Any]:
    return {"id": id, "kind": kind, "text": text, "files": list(files)}


def _sound(run: Path, found: dict, row: str, trial: dict, root: Path) -> Path | None:
    if row == RECORDINGS:
        return root / trial["recording"] if trial["recording"] else None
    if row in found["run"]["files"]:
        folder = Path(found["run"]["files"][row])
        there = (folder / f"{trial['id']}{suffix}" for suffix in SUFFIXES)
        return next((path for path in there if path.is_file()), None)
    if row not in found["run"]["rows"]:
        known = ", ".join([RECORDINGS, *found["run"]["files"], *found["run"]["rows"]])
        raise InputError(f"{run} has no sound of {row!r}; it has {known}")
    path = said_in(run, row, trial["id"])
    return path if path.is_file() else None


def _level(path: Path) -> float:
    return level(read_audio(path, RATE)[0].numpy())


def read_answers(path: Path) -> dict[str, Any]:
    """A kit's key, or a rater's answers.

    Raises:
        InputError: The file is no such thing.
    """
    try:
        found = json.loads(read_regular(path, MOST_JSON))
        if found.keys() >= {"kit", "tasks", "rows"}:
            return found
        for each in found["answers"]:
            assert isinstance(each["task"], str) and isinstance(each["turned"], bool)
            assert isinstance(each["score"], int) and found["kit"] and found["rater"] is not None
        return found
    except (ValueError, KeyError, TypeError, AttributeError, AssertionError) as error:
        raise InputError(f"{path} holds no answers ({error!r}): give what a kit saved") from None


def analyse(key: Mapping[str, Any], answers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What raters' answers say of the rows in a kit's key.

    Returns:
        raters, those left out with the checks they failed, and for `cmos` and each row's `smos`
        the mean with 95 % intervals: over raters, over items, and over both, which is the one to
        go by.

    Raises:
        InputError: An answer is of another kit, of an unknown task, or off the scale, or a rater
            answers twice.
    """
    kinds, rows = key["tasks"], key["rows"]
    names = [str(each.get("rater")) for each in answers]
    if len(set(names)) < len(names):
        raise InputError(f"a rater answers twice: {', '.join(sorted(names))}")
    left_out: dict[str, str] = {}
    scores: dict[str, list[dict[str, float]]] = {"cmos": [], rows[0]: [], rows[1]: []}
    for name, each in zip(names, answers, strict=True):
        own = {kind: {} for kind in scores}
        failed, checks = 0, 0
        for answer in _checked(key, each):
            kind, score, turned = kinds[answer["task"]], answer["score"], answer["turned"]
            if kind in PASSES:
                low, high = PASSES[kind]
                score = -score if turned and kind == "text" else score
                failed, checks = failed + (not low <= score <= high), checks + 1
            elif kind == "cmos":
                own["cmos"][answer["task"]] = -score if turned else score
            else:
                own[rows[int(turned)]][answer["task"]] = score
        if not checks or failed > MOST_FAILED * checks:
            left_out[name] = f"{failed} of {checks} checks failed"
            continue
        for kind, values in own.items():
            scores[kind].append(values)
    found: dict[str, Any] = {"rows": rows, "raters": len(names), "left out": left_out}
    for kind, values in scores.items():
        items = sorted({task for rater in values for task in rater})
        table = np.array([[rater.get(item, np.nan) for item in items] for rater in values])
        if len(values) > 1 and len(items) > 1:
            found["cmos" if kind == "cmos" else f"smos, {kind}"] = {
                name: np.round(each, 3).tolist() for name, each in intervals(table).items()
            }
    return found


def _checked(key: Mapping[str, Any], each: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """A rater's answers, if they are answers to this kit."""
    if each.get("kit") != key["kit"]:
        raise InputError(f"rater {each.get('rater')!r} answered kit {each.get('kit')!r}, not this")
    for answer in each["answers"]:
        kind = key["tasks"].get(answer["task"], "")
        low, high = SCALES["smos" if kind in ("smos", "self") else "cmos"]
        if not kind or not low <= answer["score"] <= high:
            raise InputError(f"rater {each.get('rater')!r}: {answer} answers no task of this kit")
    return each["answers"]


def intervals(scores: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Means and 95 % intervals of tables (..., R raters, I items); NaN where nobody answered.

    Raters and items are both drawn from many. The variance over both is that over raters plus that
    over items less that of single answers (two-way clusters; Cameron, Gelbach, Miller 2011), at
    least the larger of the two; Student's t has the degrees of freedom of the smaller number.

    Returns:
        mean (...,), and raters, items, both: (..., 2) bounds.
    """
    there = ~np.isnan(scores)
    count = there.sum((-2, -1))
    mean = np.where(there, scores, 0.0).sum((-2, -1)) / count
    off = np.where(there, scores - mean[..., None, None], 0.0) / count[..., None, None]
    sizes = {"raters": scores.shape[-2], "items": scores.shape[-1]}
    spread = {
        kind: np.square(off.sum(axis)).sum(-1) * sizes[kind] / (sizes[kind] - 1)
        for kind, axis in (("raters", -1), ("items", -2))
    }
    single = np.square(off).sum((-2, -1)) * count / (count - 1)
    larger = np.maximum(spread["raters"], spread["items"])
    spread["both"] = np.maximum(spread["raters"] + spread["items"] - single, larger)
    sizes["both"] = min(sizes.values())
    found = {"mean": mean}
    for kind, variance in spread.items():
        reach = student.ppf(0.975, sizes[kind] - 1) * np.sqrt(variance)
        found[kind] = np.stack([mean - reach, mean + reach], -1)
    return found
