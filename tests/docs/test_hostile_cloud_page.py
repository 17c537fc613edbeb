"""The table of docs/operations.md about the hostile cloud: every switch, in words of the source."""

import ast
import re
from pathlib import Path

import pytest

from params.cloud import Cloud

ROWS = re.findall(r"^\| `(\w+)` \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", Path("docs/operations.md").read_text(), re.M)
TABLE = {name: (aws, pipeline, probe) for name, aws, pipeline, probe in ROWS if name in Cloud.model_fields}


def texts() -> str:
    """Return every text of the source, pieces that stand side by side joined, and what it reads as data."""
    paths = [path for room in ("pipeline_definition", "steps") for path in Path(room).rglob("*.py")]
    nodes = (node for path in paths for node in ast.walk(ast.parse(path.read_text())))
    words = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return "\n".join((*words, Path("pipeline_definition/checks/fixes.yaml").read_text()))


@pytest.fixture(scope="module")
def source() -> str:
    return texts()


def test_every_switch_is_on_the_page() -> None:
    assert list(TABLE) == list(Cloud.model_fields)


@pytest.mark.parametrize("switch", Cloud.model_fields)
def test_what_the_pipeline_says_is_what_the_source_says(switch: str, source: str) -> None:
    quoted = re.findall(r'"([^"]+)"', TABLE[switch][1])
    assert quoted or TABLE[switch][1].startswith("nothing")
    assert [words for words in quoted if words not in source] == []
