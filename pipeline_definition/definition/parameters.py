"""The pipeline parameters: what an operator sees and changes in the console; defaults come from the parameter set.

Reads Settings and the descriptions in parameters.yaml; writes nothing. `sd-pipeline parameters` prints them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, get_args

from sagemaker.core.workflow.parameters import Parameter, ParameterFloat, ParameterInteger, ParameterString

from params import parameter_names as names
from params.phases import Phase
from params.settings import ApprovalStatus, Settings
from params.stages import Encoders, Job
from params.tables import table_beside

DESCRIPTIONS: Final[Mapping[str, str]] = table_beside(__file__)


class Described(Parameter):  # type: ignore[misc]
    """A parameter with the description that the console shows: of its name, unless one is given."""

    def __init__(self, name: str, default: str | float, description: str = "", **options: Any) -> None:
        super().__init__(name, default_value=default, **options)
        self.description = description or DESCRIPTIONS[name]

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
        train = phase.train
        about = {"step": phase.train_name, "resolution_px": phase.encode.resolution_px}
        text = {name: words.format(**about) for name, words in DESCRIPTIONS.items() if name.startswith("phase")}
        if phase.batch_name != batch.name:
            batch = Count(phase.batch_name, train.global_batch_size, text["phase batch"])
        return cls(
            Count(phase.named(names.TRAINING_SAMPLES), train.training_samples, text["phase samples"]),
            batch,
            Number(phase.named(names.OTHER_STEPS_USD), train.other_steps_usd, text["phase other steps"]),
            Number(phase.instance_hour_name, train.instance_hour_usd, text["phase price"]),
            Hosts(phase.encode_name, phase.encode.job),
            Hosts(phase.hosts_name, train.job),
        )


class PipelineParameters:
    """Every parameter of the pipeline, in the order in which the console shows them."""

    def __init__(self, s: Settings) -> None:
        self._of_data(s)
        self._of_training(s)
        self._of_gate(s)
        words = list(get_args(ApprovalStatus))
        self.approval_status = Text(names.APPROVAL_STATUS, s.registry.approval_status, enum_values=words)
        self.model_package_group = Text(names.MODEL_PACKAGE_GROUP, s.registry.group)
        self.endpoint_name = Text(names.ENDPOINT_NAME, s.endpoint.name)
        self._of_hosts(s)
        self._of_account(s)
        self.later_phases = [PhaseParameters.for_phase(phase, self.global_batch_size) for phase in s.phases[1:]]
        self.encoders = Hosts(names.ENCODERS_HOSTS, s.encoders) if s.encoders else None
        self.recaption = Hosts(names.RECAPTION_HOSTS, s.recaption.job) if s.recaption else None
        self.captioner = Text(names.CAPTIONER, s.recaption.captioner_uri) if s.recaption else None

    def _of_data(self, s: Settings) -> None:
        self.dataset = Text(names.DATASET_NAME, s.data.name)
        self.url_table = Text(names.URL_TABLE, s.data.url_table)
        self.max_rows = Count(names.MAX_ROWS, s.download.max_rows)
        self.min_yield = Number(names.MIN_YIELD, s.download.min_yield)
        self.top_up = Count(names.TOP_UP, s.download.top_up)
        self.pretrained = Text(names.PRETRAINED_MODEL, s.data.pretrained_uri)
        self.evaluator = Text(names.EVALUATOR, s.data.evaluator_uri)

    def _of_training(self, s: Settings) -> None:
        train, price_name = s.train, s.phases[0].instance_hour_name
        self.training_samples = Count(names.TRAINING_SAMPLES, train.training_samples)
        self.global_batch_size = Count(names.GLOBAL_BATCH_SIZE, train.global_batch_size)
        self.training_run = Text(names.TRAINING_RUN, s.training_run)
        self.budget = Number(names.BUDGET_USD, train.budget_usd)
        self.other_steps = Number(names.OTHER_STEPS_USD, train.other_steps_usd)
        self.training_price = Number(price_name, train.instance_hour_usd)
        self.tune_samples = Count(names.TUNE_SAMPLES, s.tune.training_samples)

    def _of_gate(self, s: Settings) -> None:
        evaluate, gate = s.evaluate, s.gate
        self.evaluation_samples = Count(names.EVALUATION_SAMPLES, evaluate.samples)
        self.evaluation_captions = Text(names.EVALUATION_CAPTIONS, evaluate.captions)
        self.approved_model = Text(names.APPROVED_MODEL, evaluate.approved_model)
        self.max_fid = Number(names.MAX_FID, gate.max_fid)
        self.min_clip_score = Number(names.MIN_CLIP_SCORE, gate.min_clip_score)
        # None where the parameter set's gate does not ask for it.
        self.max_copies = _asked(names.MAX_COPIES, gate.max_copies)
        self.min_following = _asked(names.MIN_PROMPT_FOLLOWING, gate.min_prompt_following)
        self.margins = [_asked(name, default) for name, default in zip(names.MARGINS, gate.margins, strict=True)]

    def _of_hosts(self, s: Settings) -> None:
        first = s.phases[0]
        self.download = Hosts(names.DOWNLOAD_HOSTS, s.download.job)
        self.encode = Hosts(first.encode_name, s.encode.job)
        self.tune = Hosts(names.TUNE_HOSTS, s.tune.job)
        self.training = Hosts(first.hosts_name, s.train.job)
        self.evaluate = Hosts(names.EVALUATE_HOSTS, s.evaluate.job)
        self.endpoint = Hosts(names.ENDPOINT_HOSTS, s.endpoint.job)

    def _of_account(self, s: Settings) -> None:
        self.data_image = Text(names.DATA_IMAGE, s.images.data)
        self.training_image = Text(names.TRAINING_IMAGE, s.images.training)
        self.inference_image = Text(names.INFERENCE_IMAGE, s.images.inference)
        self.bucket = Text(names.BUCKET, s.account.bucket)
        self.fsx_id = Text(names.FSX_ID, s.file_system.fsx_id)
        self.fsx_path = Text(names.FSX_PATH, s.file_system.fsx_path)

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


def _asked(name: str, threshold: float | None) -> Number | None:
    return None if threshold is None else Number(name, threshold)


def _parameters(group: Any) -> Iterator[Parameter]:
    for value in group if isinstance(group, list) else vars(group).values():
        if isinstance(value, Parameter):
            yield value
        elif value is not None:
            yield from _parameters(value)
