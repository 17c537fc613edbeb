"""The pipeline parameters: what an operator sees and changes in the console; defaults come from the parameter set.

Reads Settings; writes nothing. `sd-pipeline parameters --params FILE` prints them as a table.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, get_args

from sagemaker.core.workflow.parameters import Parameter, ParameterFloat, ParameterInteger, ParameterString

from params.phases import Phase
from params.settings import ApprovalStatus, Settings
from params.stages import Encoders, Job
from pipeline_definition.checks.budget import training_price_usd


class Text(ParameterString):  # type: ignore[misc]
    """A string parameter with the description that the console shows."""

    def __init__(self, name: str, default: str, description: str, choices: tuple[str, ...] = ()) -> None:
        super().__init__(name, default_value=default, enum_values=list(choices) or None)
        self.description = description

    def to_request(self) -> dict[str, Any]:
        """Return the parameter's entry in the definition."""
        return {**super().to_request(), "Description": self.description}


class Count(ParameterInteger):  # type: ignore[misc]
    """An integer parameter with the description that the console shows."""

    def __init__(self, name: str, default: int, description: str) -> None:
        super().__init__(name, default_value=default)
        self.description = description

    def to_request(self) -> dict[str, Any]:
        """Return the parameter's entry in the definition."""
        return {**super().to_request(), "Description": self.description}


class Number(ParameterFloat):  # type: ignore[misc]
    """A float parameter with the description that the console shows."""

    def __init__(self, name: str, default: float, description: str) -> None:
        super().__init__(name, default_value=default)
        self.description = description

    def to_request(self) -> dict[str, Any]:
        """Return the parameter's entry in the definition."""
        return {**super().to_request(), "Description": self.description}


