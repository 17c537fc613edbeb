"""The Register step: the model package, with the numbers and the lineage that an approver wants to see."""

import logging

from sagemaker.core.helper.pipeline_variable import PipelineVariable
from sagemaker.core.model_metrics import MetricsSource, ModelMetrics
from sagemaker.core.workflow.execution_variables import ExecutionVariables
from sagemaker.core.workflow.functions import Join
from sagemaker.mlops.workflow import ModelStep, ProcessingStep, TrainingStep
from sagemaker.serve import ModelBuilder

from params import layout
from params.arguments import to_environment
from params.programs import ServeArguments
from pipeline_definition.definition.blueprint import Blueprint, program_values
from pipeline_definition.definition.data import output_uri
from pipeline_definition.definition.gate import evaluated, metric


def register_step(
    blueprint: Blueprint, encode: ProcessingStep, train: TrainingStep, evaluate: ProcessingStep
) -> ModelStep:
    """Return the step that puts the model into the registry."""
    p = blueprint.parameters
    evaluation_uri = output_uri(evaluate, layout.EVALUATION)
    data_manifest = _under(output_uri(encode, layout.LATENTS), layout.MANIFEST_FILE)
    job = train.properties.TrainingJobName
    # Values of at most 256 characters: numbers themselves, everything longer by its address.
    lineage = {
        "fid": metric(evaluate, layout.FID).to_string(),
        "clip_score": metric(evaluate, layout.CLIP_SCORE).to_string(),
        "dataset": p.dataset,
        "latents": output_uri(encode, layout.LATENTS),
        "data_manifest": data_manifest,
        "shards_manifest": _under(blueprint.uri(layout.SHARDS), layout.MANIFEST_FILE),
        "evaluation": evaluation_uri,
        "contact_sheet": _under(evaluation_uri, layout.CONTACT_SHEET_FILE),
        "samples": _under(evaluation_uri, layout.SAMPLES_DIR),
        "training_job": job,
        "training_record": _under(blueprint.uri(layout.MODEL), job, "output", layout.OUTPUT_ARCHIVE),
        "training_samples": p.training_samples.to_string(),
        **{
            f"training_samples_phase_{number}": phase.training_samples.to_string()
            for number, phase in enumerate(p.later_phases, start=2)
        },
        "global_batch_size": p.global_batch_size.to_string(),
        "training_instance_type": p.training.instance_type,
        "training_instance_count": p.training.instance_count.to_string(),
        "billable_seconds": train.properties.BillableTimeInSeconds.to_string(),
        "images_per_s": evaluated(evaluate, f"{layout.MODEL_RECORD}.{layout.MODEL_IMAGES_PER_S}").to_string(),
        "code_digest": evaluated(evaluate, f"{layout.MODEL_RECORD}.{layout.MODEL_CODE_DIGEST}").to_string(),
        "training_image": p.training_image,
        "inference_image": p.inference_image,
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
            model_metrics=ModelMetrics(
                model_statistics=_json(_under(evaluation_uri, layout.METRICS_FILE)),
                model_data_statistics=_json(data_manifest),
            ),
            customer_metadata_properties=lineage,
            description=f"Stable Diffusion trained by {blueprint.settings.pipeline_name}",
        ),
        retry_policies=blueprint.service_retries,
    )


def _under(*parts: str | PipelineVariable) -> Join:
    return Join(on="/", values=list(parts))


def _json(uri: Join) -> MetricsSource:
    return MetricsSource(s3_uri=uri, content_type="application/json")


def model_builder(blueprint: Blueprint, train: TrainingStep, **environment: PipelineVariable) -> ModelBuilder:
    """Return a builder of the trained model behind the inference image; each step needs a fresh one."""
    served = to_environment(program_values(blueprint.settings.endpoint, ServeArguments), layout.SERVE_PREFIX)
    return ModelBuilder(
        sagemaker_session=blueprint.session,
        role_arn=blueprint.settings.account.role_arn,
        image_uri=blueprint.parameters.inference_image,
        s3_model_data_url=train.properties.ModelArtifacts.S3ModelArtifacts,
        log_level=logging.ERROR,
        env_vars={**served, **environment},
    )
