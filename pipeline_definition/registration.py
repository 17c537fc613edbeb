"""The Register step: the model package, with the numbers and the lineage that an approver wants to see."""

from __future__ import annotations

import logging

from sagemaker.core.helper.pipeline_variable import PipelineVariable
from sagemaker.core.model_metrics import MetricsSource, ModelMetrics
from sagemaker.core.workflow.execution_variables import ExecutionVariables
from sagemaker.core.workflow.functions import Join
from sagemaker.mlops.workflow import ModelStep, ProcessingStep, TrainingStep
from sagemaker.serve import ModelBuilder

from params.arguments import to_environment
from params.layout import CLIP_SCORE, EVALUATION, FID, LATENTS, METRICS_FILE
from params.programs import ServeArguments
from pipeline_definition.blueprint import Blueprint, program_values
from pipeline_definition.data import output_uri
from pipeline_definition.gate import metric

SERVE_PREFIX = "SERVE_"


def register_step(
    blueprint: Blueprint, encode: ProcessingStep, train: TrainingStep, evaluate: ProcessingStep
) -> ModelStep:
    """Return the step that puts the model into the registry."""
    p = blueprint.parameters
    evaluation_uri = output_uri(evaluate, EVALUATION)
    statistics = MetricsSource(
        s3_uri=Join(on="/", values=[evaluation_uri, METRICS_FILE]), content_type="application/json"
    )
    lineage = {
        "fid": metric(evaluate, FID).to_string(),
        "clip_score": metric(evaluate, CLIP_SCORE).to_string(),
        "dataset": p.dataset,
        "latents": output_uri(encode, LATENTS),
        "evaluation": evaluation_uri,
        "training_job": train.properties.TrainingJobName,
        "training_samples": p.training_samples.to_string(),
        **({"training_samples_phase_2": p.phase_2.training_samples.to_string()} if p.phase_2 else {}),
        "global_batch_size": p.global_batch_size.to_string(),
        "training_image": p.training_image,
        "pipeline_execution": ExecutionVariables.PIPELINE_EXECUTION_ARN,
    }
    return ModelStep(
        name="Register",
        description="Model package, waiting for approval",
        step_args=model_builder(blueprint, train).register(
            model_package_group_name=p.model_package_group,
            approval_status=p.approval_status,
            content_types=["application/json"],
            response_types=["image/png", "image/jpeg", "image/webp", "application/json"],
            inference_instances=[p.endpoint.instance_type],
            model_metrics=ModelMetrics(model_statistics=statistics),
            customer_metadata_properties=lineage,
            description=f"Stable Diffusion trained by {blueprint.settings.pipeline_name}",
        ),
        retry_policies=blueprint.service_retries,
    )


def model_builder(blueprint: Blueprint, train: TrainingStep, **environment: PipelineVariable) -> ModelBuilder:
    """Return a builder of the trained model behind the inference image; each step needs a fresh one."""
    served = to_environment(program_values(blueprint.settings.endpoint, ServeArguments), SERVE_PREFIX)
    return ModelBuilder(
        sagemaker_session=blueprint.session,
        role_arn=blueprint.settings.account.role_arn,
        image_uri=blueprint.parameters.inference_image,
        s3_model_data_url=train.properties.ModelArtifacts.S3ModelArtifacts,
        log_level=logging.ERROR,
        env_vars={**served, **environment},
    )
