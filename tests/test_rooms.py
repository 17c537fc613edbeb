"""The house stands: rooms form no circle, and nobody reads through more than 17 files to follow one import."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGES = ("params", "pipeline_definition", "steps", "shapes")
SOURCES = {
    ".".join(path.with_suffix("").parts).removesuffix(".__init__"): path.read_text(encoding="utf-8")
    for package in PACKAGES
    for path in Path(package).rglob("*.py")
}
LONGEST_CHAIN = 17


def statements(nodes: Iterable[ast.AST], at_import: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    """Yield import statements: all, or those that run when the module itself is imported."""
    for node in nodes:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif not at_import or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            typing_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
            inside = (
                node.orelse if at_import and isinstance(node, ast.If) and typing_only else ast.iter_child_nodes(node)
            )
            yield from statements(inside, at_import)


def imports(sources: Mapping[str, str], at_import: bool) -> dict[str, set[str]]:
    """Return by module the modules of these sources that it imports."""
    graph: dict[str, set[str]] = {}
    for module, source in sources.items():
        names = [
            name
            for statement in statements(ast.parse(source).body, at_import)
            for name in (
                [f"{statement.module}.{alias.name}" for alias in statement.names]
                if isinstance(statement, ast.ImportFrom)
                else [alias.name for alias in statement.names]
            )
        ]
        known = {name if name in sources else name.rpartition(".")[0] for name in names}
        graph[module] = known & sources.keys() - {module}
    return graph


def room_of(module: str) -> str:
    """Return `pipeline_definition.checks` for a module of it, `steps` for one of another package."""
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] == "pipeline_definition" else parts[0]


def circle_of_rooms(sources: Mapping[str, str]) -> list[str]:
    """Return the rooms of a circle of imports, also lazy ones and those for types alone; empty where there is none."""
    rooms: dict[str, set[str]] = {}
    for module, imported in imports(sources, at_import=False).items():
        room = room_of(module)
        rooms.setdefault(room, set()).update({room_of(name) for name in imported} - {room})
    try:
        TopologicalSorter(rooms).prepare()
    except CycleError as error:
        return [str(room) for room in error.args[1]]
    return []


def longest_chain(sources: Mapping[str, str]) -> list[str]:
    """Return the longest chain of files that import each other when they are imported, the importer first."""
    graph = imports(sources, at_import=True)
    chains: dict[str, list[str]] = {}
    for module in TopologicalSorter(graph).static_order():
        chains[module] = [module, *max((chains[name] for name in graph[module]), key=len, default=[])]
    return max(chains.values(), key=len)


def test_no_rooms_import_each_other_in_a_circle() -> None:
    circle = circle_of_rooms(SOURCES)
    assert not circle, f"rooms import each other in a circle, {' <- '.join(circle)}: move what they share down"


def test_no_chain_of_imports_is_longer_than_17_files() -> None:
    chain = longest_chain(SOURCES)
    assert len(chain) <= LONGEST_CHAIN, f"{len(chain)} files import each other in a row:\n" + "\n".join(chain)


@pytest.mark.parametrize(
    "back",
    [
        "import pipeline_definition.cost.a",
        "def f():\n    from pipeline_definition.cost.a import x",
        "if TYPE_CHECKING:\n    from pipeline_definition.cost import a",
    ],
)
def test_a_circle_of_rooms_is_seen_however_it_is_imported(back: str) -> None:
    sources = {
        "pipeline_definition.cost.a": "from pipeline_definition.jobs.b import y",
        "pipeline_definition.jobs.b": back,
    }
    assert set(circle_of_rooms(sources)) == {"pipeline_definition.cost", "pipeline_definition.jobs"}
    assert circle_of_rooms({**sources, "pipeline_definition.jobs.b": ""}) == []


def test_a_chain_counts_what_runs_at_import_and_nothing_else() -> None:
    lazy = "def f():\n    import steps.d\nif TYPE_CHECKING:\n    import steps.d"
    sources = {"steps.a": "from steps import b", "steps.b": "try:\n    import steps.c\nfinally: ...", "steps.c": lazy}
    assert longest_chain({**sources, "steps.d": ""}) == ["steps.a", "steps.b", "steps.c"]
