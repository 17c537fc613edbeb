"""The pipeline parameters: what an operator sees and changes in the console; defaults come from the parameter set.

Reads Settings; writes nothing. `sd-pipeline parameters --params FILE` prints them as a table.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, get_args

from sagemaker.core.workflow.parameters import Parameter, ParameterFloat, ParameterInteger, ParameterString

from params import parameter_names as names
from params.phases import Phase
from params.settings import ApprovalStatus, Settings
from params.stages import Encoders, Job


class Described(Parameter):  # type: ignore[misc]
    """A parameter with the description that the console shows."""

    def __init__(self, name: str, default: str | float, description: str, **options: Any) -> None:
        super().__init__(name, default_value=default, **options)
        self.description = description

    def to_request(self) -> dict[str, Any]:
        """Return the parameter's entry in the definition."""
        return {**super().to_request(), "Description": self.description}


class Text(Described, ParameterString):  # type: ignore[misc]
    """A string."""


class Count(Described, ParameterInteger):  # type: ignore[misc]
    """An integer."""


class Number(Described, ParameterFloat):  # type: ignore[misc]
    """A float."""


@dataclass(frozen=True)
class Hosts:
    """The hosts of one stage's jobs."""

    instance_type: Text
    instance_count: Count

    @classmethod
    def for_stage(cls, stage: str, job: Job | Encoders) -> Hosts:
        """Return <Stage>InstanceType and <Stage>InstanceCount."""
        return cls(
            Text(names.instance_type_of(stage), job.instance_type, f"SageMaker instance type of {stage}"),
            Count(names.instance_count_of(stage), job.instance_count, f"Hosts of {stage}"),
        )


@dataclass(frozen=True)
class PhaseParameters:
    """What an operator changes about one phase of the training."""

    training_samples: Count
    other_steps: Number
    training_price: Number
    encode: Hosts
    training: Hosts

    @classmethod
    def for_phase(cls, phase: Phase) -> PhaseParameters:
        """Return the parameters of a phase that has its own."""
        return cls(
            Count(
                phase.samples_name,
                phase.train.training_samples,
                f"Samples that {phase.train_name} sees, at {phase.encode.resolution_px} px",
            ),
            Number(
                phase.other_steps_name,
                phase.train.other_steps_usd,
                f"What of BudgetUsd the steps besides {phase.train_name} take",
            ),
            Number(
                phase.instance_hour_name,
                phase.train.instance_hour_usd,
                f"Dollars for one host-hour of {phase.train_name}; 0: not known",
            ),
            Hosts.for_stage(phase.encode_name, phase.encode.job),
            Hosts.for_stage(phase.hosts_name, phase.train.job),
        )


@dataclass(frozen=True)
class PipelineParameters:
    """Every parameter of the pipeline, in the order in which the console shows them."""

    dataset: Text
    url_table: Text
    max_rows: Count
    min_yield: Number
    top_up: Count
    pretrained: Text
    evaluator: Text
    training_samples: Count
    global_batch_size: Count
    training_run: Text
    budget: Number
    other_steps: Number
    training_price: Number
    tune_samples: Count
    evaluation_samples: Count
    evaluation_captions: Text
    approved_model: Text
    max_fid: Number
    min_clip_score: Number
    max_fid_above_pretrained: Number | None
    max_clip_score_below_pretrained: Number | None
    max_fid_above_approved: Number | None
    max_clip_score_below_approved: Number | None
    """The last four are None where the parameter set's gate does not ask for the comparison."""
    approval_status: Text
    model_package_group: Text
    endpoint_name: Text
    download: Hosts
    encode: Hosts
    tune: Hosts
    training: Hosts
    evaluate: Hosts
    endpoint: Hosts
    data_image: Text
    training_image: Text
    inference_image: Text
    bucket: Text
    fsx_id: Text
    fsx_path: Text
    phase_2: PhaseParameters | None = None
    encoders: Hosts | None = None

    def flat(self) -> list[Parameter]:
        """Return the parameters for `Pipeline(parameters=...)`, which drops anything else in silence."""
        return list(_parameters(self))

    def of_phase(self, phase: Phase) -> PhaseParameters:
        """Return the parameters of a phase; the first one's are the pipeline's own."""
        if phase.suffix and self.phase_2 is not None:
            return self.phase_2
        return PhaseParameters(self.training_samples, self.other_steps, self.training_price, self.encode, self.training)


def _parameters(group: Any) -> Iterator[Parameter]:
    for value in (getattr(group, field.name) for field in fields(group)):
        if isinstance(value, Parameter):
            yield value
        elif value is not None:
            yield from _parameters(value)


