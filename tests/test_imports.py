"""Imports run one way: pallas_kernels <- arch <- runners -> tasks; configs stand apart.

The order within arch and within runners is tested in test_import_order.py.
"""

import ast
import pathlib
import subprocess
import sys
from collections.abc import Collection, Iterable, Mapping

import pytest

import arch
import pallas_kernels
import tasks

ROOT = pathlib.Path(__file__).parents[1]
MAY_IMPORT = {
    "pallas_kernels": set(),
    "arch": {"pallas_kernels"},
    "tasks": set(),
    "runners": {"arch", "pallas_kernels", "tasks", "configs"},
    "configs": {"arch", "tasks"},  # names of architectures to sweep over, lengths of tasks
}
# What the parts that everyone needs may ask of the machine; runners and configs have more.
LIGHT = {"jax", "flax", "optax", "chex", "numpy"}
LIGHT_PARTS = ("pallas_kernels", "arch", "tasks")
# Optional libraries, and the names of the only files that may import them, when they are called.
OPTIONAL = {
    "jla": {"jla.py", "hopper.py"},
    "sklearn": {"digits.py"},
    "grain": {"stored.py"},
    "safetensors": {"saving.py"},
    "tokenizers": {"tokenizer.py"},
    "pyarrow": {"corpora.py"},
}
# The modules that make and read data sets; the tasks import them when the data are asked for.
BUILDERS = (ROOT / "tasks" / "builders", ROOT / "tasks" / "text")
BUILDER_LIBRARIES = {"tensorflow_datasets", "PIL", "absl", "filelock", "joblib", "requests"}
FILES = [path for part in MAY_IMPORT for path in sorted((ROOT / part).rglob("*.py"))]


def _imports(path: pathlib.Path) -> set[str]:
    """Top-level packages that a file imports anywhere, inside functions too."""
    return _imported(ast.walk(ast.parse(path.read_text(encoding="utf-8"))), path)


def _imported(nodes: Iterable[ast.AST], path: pathlib.Path) -> set[str]:
    """Top-level packages that these nodes of a file import."""
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} line {node.lineno}: imports here are absolute"
            found.add(node.module.partition(".")[0])
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_one_way(path):
    part = path.relative_to(ROOT).parts[0]
    imported = _imports(path)
    forbidden = (imported & set(MAY_IMPORT)) - MAY_IMPORT[part] - {part}
    assert not forbidden, f"{part} must not import {', '.join(sorted(forbidden))}"
    if part in LIGHT_PARTS:
        optional = {library for library, files in OPTIONAL.items() if path.name in files}
        optional |= BUILDER_LIBRARIES if path.parent in BUILDERS else set()
        extra = imported - LIGHT - optional - set(MAY_IMPORT) - set(sys.stdlib_module_names)
        assert not extra, f"{part} must do without {', '.join(sorted(extra))}"


@pytest.mark.parametrize("library", OPTIONAL)
def test_optional_libraries_are_imported_when_called(library):
    for path in FILES:
        at_import = [
            node
            for node in ast.parse(path.read_text(encoding="utf-8")).body
            if isinstance(node, ast.Import | ast.ImportFrom)
        ]
        assert library not in _imported(at_import, path), f"{path} imports {library} at once"


def test_tasks_are_listed_and_built_without_the_libraries_of_their_data():
    program = (
        "import sys, tasks\n"
        "for name in tasks.names():\n"
        "    tasks.build(name)\n"
        # jax's own family imports those two
        f"print({BUILDER_LIBRARIES - {'absl', 'filelock'} | OPTIONAL.keys()} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("set()\n", 0), done.stderr


def test_every_part_is_seen():
    assert {path.relative_to(ROOT).parts[0] for path in FILES} >= set(LIGHT_PARTS)


PUBLIC = {"arch": arch, "tasks": tasks, "pallas_kernels": pallas_kernels}


def _private_uses(source: str, public: Mapping[str, Collection[str]]) -> list[str]:
    """What a source takes from these packages beside their public names."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
            found += [n for n in names if n not in public and n.partition(".")[0] in public]
        elif isinstance(node, ast.ImportFrom) and node.module.partition(".")[0] in public:
            allowed = public.get(node.module, ())
            found += [f"{node.module}.{a.name}" for a in node.names if a.name not in allowed]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            package = node.value.id
            if package in public and node.attr not in public[package]:
                found.append(f"{package}.{node.attr}")
    return found


@pytest.mark.parametrize(
    "path",
    [path for path in FILES if path.parent in (ROOT / "runners/training", ROOT / "runners/core")],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_training_and_core_use_public_names(path):
    public = {name: package.__all__ for name, package in PUBLIC.items()}
    assert not _private_uses(path.read_text(encoding="utf-8"), public)


def test_private_uses_are_found():
    source = (
        "import arch\nimport arch.nn\nfrom arch import build, get\nfrom arch.nn import layers\n"
        "arch.names()\nx.hidden\narch.hidden\n"
    )
    expected = ["arch.nn", "arch.get", "arch.nn.layers", "arch.hidden"]
    assert _private_uses(source, {"arch": ["build", "names"]}) == expected
