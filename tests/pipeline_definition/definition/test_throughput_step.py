"""The optional Throughput step: a job beside Tune on Train's hosts, that nobody takes for a training."""

from typing import Any

import botocore.session
import pytest
from botocore.validate import ParamValidator

from params.arguments import from_texts
from params.layout import TRAINING_METRICS
from params.programs import TrainArguments
from params.settings import Settings, parse_settings
from pipeline_definition.artifacts.collection import phase_steps
from pipeline_definition.checks.preflight import preflight
from pipeline_definition.cost.forecast import forecast
from pipeline_definition.jobs.planned import Values, planned_jobs
from tests.pipeline_definition.definitions import all_steps, at_defaults, built, defaults_of, definition_of

SET = """
file_system: {kind: s3}
throughput: {micro_batch_sizes: [32, 64], seconds_per_size: 20}
train: {compile: true, job: {instance_type: ml.p4d.24xlarge, instance_count: 2}}
tune: {micro_batch_size: [32]}
"""


@pytest.fixture(scope="module")
def settings() -> Settings:
    return parse_settings(SET, "x.yaml")


@pytest.fixture(scope="module")
def definition(settings: Settings) -> dict[str, Any]:
    return built(settings)


def test_without_the_section_there_is_no_such_step() -> None:
    assert "Throughput" not in all_steps(definition_of("local"))


def test_it_asks_for_the_sweep_on_trains_hosts(definition: dict[str, Any]) -> None:
    steps, parameters = all_steps(definition), defaults_of(definition)
    request = at_defaults(steps["Throughput"]["Arguments"], parameters)
    model = botocore.session.get_session().get_service_model("sagemaker").operation_model("CreateTrainingJob")
    report = ParamValidator().validate({**request, "TrainingJobName": "name"}, model.input_shape)
    assert not report.has_errors(), report.generate_report()
    asked = from_texts(TrainArguments, request["HyperParameters"], "hyperparameters")
    assert (asked.throughput_micro_batch_sizes, asked.throughput_s, asked.compile) == ((32, 64), 20.0, True)
    hosts = [steps[name]["Arguments"]["ResourceConfig"] for name in ("Throughput", "Train")]
    assert hosts[0] == hosts[1]
    assert steps["Throughput"]["DependsOn"] == ["Encode"]
    metrics = {item["Name"] for item in request["AlgorithmSpecification"]["MetricDefinitions"]}
    assert metrics >= set(TRAINING_METRICS)


def test_the_forecast_knows_it_for_what_it_is(settings: Settings, definition: dict[str, Any]) -> None:
    bill = forecast(settings, definition, {})
    line = next(line for line in bill.lines if line.step == "Throughput")
    assert line.what == "2 x ml.p4d.24xlarge: 2 micro-batch sizes"
    assert line.hours == pytest.approx((480 + 2 * (120 + 20)) / 3600)
    trainings = [job.step for job in planned_jobs(definition, Values(definition, {})) if job.program == "train"]
    assert trainings == ["Tune", "Train"]
    assert line.usd["spot"] == line.usd["on_demand"]


def test_it_is_no_phase_of_the_training(settings: Settings, definition: dict[str, Any]) -> None:
    assert phase_steps(definition) == [["Encode"], ["Train"]]
    assert not [finding for finding in preflight(settings, definition, {}) if "Throughput" in finding.problem]
