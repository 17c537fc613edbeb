"""The families of models: what their folders hold, as diffusers saves them, and which parts train, read and draw.

Reads families.yaml; needs no torch. `steps/model/families/` says how each family's network is used.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from params.tables import table_beside

INDEX_FILE: Final = "model_index.json"
VAE: Final = "vae"
TEXT_ENCODER: Final = "text_encoder"
TOKENIZER: Final = "tokenizer"
SCHEDULER: Final = "scheduler"
SAFETY_CHECKER: Final = "safety_checker"
FEATURE_EXTRACTOR: Final = "feature_extractor"
# Library and class of what checks drawn pictures, which training and judging leave out.
GUARDS: Final = {
    SAFETY_CHECKER: ("stable_diffusion", "StableDiffusionSafetyChecker"),
    FEATURE_EXTRACTOR: ("transformers", "CLIPImageProcessor"),
}
CONFIG_FILE: Final = "config.json"
SCHEDULER_CONFIG_FILE: Final = "scheduler_config.json"
# What train.prediction_type calls flow, what diffusers' samplers of diffusion call it, and its sampler of flow alone.
FLOW: Final = "flow"
FLOW_PREDICTION: Final = "flow_prediction"
FLOW_SCHEDULER: Final = "FlowMatchEulerDiscreteScheduler"


class FamilyError(ValueError):
    """A folder is of no known family: the message says of which it is."""


@dataclass(frozen=True)
class Family:
    """What is known of a family of models without loading one."""

    pipeline: str
    """The class of diffusers that draws with it: model_index.json names it."""
    denoiser: str
    """The part that is trained."""
    text: Mapping[str, str]
    """Each tokenizer's part, and that of the text encoder which reads its tokens."""
    classes: Mapping[str, Sequence[str]]
    """Library and class of each part but the scheduler."""
    unused: Mapping[str, Any]
    """What else model_index.json says: parts of the pipeline that the house leaves out."""
    decisive: Mapping[str, Any]
    """What of the denoiser's configuration decides its memory, with diffusers' defaults: other keys may differ."""
    optional: Collection[str] = ()
    """Parts that a folder may lack."""

    @property
    def network(self) -> str:
        """The denoiser's class of diffusers."""
        return self.classes[self.denoiser][1]

    @property
    def copied(self) -> tuple[str, ...]:
        """The parts that training leaves as they are."""
        return (VAE, *self.text.values(), *self.text)

    @property
    def config_files(self) -> tuple[str, ...]:
        """What every job that takes the pretrained channel reads first."""
        parts = [part for part in (VAE, *self.text.values(), self.denoiser) if part not in self.optional]
        return (*(f"{part}/{CONFIG_FILE}" for part in parts), f"{SCHEDULER}/{SCHEDULER_CONFIG_FILE}")

    def index(self, scheduler: str, lacking: Collection[str] = ()) -> dict[str, Any]:
        """Return model_index.json of a folder whose scheduler is of this class of diffusers, and which lacks parts."""
        classes = {part: (None, None) if part in lacking else of for part, of in self.classes.items()}
        parts = {**classes, SCHEDULER: ("diffusers", scheduler)}
        return {"_class_name": self.pipeline, **{part: list(of) for part, of in parts.items()}, **self.unused}


FAMILIES: Final = tuple(Family(**about) for about in table_beside(__file__, "families"))
UNET, SD3 = FAMILIES


def family_of(index: Mapping[str, Any] | None) -> Family:
    """Return the family that a model_index.json names, the oldest without one. Raises FamilyError."""
    name = UNET.pipeline if index is None else index.get("_class_name")
    for family in FAMILIES:
        if family.pipeline == name:
            return family
    known = " or ".join(family.pipeline for family in FAMILIES)
    raise FamilyError(f"{INDEX_FILE} says {name}: only a {known} is known; name another folder")


def predicted(config: Mapping[str, Any]) -> str:
    """Return what a scheduler's configuration says that its model predicts, in the words of train.prediction_type."""
    kind = str(config.get("prediction_type", "epsilon"))
    return FLOW if kind == FLOW_PREDICTION or config.get("_class_name") == FLOW_SCHEDULER else kind
