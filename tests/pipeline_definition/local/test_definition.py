import json
from typing import Any

import pytest

from pipeline_definition.local.definition import parse_definition
from pipeline_definition.local.errors import DefinitionError
from tests.pipeline_definition.local.conftest import processing, training


def text(*steps: dict[str, Any], **top: Any) -> str:
    return json.dumps({"Version": "2020-12-01", "Metadata": {}, "Parameters": [], "Steps": list(steps), **top})


def condition(name: str, conditions: list[Any], if_steps: list[Any], else_steps: list[Any]) -> dict[str, Any]:
    arguments = {"Conditions": conditions, "IfSteps": if_steps, "ElseSteps": else_steps}
    return {"Name": name, "Type": "Condition", "Arguments": arguments}


def test_steps_depend_on_what_they_refer_to_and_on_what_they_name() -> None:
    second = training("B", arguments={"HyperParameters": {"a": {"Get": "Steps.A.ProcessingJobName"}}})
    third = processing("C", DependsOn=["B"])
    steps = parse_definition(text(processing("A"), second, third)).steps
    assert steps["B"].dependencies == {"A": "Completed"}
    assert steps["C"].dependencies == {"B": "Completed"}


def test_steps_of_a_branch_know_their_side() -> None:
    equal = {"Type": "Equals", "LeftValue": 1, "RightValue": 1}
    steps = parse_definition(text(condition("Gate", [equal], [processing("Yes")], [processing("No")]))).steps
    assert steps["Yes"].branch and steps["Yes"].branch.outcome is True
    assert steps["No"].branch and steps["No"].branch.outcome is False
    assert steps["Gate"].branch is None


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (
            [{"Name": "X", "Type": "Trainin", "Arguments": {}}],
            "step 'X': unknown type of step 'Trainin'; did you mean Training",
        ),
        ([processing("X", {"Std:Split": {}})], "step 'X': unknown function 'Std:Split'"),
        ([processing("X", {"Std:Join": {"On": "", "Value": []}})], r"Std:Join: arguments \['On', 'Value'\]"),
        ([processing("X", {"Get": "Parameters.Missing"})], "no parameter 'Missing'"),
        ([processing("X", {"Get": "Execution.Missing"})], "unknown execution variable"),
        ([processing("X", {"Get": "Steps.Missing.Arn"})], "refers to step 'Missing', which does not exist"),
        ([processing("X", arguments={"Enviroment": {}})], "unknown argument Enviroment; known: .*Environment"),
        ([training("X", arguments={"ResourceConfig": {"Count": 1}})], r"unknown argument ResourceConfig\.Count"),
        ([processing("X", Caching=True)], "unknown key 'Caching'"),
        ([processing("X"), processing("X")], "step name 'X' is used twice"),
        ([processing("X", DependsOn=["Y"]), processing("Y", DependsOn=["X"])], "circle"),
        ([processing("X", CacheConfig={"Enabled": True, "ExpireAfter": "30 days"})], "not an ISO 8601 duration"),
        (
            [processing("X", RetryPolicies=[{"ExceptionType": ["Step.BAD"]}])],
            "RetryPolicies: ExceptionType.*'Step.BAD'",
        ),
        ([condition("X", [{"Type": "Like"}], [], [])], "unknown condition 'Like'"),
        ([condition("X", [{"Type": "Equals", "Left": 1}], [], [])], r"condition Equals: arguments \['Left'\]"),
        ([{"Name": "X", "Type": "Fail", "Arguments": {"Message": ""}}], "unknown argument 'Message'"),
    ],
)
def test_what_is_not_known_is_an_error_that_names_it(steps: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        parse_definition(text(*steps))


def test_a_property_file_must_exist() -> None:
    reference = {"Std:JsonGet": {"PropertyFile": {"Get": "Steps.A.PropertyFiles.Metrics"}, "Path": "x"}}
    with pytest.raises(DefinitionError, match="no property file 'Metrics' of 'A'"):
        parse_definition(text(processing("A"), processing("B", reference)))


@pytest.mark.parametrize(
    "broken", ["{", "[]", "[" * 100_000, '{"Steps": {}}', '{"Steps": [1]}', '{"Steps": [], "Step": 1}']
)
def test_what_is_no_definition_is_refused(broken: str) -> None:
    with pytest.raises(DefinitionError):
        parse_definition(broken)
