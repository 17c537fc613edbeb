"""The phases of a training: which resolution it sees, for how long, and from which weights it starts.

Reads nothing, writes nothing. One phase is the rule; Stable Diffusion 2 has two, 256 px and then 512 px
(https://huggingface.co/stabilityai/stable-diffusion-2-base: 550,000 steps and 850,000 steps).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from pydantic import Field

from params import parameter_names
from params.arguments import hint_at, validated
from params.model import Decides, Model, added
from params.programs import EncodeSettings, TrainArguments
from params.stages import TRAINING_HOSTS, EncodeStep, Job, TrainingHosts, TrainStep

S = TypeVar("S", EncodeStep, TrainStep)
# Settings of a program that a later phase may have otherwise: not what it may cost, where things lie or it starts.
_CHANGEABLE: Final = (Decides.CONTENT, Decides.EXTENT, Decides.RUNNING)
_FIXED: Final = frozenset({"initial_weights", "shards_uri"})
# What Tune chooses.
TUNED: Final = ("learning_rate", "micro_batch_size", "caption_dropout")


class LaterPhase(Model):
    """A training from the model of the one before, at another resolution; what it does not say is the first's."""

    encode: Job = Job(instance_type="ml.g5.12xlarge", instance_count=4)
    """GPU hosts that encode the same pictures once more."""
    train: TrainingHosts = TRAINING_HOSTS
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
    encode_settings: dict[str, Any] = added({})
    """Other settings of `encode` that differ in this phase, by their names there."""
    train_settings: dict[str, Any] = added({})
    """Other settings of `train` that differ in this phase, by their names there. What Tune would choose, such as the
    learning rate, is then not taken from it; a global_batch_size becomes a pipeline parameter of this phase."""

    def after(self, first: "Phase", number: int) -> "Phase":
        """Return the phase of this number in a run that begins with `first`. Raises ValueError that names the key."""
        key, hosts = later_key(number), first.train.job.instance_type
        encode_changes = {
            "job": self.encode,
            "resolution_px": self.resolution_px,
            "batch_size": self.encode_batch_size,
            "rows_per_shard": self.rows_per_shard,
            # The first phase's Encode describes the pictures, once.
            "descriptors": "",
        }
        own = ("training_samples", "warmup_samples", "micro_batch_size", "gradient_checkpointing")
        kept_usd = first.train.instance_hour_usd if self.train.instance_type == hosts else 0.0
        train_changes = {name: getattr(self, name) for name in own} | {
            "job": self.train,
            "initial_weights": "model",
            "instance_hour_usd": self.instance_hour_usd or kept_usd,
        }
        encode = _changed(first.encode, encode_changes, EncodeSettings, self.encode_settings, f"{key}.encode_settings")
        train = _changed(first.train, train_changes, TrainArguments, self.train_settings, f"{key}.train_settings")
        return Phase(number, encode, train, frozenset({*own, *self.train_settings}))


def later_key(number: int) -> str:
    """Return the section of the parameter set with the phase of this number, from 2; the list counts from 0."""
    return f"phases.{number - 2}"


def _changed(step: S, changes: Mapping[str, Any], program: type[Model], settings: Mapping[str, Any], key: str) -> S:
    """Return the first phase's step with changes, and with the settings of its program that `key` names."""
    names = program.names(*_CHANGEABLE) - _FIXED
    if unknown := [name for name in settings if name not in names]:
        raise ValueError(f"{key}.{unknown[0]} cannot differ between phases; {hint_at(unknown[0], sorted(names))}")
    return validated(type(step), {**step.model_dump(), **changes, **settings}, key, ValueError)


@dataclass(frozen=True)
class Phase:
    """One training of the run: the settings that its Encode and its Train have."""

    number: int
    """From 1."""
    encode: EncodeStep
    train: TrainStep
    own: frozenset[str] = frozenset()
    """Settings of train that a later phase has itself: not the first one's, and not Tune's."""

    @property
    def suffix(self) -> str:
        """What its steps' and parameters' names end in: nothing for the first phase."""
        return f"Phase{self.number}" if self.number > 1 else ""

    @property
    def tuned(self) -> tuple[str, ...]:
        """Settings that are Tune's choice. It tried micro-batches of the first phase's pictures, which are smaller."""
        return tuple(name for name in TUNED if name not in self.own)

    def named(self, name: str) -> str:
        """Return the name of a step or of a pipeline parameter that each phase has for itself."""
        return f"{name}{self.suffix}"

    @property
    def encode_name(self) -> str:
        """Name of the step that makes its latents."""
        return self.named("Encode")

    @property
    def train_name(self) -> str:
        return self.named("Train")

    @property
    def hosts_name(self) -> str:
        """What the names of the pipeline parameters of its training hosts begin with."""
        return self.named("Training")

    @property
    def batch_name(self) -> str:
        """Name of the pipeline parameter for the samples of its optimizer step: the first's, unless it has its own."""
        name = parameter_names.GLOBAL_BATCH_SIZE
        return self.named(name) if "global_batch_size" in self.own else name

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
        """Section of the parameter set in which its training is told apart from another phase's."""
        return later_key(self.number) if self.suffix else "train"


def phases_of(encode: EncodeStep, train: TrainStep, later: Sequence[LaterPhase]) -> tuple[Phase, ...]:
    first = Phase(1, encode, train)
    return first, *(phase.after(first, number) for number, phase in enumerate(later, start=2))
