"""Requests are of SageMaker's shapes and ask for nothing that is not here, or are refused by what is wrong."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipeline_definition.jobs.request_shapes import service_model
from pipeline_definition.local.errors import DefinitionError, RefusedRequestError, StepFailureError
from pipeline_definition.local.request_checks import check_arguments_of, check_request, refuse_invalid
from tests.pipeline_definition.definitions import PARAMETER_SETS, definition_of
from tests.pipeline_definition.local.conftest import ROLE, processing, training_arguments

HONOURED = yaml.safe_load(Path("pipeline_definition/local/honoured.yaml").read_text())


def refused(operation: str, **request: Any) -> str:
    with pytest.raises(RefusedRequestError) as refusal:
        refuse_invalid(operation, request)
    assert refusal.value.code == "ValidationException"
    return refusal.value.message


def job(**changes: Any) -> dict[str, Any]:
    return {"ProcessingJobName": "job", **processing("A")["Arguments"], **changes}


def with_resources(**changes: Any) -> dict[str, Any]:
    cluster = {"InstanceCount": 1, "InstanceType": "ml.m5.large", "VolumeSizeInGB": 1, **changes}
    return {"ProcessingResources": {"ClusterConfig": cluster}}


@pytest.mark.parametrize("name", ["../s3", "..", "my_job", "-a", "a..b", "jöb", "a" * 64, "a/b", "", "a\n"])
def test_a_jobs_name_that_is_no_name_is_refused(name: str) -> None:
    assert "ProcessingJobName: " in refused("CreateProcessingJob", **job(ProcessingJobName=name))


@given(st.text(st.characters(codec="utf-8"), min_size=1))
def test_no_name_that_is_taken_leads_out_of_a_folder(name: str) -> None:
    try:
        refuse_invalid("CreateProcessingJob", job(ProcessingJobName=name))
    except RefusedRequestError:
        return
    assert Path(name).name == name and name not in ("..", ".") and len(name) <= 63


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"Environment": {"1 bad=key": "x"}}, "Environment.1 bad=key"),
        ({"Environment": {f"K{i}": "v" for i in range(101)}}, "Environment: Member must have length less than"),
        ({"Environment": {"K": "v" * 257}}, "Environment.K: Member must have length"),
        (with_resources(VolumeSizeInGB=0), "VolumeSizeInGB: Member must have value greater than or equal to 1"),
        (with_resources(InstanceCount=0), "InstanceCount: Member must have value greater than or equal to 1"),
        (with_resources(InstanceCount=True), "InstanceCount: expected a integer, got True"),
        (with_resources(InstanceCount="1"), "InstanceCount: expected a integer, got '1'"),
        ({"StoppingCondition": {"MaxRuntimeInSeconds": 777_601}}, "less than or equal to 777600"),
        ({"RoleArn": "x" * 30}, "RoleArn: Value"),
        ({"Enviroment": {}}, "unknown argument Enviroment; known: "),
        ({"ExperimentConfig": {"ExperimentName": "mine"}}, r"ExperimentConfig (mine) is not supported on this machine"),
    ],
)
def test_what_a_processing_job_cannot_have_is_refused_by_its_place(changes: dict[str, Any], message: str) -> None:
    assert message in refused("CreateProcessingJob", **job(**changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"HyperParameters": {"k" * 257: "v"}}, "length less than or equal to 256"),
        ({"HyperParameters": {"k": "v" * 2501}}, "length less than or equal to 2500"),
        ({"HyperParameters": {f"k{i}": "v" for i in range(101)}}, "less than or equal to 100"),
        ({"TensorBoardOutputConfig": {"S3OutputPath": "s3://b/t"}}, "TensorBoardOutputConfig (s3://b/t) is not supp"),
        ({"ServerlessJobConfig": {"JobType": "FineTuning"}}, "ServerlessJobConfig (FineTuning) is not supported"),
    ],
)
def test_what_a_training_job_cannot_have_is_refused_by_its_place(changes: dict[str, Any], message: str) -> None:
    assert message in refused("CreateTrainingJob", **{"TrainingJobName": "job", **training_arguments(**changes)})


@pytest.mark.parametrize(
    ("operation", "request_of"),
    [
        ("StartPipelineExecution", {"ClientRequestToken": "x" * 129}),
        ("StartPipelineExecution", {"PipelineExecutionDisplayName": "my run 1"}),
        ("StartPipelineExecution", {"PipelineParameters": [{"Name": "X", "Value": "x" * 1025}]}),
        ("StartPipelineExecution", {"MlflowExperimentName": "mine"}),
        ("StartPipelineExecution", {"SelectiveExecutionConfig": {"SelectedSteps": [{"StepName": "A"}]}}),
        ("ListTrainingJobs", {"WarmPoolStatusEquals": "InUse"}),
        ("ListTrainingJobs", {"SortBy": "Colour"}),
        ("ListTrainingJobs", {"MaxResults": 101}),
        ("CreateModelPackageGroup", {"ModelPackageGroupName": "bad_name"}),
        ("Search", {"Resource": "FeatureGroup"}),
    ],
)
def test_every_argument_is_honoured_or_refused_by_name(operation: str, request_of: dict[str, Any]) -> None:
    own = {"PipelineName": "p", "ClientRequestToken": "t" * 32} if operation.startswith("Start") else {}
    (name,) = request_of
    assert name in refused(operation, **{**own, **request_of})


def test_what_the_table_of_what_is_honoured_names_exists() -> None:
    for name, members in HONOURED["members"].items():
        assert set(members.split()) <= set(service_model().shape_for(name).members), name  # type: ignore[attr-defined]
    for name, words in HONOURED["words"].items():
        assert set(words.split()) <= set(service_model().shape_for(name).enum), name  # type: ignore[attr-defined]
    assert all(service_model().shape_for(name).type_name == "list" for name in HONOURED["lengths"])


@pytest.mark.parametrize("name", PARAMETER_SETS)
def test_the_projects_own_definitions_ask_for_nothing_that_is_not_here(name: str) -> None:
    definition = definition_of(name)
    parameters = {item["Name"]: item["Type"] for item in definition["Parameters"]}
    steps = [step for step in definition["Steps"] if step["Type"] in ("Processing", "Training", "Tuning", "Model")]
    assert steps
    for step in steps:
        check_arguments_of(step["Type"], step["Arguments"], parameters)


@pytest.mark.parametrize(("kind", "fits"), [("Float", False), ("Integer", False), ("Boolean", False), ("String", True)])
def test_a_parameter_has_the_type_of_its_place_before_anything_runs(kind: str, fits: bool) -> None:
    arguments = processing("A", {"Get": "Parameters.X"})["Arguments"]
    if fits:
        check_arguments_of("Processing", arguments, {"X": kind})
        return
    with pytest.raises(
        DefinitionError, match=rf"ContainerArguments\[0\]: the parameter Parameters.X is of type {kind}"
    ):
        check_arguments_of("Processing", arguments, {"X": kind})


def test_all_that_is_wrong_with_a_resolved_request_is_said_at_once() -> None:
    with pytest.raises(StepFailureError, match=r"CreateProcessingJob: .*RoleArn.*; .*Missing required parameter"):
        request = job(RoleArn="x")
        del request["AppSpecification"]
        check_request("CreateProcessingJob", request)
    assert ROLE
