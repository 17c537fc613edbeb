"""The steps that put a model behind an address: CreateModel, EndpointConfig, Endpoint."""

from __future__ import annotations

from typing import Any

from sagemaker.core.workflow.execution_variables import ExecutionVariables
from sagemaker.core.workflow.functions import Join
from sagemaker.mlops.workflow import EndpointConfigStep, EndpointStep, ModelStep, TrainingStep

from params.layout import SERVE_PREFIX
from pipeline_definition.definition.blueprint import Blueprint
from pipeline_definition.definition.registration import model_builder

VARIANT = "trained"


def create_model_step(blueprint: Blueprint, train: TrainingStep, register: ModelStep) -> ModelStep:
    """Return the step that makes the model; it knows its package, so every picture can say where it comes from."""
    package = {f"{SERVE_PREFIX}MODEL_NAME": register.properties.ModelPackageArn}
    return ModelStep(
        name="CreateModel",
        description="The trained model behind the inference image",
        step_args=model_builder(blueprint, train, **package).build(
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
    }
    name = Join(on="-", values=[p.endpoint_name, ExecutionVariables.PIPELINE_EXECUTION_ID])
    return EndpointConfigStep(
        name="EndpointConfig",
        step_args=blueprint.session.create_endpoint_config(
            name=name, production_variants=[variant], async_inference_config_dict=_async_inference(blueprint)
        ),
        retry_policies=blueprint.service_retries,
    )


def _async_inference(blueprint: Blueprint) -> dict[str, Any] | None:
    """Return where an asynchronous endpoint leaves its answers; None for one that answers at once."""
    settings, p = blueprint.settings.endpoint, blueprint.parameters
    if not settings.asynchronous:
        return None
    return {
        "OutputConfig": {
            "S3OutputPath": blueprint.async_uri(p.endpoint_name, "answers"),
            "S3FailurePath": blueprint.async_uri(p.endpoint_name, "failures"),
        },
        "ClientConfig": {"MaxConcurrentInvocationsPerInstance": settings.concurrent_invocations},
    }


def endpoint_step(blueprint: Blueprint, endpoint_config: EndpointConfigStep) -> EndpointStep:
    """Return the step that creates the endpoint, or updates it where it exists."""
    return EndpointStep(
        name="Endpoint",
        step_args=blueprint.session.create_endpoint(
            endpoint_name=blueprint.parameters.endpoint_name,
            config_name=endpoint_config.properties.EndpointConfigName,
            wait=False,
        ),
    )
