"""The probe's jobs: the requests of the steps themselves, with another program."""

from typing import Any

import botocore.session
import pytest
from botocore.validate import ParamValidator

from params.settings import load_settings
from pipeline_definition.definition.terms import with_terms
from pipeline_definition.jobs.planned import Values, planned_jobs
from pipeline_definition.probing.jobs import Probe, ProbeForecast, ProbeJob, base_name
from tests.pipeline_definition.definition.test_terms import PLAN, set_with
from tests.pipeline_definition.definitions import PARAMETER_SETS, definition_of

STEPS = {"TrainingJobName": "training", "ProcessingJobName": "processing"}


def probe_of(name: str, **changes: str) -> Probe:
    from pathlib import Path

    settings = load_settings(Path("params") / f"{name}.yaml")
    definition = definition_of(name)
    return Probe(settings, definition, Values(definition, changes), way_out="example.org")


def job_of(name: str, step: str, **changes: str) -> ProbeJob:
    return next(job for job in probe_of(name, **changes).jobs() if step in job.steps)


def request_of(job: ProbeJob) -> dict[str, Any]:
    return dict(next(iter(job.requests.values())))


@pytest.mark.parametrize("name", PARAMETER_SETS)
def test_every_request_is_one_that_sagemaker_takes(name: str) -> None:
    model: Any = botocore.session.Session().get_service_model("sagemaker")
    for job in probe_of(name).jobs():
        assert len(job.name) <= 63
        for operation, request in job.requests.items():
            shape = model.operation_model("".join(map(str.capitalize, operation.split("_")))).input_shape
            report = ParamValidator().validate(dict(request), shape)
            assert not report.has_errors(), report.generate_report()


@pytest.mark.parametrize("name", PARAMETER_SETS)
def test_every_step_and_instance_type_is_probed(name: str) -> None:
    probe = probe_of(name)
    planned = planned_jobs(probe.definition, probe.values)
    probed = {(job.kind, kind) for job in probe.jobs() for kind in job.hosts}
    assert {(job.kind, job.instance.name) for job in planned} == probed
    steps = {step for job in probe.jobs() for step in job.steps}
    assert {job.step for job in planned if job.kind != "endpoint"} | {"Endpoint"} == steps


def test_the_probe_runs_where_and_as_its_step_does() -> None:
    job = job_of("octank_100gb", "Train", TrainingInstanceCount="4")
    request = request_of(job)
    own = next(step for step in definition_of("octank_100gb")["Steps"] if step["Name"] == "Train")["Arguments"]
    assert request["RoleArn"] == own["RoleArn"]
    assert request["ResourceConfig"]["VolumeSizeInGB"] == own["ResourceConfig"]["VolumeSizeInGB"] == 500
    assert request["ResourceConfig"]["InstanceCount"] == 2
    assert request["AlgorithmSpecification"]["ContainerEntrypoint"] == ["python", "-m", "steps", "probe"]
    [channel] = request["InputDataConfig"]
    assert channel["DataSource"]["FileSystemDataSource"]["DirectoryPath"] == "/fsx/latents"
    assert "CheckpointConfig" not in request and "HyperParameters" not in request


def test_one_host_is_probed_where_a_step_has_one() -> None:
    assert request_of(job_of("octank_100gb", "Train"))["ResourceConfig"]["InstanceCount"] == 1


def test_a_set_without_a_file_system_mounts_none() -> None:
    request = request_of(job_of("sd2_heterogeneous", "Train"))
    assert "InputDataConfig" not in request
    assert "--latents-uri" not in request["AlgorithmSpecification"]["ContainerArguments"]


def test_encoders_in_the_training_job_are_probed_in_it() -> None:
    job = job_of("sd2_heterogeneous", "Train")
    assert job.hosts == {"ml.p4de.24xlarge": 2, "ml.g5.12xlarge": 2}


def test_download_alone_looks_for_a_way_out() -> None:
    looking = [job.steps for job in probe_of("octank_100gb").jobs() if "--way-out" in str(job.requests)]
    assert looking == [("Download",)]


