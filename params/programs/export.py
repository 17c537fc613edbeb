"""The settings of `python -m steps export`."""

from __future__ import annotations

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
