"""A pipeline parameter's name is written once."""

import ast
from pathlib import Path

import pytest

from params import parameter_names
from tests.pipeline_definition.definitions import PARAMETER_SETS, definition_of

# Members of AWS requests that are called as a parameter is.
REQUEST_MEMBERS = {"Bucket", "EndpointName", "ModelPackageGroup", "TrainingImage", "TrainingInstanceType"}
NAMES = {value for value in vars(parameter_names).values() if isinstance(value, str) and value.isalpha()}


def literals(source: str) -> set[str]:
    nodes = ast.walk(ast.parse(source))
    return {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}


@pytest.mark.parametrize("name", PARAMETER_SETS)
def test_no_file_but_one_spells_a_parameters_name(name: str) -> None:
    names = {parameter["Name"] for parameter in definition_of(name)["Parameters"]} - REQUEST_MEMBERS
    assert names & NAMES
    sources = [path for room in ("params", "pipeline_definition", "steps") for path in Path(room).rglob("*.py")]
    spelled = {
        (str(path), literal)
        for path in sources
        if path != Path("params/parameter_names.py")
        for literal in literals(path.read_text(encoding="utf-8")) & names
    }
    assert spelled == set()