def test_the_endpoint_has_the_host_image_of_the_pipelines_own() -> None:
    job = job_of("octank_100gb", "Endpoint")
    [variant] = job.requests["create_endpoint_config"]["ProductionVariants"]
    assert variant["InferenceAmiVersion"] == "al2023-ami-sagemaker-inference-gpu-4-1"
    assert "ModelDataUrl" not in job.requests["create_model"]["PrimaryContainer"]


def test_what_a_foreign_bucket_holds_is_read_too() -> None:
    assert "s3://others/table" in probe_of("octank_100gb", UrlTable="s3://others/table").reads


def test_names_of_long_pipelines_fit() -> None:
    assert base_name("a" * 255) == "sd-pipeline-probe-" + "a" * 18


def test_the_forecast_names_hosts_dollars_and_what_has_no_price() -> None:
    forecast = ProbeForecast(probe_of("smoke_aws").jobs(), "us-east-1")
    assert str(forecast).startswith("forecast: 11 minutes and $1.07; at most $2.92")
    elsewhere = str(ProbeForecast(probe_of("smoke_aws").jobs(), "eu-north-1"))
    assert "without Download, Encode+Evaluate, Tune+Train, Endpoint, whose price is not known" in elsewhere


def test_each_type_of_a_list_is_probed_by_itself() -> None:
    other = {"instance_preferences": [{"instance_type": "ml.p5.48xlarge"}]}
    settings = set_with(
        train={"job": {**other, "training_plan": PLAN}},
        endpoint={"job": {"instance_preferences": [{"instance_type": "ml.g6.2xlarge"}]}},
    )
    definition = with_terms(definition_of("octank_100gb"), settings)
    jobs = Probe(settings, definition, Values(definition, {})).jobs()
    hosts = [request_of(job)["ResourceConfig"] for job in jobs if job.kind == "training"]
    assert not any("InstancePreferences" in one for one in hosts)
    plans = {one["InstanceType"]: one.get("TrainingPlanArn") for one in hosts}
    assert set(plans) == {"ml.p4d.24xlarge", "ml.p5.48xlarge"} and plans["ml.p5.48xlarge"] is None
    variants = [
        job.requests["create_endpoint_config"]["ProductionVariants"][0] for job in jobs if job.kind == "endpoint"
    ]
    assert [variant["InstanceType"] for variant in variants] == ["ml.g5.2xlarge", "ml.g6.2xlarge"]
    assert not any("InstancePools" in variant for variant in variants)


def test_two_types_of_one_step_have_jobs_and_labels_of_their_own() -> None:
    """SageMaker takes a name once, and the verdict has a place for each label."""
    others = [{"instance_type": "ml.p5.48xlarge"}, {"instance_type": "ml.p4de.24xlarge"}]
    endpoint = {"instance_preferences": [{"instance_type": "ml.g6.2xlarge"}]}
    settings = set_with(train={"job": {"instance_preferences": others}}, endpoint={"job": endpoint})
    definition = with_terms(definition_of("octank_100gb"), settings)
    jobs = Probe(settings, definition, Values(definition, {})).jobs()
    names = [name for job in jobs for name in map(str, names_of(job))]
    assert len(jobs) == len({job.name for job in jobs}) == len({job.label for job in jobs}) == len(set(names))
    assert all(len(name) <= 63 for name in names)
    labels = {next(iter(job.hosts)): job.label for job in jobs}
    assert labels["ml.p5.48xlarge"] == "Train on ml.p5.48xlarge"
    assert labels["ml.g6.2xlarge"] == "Endpoint on ml.g6.2xlarge"


def names_of(job: ProbeJob) -> set[str]:
    """Return what SageMaker will call the job, or the endpoint, its configuration and its model."""
    members = ("TrainingJobName", "ProcessingJobName", "EndpointName", "EndpointConfigName", "ModelName")
    return {request[member] for request in job.requests.values() for member in members if member in request}
