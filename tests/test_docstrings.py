"""Every public function says what it does, and names each error that it raises itself."""

import ast
import re
from pathlib import Path

from test_walls import python_files


def public_functions(tree: ast.Module) -> list[tuple[str, ast.FunctionDef, str]]:
    """Public functions and methods with their names and the docstring of their class."""
    found = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            found.append((node.name, node, ""))
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            said = ast.get_docstring(node) or ""
            found += [
                (f"{node.name}.{part.name}", part, said)
                for part in node.body
                if isinstance(part, ast.FunctionDef) and not part.name.startswith("_")
            ]
    return found


def raised(function: ast.FunctionDef) -> set[str]:
    """Names of the errors that leave a function's own body; inner functions are others."""
    names: set[str] = set()
    todo: list[tuple[ast.AST, str]] = [(node, "") for node in function.body]
    while todo:
        node, caught = todo.pop()
        if isinstance(node, ast.FunctionDef | ast.Lambda | ast.ClassDef):
            continue
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            name = ast.unparse(node.exc.func).rpartition(".")[2]
            if name not in re.findall(r"\w+", caught):
                names.add(name)
        tried: list[ast.stmt] = node.body if isinstance(node, ast.Try) else []
        handlers = node.handlers if isinstance(node, ast.Try) else []
        kinds = [each.type for each in handlers if each.type]
        within = " ".join([caught, *map(ast.unparse, kinds)])
        todo += [(each, within if each in tried else caught) for each in ast.iter_child_nodes(node)]
    return names


def complaints(path: Path) -> list[str]:
    tree, found = ast.parse(path.read_text()), []
    # `raise _unwritable(path)`: a private function makes the error.
    makers = {
        node.name: ast.unparse(node.returns)
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.returns and node.name.startswith("_")
    }
    for name, function, of_class in public_functions(tree):
        said = ast.get_docstring(function) or ""
        # A `forward` may be said in its class, which is what users read.
        if function.name == "forward":
            said += of_class
        if not said:
            found.append(f"{name}: no docstring")
        # The docstring of a verb is its help, and whoever calls it reads the error itself.
        if any(".command(" in ast.unparse(each) for each in function.decorator_list):
            continue
        errors = sorted({makers.get(error, error) for error in raised(function)})
        found += [f"{name}: raises {error}" for error in errors if error not in said]
    return found


def test_public_functions_say_what_they_do_and_raise():
    rooms = ("sayso.", "sayso")
    every = {
        name: found
        for name, path in python_files().items()
        if name.startswith(rooms) and (found := complaints(path))
    }
    assert not every, "\n".join(f"{name}: {each}" for name, all in every.items() for each in all)


SOURCE = """
def a():
    raise ValueError('x')

def b():
    'B. Raises ValueError.'
    raise ValueError('y')

def c():
    'C.'
    try:
        raise ValueError('z')
    except (OSError, ValueError):
        raise _made()

def _made() -> KeyError:
    return KeyError()

class C:
    'Is.'

    def forward(self):
        pass
"""


def test_the_guard_finds_what_is_missing(tmp_path: Path):
    (tmp_path / "m.py").write_text(SOURCE)
    found = ["a: no docstring", "a: raises ValueError", "c: raises KeyError"]
    assert complaints(tmp_path / "m.py") == found
