"""The listening test: what is handed out, and how often its analysis errs on simulated raters."""

import json
import re
import shutil

import numpy as np
import pytest

from pages import POISON, loads
from sayso.evaluation.kit import CHECKS, analyse, intervals, make_kit, read_answers
from sayso.model.audio import read_audio
from sayso.model.errors import InputError
from speech import KATHLEEN

RATERS, ITEMS, TESTS = 12, 20, 10_000


def simulated(effect: float, seed: int) -> np.ndarray:
    """Scores (tests, raters, items): both vary, either order has its bias, scores are whole."""
    draw = np.random.default_rng(seed)
    rater = draw.normal(0, 0.4, (TESTS, RATERS, 1))
    item = draw.normal(0, 0.5, (TESTS, 1, ITEMS))
    turned = (np.arange(RATERS)[:, None] + np.arange(ITEMS)) % 2
    bias = draw.normal(0.3, 0.1, (TESTS, 1, 1)) * (1 - 2 * turned)
    heard = effect + rater + item + bias + draw.normal(0, 1, (TESTS, RATERS, ITEMS))
    return np.clip(np.round(heard), -3, 3)


def test_without_an_effect_one_test_in_twenty_errs_and_not_more():
    found = intervals(simulated(0.0, 0))
    wrong = ((found["both"][:, 0] > 0) | (found["both"][:, 1] < 0)).mean()
    assert 0.02 < wrong < 0.06
    for kind in ("raters", "items"):  # each alone forgets the other
        assert ((found[kind][:, 0] > 0) | (found[kind][:, 1] < 0)).mean() > wrong


def test_an_effect_is_found_and_covered():
    found = intervals(simulated(0.6, 1))
    assert (found["both"][:, 0] > 0).mean() > 0.85
    covered = (found["both"][:, 0] < 0.6) & (found["both"][:, 1] > 0.6)
    assert 0.93 < covered.mean() < 0.98
    assert found["mean"].mean() == pytest.approx(0.6, abs=0.02)


def test_answers_that_are_missing_do_not_count():
    scores = simulated(0.6, 2)[0]
    scores[0, :5] = np.nan
    found = intervals(scores)
    assert found["mean"] == pytest.approx(np.nanmean(scores))
    assert found["both"][0] < found["mean"] < found["both"][1]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A kit of eight sentences: recordings against other files; its folder, and its key's file."""
    base = tmp_path_factory.mktemp("kit")
    (base / "run").mkdir()
    (base / "other").mkdir()
    trials = []
    for i in range(1, 9):
        name = f"audio/arctic_a{i:04d}.opus"
        shutil.copy(KATHLEEN / f"audio/arctic_a{i + 8:04d}.opus", base / f"other/t{i}.opus")
        prompt = "audio/arctic_a0020.opus"
        trials.append(
            {"id": f"t{i}", "text": f"<{i}>{POISON}", "recording": name, "prompt": prompt}
        )
    run = {"list": "x", "files": {"other": str(base / "other")}, "rows": {}}
    (base / "run/results.json").write_text(json.dumps({"run": run, "trials": trials}))
    key = make_kit(base / "run", ("recordings", "other"), base / "kit", KATHLEEN)
    return base / "kit", key


def tasks_of(folder) -> dict:
    page = (folder / "index.html").read_text()
    found = re.search(r'id="data">(.*?)</script>', page)
    assert found and "${" in page and "<1>" not in page  # the script's own, and no text as markup
    assert not loads(page) and not re.search(r"innerHTML|outerHTML|insertAdjacent|write\(", page)
    return json.loads(found[1])


def test_a_kit_holds_everything_at_one_level_and_tells_nothing(made):
    folder, key = made
    page, data = (folder / "index.html").read_text(), tasks_of(folder)
    assert "other" not in page.split("</style>")[1].split("<script>\n")[0]
    kinds = [task["kind"] for task in data["tasks"]]
    assert [kinds.count(kind) for kind in ("cmos", "smos")] == [8, 8]
    assert all(kinds.count(kind) == CHECKS for kind in ("same", "text", "self"))
    volumes, files = {}, {}
    for task in data["tasks"]:
        assert len(task["files"]) == (3 if task["kind"] == "smos" else 2)
        for name, volume in task["files"]:
            files[name], volumes[name] = (folder / name).read_bytes(), volume
    assert max(volumes.values()) == 1 and min(volumes.values()) > 0.05
    originals = {p.read_bytes() for p in (KATHLEEN / "audio").glob("*.opus")}
    assert set(files.values()) <= originals  # byte for byte: marks stay
    from sayso.evaluation.sound import level

    levels = [
        level(read_audio(folder / name, 16_000)[0].numpy() * np.float32(volumes[name]))
        for name in files
    ]
    assert max(levels) - min(levels) < 0.1
    assert json.loads(key.read_bytes())["kit"] == data["kit"] and not (folder / key.name).exists()


def rate(data: dict, rater: int, effect: float, careless: bool = False) -> dict:
    """What one simulated rater sends: the second row is better by `effect`."""
    draw = np.random.default_rng(rater)
    answers = []
    for task in data["tasks"]:
        turned = (int(task["id"].split("-")[1]) + rater) % 2 == 1
        liking = {"cmos": effect, "same": 0.0, "text": -3.0}.get(task["kind"], 0.0)
        score = (-liking if turned else liking) + draw.normal(0, 0.3) + 0.1
        score = round(float(np.clip(score, -3, 3)))
        if task["kind"] in ("smos", "self"):
            score = 5 if task["kind"] == "self" else 4 - turned
        if careless:
            score = int(draw.integers(1, 4))
        answers.append({"task": task["id"], "turned": turned, "score": score})
    return {"kit": data["kit"], "rater": rater, "answers": answers}


def test_the_analysis_finds_the_effect_and_leaves_the_careless_out(made, tmp_path):
    folder, key = made
    data = tasks_of(folder)
    sent = [rate(data, i, 1.0) for i in range(10)] + [rate(data, 10, 1.0, careless=True)]
    paths = [tmp_path / f"{i}.json" for i in range(11)]
    for path, each in zip(paths, sent, strict=True):
        path.write_text(json.dumps(each))
    found = analyse(read_answers(key), [read_answers(path) for path in paths])
    assert list(found["left out"]) == ["10"] and found["raters"] == 11
    assert found["cmos"]["mean"] == pytest.approx(1.0, abs=0.15)
    assert found["cmos"]["both"][0] > 0.5
    assert found["smos, recordings"]["mean"] == 4 and found["smos, other"]["mean"] == 3


def test_answers_that_are_none_are_refused_by_name(made, tmp_path):
    folder, key = made
    good, known = rate(tasks_of(folder), 0, 1.0), read_answers(key)
    for wrong, why in [
        ([good, good], "twice"),
        ([good | {"kit": "another"}], "not this"),
        ([good | {"answers": [{"task": "cmos-0", "turned": True, "score": 4}]}], "no task"),
        ([good | {"answers": [{"task": "cmos-99", "turned": True, "score": 1}]}], "no task"),
    ]:
        with pytest.raises(InputError, match=why):
            analyse(known, wrong)
    for text in ("", "[]", '{"kit": 1, "rater": 1, "answers": [{}]}', '{"answers": 3}'):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(InputError, match="holds no answers"):
            read_answers(tmp_path / "bad.json")
    with pytest.raises(InputError, match="no results"):
        make_kit(tmp_path, ("recordings", "a"), tmp_path / "kit", KATHLEEN)
