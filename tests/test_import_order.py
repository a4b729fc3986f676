"""The order of imports within arch and within runners, and that none runs around a circle."""

import ast
import functools
import importlib
import pathlib
from collections.abc import Callable, Collection, Mapping

import pytest

import arch

ROOT = pathlib.Path(__file__).parents[1]
PACKAGES = ("pallas_kernels", "arch", "tasks", "runners", "configs")
FILES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def _module(path: pathlib.Path) -> str:
    """Dotted name of a file's module."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _edges(source: str, modules: Collection[str]) -> set[str]:
    """The modules, of those given, that a source imports anywhere, for types alone too."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= names & set(modules)
            found |= {node.module} if names - set(modules) else set()
    return found & set(modules)


MODULES = {_module(path): path for path in FILES}
GRAPH = {
    name: _edges(path.read_text(encoding="utf-8"), MODULES) - {name}
    for name, path in MODULES.items()
}


def _circle(graph: Mapping[str, Collection[str]]) -> list[str]:
    """Nodes that import each other around a circle, the first one again at the end; [] if none."""
    done: set[str] = set()

    def visit(node: str, chain: list[str]) -> list[str]:
        if node in chain:
            return [*chain[chain.index(node) :], node]
        if node in done:
            return []
        for following in sorted(graph.get(node, ())):
            if found := visit(following, [*chain, node]):
                return found
        done.add(node)
        return []

    return next(filter(None, (visit(node, []) for node in sorted(graph))), [])


def _longest_chain(graph: Mapping[str, Collection[str]]) -> int:
    """Nodes on the longest path; the graph must have no circle."""

    @functools.cache
    def length(node: str) -> int:
        return 1 + max((length(following) for following in graph.get(node, ())), default=0)

    return max(map(length, graph))


def _between(graph: Mapping[str, Collection[str]], room_of: Callable[[str], str | None]):
    """The rooms that each room imports from; modules whose room is None stay out."""
    rooms: dict[str, set[str]] = {room: set() for room in map(room_of, graph) if room}
    for importer, imported in graph.items():
        if room := room_of(importer):
            rooms[room] |= {other for other in map(room_of, imported) if other} - {room}
    return rooms


def _offences(graph: Mapping[str, Collection[str]], room_of, importer: str, imported: str):
    """Edges 'a -> b' from one room into another (or, for commands, between themselves)."""
    return sorted(
        f"{a} -> {b}"
        for a, targets in graph.items()
        for b in targets
        if room_of(a) == importer and room_of(b) == imported
    )


def _runners_room(module: str) -> str | None:
    """The package of a module of runners, or "commands"; None for all others."""
    parts = module.split(".")
    if parts[0] != "runners" or len(parts) == 1:
        return None
    is_package = (ROOT / "runners" / parts[1]).is_dir()
    return "commands" if parts[-1] == "__main__" or not is_package else parts[1]


def _arch_room(module: str) -> str | None:
    """Which of the parts of arch a module belongs to; None for all others and arch itself."""
    parts = module.split(".")
    if parts[0] != "arch" or len(parts) == 1:
        return None
    return parts[1] if parts[1] in ARCH else "mixers"


# Commands are the files that stand directly in runners, and the __main__ of a package. What each
# may import, below it in the order; itself is understood, except that no command imports another.
RUNNERS = {
    "commands": {
        *("study", "training", "leaderboard", "benchmark", "probe", "generate", "evaluate", "core")
    },
    "study": {"training", "core"},
    "probe": {"leaderboard", "training", "core"},
    "generate": {"leaderboard", "training", "core"},
    "evaluate": {"leaderboard", "training", "core"},
    "training": {"core"},
    "leaderboard": {"core"},
    "benchmark": {"core"},
    "core": set(),
}
# The contract, the layers, the architectures, the model around them.
ARCH = {
    "interface": set(),
    "registry": {"interface"},
    "nn": {"interface"},
    "recurrent": {"interface", "nn"},
    "mixers": {"interface", "registry", "nn", "recurrent"},
    "model": {"interface", "registry", "nn"},
}


