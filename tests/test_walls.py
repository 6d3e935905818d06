"""The walls of the house: who may import whom, read from the syntax tree of every file."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HOMES = {"model": "sayso.model", "training": "sayso.training", "inference": "sayso.inference"}
HOMES |= {"src/sayso": "sayso", "benchmarks": "benchmarks", "tools": "tools"}
MOST_LINES = 350
LONGER = {"sayso.evaluation.run": 450, "benchmarks.speak": 380}
"""To be cut; no other may be longer than `MOST_LINES`: split it by what it does."""
MAY_IMPORT = {  # of our own packages; a room not named here may import every other
    "sayso.model": {"sayso.model"},
    "sayso.training": {"sayso.training", "sayso.model"},
    "sayso.inference": {"sayso.inference", "sayso.model"},
    "sayso": {"sayso", "sayso.inference", "sayso.training", "sayso.model"},
}


def python_files() -> dict[str, Path]:
    """Every module of ours by its dotted name; symlinked rooms are counted once."""
    found = {}
    for folder, package in HOMES.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            inside = path.relative_to(ROOT / folder).with_suffix("").parts
            if folder == "src/sayso" and inside[0] in ("model", "training", "inference"):
                continue
            found[".".join((package, *inside)).removesuffix(".__init__")] = path
    return found


def imported(name: str, path: Path, names: set[str]) -> set[str]:
    """The modules of ours that a module imports anywhere, inside functions too."""
    package = name if path.stem == "__init__" else name.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            wanted = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            start = parts[: len(parts) - node.level + 1] if node.level else []
            base = ".".join([*start, *filter(None, [node.module])])
            wanted = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        for each in wanted:  # a module, or a name of one
            if each not in names:
                each = each.rpartition(".")[0]
            if each in names:
                found.add(each)
    return found - {name}


def room(name: str) -> str:
    """The outermost package that has rules of its own."""
    parts = name.split(".")
    two = ".".join(parts[:2])
    return two if two in HOMES.values() else parts[0]


def graph() -> dict[str, set[str]]:
    files = python_files()
    return {name: imported(name, path, set(files)) for name, path in files.items()}


def circle(arrows: dict[str, set[str]]) -> list[str]:
    """A way from a module back to itself, or nothing."""
    done: set[str] = set()

    def follow(name: str, way: list[str]) -> list[str]:
        if name in way:
            return [*way[way.index(name) :], name]
        if name in done:
            return []
        for each in sorted(arrows[name]):
            if back := follow(each, [*way, name]):
                return back
        done.add(name)
        return []

    return next((way for name in sorted(arrows) if (way := follow(name, []))), [])


def test_each_room_imports_only_what_it_may():
    arrows = graph()
    assert len(arrows) > 90
    wrong = [
        f"{name} imports {each}"
        for name, targets in arrows.items()
        for each in targets
        if room(each) not in MAY_IMPORT.get(room(name), set(HOMES.values()))
    ]
    assert not wrong


def test_no_file_is_too_long_to_read():
    lines = {name: len(path.read_text().splitlines()) for name, path in python_files().items()}
    assert not {n: k for n, k in lines.items() if k > LONGER.get(n, MOST_LINES)}


def test_there_is_no_circle():
    assert circle(graph()) == []


def test_packages_import_nothing_but_the_root():
    """An `__init__` that imports makes every module of its package pay for it."""
    arrows, files = graph(), python_files()
    allowed = ("sayso", "sayso.cli")
    assert not [
        name
        for name, path in files.items()
        if path.stem == "__init__" and arrows[name] and name not in allowed
    ]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("from .b import x", {"p.b"}),
        ("from . import b", {"p.b"}),
        ("import p.b", {"p.b"}),
        ("def f():\n    from p.b import x", {"p.b"}),
        ("from .. import q", {"q"}),
        ("text = 'from .b import x'", set()),
    ],
)
def test_the_guard_sees_every_kind_of_import(tmp_path: Path, line: str, found: set[str]):
    (tmp_path / "a.py").write_text(line)
    if line == "from .. import q":
        assert imported("o.p.a", tmp_path / "a.py", {"o.q"}) == {"o.q"}
    else:
        assert imported("p.a", tmp_path / "a.py", {"p.b", "q"}) == found


def test_the_guard_sees_a_circle():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []
