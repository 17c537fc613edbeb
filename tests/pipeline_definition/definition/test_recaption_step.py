"""The optional Recaption step between Download and Encode, and what else reads it from the definition."""

import json
from typing import Any

import botocore.session
import pytest
from botocore.validate import ParamValidator

from params.arguments import from_texts
from params.programs import EncodeArguments, RecaptionArguments, TrainArguments
from params.settings import Settings, SettingsError, parse_settings
from pipeline_definition.artifacts.collection import phase_steps
from pipeline_definition.checks.preflight import preflight
from pipeline_definition.cost.forecast import forecast
from tests.pipeline_definition.definitions import all_steps, at_defaults, built, defaults_of, definition_of

SET = """
file_system: {kind: s3}
data: {rows: 100000}
recaption:
  job: {instance_type: ml.g5.12xlarge, instance_count: 2, max_runtime_s: 7200, instance_preferences: [
    {instance_type: ml.g6.12xlarge}]}
  prompt: <MORE_DETAILED_CAPTION>
train: {written_captions: 0.5}
phase_2: {training_samples: 2048, warmup_samples: 0}
"""


@pytest.fixture(scope="module")
def settings() -> Settings:
    return parse_settings(SET, "x.yaml")


@pytest.fixture(scope="module")
def definition(settings: Settings) -> dict[str, Any]:
    return built(settings)


def arguments_of(step: dict[str, Any], definition: dict[str, Any]) -> dict[str, str]:
    words = at_defaults(step["Arguments"], defaults_of(definition))["AppSpecification"]["ContainerArguments"]
    return {
        flag.removeprefix("--").replace("-", "_"): str(text) for flag, text in zip(words[::2], words[1::2], strict=True)
    }


def test_without_the_section_no_step_of_any_set_knows_of_it() -> None:
    for name in ("local", "smoke_aws", "sd2_base"):
        text = json.dumps(definition_of(name))
        assert not any(word in text for word in ("Recaption", "Captioner", "captions-uri", "written_captions"))


def test_it_asks_for_a_job_that_the_api_takes_and_the_program_understands(definition: dict[str, Any]) -> None:
    step = all_steps(definition)["Recaption"]
    request = at_defaults(step["Arguments"], defaults_of(definition))
    model = botocore.session.get_session().get_service_model("sagemaker").operation_model("CreateProcessingJob")
    report = ParamValidator().validate({**request, "ProcessingJobName": "name"}, model.input_shape)
    assert not report.has_errors(), report.generate_report()
    asked = from_texts(RecaptionArguments, arguments_of(step, definition), "arguments")
    assert asked.prompt == "<MORE_DETAILED_CAPTION>"
    assert asked.captions_uri.endswith("/captions/laion") and asked.shards_uri.endswith("/shards/laion")
    hosts = request["ProcessingResources"]["ClusterConfig"]["InstancePreferences"]
    assert [host["InstanceType"] for host in hosts] == ["ml.g5.12xlarge", "ml.g6.12xlarge"]
    assert request["StoppingCondition"]["MaxRuntimeInSeconds"] == 7200


def test_every_encode_reads_its_captions_after_it_and_every_training_takes_its_share(
    definition: dict[str, Any],
) -> None:
    steps = all_steps(definition)
    for name in ("Encode", "EncodePhase2"):
        assert "Steps.Recaption." in json.dumps(steps[name]["Arguments"]["ProcessingInputs"])
        asked = from_texts(EncodeArguments, arguments_of(steps[name], definition), "arguments")
        assert asked.captions_uri.endswith("/captions/laion")
    for name in ("Train", "TrainPhase2"):
        assert TrainArguments.model_validate({"written_captions": 0.5}).written_captions == 0.5
        assert steps[name]["Arguments"]["HyperParameters"]["written_captions"] == "0.5"
    assert phase_steps(definition) == [["Encode", "EncodePhase2"], ["Train", "TrainPhase2"]]


def test_the_forecast_has_its_hosts_and_hours(settings: Settings, definition: dict[str, Any]) -> None:
    bill = forecast(settings, definition, {})
    line = next(line for line in bill.lines if line.step == "Recaption")
    assert line.what.startswith("2 x ml.g5.12xlarge: 100,000 samples")
    assert line.hours == pytest.approx((480 + 100_000 / (8 * 70e3 * 0.1 / 1788)) / 3600)
    assert "assumed until measured" in line.rate
    more = forecast(settings, definition, {"RecaptionInstanceCount": "4"})
    assert bill.hours - more.hours == pytest.approx(line.hours / 2, abs=0.1)


def test_preflight_names_its_parameters(settings: Settings, definition: dict[str, Any]) -> None:
    changes = {"RecaptionInstanceType": "ml.c5.xlarge", "Captioner": "captioner"}
    found = {finding.parameter: finding.problem for finding in preflight(settings, definition, changes)}
    assert "has no NVIDIA GPU and Recaption needs one" in found["RecaptionInstanceType"]
    assert "'captioner' is not an S3 address" in found["Captioner"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("train: {written_captions: 0.5}", r"train\.written_captions: nothing writes any; add a `recaption:` section"),
        ("recaption: {}\nencode: {caption_embeddings: true}", r"encode\.caption_embeddings: .* set it to false"),
        ("recaption: {}\nencoders: {}", r"recaption: `encoders:` know the original captions alone"),
    ],
)
def test_what_does_not_go_together_is_refused_with_the_key(text: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        parse_settings(text, "x.yaml")