def _forbidden(order: Mapping[str, set[str]]) -> list[tuple[str, str]]:
    pairs = [(a, b) for a in order for b in order if a != b and b not in order[a]]
    return pairs + [("commands", "commands")] * ("commands" in order)


@pytest.mark.parametrize(("importer", "imported"), _forbidden(RUNNERS))
def test_order_of_the_packages_of_runners(importer, imported):
    assert not _offences(GRAPH, _runners_room, importer, imported)


@pytest.mark.parametrize(("importer", "imported"), _forbidden(ARCH))
def test_order_of_the_parts_of_arch(importer, imported):
    assert not _offences(GRAPH, _arch_room, importer, imported)


def test_every_room_is_known():
    assert set(_between(GRAPH, _runners_room)) <= set(RUNNERS)
    assert set(_between(GRAPH, _arch_room)) == set(ARCH)


def test_a_mixer_imports_of_another_only_mixers():
    """A class that it extends or holds; a mere helper belongs into arch/nn."""
    mixers = {name for name in MODULES if _arch_room(name) == "mixers"}
    for name in mixers:
        for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module == "arch":
                assert not {f"arch.{alias.name}" for alias in node.names} & mixers, name
            if isinstance(node, ast.ImportFrom) and node.module in mixers:
                for alias in node.names:
                    cls = getattr(importlib.import_module(node.module), alias.name)
                    assert isinstance(cls, type), f"{name} imports {alias.name}"
                    assert issubclass(cls, arch.SequenceMixer), f"{name} imports {alias.name}"


def test_no_circle_of_modules():
    assert not _circle(GRAPH)


def test_chain_of_packages_is_short():
    rooms = _between(GRAPH, _runners_room)
    assert not _circle(rooms)
    assert _longest_chain(rooms) <= 6


def _users(graph: Mapping[str, Collection[str]], module: str, room_of) -> set[str]:
    """The rooms that use a module of core, directly or through other modules of core."""
    users, seen, todo = set(), {module}, [module]
    while todo:
        imported = todo.pop()
        for importer in graph:
            if imported in graph[importer] and importer not in seen:
                seen.add(importer)
                if room_of(importer) == "core":
                    todo.append(importer)
                elif room_of(importer):
                    users.add(room_of(importer))
    return users


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith("runners.core.")])
def test_core_is_shared(module):
    users = _users(GRAPH, module, _runners_room)
    assert len(users) >= 2, f"{module} is used by {', '.join(users) or 'nobody'} alone: move it"


class TestTheCheckers:
    """Each finds what it is there to find, and nothing else."""

    def test_edges(self):
        source = (
            "from typing import TYPE_CHECKING\nimport a.b\nfrom a import c, number\n"
            "if TYPE_CHECKING:\n    from a.d import e\ndef f():\n    import g\n"
        )
        modules = {"a", "a.b", "a.c", "a.d", "g", "unused"}
        assert _edges(source, modules) == modules - {"unused"}
        assert _edges("from a import c", modules) == {"a.c"}

    def test_circles_and_chains(self):
        line = {"a": {"b"}, "b": {"c"}, "c": set(), "d": {"c"}}
        assert _circle(line) == []
        assert _longest_chain(line) == 3
        assert _circle(line | {"c": {"b"}}) == ["b", "c", "b"]

    def test_offences(self):
        graph = {
            "runners.sweep": {"runners.train", "runners.study.plan"},
            "runners.study.plan": {"runners.training.loop", "runners.benchmark.__main__"},
        }
        found = [pair for pair in _forbidden(RUNNERS) if _offences(graph, _runners_room, *pair)]
        assert found == [("study", "commands"), ("commands", "commands")]

    def test_users_of_core(self):
        graph = {
            "runners.core.a": set(),
            "runners.core.b": {"runners.core.a"},
            "runners.study.c": {"runners.core.b"},
            "runners.sweep": {"runners.core.a"},
        }
        assert _users(graph, "runners.core.a", _runners_room) == {"study", "commands"}
        assert _users(graph, "runners.core.b", _runners_room) == {"study"}
