"""What SageMaker says of a job that it could not run belongs to a check, and has a fix."""

import pytest

from params.programs.probe import FAILED, GOOD, ProbeLine
from pipeline_definition.probing.jobs import ProbeJob
from pipeline_definition.probing.run import ProbeOutcome, told_once, verdict_dict, verdict_lines
from pipeline_definition.runs.executions import ExecutionStep


@pytest.mark.parametrize(
    ("reason", "check"),
    [
        ("CapacityError: Unable to provision requested ML compute capacity. Please retry.", "capacity"),
        ("the job has not started or not ended after 2700 s: Starting", "capacity"),
        ("An error occurred (ResourceLimitExceeded) when calling the CreateTrainingJob operation", "quota"),
        (
            "An error occurred (AccessDeniedException): not authorized to perform: sagemaker:CreateEndpoint",
            "permission",
        ),
        ("An error occurred (ThrottlingException) when calling CreateProcessingJob: Rate exceeded", "throttling"),
        ("An error occurred (ValidationException): unknown member InstanceGroups", "request"),
        ("MaxRuntimeExceeded: the job ran longer than 1800 s", "time"),
        ("ClientError: Cannot pull the image 1.dkr.ecr.us-east-1.amazonaws.com/x:y", "image"),
        ("ClientError: fs-0123 has no folder '/fsx/latents'; FSx could not be mounted", "file_system"),
        ("AlgorithmError: exit code: 1", "job"),
    ],
)
def test_a_reason_belongs_to_a_check(reason: str, check: str) -> None:
    told = outcome()
    told.explain(reason)
    [line] = told.hosts[""]
    assert (line.check, line.status) == (check, FAILED)
    assert line.fix


def outcome(status: str = "Succeeded", **hosts: list[ProbeLine]) -> ProbeOutcome:
    job = ProbeJob("name", "Train", ("Train",), "training", {"ml.g5.xlarge": 2}, {})
    return ProbeOutcome(job, ExecutionStep("Train", status, failure_reason="CapacityError"), dict(hosts))


def test_a_host_without_a_result_is_named() -> None:
    ended = outcome(algo1=[ProbeLine("driver", "", GOOD, "fine")])
    ended.judge()
    assert "results" in [line.check for line in ended.hosts[""]]


def test_one_fault_on_two_hosts_is_told_once_with_both() -> None:
    line = ProbeLine("reads", "s3://b/k", FAILED, "AccessDenied", "allow it")
    [(places, told)] = told_once([outcome(one=[line], two=[line])], FAILED)
    assert (places, told) == (["Train one", "Train two"], line)


def test_the_verdict_ends_with_the_fix() -> None:
    failed = outcome("Failed")
    failed.judge()
    lines = list(verdict_lines([failed]))
    assert lines[-1].startswith("  fix: take another instance type or zone")
    assert verdict_dict([failed], [])["failed"] == 1


def test_what_could_not_be_removed_is_a_failure() -> None:
    sound = outcome()
    assert verdict_dict([sound], ["endpoint x: aws sagemaker delete-endpoint"])["failed"] == 1
