"""The families of denoisers, one module each; and which of them a folder or a pipeline is of."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch

from params.families import INDEX_FILE
from steps.errors import StepError
from steps.model.denoiser import Denoiser
from steps.model.digest import folder_family
from steps.model.families.sd3 import Sd3
from steps.model.families.unet import UNet

DENOISERS: Final[tuple[Denoiser, ...]] = (UNet(), Sd3())


def denoiser_of(folder: Path) -> Denoiser:
    """Return the family of a folder as diffusers saves it. Raises StepError where it is of no known one."""
    family = folder_family(folder)
    return next(one for one in DENOISERS if one.family is family)


def denoiser_in(pipeline: Any) -> Denoiser:
    return next(one for one in DENOISERS if one.family.pipeline == type(pipeline).__name__)


def load_pipeline(folder: Path, dtype: torch.dtype, left_out: Sequence[str] = ()) -> Any:
    """Return the pipeline of a folder, of whichever family it is. Raises StepError where there is none."""
    if not (folder / INDEX_FILE).is_file():
        raise StepError(f"{folder}: no {INDEX_FILE}; this must be a folder as diffusers saves it")
    return denoiser_of(folder).load_pipeline(folder, dtype, left_out)
