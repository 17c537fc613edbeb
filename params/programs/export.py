"""The settings of what people run by hand: `python -m steps export` and the memory estimate."""

from typing import Literal

from pydantic import Field

from params.model import Model


class ExportArguments(Model):
    """`python -m steps export`: a trained model to a folder and a single file for other programs."""

    model: str
    """model.tar.gz, or a folder as diffusers saves it."""
    out: str
    """Folder that is written."""
    single_file: str = ""
    """File in the layout of other programs, NAME.safetensors; NAME.yaml is written next to it. Empty: none."""
    lora_kohya: str = ""
    """File for the LoRA that the model's training left, NAME.safetensors in kohya's format. Empty: none."""
    half: bool = False
    """Keep the weights in float16, all of them."""
    check: bool = True
    """Read back what was written and draw from it."""


class MemoryArguments(Model):
    """`python -m steps memory`: how much of a GPU a model takes, reckoned without one and without its weights."""

    pretrained_dir: str = ""
    """Folder with unet/, vae/ and text_encoder/, of which only each config.json is read; empty: the channel
    pretrained."""
    name: str = "Stable Diffusion 2"
    """Of the model, in words."""
    resolutions_px: tuple[int, ...] = Field((256, 512), min_length=1)
    """Sides of the pictures; others are reckoned from the two next to them."""
    micro_batch_sizes: tuple[int, ...] = Field((1, 8, 32, 128), min_length=2)
    """Samples at once; the peaks of others lie on the lines between."""
    precisions: tuple[Literal["float32", "bfloat16"], ...] = ("bfloat16", "float32")
    """Of the passes."""
    figures_file: str = ""
    """YAML file whose entry of this UNet is written anew, or added; empty: they are printed."""
