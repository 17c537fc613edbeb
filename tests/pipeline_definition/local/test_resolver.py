import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline_definition.local.definition import parse_definition
from pipeline_definition.local.errors import DefinitionError, StepFailureError
from pipeline_definition.local.expressions import Quoted, referenced_steps, split_path
from pipeline_definition.local.resolver import Resolver, to_text, walk
from tests.pipeline_definition.local.conftest import processing, s3_output

METRICS = {"PropertyFileName": "Metrics", "OutputName": "out", "FilePath": "metrics.json"}
DEFINITION = parse_definition(
    json.dumps({"Parameters": [], "Steps": [processing("Evaluate", PropertyFiles=[METRICS])]})
)
NAMES = st.text("abcdefgh_-", min_size=1)
PLAIN = st.one_of(st.text("xyz/ ", max_size=5), st.integers(), st.floats(allow_nan=False), st.booleans())
VALUES = st.recursive(PLAIN, lambda v: st.lists(v, max_size=3) | st.dictionaries(NAMES, v, max_size=3))


def resolver(objects: dict[str, bytes] | None = None, **properties: Any) -> Resolver:
    def read(uri: str) -> bytes:
        if uri not in (objects or {}):
            raise StepFailureError(f"no object {uri}")
        return (objects or {})[uri]

    variables = {"PipelineExecutionId": "abc"}
    return Resolver(DEFINITION, {"Count": 3, "Rate": 0.5, "Flag": True}, variables, properties, read)


@given(VALUES)
def test_a_value_without_functions_is_itself(value: Any) -> None:
    assert resolver().resolve(value) == value


@given(st.lists(PLAIN, max_size=5), st.text(max_size=2))
def test_join_writes_its_values_as_texts(values: list[Any], on: str) -> None:
    joined = resolver().resolve({"Std:Join": {"On": on, "Values": values}})
    assert joined == on.join(to_text(value) for value in values)


def test_functions_are_resolved_at_any_depth() -> None:
    inner = {"Std:Join": {"On": "-", "Values": [{"Get": "Execution.PipelineExecutionId"}, {"Get": "Parameters.Flag"}]}}
    value = {"a": [{"b": inner}], "c": {"Get": "Parameters.Count"}, "d": {"Get": "Steps.Tune.Best['learning.rate']"}}
    resolved = resolver(Tune={"Best": {"learning.rate": "0.1"}}).resolve(value)
    assert resolved == {"a": [{"b": "abc-true"}], "c": 3, "d": "0.1"}


@given(st.lists(st.one_of(NAMES, st.integers(0, 3)), min_size=1, max_size=6))
def test_a_path_leads_to_what_it_was_made_for(elements: list[str | int]) -> None:
    value: Any = "here"
    for element in reversed(elements):
        value = {element: value} if isinstance(element, str) else [None] * element + [value]
    path = "".join(f"[{e}]" if isinstance(e, int) else f"['{e}']" for e in elements)
    assert walk(value, split_path(path), path) == "here"


def test_an_element_in_quotes_finds_a_lists_element_by_its_name() -> None:
    output = s3_output("raw", "s3://bucket/raw")
    path = "ProcessingOutputConfig.Outputs['raw'].S3Output.S3Uri"
    assert split_path(path)[2] == Quoted("raw")
    record = {"ProcessingOutputConfig": {"Outputs": [s3_output("other", "s3://x/y"), output]}}
    assert resolver(Download=record).resolve({"Get": f"Steps.Download.{path}"}) == "s3://bucket/raw"


def test_json_get_reads_a_property_file() -> None:
    properties = {"ProcessingOutputConfig": {"Outputs": [s3_output("out", "s3://bucket/eval/")]}}
    objects = {"s3://bucket/eval/metrics.json": b'{"metrics": {"fid": [{"value": 3.5}]}}'}
    source = {"PropertyFile": {"Get": "Steps.Evaluate.PropertyFiles.Metrics"}, "Path": "metrics.fid[0].value"}
    assert resolver(objects, Evaluate=properties).resolve({"Std:JsonGet": source}) == 3.5


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"Get": "Steps.Train.Arn"}, "step 'Train' has not finished"),
        ({"Get": "Steps.Done.Missing"}, "Steps.Done.Missing: there is no 'Missing'"),
        ({"Std:JsonGet": {"S3Uri": "s3://b/k", "Path": "x"}}, "no object s3://b/k"),
        ({"Std:JsonGet": {"S3Uri": "s3://b/text", "Path": "x"}}, "s3://b/text is not JSON"),
        ({"Std:JsonGet": {"S3Uri": "s3://b/json", "Path": "y"}}, "there is no 'y'"),
        ({"Std:Join": {"On": "", "Values": [[1]]}}, "is not a text or number"),
    ],
)
def test_what_cannot_be_resolved_is_named(value: Any, message: str) -> None:
    objects = {"s3://b/text": b"text", "s3://b/json": b'{"x": 1}'}
    with pytest.raises(StepFailureError, match=message):
        resolver(objects, Done={"Arn": "x"}).resolve(value)


def test_references_to_steps_are_found_in_functions_of_functions() -> None:
    value = [{"Std:Join": {"On": "", "Values": [{"Get": "Steps.A.X"}, {"Std:JsonGet": {"PropertyFile": "x"}}]}}]
    assert referenced_steps([*value, {"Get": "Steps.B['y']"}, {"Get": "Parameters.C"}]) == {"A", "B"}


@pytest.mark.parametrize("path", ["a..b", "a[", "a['x]", "a]b"])
def test_a_path_that_is_none_is_refused(path: str) -> None:
    with pytest.raises(DefinitionError):
        split_path(path)
