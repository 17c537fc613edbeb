"""The pipeline parameters: what an operator sees and changes in the console; defaults come from the parameter set.

Reads Settings; writes nothing. `sd-pipeline parameters --params FILE` prints them as a table.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, get_args

from sagemaker.core.workflow.parameters import Parameter, ParameterFloat, ParameterInteger, ParameterString

from params import parameter_names as names
from params.phases import Phase
from params.settings import ApprovalStatus, Settings
from params.stages import Encoders, Job

MARGIN_TEXT: Final = "The gate passes when the upper bound of this difference (95 %) is at most this"


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


class Hosts:
    """The hosts of one stage's jobs: <Stage>InstanceType and <Stage>InstanceCount."""

    def __init__(self, stage: str, job: Job | Encoders) -> None:
        kind = f"SageMaker instance type of {stage}"
        self.instance_type = Text(names.instance_type_of(stage), job.instance_type, kind)
        self.instance_count = Count(names.instance_count_of(stage), job.instance_count, f"Hosts of {stage}")


@dataclass(frozen=True)
class PhaseParameters:
    """What an operator changes about one phase of the training."""

    training_samples: Count
    global_batch_size: Count
    other_steps: Number
    training_price: Number
    encode: Hosts
    training: Hosts

    @classmethod
    def for_phase(cls, phase: Phase, batch: Count) -> "PhaseParameters":
        """Return the parameters of a later phase; `batch` is the first one's global batch."""
        train, name = phase.train, phase.train_name
        seen = f"Samples that {name} sees, at {phase.encode.resolution_px} px"
        price = f"Dollars for one host-hour of {name}; 0: not known"
        others = f"What of BudgetUsd the steps besides {name} take"
        if phase.batch_name != batch.name:
            step = f"Samples for one optimizer step of {name}, all GPUs"
            batch = Count(phase.batch_name, train.global_batch_size, step)
        return cls(
            Count(phase.named(names.TRAINING_SAMPLES), train.training_samples, seen),
            batch,
            Number(phase.named(names.OTHER_STEPS_USD), train.other_steps_usd, others),
            Number(phase.instance_hour_name, train.instance_hour_usd, price),
            Hosts(phase.encode_name, phase.encode.job),
            Hosts(phase.hosts_name, train.job),
        )


