"""What the endpoint's host is: its image brings the driver."""

import json
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore.validate import ParamValidator

from params.settings import load_settings, parse_settings
from pipeline_definition.checks.findings import Finding
from pipeline_definition.checks.preflight import preflight
from pipeline_definition.definition.pipeline import build_definition
from pipeline_definition.infrastructure.stack import fill
from tests.params.test_parameter_sets import STACK
from tests.pipeline_definition.definitions import all_steps, at_defaults, defaults_of

CUDA_13 = "al2023-ami-sagemaker-inference-gpu-4-1"


def definition(text: str = "") -> dict[str, Any]:
    content: dict[str, Any] = json.loads(build_definition(parse_settings(text, "x.yaml")))
    return content


def variant(content: dict[str, Any]) -> dict[str, Any]:
    """Return the variant, its configuration checked against the API's own shape."""
    request = at_defaults(all_steps(content)["EndpointConfig"]["Arguments"], defaults_of(content))
    request.setdefault("EndpointConfigName", "name")
    shape = botocore.session.get_session().get_service_model("sagemaker").shape_for("CreateEndpointConfigInput")
    assert not ParamValidator().validate(request, shape).generate_report()
    found: dict[str, Any] = request["ProductionVariants"][0]
    return found


def environment(content: dict[str, Any], step: str) -> dict[str, Any]:
    text = json.dumps(all_steps(content)[step]["Arguments"])
    found: dict[str, Any] = {"type": "SD_PIPELINE_INSTANCE_TYPE" in text}
    return found


@pytest.mark.parametrize("instance_type", ["ml.g5.2xlarge", "ml.g4dn.xlarge", "ml.p4d.24xlarge", "ml.g6e.xlarge"])
def test_a_gpu_type_gets_the_host_image_whose_driver_is_new_enough(instance_type: str) -> None:
    content = definition(f"endpoint: {{job: {{instance_type: {instance_type}}}}}")
    assert variant(content)["InferenceAmiVersion"] == CUDA_13
    assert environment(content, "CreateModel") == {"type": True}
    # A package may be promoted to other hosts.
    steps = all_steps(content)
    registered = next(step for name, step in steps.items() if name.startswith("Register"))
    assert "SD_PIPELINE_INSTANCE_TYPE" not in json.dumps(registered)


def test_a_cpu_type_gets_none() -> None:
    content = definition("endpoint: {job: {instance_type: ml.c5.large}}")
    assert "InferenceAmiVersion" not in variant(content) and environment(content, "CreateModel") == {"type": False}


def test_the_setting_wins() -> None:
    chosen = definition("endpoint: {inference_ami_version: al2-ami-sagemaker-inference-gpu-3-1}")
    assert variant(chosen)["InferenceAmiVersion"] == "al2-ami-sagemaker-inference-gpu-3-1"
    assert "InferenceAmiVersion" not in variant(definition("endpoint: {inference_ami_version: none}"))


def refused(image: str, **changes: str) -> dict[str, Finding]:
    settings = fill(load_settings(Path("params/octank_100gb.yaml")), STACK)
    endpoint = settings.endpoint.model_copy(update={"inference_ami_version": image})
    settings = settings.model_copy(update={"endpoint": endpoint})
    content = json.loads(build_definition(settings))
    return {finding.parameter: finding for finding in preflight(settings, content, changes)}


def test_a_start_whose_endpoint_could_not_run_its_image_is_refused() -> None:
    key = "endpoint.inference_ami_version"
    assert key not in refused("auto") and key not in refused("none")
    assert "driver 550" in refused("al2-ami-sagemaker-inference-gpu-3-1")[key].problem
    assert CUDA_13 in refused("al2-ami-sagemaker-inference-gpu-9")[key].fix
    # A type chosen at the start, with the image of another kind of type.
    unfit = refused("auto", EndpointInstanceType="ml.c5.large")["EndpointInstanceType"]
    assert "GPU" in unfit.problem
