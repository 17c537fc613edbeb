"""The phases of a training: which resolution it sees, for how long, and from which weights it starts.

Reads nothing, writes nothing. One phase is the rule; Stable Diffusion 2 has two, 256 px and then 512 px
(https://huggingface.co/stabilityai/stable-diffusion-2-base: 550,000 steps and 850,000 steps).
"""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import Field

from params import parameter_names
from params.model import Model
from params.stages import EncodeStep, Job, TrainingHosts, TrainStep


class SecondPhase(Model):
    """A training that goes on from the first one's model at another resolution. What is not here is as in the first."""

    encode: Job = Job(instance_type="ml.g5.12xlarge", instance_count=4)
    """GPU hosts that encode the same pictures once more."""
    train: TrainingHosts = TrainingHosts(
        instance_type="ml.p4d.24xlarge", instance_count=4, volume_size_gb=500, max_runtime_s=28 * 86_400
    )
    """GPU hosts that train."""
    resolution_px: int = Field(512, ge=16, le=4096, multiple_of=8)
    """Side of the picture that the VAE sees; download.image_size_px has to be as large."""
    encode_batch_size: int = Field(8, ge=1)
    """Pictures encoded at once on one device: four times the pixels of 256 px want a quarter of the pictures."""
    rows_per_shard: int = Field(4096, ge=1)
    """Rows in one latents shard: 4,096 at 512 px are 269 MB, as Lustre likes it."""
    training_samples: int = Field(1_740_800_000, ge=1)
    """Samples of this phase (Stable Diffusion 2: 850,000 steps of 2,048)."""
    warmup_samples: int = Field(20_480_000, ge=0)
    """Linear warm-up: AdamW begins anew, so its step sizes have to (Stable Diffusion 2: 10,000 steps of 2,048)."""
    micro_batch_size: int = Field(16, ge=1)
    """Samples on one device at once: Tune chose the first phase's, whose samples take a quarter of the memory."""
    gradient_checkpointing: bool = False
    """Trade a third more compute for activations' memory."""
    instance_hour_usd: float = Field(0.0, ge=0)
    """Dollars for one host-hour of this phase; 0: the first phase's on the same type, else the price file's."""


@dataclass(frozen=True)
class Phase:
    """One training of the run: the settings that its Encode and its Train have."""

    suffix: str
    """What its steps' and parameters' names end in: nothing for the first phase."""
    encode: EncodeStep
    train: TrainStep

    @property
    def encode_name(self) -> str:
        """Name of the step that makes its latents."""
        return f"Encode{self.suffix}"

    @property
    def train_name(self) -> str:
        """Name of the step that trains."""
        return f"Train{self.suffix}"

    @property
    def hosts_name(self) -> str:
        """What the names of the pipeline parameters of its training hosts begin with."""
        return f"Training{self.suffix}"

    @property
    def samples_name(self) -> str:
        """Name of the pipeline parameter that says how long it is."""
        return f"{parameter_names.TRAINING_SAMPLES}{self.suffix}"

    @property
    def other_steps_name(self) -> str:
        """Name of the pipeline parameter for what the other steps take of the budget."""
        return f"{parameter_names.OTHER_STEPS_USD}{self.suffix}"

    @property
    def instance_type_name(self) -> str:
        """Name of the pipeline parameter for the type of its training hosts."""
        return parameter_names.instance_type_of(self.hosts_name)

    @property
    def instance_hour_name(self) -> str:
        """Name of the pipeline parameter for the dollars of one hour of a training host."""
        return f"{self.hosts_name}InstanceHourUsd"

    @property
    def settings_key(self) -> str:
        """Section of the parameter set in which it is told apart from another phase."""
        return "phase_2" if self.suffix else "train"


def phases_of(encode: EncodeStep, train: TrainStep, second: SecondPhase | None) -> tuple[Phase, ...]:
    """Return the phases in order."""
    first = Phase("", encode, train)
    if second is None:
        return (first,)
    encode_changes = {
        "job": second.encode,
        "resolution_px": second.resolution_px,
        "batch_size": second.encode_batch_size,
        "rows_per_shard": second.rows_per_shard,
    }
    kept_usd = train.instance_hour_usd if second.train.instance_type == train.job.instance_type else 0.0
    own = ("training_samples", "warmup_samples", "micro_batch_size", "gradient_checkpointing")
    train_changes = second.model_dump(include=set(own)) | {
        "job": second.train,
        "initial_weights": "model",
        "instance_hour_usd": second.instance_hour_usd or kept_usd,
    }
    return first, Phase("Phase2", encode.model_copy(update=encode_changes), train.model_copy(update=train_changes))
