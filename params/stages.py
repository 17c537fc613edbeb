"""The stages of the pipeline: a program's settings, and on what its job runs.

Reads nothing, writes nothing. `params.settings` puts them together into a parameter set.
"""

from typing import Final, Literal, Self

from pydantic import Field, model_validator

from params.model import Model, added
from params.programs import DownloadSettings, EncodeSettings, EvaluateArguments, ServeArguments, TrainArguments
from params.programs.encode import RecaptionSettings

# Words of endpoint.inference_ami_version, and the host image with a driver for CUDA 13.
AUTO: Final = "auto"
NONE: Final = "none"
INSTANCE_TYPE: Final = r"^ml\.[a-z0-9-]+\.[a-z0-9]+$"
GPU_HOST_IMAGE: Final = "al2023-ami-sagemaker-inference-gpu-4-1"


class Preference(Model):
    """Hosts that a job takes where those before it in the list have no capacity."""

    instance_type: str = Field(pattern=INSTANCE_TYPE)
    """SageMaker instance type."""
    instance_count: int = Field(0, ge=0)
    """Hosts; 0: as many as of the job's own type."""


class Job(Model):
    """On what a job runs."""

    instance_type: str = Field(pattern=INSTANCE_TYPE)
    """SageMaker instance type, such as ml.p4d.24xlarge."""
    instance_count: int = Field(1, ge=1)
    """Hosts."""
    volume_size_gb: int = Field(100, ge=1)
    """Disk of each host."""
    max_runtime_s: int = Field(86_400, ge=1)
    """The job is stopped after this."""
    instance_preferences: tuple[Preference, ...] = added((), max_length=4)
    """What to take where instance_type has no capacity, in this order. SageMaker itself chooses when a processing job,
    an endpoint or a training on demand begins; for the others (trials, spot, encoders), `start` chooses by what the
    zones offer and by the quotas."""


class TrainingHosts(Job):
    """On what a training runs: hosts that may have been reserved."""

    training_plan: str = added("", pattern=r"^(arn:aws[a-z-]*:sagemaker:[a-z0-9-]+:\d{12}:training-plan/.+)?$")
    """ARN of the SageMaker training plan whose hosts are taken, paid in advance; nothing: on demand or spot."""


TRAINING_HOSTS: Final = TrainingHosts(
    instance_type="ml.p4d.24xlarge", instance_count=4, volume_size_gb=500, max_runtime_s=28 * 86_400
)


class Encoders(Model):
    """Hosts of Train's own job that encode pictures while the others train."""

    instance_type: str = Field("ml.g5.12xlarge", pattern=INSTANCE_TYPE)
    """SageMaker instance type: cheap GPUs do."""
    instance_count: int = Field(4, ge=1)
    """Hosts."""


class DownloadStep(DownloadSettings):
    """Url table to shards."""

    job: Job = Job(instance_type="ml.c6i.4xlarge", instance_count=4)
    """CPU hosts: img2dataset needs network and cores."""


class RecaptionStep(RecaptionSettings):
    """Stored pictures to long captions."""

    job: Job = Job(instance_type="ml.g5.12xlarge", instance_count=4, max_runtime_s=432_000)
    """GPU hosts: a captioner has to fit into the memory of one GPU."""
    captioner_uri: str = "s3://sd-pipeline-000000000000-us-east-1/pretrained/captioner"
    """Folder with a vision-language model as transformers saves it: safetensors, no code of its own."""


class EncodeStep(EncodeSettings):
    """Shards to latents."""

    job: Job = Job(instance_type="ml.g5.12xlarge", instance_count=4)
    """GPU hosts: cheap ones do, the VAE needs little memory."""


class Range(Model):
    """The interval in which Tune searches."""

    low: float
    """Smallest value."""
    high: float
    """Largest value."""
    scaling: Literal["Linear", "Logarithmic"] = "Linear"
    """How the interval is sampled."""


class TuneStep(Model):
    """Small-scale search on a fixed sample budget."""

    job: TrainingHosts = TrainingHosts(instance_type="ml.g5.12xlarge", max_runtime_s=4 * 3600)
    """On what one trial runs."""
    trials: int = Field(8, ge=1)
    """Trials in all."""
    parallel_trials: int = Field(4, ge=1)
    """Trials at once."""
    strategy: Literal["Random", "Bayesian"] = "Bayesian"
    """How the next trial is chosen."""
    seed: int = Field(1, ge=1)
    """Of a random search. Never 0: the SageMaker SDK takes that for none, and every start would search elsewhere."""
    training_samples: int = Field(2_048_000, ge=1)
    """Sample budget of each trial."""
    warmup_samples: int = Field(204_800, ge=0)
    """Linear warm-up of each trial."""
    global_batch_size: int = Field(0, ge=0)
    """Samples of a trial's optimizer step: with fewer than Train's, a trial takes more steps for the same dollars.
    Train then multiplies the learning rate by the square root of its batch over this; 0: Train's own batch."""
    learning_rate: Range = Range(low=3e-5, high=3e-4, scaling="Logarithmic")
    """Interval of the learning rate."""
    micro_batch_size: tuple[int, ...] = Field((32, 64, 128), min_length=1)
    """Micro-batch sizes to try."""
    caption_dropout: Range = Range(low=0.05, high=0.2)
    """Interval of the caption dropout."""
    spot: bool = False
    """Managed spot instances for the trials, with checkpoints: an interrupted trial goes on."""
    max_wait_s: int = Field(86_400, ge=1)
    """With spot: how long a trial waits for instances, its run included."""
    save_every_samples: int = Field(256_000, ge=1)
    """With spot: how often a trial writes a checkpoint; without, only at its end."""


