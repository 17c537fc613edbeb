"""The data steps: Download (url table to shards), Recaption (shards to long captions) and Encode (shards to latents).

All write their data straight to S3. What SageMaker uploads for them at the end of the job is the manifest alone, so a
prefix without a manifest was never finished.
"""

from typing import Any

from sagemaker.core.helper.pipeline_variable import PipelineVariable
from sagemaker.core.network import NetworkConfig
from sagemaker.core.processing import Processor
from sagemaker.core.shapes import ProcessingInput, ProcessingOutput, ProcessingS3Input, ProcessingS3Output
from sagemaker.core.workflow.functions import Join
from sagemaker.mlops.workflow import ProcessingStep

from params import layout
from params.arguments import to_flags
from params.phases import Phase
from params.programs import DownloadSettings, EncodeSettings, RecaptionSettings
from params.stages import Job, RecaptionStep
from pipeline_definition.definition.blueprint import Blueprint, program_values, size_folder
from pipeline_definition.definition.parameters import Hosts, Text

# Of Encode.
OUTPUTS = (layout.LATENTS, layout.REFERENCE)


def download_step(blueprint: Blueprint) -> ProcessingStep:
    """Return the step that fetches the pictures of the url table into WebDataset shards."""
    p, settings = blueprint.parameters, blueprint.settings.download
    arguments = {
        **program_values(settings, DownloadSettings),
        "url_table": p.url_table,
        "shards_uri": blueprint.uri(layout.SHARDS),
        "max_rows": p.max_rows.to_string(),
        "min_yield": p.min_yield.to_string(),
        "top_up": p.top_up.to_string(),
    }
    return ProcessingStep(
        name="Download",
        description="img2dataset: url table to verified WebDataset shards, straight to S3",
        step_args=processor(blueprint, "download", p.data_image, p.download, settings.job).run(
            arguments=to_flags(arguments), outputs=[processing_output(layout.SHARDS, blueprint.uri(layout.SHARDS))]
        ),
        **blueprint.job_options,
    )


def recaption_step(blueprint: Blueprint, settings: RecaptionStep, download: ProcessingStep) -> ProcessingStep:
    """Return the optional step that writes a long caption for every sample, beside the one that it came with."""
    p, captions_uri = blueprint.parameters, blueprint.uri(layout.CAPTIONS)
    assert p.recaption is not None
    arguments = {
        **program_values(settings, RecaptionSettings),
        "shards_uri": blueprint.uri(layout.SHARDS),
        "captions_uri": captions_uri,
    }
    return ProcessingStep(
        name="Recaption",
        description="Long captions for the stored pictures, by a vision-language model; the original ones are kept",
        step_args=processor(blueprint, "recaption", p.training_image, p.recaption, settings.job).run(
            arguments=to_flags(arguments),
            inputs=[_manifest_input(layout.SHARDS, download), processing_input(layout.CAPTIONER, p.captioner)],
            outputs=[processing_output(layout.CAPTIONS, captions_uri)],
        ),
        **blueprint.job_options,
    )


def encode_step(
    blueprint: Blueprint, phase: Phase, download: ProcessingStep, recaption: ProcessingStep | None = None
) -> ProcessingStep:
    """Return the step that makes a phase's VAE moments and caption tokens of the shards that all phases share."""
    p, settings = blueprint.parameters, phase.encode
    hosts = p.of_phase(phase).encode
    latents_uri, reference_uri = (blueprint.uri(kind, size_folder(phase)) for kind in OUTPUTS)
    sees = settings.features or settings.descriptors
    arguments = {
        **program_values(settings, EncodeSettings),
        "shards_uri": blueprint.uri(layout.SHARDS),
        "latents_uri": latents_uri,
        "reference_uri": reference_uri,
        **({"descriptors_uri": descriptors_uri(blueprint)} if settings.descriptors else {}),
        **({"captions_uri": blueprint.uri(layout.CAPTIONS)} if recaption else {}),
    }
    return ProcessingStep(
        name=phase.encode_name,
        description="VAE posterior moments and caption tokens of every sample, and the held-out pictures",
        step_args=processor(blueprint, "encode", p.training_image, hosts, settings.job).run(
            arguments=to_flags(arguments),
            inputs=[
                _manifest_input(layout.SHARDS, download),
                processing_input("pretrained", p.pretrained),
                *([processing_input(layout.EVALUATOR, p.evaluator)] if sees else []),
                *([_manifest_input(layout.CAPTIONS, recaption)] if recaption else []),
            ],
            outputs=[
                *map(processing_output, OUTPUTS, (latents_uri, reference_uri)),
                *([processing_output(layout.DESCRIPTORS, descriptors_uri(blueprint))] if settings.descriptors else []),
            ],
        ),
        **blueprint.job_options,
    )


def descriptors_uri(blueprint: Blueprint) -> Join:
    """Return where the descriptors of the training pictures are: beside the first phase's latents."""
    return blueprint.uri(layout.LATENTS, f"{size_folder(blueprint.settings.phases[0])}-{layout.DESCRIPTORS}")


def processor(
    blueprint: Blueprint, program: str, image: Text, hosts: Hosts, job: Job, env: dict[str, str] | None = None
) -> Processor:
    """Return what runs `python -m steps PROGRAM` as a processing job."""
    return Processor(
        role=blueprint.settings.account.role_arn,
        image_uri=image,
        instance_type=hosts.instance_type,
        instance_count=hosts.instance_count,
        entrypoint=[*layout.ENTRY_POINT, program],
        volume_size_in_gb=job.volume_size_gb,
        max_runtime_in_seconds=job.max_runtime_s,
        base_job_name=program,
        env=env,
        sagemaker_session=blueprint.session,
        network_config=blueprint.network(NetworkConfig),
    )


def _manifest_input(name: str, step: ProcessingStep) -> ProcessingInput:
    return processing_input(name, Join(on="/", values=[output_uri(step, name), layout.MANIFEST_FILE]))


def processing_input(name: str, uri: str | PipelineVariable) -> ProcessingInput:
    """Return an S3 prefix or object that is copied to every host."""
    return ProcessingInput(
        input_name=name,
        s3_input=ProcessingS3Input(
            s3_uri=uri,
            local_path=f"{layout.PROCESSING_INPUT_DIR}/{name}",
            s3_data_type="S3Prefix",
            s3_input_mode="File",
            s3_data_distribution_type="FullyReplicated",
        ),
    )


def processing_output(name: str, uri: PipelineVariable) -> ProcessingOutput:
    """Return a folder that is uploaded when the job ends well."""
    return ProcessingOutput(
        output_name=name,
        s3_output=ProcessingS3Output(
            s3_uri=uri, local_path=f"{layout.PROCESSING_OUTPUT_DIR}/{name}", s3_upload_mode="EndOfJob"
        ),
    )


def output_uri(step: ProcessingStep, name: str) -> Any:
    """Return the address of an output as a property of its step, which makes the reader depend on it."""
    return step.properties.ProcessingOutputConfig.Outputs[name].S3Output.S3Uri
