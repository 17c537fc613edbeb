"""A parameter set: everything that `sd-pipeline` needs to build the pipeline, read from params/NAME.yaml.

Reads a YAML file that holds only what differs from the defaults below; writes nothing.

    sd-pipeline definition --params params/sd2_base.yaml
"""

import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

import yaml
from pydantic import ConfigDict, Field, model_validator

from params import stages
from params.arguments import hint_at, validated
from params.cloud import Cloud
from params.files import read_text
from params.gate import Gate
from params.layout import THROUGHPUT_STEP
from params.model import Model, added
from params.phases import LaterPhase, Phase, phases_of
from params.programs import DRAWING, ServeArguments
from params.strict_yaml import StrictLoader

ApprovalStatus = Literal["PendingManualApproval", "Approved", "Rejected"]
# Keys of an earlier release, and what became of them.
GONE: Final = {
    "tune.keep_alive_s": "a tuning job runs its trials on the hosts that it has, and asks for no warm pool",
    **{f"local.cloud.{name}": "it needed root" for name in ("foreign_hosts", "no_internet", "disk_mb")},
}
# What AWS allows in the tags of every service: https://docs.aws.amazon.com/tag-editor/latest/userguide/tagging.html
TAG_TEXT: Final = r"^[a-zA-Z0-9_ .:/=+@-]*$"
TagKey = Annotated[str, Field(min_length=1, max_length=128, pattern=TAG_TEXT)]
TagValue = Annotated[str, Field(max_length=256, pattern=TAG_TEXT)]


class SettingsError(ValueError):
    """A parameter set cannot be used: the message names the file, the key and the fix."""


class Images(Model):
    """Container images; each carries its code."""

    data: str = "000000000000.dkr.ecr.us-east-1.amazonaws.com/sd-pipeline-data:latest"
    """Download."""
    training: str = "000000000000.dkr.ecr.us-east-1.amazonaws.com/sd-pipeline-training:latest"
    """Encode, Tune, Train and Evaluate."""
    inference: str = "000000000000.dkr.ecr.us-east-1.amazonaws.com/sd-pipeline-inference:latest"
    """The endpoint."""


class Account(Model):
    """Where in AWS the pipeline lives."""

    region: str = "us-east-1"
    """Region of every resource."""
    bucket: str = "sd-pipeline-000000000000-us-east-1"
    """S3 bucket of every artifact."""
    role_arn: str = "arn:aws:iam::000000000000:role/sd-pipeline-execution"
    """Role under which the jobs run."""
    subnets: tuple[str, ...] = ()
    """Private subnets of the jobs; FSx for Lustre can only be reached from inside its network."""
    security_groups: tuple[str, ...] = ()
    """Security groups of the jobs."""
    kms_key_arn: str = added("", pattern=r"^(arn:aws[a-z-]*:kms:[a-z0-9-]+:\d{12}:key/.+)?$")
    """Key for what jobs store in S3, and for their disks where these are not the host's own; nothing: AWS's keys."""
    tags: dict[TagKey, TagValue] = added({}, max_length=40)
    """Tags of the pipeline, and of every job, model, endpoint configuration and endpoint that it makes."""


class FileSystem(Model):
    """How training reads the latents."""

    kind: Literal["fsx", "s3", "s3_direct"] = "fsx"
    """`fsx`: FSx for Lustre, linked to the latents prefix; `s3`: fast file mode, no file system needed; `s3_direct`:
    the loader itself reads blocks from S3, many at a time, and there is no channel of latents."""
    fsx_id: str = "fs-00000000000000000"
    """FSx for Lustre file system."""
    fsx_path: str = Field("/fsx/latents", pattern=r"^/[^/].*[^/]$")
    """/<mount name>/<folder> where the latents prefix is mounted."""


class Data(Model):
    """What the model learns from."""

    name: str = Field("laion", pattern=r"^[a-zA-Z0-9][a-zA-Z0-9-]{0,62}$")
    """Name of the data set: its shards, latents and checkpoints live under this name in the bucket."""
    url_table: str = "s3://sd-pipeline-000000000000-us-east-1/urls/"
    """Parquet table of image addresses and captions."""
    rows: int = Field(0, ge=0)
    """Length of that table, if known: the cost forecast uses it; 0: the forecast uses TrainingSamples."""
    pretrained_uri: str = "s3://sd-pipeline-000000000000-us-east-1/pretrained/stable-diffusion-2-base"
    """Folder with the VAE, text encoder, tokenizer, scheduler and the UNet's configuration, as diffusers saves them."""
    model: str = added("Stable Diffusion 2")
    """The model of that folder, by its name in pipeline_definition/jobs/memory.yaml: forecast and plan reckon with its
    FLOPs and memory."""
    evaluator_uri: str = "s3://sd-pipeline-000000000000-us-east-1/pretrained/evaluator"
    """Folder with the CLIP model that scores pictures (clip/, or a Hugging Face cache as it is), and with Inception's
    weights where FID uses them."""
    reference_uri: str = ""
    """Pictures and captions to judge against in place of those that Encode held out, such as COCO's: the reference that
    Encode wrote for another data set."""