class PipelineParameters:
    """Every parameter of the pipeline, in the order in which the console shows them."""

    def __init__(self, s: Settings) -> None:
        """Take the parameter set's values as defaults."""
        self._of_data(s)
        self._of_training(s)
        self._of_gate(s)
        words, begun = list(get_args(ApprovalStatus)), "With which a package begins"
        self.approval_status = Text(names.APPROVAL_STATUS, s.registry.approval_status, begun, enum_values=words)
        registered = "Where a model that passed is registered"
        self.model_package_group = Text(names.MODEL_PACKAGE_GROUP, s.registry.group, registered)
        self.endpoint_name = Text(names.ENDPOINT_NAME, s.endpoint.name, "Endpoint that is created or updated")
        self._of_hosts(s)
        self._of_account(s)
        self.later_phases = [PhaseParameters.for_phase(phase, self.global_batch_size) for phase in s.phases[1:]]
        self.encoders = Hosts(names.ENCODERS_HOSTS, s.encoders) if s.encoders else None
        self.recaption = Hosts(names.RECAPTION_HOSTS, s.recaption.job) if s.recaption else None
        written_by = "s3:// folder of the model that writes captions"
        self.captioner = Text(names.CAPTIONER, s.recaption.captioner_uri, written_by) if s.recaption else None

    def _of_data(self, s: Settings) -> None:
        data, download = s.data, s.download
        self.dataset = Text(names.DATASET_NAME, data.name, "Shards, latents and checkpoints live under this name")
        self.url_table = Text(names.URL_TABLE, data.url_table, "s3:// address of the table of image urls and captions")
        self.max_rows = Count(names.MAX_ROWS, download.max_rows, "Only the first so many rows of the url table; 0: all")
        too_few = "Download fails when a smaller fraction of what filters leave is kept"
        self.min_yield = Number(names.MIN_YIELD, download.min_yield, too_few)
        self.top_up = Count(names.TOP_UP, download.top_up, "Raise by one to try again what failed and may succeed now")
        parts = "s3:// folder of VAE, text encoder, UNet configuration"
        self.pretrained = Text(names.PRETRAINED_MODEL, data.pretrained_uri, parts)
        self.evaluator = Text(names.EVALUATOR, data.evaluator_uri, "s3:// folder of the models that judge pictures")

    def _of_training(self, s: Settings) -> None:
        train, first = s.train, s.phases[0]
        self.training_samples = Count(names.TRAINING_SAMPLES, train.training_samples, "Samples that training sees")
        step = "Samples for one optimizer step, all GPUs"
        self.global_batch_size = Count(names.GLOBAL_BATCH_SIZE, train.global_batch_size, step)
        place = "Checkpoints live here; the same name continues a broken training"
        self.training_run = Text(names.TRAINING_RUN, s.training_run, place)
        limit = "Dollars for the run: training stops, with a checkpoint, at it; 0: no limit"
        self.budget = Number(names.BUDGET_USD, train.budget_usd, limit)
        others = "What of BudgetUsd the steps besides Train take"
        self.other_steps = Number(names.OTHER_STEPS_USD, train.other_steps_usd, others)
        price = "Dollars for one host-hour of Train; 0: not known, no cost is logged"
        self.training_price = Number(first.instance_hour_name, first.train.instance_hour_usd, price)
        self.tune_samples = Count(names.TUNE_SAMPLES, s.tune.training_samples, "Sample budget of one tuning trial")

    def _of_gate(self, s: Settings) -> None:
        evaluate, gate = s.evaluate, s.gate
        count = "Pictures generated to judge the model"
        self.evaluation_samples = Count(names.EVALUATION_SAMPLES, evaluate.samples, count)
        drawn = "Captions to draw: `heldout`, or s3:// address of a caption file"
        self.evaluation_captions = Text(names.EVALUATION_CAPTIONS, evaluate.captions, drawn)
        compared = "model.tar.gz to compare with, or `none`; `start` fills it in"
        self.approved_model = Text(names.APPROVED_MODEL, evaluate.approved_model, compared)
        self.max_fid = Number(names.MAX_FID, gate.max_fid, "The gate passes at this FID or below")
        least = "The gate passes at this CLIP score or above"
        self.min_clip_score = Number(names.MIN_CLIP_SCORE, gate.min_clip_score, least)
        share = (
            "The gate passes when the upper bound (95 %) of the share of copies of training pictures is at most this"
        )
        self.max_copies = None if gate.max_copies is None else Number(names.MAX_COPIES, gate.max_copies, share)
        right = "The gate passes when the lower bound (95 %) of the share of pictures that show their prompt is this"
        asked = gate.min_prompt_following
        self.min_following = None if asked is None else Number(names.MIN_PROMPT_FOLLOWING, asked, f"{right} or above")
        # None where the parameter set's gate does not ask for the comparison.
        self.margins = [
            default if default is None else Number(name, default, MARGIN_TEXT)
            for name, default in zip(names.MARGINS, gate.margins, strict=True)
        ]

    def _of_hosts(self, s: Settings) -> None:
        first = s.phases[0]
        self.download = Hosts(names.DOWNLOAD_HOSTS, s.download.job)
        self.encode = Hosts(first.encode_name, s.encode.job)
        self.tune = Hosts(names.TUNE_HOSTS, s.tune.job)
        self.training = Hosts(first.hosts_name, s.train.job)
        self.evaluate = Hosts(names.EVALUATE_HOSTS, s.evaluate.job)
        self.endpoint = Hosts(names.ENDPOINT_HOSTS, s.endpoint.job)

    def _of_account(self, s: Settings) -> None:
        images, latents = s.images, s.file_system
        trains = "Container image of Encode, Tune, Train and Evaluate"
        self.data_image = Text(names.DATA_IMAGE, images.data, "Container image of Download")
        self.training_image = Text(names.TRAINING_IMAGE, images.training, trains)
        self.inference_image = Text(names.INFERENCE_IMAGE, images.inference, "Container image of the endpoint")
        self.bucket = Text(names.BUCKET, s.account.bucket, "S3 bucket of every artifact")
        self.fsx_id = Text(names.FSX_ID, latents.fsx_id, "FSx for Lustre file system with the latents")
        mount = "/<mount name>/<folder> linked to the bucket's latents/"
        self.fsx_path = Text(names.FSX_PATH, latents.fsx_path, mount)

    def flat(self) -> list[Parameter]:
        """Return the parameters for `Pipeline(parameters=...)`, which drops anything else in silence."""
        # Phases may share one: it stands once.
        return list({parameter.name: parameter for parameter in _parameters(self)}.values())

    def of_phase(self, phase: Phase) -> PhaseParameters:
        """Return the parameters of a phase; the first one's are the pipeline's own."""
        if phase.suffix:
            return self.later_phases[phase.number - 2]
        samples, batch = self.training_samples, self.global_batch_size
        return PhaseParameters(samples, batch, self.other_steps, self.training_price, self.encode, self.training)


def _parameters(group: Any) -> Iterator[Parameter]:
    for value in group if isinstance(group, list) else vars(group).values():
        if isinstance(value, Parameter):
            yield value
        elif value is not None:
            yield from _parameters(value)
