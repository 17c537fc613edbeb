"""The Evaluate step: pictures from held-out captions, FID and CLIP score into metrics.json."""

from sagemaker.core.workflow.properties import PropertyFile
from sagemaker.mlops.workflow import ProcessingStep, TrainingStep

from params import layout
from params.arguments import to_flags
from params.programs import DRAWING, EvaluateArguments
from pipeline_definition.definition.blueprint import Blueprint, program_values
from pipeline_definition.definition.data import output_uri, processing_input, processing_output, processor

# Counts up when the gate reads what older metrics do not have. Part of the step's cache key, so that an Evaluate from
# before runs again, over the pictures that it drew.
METRICS_FORMAT = {"METRICS_FORMAT": "2"}
METRICS = PropertyFile(name="Metrics", output_name=layout.EVALUATION, path=layout.METRICS_FILE)


def evaluate_step(
    blueprint: Blueprint, encode: ProcessingStep, train: TrainingStep, first_encode: ProcessingStep
) -> ProcessingStep:
    """Return the step that judges the trained model; the first phase's Encode described the training pictures."""
    p, settings = blueprint.parameters, blueprint.settings.evaluate
    gate, endpoint = blueprint.settings.gate, blueprint.settings.endpoint
    drawn, served = (one.model_dump(include=set(DRAWING)) for one in (settings, endpoint))
    arguments = {
        **program_values(settings, EvaluateArguments),
        "samples": p.evaluation_samples.to_string(),
        "captions": p.evaluation_captions,
        "approved_model": p.approved_model,
        "require_pretrained": settings.require_pretrained or gate.compares_with_pretrained,
        "served": tuple(f"{name}={value}" for name, value in served.items() if value != drawn[name]),
        # A killed evaluation resumes from the pictures that it left here, and several hosts share the work.
        "samples_uri": blueprint.uri(layout.SAMPLES),
    }
    if blueprint.settings.encode.descriptors:
        arguments |= {
            "descriptors_uri": output_uri(first_encode, layout.DESCRIPTORS),
            "shards_uri": blueprint.uri(layout.SHARDS),
        }
    return ProcessingStep(
        name="Evaluate",
        description="FID and CLIP score on held-out captions, and a contact sheet",
        step_args=processor(blueprint, "evaluate", p.training_image, p.evaluate, settings.job, METRICS_FORMAT).run(
            arguments=to_flags(arguments),
            inputs=[
                processing_input(layout.MODEL, train.properties.ModelArtifacts.S3ModelArtifacts),
                processing_input(layout.PRETRAINED_CHANNEL, p.pretrained),
                processing_input(layout.EVALUATOR, p.evaluator),
                processing_input(
                    layout.REFERENCE, blueprint.settings.data.reference_uri or output_uri(encode, layout.REFERENCE)
                ),
            ],
            outputs=[
                processing_output(layout.EVALUATION, blueprint.uri(layout.EVALUATION, train.properties.TrainingJobName))
            ],
        ),
        property_files=[METRICS],
        **blueprint.job_options,
    )
