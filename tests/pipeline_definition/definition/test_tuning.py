"""Trials on spot instances or not; each definition is one that the API takes."""

import json
from typing import Any

import botocore.session
import pytest
from botocore.validate import ParamValidator

from params.settings import SettingsError, parse_settings
from pipeline_definition.definition.pipeline import build_definition
from tests.pipeline_definition.definitions import PARAMETER_SETS, all_steps, at_defaults, defaults_of, definition_of


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


@pytest.mark.parametrize("name", PARAMETER_SETS)
def test_trials_ask_for_no_warm_pool(name: str) -> None:
    """A tuning job runs its trials on the hosts that it has."""
    assert "KeepAlivePeriodInSeconds" not in json.dumps(definition_of(name))


def test_a_trial_whose_host_broke_runs_again_rather_than_be_left_out() -> None:
    assert trial("")["RetryStrategy"] == {"MaximumRetryAttempts": 3}


def test_the_key_of_an_earlier_release_is_refused_with_the_fix() -> None:
    with pytest.raises(SettingsError, match=r"tune.keep_alive_s is gone: .* asks for no warm pool; remove the line"):
        parse_settings("tune: {keep_alive_s: 60}", "x.yaml")


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