class Registry(Model):
    """Where passed models are registered."""

    group: str = Field("sd-pipeline", pattern=r"^[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}$")
    """Model package group."""
    approval_status: ApprovalStatus = "PendingManualApproval"
    """With which a package begins."""


class LocalWorld(Model):
    """The small world of a local run: read by `run-local` alone, it never reaches the definition."""

    rows: int = Field(4000, ge=16)
    """Rows of the url table."""
    max_aspect_ratio: float = Field(1.0, ge=1.0, le=4.0)
    """Above 1, pictures alternate: square, wide, tall, with this ratio of sides: see encode.max_bucket_ratio."""
    pretrained_dir: str = "shapes/models/pretrained"
    """Folder that is uploaded to data.pretrained_uri."""
    evaluator_dir: str = "shapes/models/evaluator"
    """Folder that is uploaded to data.evaluator_uri."""
    captioner_dir: str = "shapes/captioner"
    """Folder that is uploaded to recaption.captioner_uri."""
    cloud: Cloud = Cloud()


class Settings(Model):
    """A whole parameter set."""

    model_config = ConfigDict(serialize_by_alias=True)

    pipeline_name: str = Field("sd-pipeline", pattern=r"^[a-zA-Z0-9](-*[a-zA-Z0-9]){0,255}$")
    """Name of the SageMaker pipeline."""
    training_run: str = Field("default", pattern=r"^[a-zA-Z0-9][a-zA-Z0-9-]{0,62}$")
    """Checkpoints live under this name: an unfinished training of the same settings goes on, on any GPU count."""
    cache_expires_after: str = Field("P30D", pattern=r"^P")
    """ISO 8601 duration for which an unchanged step is not run again."""
    account: Account = Account()
    images: Images = Images()
    file_system: FileSystem = FileSystem()
    data: Data = Data()
    download: stages.DownloadStep = stages.DownloadStep()
    recaption: stages.RecaptionStep | None = None
    """A step between Download and Encode that writes long captions; absent: none. train.written_captions
    says which share of the samples is trained on with them."""
    encode: stages.EncodeStep = stages.EncodeStep()
    tune: stages.TuneStep = stages.TuneStep()
    throughput: stages.ThroughputStep | None = None
    """A step beside Tune that measures Train's hosts at each micro-batch size; absent: none."""
    train: stages.TrainStep = stages.TrainStep()
    later_phases: tuple[LaterPhase, ...] = Field((), alias="phases", max_length=8)
    """Further trainings, each at another resolution and from the model of the one before; absent: one training.
    `phase_2: {...}`, of release 0.1.0, is read as a list of one."""
    encoders: stages.Encoders | None = None
    """Instance group that encodes while Train runs; absent: latents are read. Encode then makes encode.max_train_rows
    of them for Tune, the held-out ones, and the plan of all."""
    evaluate: stages.EvaluateStep = stages.EvaluateStep()
    gate: Gate = Gate()
    registry: Registry = Registry()
    endpoint: stages.EndpointStep = stages.EndpointStep()
    local: LocalWorld | None = None
    """The small world of a local run; a set for AWS has none."""

    @model_validator(mode="before")
    @classmethod
    def _judges_what_is_served(cls, values: Any) -> Any:
        """Give Evaluate the endpoint's way of drawing, where it names none of its own."""
        named, endpoint = (values.get(name) or {} for name in ("evaluate", "endpoint"))
        if not isinstance(named, dict) or not isinstance(endpoint, dict):
            return values
        defaults = ServeArguments().model_dump(include=set(DRAWING))
        return {**values, "evaluate": {name: endpoint.get(name, defaults[name]) for name in DRAWING} | named}

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        if problem := next(self._contradictions(), ""):
            raise ValueError(problem)
        return self

    def _contradictions(self) -> Iterator[str]:
        """Yield which settings of different sections do not go together, and the fix."""
        tune, train, encode, endpoint = self.tune, self.train, self.encode, self.endpoint
        if tune.spot and tune.job.training_plan:
            yield "tune.job.training_plan: reserved hosts are no spot instances; set tune.spot to false"
        if train.spot and any(phase.train.job.training_plan for phase in self.phases):
            yield "train.job.training_plan: reserved hosts are no spot instances; set train.spot to false"
        if self.encoders and train.job.training_plan:
            yield "train.job.training_plan: a plan reserves one type, and encoders are another; leave one out"
        if self.phases[-1].train.prediction_type == "flow":
            for key, name in (("evaluate", self.evaluate.sampler), ("endpoint", endpoint.sampler)):
                if name == "ddim":
                    yield f"{key}.sampler: ddim does not draw with a model that predicts flow; set dpm++"
        if endpoint.capacity_reservation and endpoint.job.instance_preferences:
            yield "endpoint.job.instance_preferences: a capacity reservation has one type; leave them out"
        if any(other.instance_count for other in endpoint.job.instance_preferences):
            yield "endpoint.job.instance_preferences: an endpoint has one count; leave out instance_count"
        if train.lora_rank and self.later_phases:
            yield "train.lora_rank: a LoRA is one training; leave phases out, or set lora_rank to 0"
        if train.lora_text_encoder and encode.caption_embeddings:
            what = "the text encoder cannot learn from embeddings that were stored"
            yield f"train.lora_text_encoder: {what}; set encode.caption_embeddings to false"
        if any(phase.train.alignment_weight and not phase.encode.features for phase in self.phases):
            yield "train.alignment_weight: Encode stores no features; set encode.features, such as dinov2"
        if self.encoders and encode.features:
            yield "encode.features: what encodes while Train runs makes none; leave encoders out"
        if self.gate.max_copies is not None and not encode.descriptors:
            yield "gate.max_copies: nothing finds copies; set encode.descriptors, such as dinov2"
        if self.gate.min_prompt_following is not None and self.evaluate.following == "none":
            yield "gate.min_prompt_following: nobody counts; set evaluate.following, such as detector"
        for other in (phase.encode for phase in self.phases if encode.descriptors):
            wider = other.smallest_original_px < encode.smallest_original_px
            if wider or other.heldout_fraction != encode.heldout_fraction:
                yield "encode.descriptors: a later phase trains on pictures that the first one leaves out"
        if train.written_captions and self.recaption is None:
            yield "train.written_captions: nothing writes any; add a `recaption:` section, or set it to 0"
        if self.recaption and encode.caption_embeddings:
            yield "encode.caption_embeddings: both captions are stored as token ids; set it to false"
        if self.recaption and self.encoders:
            yield "recaption: `encoders:` know the original captions alone; leave one of the two out"

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The trainings in order; the last one's model is evaluated, registered and deployed."""
        return phases_of(self.encode, self.train, self.later_phases)

    def phase_of(self, step: str) -> Phase:
        """Return the phase to which a step of the definition belongs: the first, where it belongs to none."""
        named = {name: phase for phase in self.phases for name in (phase.encode_name, phase.train_name)}
        return named.get(step, self.phases[0])

    def job_of(self, step: str) -> stages.Job | None:
        """Return on what a step of the definition runs; None for one that starts no job or endpoint."""
        jobs: dict[str, stages.Job] = {
            "Download": self.download.job,
            **({"Recaption": self.recaption.job} if self.recaption else {}),
            "Tune": self.tune.job,
            THROUGHPUT_STEP: self.train.job,
            "Evaluate": self.evaluate.job,
            "EndpointConfig": self.endpoint.job,
            **{phase.encode_name: phase.encode.job for phase in self.phases},
            **{phase.train_name: phase.train.job for phase in self.phases},
        }
        return jobs.get(step)