def pipeline_parameters(s: Settings) -> PipelineParameters:
    """Return the parameters with the parameter set's values as defaults."""
    first = s.phases[0]
    return PipelineParameters(
        dataset=Text(names.DATASET_NAME, s.data.name, "Shards, latents and checkpoints live under this name"),
        url_table=Text(names.URL_TABLE, s.data.url_table, "s3:// address of the table of image urls and captions"),
        max_rows=Count(names.MAX_ROWS, s.download.max_rows, "Only the first so many rows of the url table; 0: all"),
        min_yield=Number(
            names.MIN_YIELD,
            s.download.min_yield,
            "Download fails when a smaller fraction of what filters leave is kept",
        ),
        top_up=Count(names.TOP_UP, s.download.top_up, "Raise by one to try again what failed and may succeed now"),
        pretrained=Text(
            names.PRETRAINED_MODEL, s.data.pretrained_uri, "s3:// folder of VAE, text encoder, UNet configuration"
        ),
        evaluator=Text(names.EVALUATOR, s.data.evaluator_uri, "s3:// folder of the models that judge pictures"),
        training_samples=Count(names.TRAINING_SAMPLES, s.train.training_samples, "Samples that training sees"),
        global_batch_size=Count(
            names.GLOBAL_BATCH_SIZE, s.train.global_batch_size, "Samples for one optimizer step, all GPUs"
        ),
        training_run=Text(
            names.TRAINING_RUN, s.training_run, "Checkpoints live here; the same name continues a broken training"
        ),
        budget=Number(
            names.BUDGET_USD,
            s.train.budget_usd,
            "Dollars for the run: training stops, with a checkpoint, at it; 0: no limit",
        ),
        other_steps=Number(
            names.OTHER_STEPS_USD, s.train.other_steps_usd, "What of BudgetUsd the steps besides Train take"
        ),
        training_price=Number(
            first.instance_hour_name,
            first.train.instance_hour_usd,
            "Dollars for one host-hour of Train; 0: not known, no cost is logged",
        ),
        tune_samples=Count(names.TUNE_SAMPLES, s.tune.training_samples, "Sample budget of one tuning trial"),
        evaluation_samples=Count(names.EVALUATION_SAMPLES, s.evaluate.samples, "Pictures generated to judge the model"),
        evaluation_captions=Text(
            names.EVALUATION_CAPTIONS,
            s.evaluate.captions,
            "Captions to draw: `heldout`, or s3:// address of a caption file",
        ),
        approved_model=Text(
            names.APPROVED_MODEL,
            s.evaluate.approved_model,
            "model.tar.gz to compare with, or `none`; `start` fills it in",
        ),
        max_fid=Number(names.MAX_FID, s.gate.max_fid, "The gate passes at this FID or below"),
        min_clip_score=Number(
            names.MIN_CLIP_SCORE, s.gate.min_clip_score, "The gate passes at this CLIP score or above"
        ),
        max_fid_above_pretrained=_margin(names.MAX_FID_ABOVE_PRETRAINED, s.gate.max_fid_above_pretrained),
        max_clip_score_below_pretrained=_margin(
            names.MAX_CLIP_SCORE_BELOW_PRETRAINED, s.gate.max_clip_score_below_pretrained
        ),
        max_fid_above_approved=_margin(names.MAX_FID_ABOVE_APPROVED, s.gate.max_fid_above_approved),
        max_clip_score_below_approved=_margin(
            names.MAX_CLIP_SCORE_BELOW_APPROVED, s.gate.max_clip_score_below_approved
        ),
        approval_status=Text(
            names.APPROVAL_STATUS,
            s.registry.approval_status,
            "With which a package begins",
            enum_values=list(get_args(ApprovalStatus)),
        ),
        model_package_group=Text(
            names.MODEL_PACKAGE_GROUP, s.registry.group, "Where a model that passed is registered"
        ),
        endpoint_name=Text(names.ENDPOINT_NAME, s.endpoint.name, "Endpoint that is created or updated"),
        download=Hosts.for_stage(names.DOWNLOAD_HOSTS, s.download.job),
        encode=Hosts.for_stage(first.encode_name, s.encode.job),
        tune=Hosts.for_stage(names.TUNE_HOSTS, s.tune.job),
        training=Hosts.for_stage(first.hosts_name, s.train.job),
        evaluate=Hosts.for_stage(names.EVALUATE_HOSTS, s.evaluate.job),
        endpoint=Hosts.for_stage(names.ENDPOINT_HOSTS, s.endpoint.job),
        data_image=Text(names.DATA_IMAGE, s.images.data, "Container image of Download"),
        training_image=Text(
            names.TRAINING_IMAGE, s.images.training, "Container image of Encode, Tune, Train and Evaluate"
        ),
        inference_image=Text(names.INFERENCE_IMAGE, s.images.inference, "Container image of the endpoint"),
        bucket=Text(names.BUCKET, s.account.bucket, "S3 bucket of every artifact"),
        fsx_id=Text(names.FSX_ID, s.file_system.fsx_id, "FSx for Lustre file system with the latents"),
        fsx_path=Text(names.FSX_PATH, s.file_system.fsx_path, "/<mount name>/<folder> linked to the bucket's latents/"),
        encoders=Hosts.for_stage(names.ENCODERS_HOSTS, s.encoders) if s.encoders else None,
        phase_2=next((PhaseParameters.for_phase(phase) for phase in s.phases if phase.suffix), None),
    )


def _margin(name: str, default: float | None) -> Number | None:
    if default is None:
        return None
    return Number(name, default, "The gate passes when the upper bound of this difference (95 %) is at most this")
