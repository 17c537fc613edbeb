import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline_definition.local.cache import CachedResult, StepCache, cache_key
from pipeline_definition.local.definition import DefinedStep, parse_definition, parse_duration_s
from pipeline_definition.local.errors import DefinitionError
from tests.pipeline_definition.definitions import all_steps, at_defaults, defaults_of, definition_of
from tests.pipeline_definition.local.conftest import processing, s3_input, s3_output, training

RESULT = CachedResult("arn:first", time.time(), {"ProcessingJobName": "first"}, {})


def only_step(source: dict[str, Any], expires: str | None = "PT1H") -> DefinedStep:
    cache = {"Enabled": True, "ExpireAfter": expires} if expires else {"Enabled": False}
    return next(iter(parse_definition(json.dumps({"Steps": [{**source, "CacheConfig": cache}]})).steps.values()))


def found(folder: Path, first: dict[str, Any], second: dict[str, Any]) -> bool:
    cache = StepCache(folder, "pipeline")
    cache.keep(only_step(first), first["Arguments"], RESULT)
    return cache.find(only_step(second), second["Arguments"]) is not None


def test_the_same_arguments_are_found_with_their_properties(tmp_path: Path) -> None:
    step = processing("A", "--x", "1")
    cache = StepCache(tmp_path, "pipeline")
    cache.keep(only_step(step), step["Arguments"], RESULT)
    assert StepCache(tmp_path, "pipeline").find(only_step(step), step["Arguments"]) == RESULT


@pytest.mark.parametrize(
    "changes",
    [
        {"instances": 4},
        {"arguments": {"ProcessingOutputConfig": {"Outputs": [s3_output("out", "s3://bucket/elsewhere")]}}},
        {"arguments": {"RoleArn": "arn:aws:iam::123456789012:role/another"}},
    ],
)
def test_what_is_not_a_key_attribute_does_not_run_a_step_again(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert found(tmp_path, processing("A", "1"), processing("A", "1", **changes))


@pytest.mark.parametrize(
    "second",
    [
        processing("A", "2"),
        processing("B", "1"),
        processing("A", "1", arguments={"Environment": {"A": "B"}}),
        processing("A", "1", arguments={"ProcessingInputs": [s3_input("in", "s3://bucket/in")]}),
    ],
)
def test_a_key_attribute_or_another_step_runs_again(tmp_path: Path, second: dict[str, Any]) -> None:
    assert not found(tmp_path, processing("A", "1"), second)


def test_training_depends_on_its_checkpoints_and_not_on_its_instances(tmp_path: Path) -> None:
    first = training("A", arguments={"CheckpointConfig": {"S3Uri": "s3://bucket/a"}})
    other = training("A", arguments={"CheckpointConfig": {"S3Uri": "s3://bucket/b"}})
    more = training("A", arguments={"CheckpointConfig": {"S3Uri": "s3://bucket/a"}, "instances": 8})
    assert found(tmp_path, first, more)
    assert not found(tmp_path, first, other)


def test_an_expired_result_and_a_disabled_cache_are_not_taken(tmp_path: Path) -> None:
    step = processing("A")
    cache = StepCache(tmp_path, "pipeline")
    old = CachedResult("arn:old", time.time() - 3601, {}, {})
    cache.keep(only_step(step), step["Arguments"], old)
    assert cache.find(only_step(step), step["Arguments"]) is None
    assert cache.find(only_step(step, "PT2H"), step["Arguments"]) == old
    assert cache.find(only_step(step, None), step["Arguments"]) is None
    assert StepCache(tmp_path, "another").find(only_step(step, "PT2H"), step["Arguments"]) is None


@given(st.integers(0, 999), st.integers(0, 99), st.integers(0, 9999))
def test_durations_add_up(days: int, hours: int, minutes: int) -> None:
    assert parse_duration_s(f"P{days}DT{hours}H{minutes}M") == days * 86_400 + hours * 3600 + minutes * 60


@pytest.mark.parametrize("text", ["", "P", "PT", "30D", "P1", "P1DT", "1H", "P-1D"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(DefinitionError):
        parse_duration_s(text)


@pytest.mark.parametrize("name", ["local", "octank_100gb", "sd2_base"])
def test_another_number_of_gpus_trains_anew_and_takes_the_rest_from_the_cache(name: str) -> None:
    definition = definition_of(name)
    steps, defaults = all_steps(definition), defaults_of(definition)
    recomputed = []
    for step_name, step in steps.items():
        if "CacheConfig" not in step:
            continue
        few, many = (
            cache_key(step["Type"], at_defaults(step["Arguments"], {**defaults, "TrainingInstanceCount": count}))
            for count in (2, 8)
        )
        if few != many:
            recomputed.append(step_name)
    # Evaluate follows: its input is the model, whose address names the training job.
    assert recomputed == ["Train"]
    assert steps["Evaluate"]["CacheConfig"]["Enabled"]
