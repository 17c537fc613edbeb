"""Every test that docs/reliability.md names is there, and runs where the page says."""

import ast
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import pytest

PAGE = Path("docs/reliability.md")
TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


class Row(NamedTuple):
    """A row of the page's tables."""

    promise: str
    fault: str
    tests: tuple[tuple[str, str], ...]
    """(file, name) of each."""
    found: str
    target: str
    """test or chaos."""


def rows(text: str) -> Iterator[Row]:
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and cells[0] not in ("promise", "---"):
            promise, fault, tests, found, target = cells
            yield Row(promise, fault, tuple(TEST.findall(tests)), found, target)


ROWS = list(rows(PAGE.read_text(encoding="utf-8")))
NAMED = sorted({test for row in ROWS for test in row.tests})


@lru_cache
def collected(file: str) -> dict[str, bool]:
    """Return the tests that pytest collects from a file, each with whether it is marked `chaos`."""
    path = Path(file)
    if not (path.is_file() and path.name.startswith("test_")):
        return {}
    tree = ast.parse(path.read_text(encoding="utf-8"))
    marks = [node.value for node in tree.body if isinstance(node, ast.Assign) and _names(node) == ["pytestmark"]]
    everywhere = any("pytest.mark.chaos" in ast.unparse(mark) for mark in marks)
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return {
        node.name: everywhere or any("pytest.mark.chaos" in ast.unparse(mark) for mark in node.decorator_list)
        for node in functions
        if node.name.startswith("test_")
    }


def _names(node: ast.Assign) -> list[str]:
    return [target.id for target in node.targets if isinstance(target, ast.Name)]


def test_the_page_has_every_kind_of_fault() -> None:
    headings = re.findall(r"^## (.+)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert headings == ["Crashes", "Storage", "Training", "Endpoint", "Hostile input", "Access", "Long haul"]
    assert len(ROWS) > 40


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.promise)
def test_a_promise_has_a_fault_a_test_and_a_finding_and_runs_where_it_says(row: Row) -> None:
    assert row.tests and row.fault and row.found
    slow = {collected(file).get(name) for file, name in row.tests}
    assert slow == {row.target == "chaos"}, f"in {row.target}?"


@pytest.mark.parametrize(("file", "name"), NAMED, ids=lambda part: part)
def test_a_test_that_the_page_names_is_collected(file: str, name: str) -> None:
    assert name in collected(file)


def test_every_chaos_test_has_a_row() -> None:
    every = {
        (str(path), name)
        for path in Path("tests").rglob("test_*.py")
        for name, slow in collected(str(path)).items()
        if slow
    }
    assert every - set(NAMED) == {
        # Not a fault: the same training as from encoded latents, and the plan of its rows.
        ("tests/steps/test_train_online.py", "test_it_trains_the_same_model_as_from_encoded_latents"),
        ("tests/steps/test_train_online.py", "test_the_limited_latents_plan_every_row"),
    }


def test_a_test_that_is_not_there_would_be_missed() -> None:
    assert "test_nothing_grows" in collected("tests/chaos/test_long_haul.py")
    assert "test_nothing_shrinks" not in collected("tests/chaos/test_long_haul.py")
    assert collected("tests/chaos/conftest.py") == collected("tests/nowhere/test_a.py") == {}
