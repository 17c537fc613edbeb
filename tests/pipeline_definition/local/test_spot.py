"""Hosts that are taken away or break: the same job goes on from its checkpoint on new ones."""

import os
import signal
from typing import Any

import pytest

from tests.pipeline_definition.local.conftest import World, training_arguments, until


def counting(name: str, **changes: Any) -> dict[str, Any]:
    return training_arguments(
        HyperParameters={"do": "count", "to": "12", "pause": "0.15"},
        CheckpointConfig={"S3Uri": f"s3://bucket/{name}"},
        StoppingCondition={"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 120},
        **changes,
    )


def ended(world: World, name: str) -> Any:
    job = world.sagemaker.describe_training_job(TrainingJobName=name)
    return job if job["TrainingJobStatus"] != "InProgress" else None


def interrupt(world: World, name: str, number: signal.Signals) -> None:
    """End the job's program once two of its checkpoints are in S3."""
    until(lambda: f"{name}/002/manifest.json" in world.keys(name))
    program = next(p for p in world.processes() if "train" in p.cmdline() and name in p.environ()["TRAINING_JOB_NAME"])
    os.kill(program.pid, number)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, None], ids=["sigkill", "sigterm", "switch"])
def test_an_interrupted_spot_job_goes_on_from_its_checkpoint(
    world: World, number: signal.Signals | None, request: pytest.FixtureRequest
) -> None:
    name = f"spot-{request.node.callspec.id}"
    world.turn(spot_interruptions=0 if number else 1)
    world.sagemaker.create_training_job(TrainingJobName=name, EnableManagedSpotTraining=True, **counting(name))
    if number:
        interrupt(world, name, number)
    job = until(lambda: ended(world, name), 60)
    assert job["TrainingJobStatus"] == "Completed"
    assert [item["Status"] for item in job["SecondaryStatusTransitions"]].count("Interrupted") == 1
    logs = world.folder / "runs" / "jobs" / name
    assert "from 0" in (logs / "attempt-1" / "algo-1.log").read_text()
    assert int((logs / "algo-1.log").read_text().split("from ")[1].split()[0]) >= (2 if number else 1)
    assert f"{name}/012/manifest.json" in world.keys(name)


def test_an_interrupted_job_on_instances_that_stay_is_a_lost_host(world: World) -> None:
    world.sagemaker.create_training_job(TrainingJobName="stays", **counting("stays"))
    interrupt(world, "stays", signal.SIGKILL)
    job = until(lambda: ended(world, "stays"), 60)
    assert job["TrainingJobStatus"] == "Failed"
    assert "the host was lost (SIGKILL)" in job["FailureReason"]


def test_a_job_with_a_retry_strategy_goes_on_where_its_host_was_lost(world: World) -> None:
    strategy = {"MaximumRetryAttempts": 1}
    world.sagemaker.create_training_job(TrainingJobName="again", RetryStrategy=strategy, **counting("again"))
    interrupt(world, "again", signal.SIGKILL)
    job = until(lambda: ended(world, "again"), 60)
    assert job["TrainingJobStatus"] == "Completed"
    assert [item["Status"] for item in job["SecondaryStatusTransitions"]].count("Restarting") == 1