class ThroughputStep(Model):
    """How fast Train's own hosts are at each micro-batch size: a job of minutes beside Tune."""

    micro_batch_sizes: tuple[int, ...] = Field((16, 32, 64, 128, 256), min_length=1)
    """Sizes to measure, the smallest first, up to the first that needs too much memory."""
    seconds_per_size: float = Field(30.0, gt=0)
    """How long each is measured, after its warm-up."""
    max_runtime_s: int = Field(3600, ge=1)
    """The job is stopped after this."""


class TrainStep(TrainArguments):
    """Latents to a model. micro_batch_size, learning_rate and caption_dropout are replaced by Tune's best."""

    job: TrainingHosts = TRAINING_HOSTS
    """GPU hosts."""
    spot: bool = False
    """Managed spot instances: cheaper, interrupted at two minutes' notice; the checkpoints make that safe."""
    max_wait_s: int = Field(28 * 86_400, ge=1)
    """With spot: how long to wait for instances, the training included."""


class EvaluateStep(EvaluateArguments):
    """A model to metrics. What of guidance_scale, inference_steps, sampler and precision is not named is endpoint's."""

    job: Job = Job(instance_type="ml.g5.12xlarge")
    """GPU host."""


class Scaling(Model):
    """How many hosts an endpoint has, by its load. `sd-pipeline scale` applies it: no pipeline step can."""

    min_instances: int = Field(1, ge=0)
    """Fewest hosts; 0 is for asynchronous endpoints: their first request wakes a host."""
    max_instances: int = Field(0, ge=0)
    """Most hosts; 0: no autoscaling."""
    target_load: float = Field(20.0, gt=0)
    """What one host should have: invocations a minute or, asynchronous, requests that wait for it."""
    scale_out_cooldown_s: int = Field(60, ge=0)
    """No further hosts so soon after the last ones."""
    scale_in_cooldown_s: int = Field(300, ge=0)
    """No fewer hosts so soon after the last change (Application Auto Scaling's default)."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if 0 < self.max_instances < self.min_instances:
            raise ValueError("max_instances is below min_instances; 0 switches autoscaling off")
        return self


class EndpointStep(ServeArguments):
    """A model behind an address."""

    job: Job = Job(instance_type="ml.g5.2xlarge")
    """GPU host of the endpoint."""
    name: str = Field("sd-pipeline", pattern=r"^[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}$")
    """Name of the endpoint: created the first time, updated afterwards."""
    asynchronous: bool = False
    """Requests and answers are objects in S3 (InvokeEndpointAsync): they wait for hours, and hosts may go down to 0."""
    inference_ami_version: str = added(AUTO, pattern=r"^[a-z0-9-]+$")
    """Image of the endpoint's host, which brings the NVIDIA driver. auto: for GPU types the one whose driver is new
    enough for the CUDA 13 of the images (g4dn, g5 and p4d have driver 470 by default); none for CPU types. none:
    SageMaker's own choice. Or a value of InferenceAmiVersion in CreateEndpointConfig."""
    capacity_reservation: str = added("", pattern=r"^(arn:aws[a-z-]*:sagemaker:[a-z0-9-]+:\d{12}:[a-z0-9-]{1,14}/.+)?$")
    """ARN of reserved capacity, such as a training plan for endpoints: its hosts and no others; nothing: on demand."""
    concurrent_invocations: int = Field(8, ge=1, le=1000)
    """Requests that SageMaker hands one host of an asynchronous endpoint at once: a batch, so that it can be filled."""
    invocation_timeout_s: int = added(3600, ge=60, le=3600)
    """A request to an asynchronous endpoint that takes longer fails: timeout_s of its hosts."""
    scaling: Scaling = Scaling()
    """Autoscaling."""

    @model_validator(mode="after")
    def _only_a_queue_waits(self) -> Self:
        if self.timeout_s >= 60:
            raise ValueError("timeout_s is below 60, SageMaker's own limit; asynchronous: see invocation_timeout_s")
        if self.scaling.max_instances and self.scaling.min_instances == 0 and not self.asynchronous:
            raise ValueError("scaling.min_instances 0 needs asynchronous: true; no host would answer the first request")
        return self
