"""Imports run one way: no circle between modules, no arrow upwards between packages or between the floors of `runtime`.

The graph is drawn from the source. Imports inside functions count, those under TYPE_CHECKING do not. An import of a
submodule does not count as one of its package's `__init__`. The floors stand in docs/architecture.md.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.documentation import PAGES, ROOT

PACKAGES = ("kernels", "runtime", "export", "benchmarks")  # each may import those before it

# Arrows between packages that run upwards for a reason.
UPWARDS = {
    ("runtime.opening.building", "export.engine"),  # the process that builds a GPU's engines
    # A verb imports what it is the verb of.
    ("runtime.verbs.bundle", "export.verify"),
    ("runtime.verbs.crops", "export.untrained"),
    ("runtime.verbs.engine", "export.engine"),
    ("runtime.verbs.export", "export.bundle"),
    ("runtime.verbs.export", "export.fields"),
}

Graph = dict[str, set[str]]
NAME = "spinescore."


def modules_of(root: Path) -> dict[str, Path]:
    """The modules of the four packages by name without `spinescore.`; PyInstaller's hooks are no modules."""
    paths = [path for package in PACKAGES for path in (root / package).rglob("*.py") if "-" not in path.name]
    parts = {path: path.relative_to(root).with_suffix("").parts for path in paths}
    return {".".join(part for part in parts[path] if part != "__init__"): path for path in paths}


def public_homes(door: Path) -> dict[str, str]:
    """The module of each name that `spinescore.runtime` loads lazily, as its type checker's block imports them."""
    for node in ast.parse(door.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.If) and is_type_checking(node):
            lines = [line for line in node.body if isinstance(line, ast.ImportFrom)]
            return {alias.name: line.module.removeprefix(NAME) for line in lines for alias in line.names}
    return {}


def is_type_checking(node: ast.If) -> bool:
    return ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def imports(node: ast.AST) -> Iterator[str]:
    """Every dotted name that a syntax tree imports; of `from a import b` it is `a.b`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and is_type_checking(child):
            for other in child.orelse:
                yield from imports(ast.Module([other], []))
        elif isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "imports are absolute"
            yield from (f"{child.module}.{alias.name}" for alias in child.names)
        else:
            yield from imports(child)


def graph_of(root: Path) -> Graph:
    """The modules that each module imports."""
    modules = modules_of(root)
    homes = {f"runtime.{name}": module for name, module in public_homes(root / "runtime" / "__init__.py").items()}
    graph: Graph = defaultdict(set)
    for module, path in modules.items():
        for name in imports(ast.parse(path.read_text(encoding="utf-8"))):
            if not name.startswith(NAME):
                continue
            name = homes.get(name.removeprefix(NAME), name.removeprefix(NAME))
            target = name if name in modules else name.rpartition(".")[0]
            assert target in modules, f"{module} imports {name}, which is no module and of no module"
            if target != module:
                graph[module].add(target)
    return graph


def circles(graph: Graph) -> list[set[str]]:
    """The sets of modules that all reach one another (strongly connected components of two or more)."""
    reached: dict[str, set[str]] = {}
    for module in graph:
        seen, waiting = set(), [module]
        while waiting:
            for target in graph.get(waiting.pop(), ()):
                if target not in seen:
                    seen.add(target)
                    waiting.append(target)
        reached[module] = seen
    found = {frozenset(b for b in reached[a] if a in reached.get(b, ())) for a in graph if a in reached[a]}
    return [set(circle) for circle in found]


def floors() -> dict[str, int]:
    """The floor of each room of `runtime`, from docs/architecture.md."""
    rows = re.findall(r"^\| (\d) \| (.*) \|$", PAGES["docs/architecture.md"], re.MULTILINE)
    return {room: int(floor) for floor, rooms in rows for room in re.findall(r"`([a-z]+)`", rooms)}


def floor_of(module: str) -> int:
    return floors().get(module.split(".")[1] if "." in module else "", 0)


def upward(graph: Graph) -> set[tuple[str, str]]:
    """The arrows that run from a package to a higher one, or in `runtime` from a floor to a higher one."""
    found = set()
    for module, targets in graph.items():
        for target in targets:
            ours, theirs = (PACKAGES.index(name.split(".")[0]) for name in (module, target))
            if theirs > ours or (ours == theirs == PACKAGES.index("runtime") and floor_of(target) > floor_of(module)):
                found.add((module, target))
    return found


@pytest.fixture(scope="module")
def graph() -> Graph:
    return graph_of(ROOT)


def test_the_graph_is_that_of_the_source(graph):
    assert len(graph) > 200
    assert "runtime.scoring.report" in graph["runtime.outputs.rows"]
    assert "export.engine" in graph["runtime.opening.building"]  # inside a function
    assert "runtime.scorer" not in graph["runtime"]  # for type checkers alone


def test_modules_form_no_circle(graph):
    assert [sorted(circle) for circle in circles(graph)] == []


def test_no_arrow_runs_upwards(graph):
    arrows = upward(graph)
    assert sorted(arrows - UPWARDS) == []
    assert sorted(UPWARDS - arrows) == [], "these are mended: delete them from the list"


def test_every_room_has_a_floor():
    rooms = {path.parent.name for path in (ROOT / "runtime").glob("*/*.py")}
    assert rooms <= floors().keys()
    assert {room for room in floors() if not list((ROOT / "runtime").glob(f"{room}*"))} == set()


@pytest.fixture
def graph_with(tmp_path):
    """A function that writes modules, given as texts by name, into a tree of four packages, and draws its graph."""

    def write(texts: dict[str, str]) -> Graph:
        for name, text in ({f"{package}.__init__": "" for package in PACKAGES} | texts).items():
            path = tmp_path.joinpath(*name.split(".")).with_suffix(".py")
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        return graph_of(tmp_path)

    return write


def test_a_circle_through_a_function_is_seen(graph_with):
    late = "def late():\n    import spinescore.runtime.a\n"
    assert circles(graph_with({"runtime.a": "from spinescore.runtime import b", "runtime.b": late})) == [
        {"runtime.a", "runtime.b"}
    ]


def test_imports_for_type_checkers_are_not_seen(graph_with):
    typed = "if TYPE_CHECKING:\n    from spinescore.runtime.a import other\nname = 1\n"
    graph = graph_with({"runtime.a": "from spinescore.runtime.b import name", "runtime.b": typed})
    assert (graph, circles(graph)) == ({"runtime.a": {"runtime.b"}}, [])


def test_arrows_upwards_are_seen(graph_with):
    graph = graph_with({
        "export.bundle": "x = 1",
        "kernels.warp": "from spinescore.export.bundle import x",
        "runtime.scoring.report": "x = 1",
        "runtime.study": "from spinescore.runtime.scoring import report",
    })  # fmt: skip
    assert upward(graph) == {("kernels.warp", "export.bundle"), ("runtime.study", "runtime.scoring.report")}


def test_a_public_name_counts_as_its_home(graph_with):
    graph = graph_with({
        "runtime.__init__": "if TYPE_CHECKING:\n    from spinescore.runtime.scorer import Scorer\n",
        "runtime.scorer": "class Scorer: ...",
        "runtime.study": "from spinescore.runtime import Scorer",
    })  # fmt: skip
    assert graph == {"runtime.study": {"runtime.scorer"}}
