"""Sizes, names and docstrings of the five packages."""

import ast
import functools
import pathlib
import re
from collections.abc import Iterator, Mapping

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGES = ("pallas_kernels", "arch", "tasks", "runners", "configs")
FILES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
}
# All that may use a public name; of the pages, their Python.
_PYTHON = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
READERS = FILES | {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in sorted((ROOT / "tests").rglob("*.py"))
}
READERS |= {
    f"{path.relative_to(ROOT)} {i}": code
    for path in [*ROOT.glob("*.md"), *ROOT.glob("*/*.md")]
    for i, code in enumerate(_PYTHON.findall(path.read_text(encoding="utf-8")))
}

MAX_FILE, MAX_FUNCTION = 300, 70  # lines, of a function without its docstring
LONG_FILES: dict[str, str] = {}  # path: the reason why it may be longer
# One kernel is one function: its loop over blocks cannot be cut where the registers live.
LONG_FUNCTIONS = re.compile(r"pallas_kernels/.*/(pallas_\w+|kernels)\.py")
QUESTIONS = ("What", "How", "Which", "Where", "Whether", "Who")

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def _definitions(source: str) -> Iterator[Definition]:
    return (node for node in ast.walk(ast.parse(source)) if isinstance(node, Definition))


def _long_functions(source: str, limit: int = MAX_FUNCTION) -> list[str]:
    """Names of the functions with more lines than that, not counting their docstring."""
    found = []
    for node in _definitions(source):
        lines = node.end_lineno - node.lineno + 1
        if ast.get_docstring(node) is not None:
            lines -= node.body[0].end_lineno - node.body[0].lineno + 1
        if lines > limit and not isinstance(node, ast.ClassDef):
            found.append(node.name)
    return found


def _questions(source: str) -> list[str]:
    """First lines of the docstrings that open with a question word."""
    tree = ast.parse(source)
    docstrings = [ast.get_docstring(tree), *map(ast.get_docstring, _definitions(source))]
    return [
        docstring.partition("\n")[0]
        for docstring in docstrings
        if docstring and re.match(rf"({'|'.join(QUESTIONS)})\b", docstring)
    ]


def _public_names(source: str) -> list[str]:
    """Top-level names without underscore: classes but registered ones, functions, constants."""
    names = []
    for node in ast.parse(source).body:
        if isinstance(node, Definition):
            decorators = map(ast.unparse, node.decorator_list)
            registered = any(re.match(r"(\w+\.)?register\(", d) for d in decorators)
            names += [] if registered else [node.name]
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                names += [n.id for n in ast.walk(target) if isinstance(n, ast.Name)]
    return [name for name in names if not name.startswith("_")]


@functools.cache
def _uses(source: str) -> set[tuple[str, str]]:
    """(module, name) of all that a source takes from modules, by import, attribute or text."""
    nodes = list(ast.walk(ast.parse(source)))
    modules = {}  # what a local name is bound to
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            modules |= {alias.asname or alias.name: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                found.add((node.module, alias.name))
                modules[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    for node in nodes:
        if isinstance(node, ast.Attribute):
            found.add((modules.get(ast.unparse(node.value)), node.attr))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            module, _, name = node.value.replace(":", ".").rpartition(".")
            found.add((module, name))
        elif isinstance(node, ast.Call) and len(node.args) > 1:  # setattr(module, "name", …)
            module, name = map(ast.unparse, node.args[:2])
            found.add((modules.get(module, module.strip("'")), name.strip("'")))
    return found


def _unused_names(path: str, sources: Mapping[str, str]) -> list[str]:
    """Public names of a file that no other file uses.

    A function with the name of the file's folder is a backend of that operator, which is imported
    by a name put together when it is called; so are the example shapes and baselines of operators.
    """
    module = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    others = [text for other, text in sources.items() if other != path]
    allowed = {"__all__", "EXAMPLES", "BASELINES", pathlib.PurePath(path).parent.name}
    allowed |= {"main", "run"} if _is_command(sources[path]) else set()
    return [
        name
        for name in _public_names(sources[path])
        if name not in allowed and not any((module, name) in _uses(text) for text in others)
    ]


def _is_command(source: str) -> bool:
    return re.search(r'^if __name__ == "__main__":', source, re.MULTILINE) is not None


@pytest.mark.parametrize("path", FILES)
class TestFiles:
    def test_is_short(self, path):
        assert len(FILES[path].splitlines()) <= MAX_FILE or path in LONG_FILES

    def test_functions_are_short(self, path):
        assert LONG_FUNCTIONS.fullmatch(path) or not _long_functions(FILES[path])

    def test_docstrings_open_with_their_subject(self, path):
        assert not _questions(FILES[path])


@pytest.mark.parametrize("path", [path for path in FILES if not path.startswith("configs/")])
def test_public_names_are_used_elsewhere(path):
    assert not _unused_names(path, READERS), "give them an underscore"


@pytest.mark.parametrize("path", sorted(ROOT.glob("runners/*")), ids=lambda path: path.name)
def test_runners_shows_commands_and_packages_alone(path):
    if path.name in ("__init__.py", "__pycache__"):
        return
    if path.is_dir():
        assert (path / "__init__.py").exists()
    else:
        assert path.suffix == ".py"
        assert _is_command(path.read_text(encoding="utf-8"))


def test_exceptions_are_needed():
    assert all(len(FILES[path].splitlines()) > MAX_FILE for path in LONG_FILES)


class TestTheCheckers:
    """Each finds what it is there to find, and nothing else."""

    def test_long_functions(self):
        body = '    """One.\n\n    Two.\n    """\n    a = 1\n    return a\n'
        source = (
            f"def three():\n{body}\nclass C:\n    def four(self):\n        a = 1\n\n        b = 2"
        )
        assert _long_functions(source, 3) == ["four"]
        assert _long_functions(source, 2) == ["three", "four"]

    def test_questions(self):
        source = (
            '"""What a file is."""\nclass C:\n    """Whatever."""\n    def f(self):\n'
            '        """Where it is.\n\n        More.\n        """\n    def g(self): ...\n'
        )
        assert _questions(source) == ["What a file is.", "Where it is."]

    def test_unused_names(self):
        source = (
            "import os\nLIMIT, _hidden = 1, 2\nsize: int = 3\ndef f(x): y = x\nclass Used: ...\n"
            '@register("a")\nclass Mixer: ...\ndef main(): ...\n@register_dataclass\ndef g(): ...\n'
            'def h(): ...\nif __name__ == "__main__":\n    main()\n'
        )
        assert _public_names(source) == ["LIMIT", "size", "f", "Used", "main", "g", "h"]
        reader = (
            "import p.a\nfrom p import a as b\nfrom p.a import Used\nfrom q import LIMIT\n"
            'size = x.size\nb.f(b)\nsetattr(b, "g", 1)\nimported("p.a", "h")\n'
        )
        assert _unused_names("p/a.py", {"p/a.py": source, "b.py": reader}) == ["LIMIT", "size"]

    def test_commands(self):
        assert _is_command('def main(): ...\n\n\nif __name__ == "__main__":\n    main()\n')
        assert not _is_command("def main(): ...\n")
