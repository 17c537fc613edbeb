"""The families of models: what their folders hold, as diffusers saves them, and which parts train, read and draw.

Reads nothing but what it is given; needs no torch. `steps/model/families/` says how each family's network is used.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

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
    classes: Mapping[str, tuple[str, str]]
    """Library and class of each part but the scheduler."""
    unused: Mapping[str, Any]
    """What else model_index.json says: parts of the pipeline that the house leaves out."""
    decisive: Mapping[str, Any]
    """What of the denoiser's configuration decides its memory, with diffusers' defaults: other keys may differ."""
    optional: frozenset[str] = frozenset()
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


UNET: Final = Family(
    pipeline="StableDiffusionPipeline",
    denoiser="unet",
    text={TOKENIZER: TEXT_ENCODER},
    classes={
        TEXT_ENCODER: ("transformers", "CLIPTextModel"),
        TOKENIZER: ("transformers", "CLIPTokenizer"),
        "unet": ("diffusers", "UNet2DConditionModel"),
        VAE: ("diffusers", "AutoencoderKL"),
    },
    unused={
        **{part: [None, None] for part in ("feature_extractor", "image_encoder", "safety_checker")},
        "requires_safety_checker": False,
    },
    decisive={
        "in_channels": 4,
        "out_channels": 4,
        "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
        "mid_block_type": "UNetMidBlock2DCrossAttn",
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
        "only_cross_attention": False,
        "dual_cross_attention": False,
        "block_out_channels": [320, 640, 1280, 1280],
        "layers_per_block": 2,
        "cross_attention_dim": 1280,
        "transformer_layers_per_block": 1,
        "attention_head_dim": 8,
        "num_attention_heads": None,
        "use_linear_projection": False,
        "class_embed_type": None,
        "addition_embed_type": None,
    },
)
_SD3_TEXT: Final = {
    **dict.fromkeys(("tokenizer", "tokenizer_2"), "CLIPTokenizer"),
    "tokenizer_3": "T5TokenizerFast",
    **dict.fromkeys(("text_encoder", "text_encoder_2"), "CLIPTextModelWithProjection"),
    "text_encoder_3": "T5EncoderModel",
}
SD3: Final = Family(
    pipeline="StableDiffusion3Pipeline",
    denoiser="transformer",
    text={f"tokenizer{number}": f"text_encoder{number}" for number in ("", "_2", "_3")},
    classes={
        **{part: ("transformers", of) for part, of in _SD3_TEXT.items()},
        "transformer": ("diffusers", "SD3Transformer2DModel"),
        VAE: ("diffusers", "AutoencoderKL"),
    },
    unused={"feature_extractor": [None, None], "image_encoder": [None, None]},
    # The name tells it from a UNet, whose entries have none.
    decisive={
        "_class_name": "",
        "patch_size": 2,
        "in_channels": 16,
        "out_channels": 16,
        "num_layers": 18,
        "attention_head_dim": 64,
        "num_attention_heads": 18,
        "joint_attention_dim": 4096,
        "caption_projection_dim": 1152,
        "pooled_projection_dim": 2048,
        "dual_attention_layers": [],
        "qk_norm": None,
    },
    optional=frozenset(_SD3_TEXT),
)
FAMILIES: Final = (UNET, SD3)


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
