"""The steps that put a model behind an address: CreateModel, EndpointConfig, Endpoint."""

from typing import Any

from sagemaker.core.workflow.execution_variables import ExecutionVariables
from sagemaker.core.workflow.functions import Join
from sagemaker.mlops.workflow import EndpointConfigStep, ModelStep, TrainingStep
from sagemaker.mlops.workflow import EndpointStep as SdkEndpointStep

from params.arguments import to_environment
from params.instances import has_gpus
from params.layout import ASYNC, INSTANCE_TYPE_VARIABLE, SERVE_PREFIX
from params.stages import AUTO, GPU_HOST_IMAGE, NONE, EndpointStep
from pipeline_definition.definition.blueprint import Blueprint
from pipeline_definition.definition.registration import model_builder

VARIANT = "trained"


def create_model_step(blueprint: Blueprint, train: TrainingStep, register: ModelStep) -> ModelStep:
    """Return the step that makes the model; it knows its package, so every picture can say where it comes from."""
    environment = {f"{SERVE_PREFIX}MODEL_NAME": register.properties.ModelPackageArn}
    settings = blueprint.settings.endpoint
    # Only here, not in the package: production may run it on other hosts, and answer at once.
    if settings.asynchronous:
        patient = {"timeout_s": float(settings.invocation_timeout_s), "shed_load": False}
        environment |= to_environment(patient, SERVE_PREFIX)
    if has_gpus(settings.job.instance_type):
        environment[INSTANCE_TYPE_VARIABLE] = blueprint.parameters.endpoint.instance_type
    return ModelStep(
        name="CreateModel",
        description="The trained model behind the inference image",
        step_args=model_builder(blueprint, train, **environment).build(
            model_name=f"{blueprint.settings.pipeline_name}-model"
        ),
        retry_policies=blueprint.service_retries,
    )


def endpoint_config_step(blueprint: Blueprint, create_model: ModelStep) -> EndpointConfigStep:
    """Return the step that says on what the endpoint runs; its name is new for each execution, as SageMaker asks."""
    p = blueprint.parameters
    variant = {
        "VariantName": VARIANT,
        "ModelName": create_model.properties.ModelName,
        "InstanceType": p.endpoint.instance_type,
        "InitialInstanceCount": p.endpoint.instance_count,
        "InitialVariantWeight": 1.0,
        **_host_image(blueprint.settings.endpoint),
    }
    name = Join(on="-", values=[p.endpoint_name, ExecutionVariables.PIPELINE_EXECUTION_ID])
    return EndpointConfigStep(
        name="EndpointConfig",
        step_args=blueprint.session.create_endpoint_config(
            name=name, production_variants=[variant], async_inference_config_dict=_async_inference(blueprint)
        ),
        retry_policies=blueprint.service_retries,
    )


def _host_image(settings: EndpointStep) -> dict[str, str]:
    """Return the image of the endpoint's host, which brings the driver; nothing where SageMaker's own choice does.

    SageMaker never overrides its default by itself:
    https://docs.aws.amazon.com/sagemaker/latest/dg/inference-gpu-drivers.html
    """
    chosen = settings.inference_ami_version
    if chosen == AUTO:
        chosen = GPU_HOST_IMAGE if has_gpus(settings.job.instance_type) else NONE
    return {} if chosen == NONE else {"InferenceAmiVersion": chosen}


def _async_inference(blueprint: Blueprint) -> dict[str, Any] | None:
    """Return where an asynchronous endpoint leaves its answers; None for one that answers at once."""
    settings = blueprint.settings.endpoint
    if not settings.asynchronous:
        return None
    p = blueprint.parameters
    answers, failures = (
        Join(on="/", values=["s3:/", p.bucket, ASYNC, p.endpoint_name, name]) for name in ("answers", "failures")
    )
    return {
        "OutputConfig": {"S3OutputPath": answers, "S3FailurePath": failures},
        "ClientConfig": {"MaxConcurrentInvocationsPerInstance": settings.concurrent_invocations},
    }


def endpoint_step(blueprint: Blueprint, endpoint_config: EndpointConfigStep) -> SdkEndpointStep:
    """Return the step that creates the endpoint, or updates it where it exists."""
    return SdkEndpointStep(
        name="Endpoint",
        step_args=blueprint.session.create_endpoint(
            endpoint_name=blueprint.parameters.endpoint_name,
            config_name=endpoint_config.properties.EndpointConfigName,
            wait=False,
        ),
    )
