"""Trials on spot instances or in warm pools; each definition is one that the API takes."""

from __future__ import annotations

import json
from typing import Any

import botocore.session
import pytest
from botocore.validate import ParamValidator

from params.settings import SettingsError, parse_settings
from pipeline_definition.definition.pipeline import build_definition
from tests.pipeline_definition.definitions import all_steps, at_defaults, defaults_of


def trial(text: str) -> dict[str, Any]:
    """Return the trials' definition of a parameter set, checked against the API's own shape."""
    definition = json.loads(build_definition(parse_settings(text, "x.yaml")))
    request = at_defaults(all_steps(definition)["Tune"]["Arguments"], defaults_of(definition))
    request["HyperParameterTuningJobName"] = "name"
    model = botocore.session.get_session().get_service_model("sagemaker")
    report = ParamValidator().validate(request, model.operation_model("CreateHyperParameterTuningJob").input_shape)
    assert not report.has_errors(), report.generate_report()
    found: dict[str, Any] = request["TrainingJobDefinition"]
    return found


def test_spot_trials_save_checkpoints_to_go_on_from() -> None:
    found = trial("tune: {spot: true, save_every_samples: 40960, max_wait_s: 50000, training_samples: 409600}")
    assert found["EnableManagedSpotTraining"] is True
    assert found["CheckpointConfig"]["S3Uri"].endswith("/checkpoints/laion/tuning")
    assert found["StaticHyperParameters"]["save_every_samples"] == "40960"
    assert found["StoppingCondition"] == {"MaxRuntimeInSeconds": 14400, "MaxWaitTimeInSeconds": 50000}
    assert "KeepAlivePeriodInSeconds" not in found["ResourceConfig"]


def test_a_warm_pool_keeps_a_trials_hosts_for_the_next() -> None:
    found = trial("tune: {keep_alive_s: 600, training_samples: 409600}")
    assert found["ResourceConfig"]["KeepAlivePeriodInSeconds"] == 600
    assert "CheckpointConfig" not in found and not found.get("EnableManagedSpotTraining")
    assert found["StaticHyperParameters"]["save_every_samples"] == "409600"


def test_a_trial_whose_host_broke_runs_again_rather_than_be_left_out() -> None:
    assert trial("")["RetryStrategy"] == {"MaximumRetryAttempts": 3}


def test_spot_instances_are_not_kept_warm() -> None:
    with pytest.raises(SettingsError, match="keep_alive_s: SageMaker keeps no spot instances warm"):
        parse_settings("tune: {spot: true, keep_alive_s: 60}", "x.yaml")


@pytest.mark.parametrize("name", ["Tune", "Train"])
def test_capacity_faults_and_throttling_are_tried_again(name: str) -> None:
    definition = json.loads(build_definition(parse_settings("", "x.yaml")))
    kinds = {kind for policy in all_steps(definition)[name]["RetryPolicies"] for kind in policy["ExceptionType"]}
    assert kinds == {
        "Step.SERVICE_FAULT",
        "Step.THROTTLING",
        "SageMaker.CAPACITY_ERROR",
        "SageMaker.RESOURCE_LIMIT",
        "SageMaker.JOB_INTERNAL_ERROR",
    }


def test_trials_of_a_smaller_batch_hand_train_the_batch_of_their_rate() -> None:
    text = "tune: {global_batch_size: 256, micro_batch_size: [16, 32]}"
    found = trial(text)["StaticHyperParameters"]
    assert (found["global_batch_size"], found["learning_rate_batch_size"]) == ("256", "0")
    definition = json.loads(build_definition(parse_settings(text, "x.yaml")))
    assert all_steps(definition)["Train"]["Arguments"]["HyperParameters"]["learning_rate_batch_size"] == "256"