@dataclass(frozen=True)
class Hosts:
    """On what the jobs of one stage run."""

    instance_type: Text
    instance_count: Count

    @classmethod
    def of(cls, stage: str, job: Job | Encoders) -> Hosts:
        """Return <Stage>InstanceType and <Stage>InstanceCount."""
        return cls(
            Text(f"{stage}InstanceType", job.instance_type, f"SageMaker instance type of {stage}"),
            Count(f"{stage}InstanceCount", job.instance_count, f"Hosts of {stage}"),
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
    def of(cls, settings: Settings, phase: Phase) -> PhaseParameters:
        """Return the parameters of a phase that has its own."""
        return cls(
            Count(
                phase.samples_name,
                phase.train.training_samples,
                f"Samples that {phase.train_name} sees, at {phase.encode.resolution_px} px",
            ),
            Number(
                f"OtherStepsUsd{phase.suffix}",
                phase.train.other_steps_usd,
                f"What of BudgetUsd the steps besides {phase.train_name} take",
            ),
            Number(
                f"Training{phase.suffix}InstanceHourUsd",
                training_price_usd(settings, phase),
                f"Dollars for one host-hour of {phase.train_name}; 0: not known",
            ),
            Hosts.of(phase.encode_name, phase.encode.job),
            Hosts.of(f"Training{phase.suffix}", phase.train.job),
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
    """The last four are there where the parameter set's gate asks for the comparison."""
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
    return PipelineParameters(
        dataset=Text("DatasetName", s.data.name, "Shards, latents and checkpoints live under this name"),
        url_table=Text("UrlTable", s.data.url_table, "s3:// address of the table of image urls and captions"),
        max_rows=Count("MaxRows", s.download.max_rows, "Only the first so many rows of the url table; 0: all"),
        min_yield=Number(
            "MinYield", s.download.min_yield, "Download fails when a smaller fraction of what filters leave is kept"
        ),
        top_up=Count("TopUp", s.download.top_up, "Raise by one to try again what failed and may succeed now"),
        pretrained=Text(
            "PretrainedModel", s.data.pretrained_uri, "s3:// folder of VAE, text encoder, UNet configuration"
        ),
        evaluator=Text("Evaluator", s.data.evaluator_uri, "s3:// folder of the models that judge pictures"),
        training_samples=Count("TrainingSamples", s.train.training_samples, "Samples that training sees"),
        global_batch_size=Count(
            "GlobalBatchSize", s.train.global_batch_size, "Samples for one optimizer step, all GPUs"
        ),
        training_run=Text(
            "TrainingRun", s.training_run, "Checkpoints live here; the same name continues a broken training"
        ),
        budget=Number(
            "BudgetUsd",
            s.train.budget_usd,
            "Dollars for the run: training stops, with a checkpoint, at it; 0: no limit",
        ),
        other_steps=Number("OtherStepsUsd", s.train.other_steps_usd, "What of BudgetUsd the steps besides Train take"),
        training_price=Number(
            "TrainingInstanceHourUsd",
            training_price_usd(s, s.phases[0]),
            "Dollars for one host-hour of Train; 0: not known, no cost is logged",
        ),
        tune_samples=Count("TuneSamples", s.tune.training_samples, "Sample budget of one tuning trial"),
        evaluation_samples=Count("EvaluationSamples", s.evaluate.samples, "Pictures generated to judge the model"),
        evaluation_captions=Text(
            "EvaluationCaptions", s.evaluate.captions, "Captions to draw: `heldout`, or s3:// address of a caption file"
        ),
        approved_model=Text(
            "ApprovedModel", s.evaluate.approved_model, "model.tar.gz to compare with, or `none`; `start` fills it in"
        ),
        max_fid=Number("MaxFid", s.gate.max_fid, "The gate passes at this FID or below"),
        min_clip_score=Number("MinClipScore", s.gate.min_clip_score, "The gate passes at this CLIP score or above"),
        max_fid_above_pretrained=_margin("MaxFidAbovePretrained", s.gate.max_fid_above_pretrained),
        max_clip_score_below_pretrained=_margin("MaxClipScoreBelowPretrained", s.gate.max_clip_score_below_pretrained),
        max_fid_above_approved=_margin("MaxFidAboveApproved", s.gate.max_fid_above_approved),
        max_clip_score_below_approved=_margin("MaxClipScoreBelowApproved", s.gate.max_clip_score_below_approved),
        approval_status=Text(
            "ApprovalStatus", s.registry.approval_status, "With which a package begins", get_args(ApprovalStatus)
        ),
        model_package_group=Text("ModelPackageGroup", s.registry.group, "Where a model that passed is registered"),
        endpoint_name=Text("EndpointName", s.endpoint.name, "Endpoint that is created or updated"),
        download=Hosts.of("Download", s.download.job),
        encode=Hosts.of("Encode", s.encode.job),
        tune=Hosts.of("Tune", s.tune.job),
        training=Hosts.of("Training", s.train.job),
        evaluate=Hosts.of("Evaluate", s.evaluate.job),
        endpoint=Hosts.of("Endpoint", s.endpoint.job),
        data_image=Text("DataImage", s.images.data, "Container image of Download"),
        training_image=Text("TrainingImage", s.images.training, "Container image of Encode, Tune, Train and Evaluate"),
        inference_image=Text("InferenceImage", s.images.inference, "Container image of the endpoint"),
        bucket=Text("Bucket", s.account.bucket, "S3 bucket of every artifact"),
        fsx_id=Text("FsxId", s.file_system.fsx_id, "FSx for Lustre file system with the latents"),
        fsx_path=Text("FsxPath", s.file_system.fsx_path, "/<mount name>/<folder> linked to the bucket's latents/"),
        encoders=Hosts.of("Encoders", s.encoders) if s.encoders else None,
        phase_2=next((PhaseParameters.of(s, phase) for phase in s.phases if phase.suffix), None),
    )


def _margin(name: str, default: float | None) -> Number | None:
    if default is None:
        return None
    return Number(name, default, "The gate passes when the upper bound of this difference (95 %) is at most this")