def load_settings(path: Path) -> Settings:
    """Read a parameter set: a file, or one that ships with the package, by its name; a SettingsError names the fix."""
    shipped = {file.stem: file for file in sorted(Path(__file__).parent.glob("*.yaml"))}
    if not path.is_file() and str(path) in shipped:
        path = shipped[str(path)]
    if not path.exists():
        what = f"there is no such file; these ship with sd-pipeline: {', '.join(shipped)}"
        raise SettingsError(f"{path}: cannot be read: {what}")
    return parse_settings(read_text(path, SettingsError), str(path))


def parse_settings(text: str, source: str) -> Settings:
    """Build a parameter set from YAML text; `source` names it in errors."""
    try:
        values = yaml.load(text, Loader=StrictLoader)  # noqa: S506 (stricter than SafeLoader)
    except yaml.YAMLError as error:
        raise SettingsError(f"{source}: not valid YAML: {' '.join(str(error).split())}") from None
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise SettingsError(f"{source}: a parameter set is a mapping of sections, not {type(values).__name__}")
    if "phase_2" in values:
        if "phases" in values:
            raise SettingsError(f"{source}: phase_2 is the first of phases: write it there")
        second = values.pop("phase_2")
        values["phases"] = [] if second is None else [second]
    if unknown := list(_unknown_keys(values, Settings, "")):
        raise SettingsError(f"{source}: " + "; ".join(unknown))
    return validated(Settings, values, source, SettingsError)


def _unknown_keys(values: dict[Any, Any], model: type[Model], prefix: str) -> Iterator[str]:
    fields = {field.alias or name: field for name, field in model.model_fields.items()}
    for key, value in values.items():
        field = fields.get(str(key))
        if f"{prefix}{key}" in GONE:
            yield f"{prefix}{key} is gone: {GONE[f'{prefix}{key}']}; remove the line"
        elif field is None:
            yield f"unknown key {prefix}{key}; {hint_at(str(key), fields, prefix)}"
        elif section := _section(field.annotation):
            in_list = isinstance(value, list)
            for place, item in enumerate(value if in_list else [value]):
                if isinstance(item, dict):
                    yield from _unknown_keys(item, section, f"{prefix}{key}.{place}." if in_list else f"{prefix}{key}.")


def _section(annotation: Any) -> type[Model] | None:
    """Return the model of a section, also of one that may be absent; None for a plain value."""
    kinds = typing.get_args(annotation) or (annotation,)
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Model)), None)
