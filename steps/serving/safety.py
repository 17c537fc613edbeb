"""The safety checker of a model folder, where it has one: pictures that it flags are replaced with black ones.

Reads <folder>/safety_checker/ and <folder>/feature_extractor/ (safetensors).
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch

from steps.model.json_object import read_object

logger = logging.getLogger(__name__)


def load_safety_checker(pipeline: Any, folder: Path, dtype: torch.dtype) -> bool:
    """Add the folder's safety checker to the pipeline; return whether it has one."""
    if not _is_listed(folder):
        logger.info("the model folder has no safety checker")
        return False
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPImageProcessor

    checker: Any = StableDiffusionSafetyChecker.from_pretrained(
        folder / "safety_checker", dtype=dtype, use_safetensors=True, local_files_only=True
    )
    extractor = CLIPImageProcessor.from_pretrained(folder / "feature_extractor", local_files_only=True)
    pipeline.register_modules(safety_checker=checker.eval(), feature_extractor=extractor)
    return True


def _is_listed(folder: Path) -> bool:
    entry = read_object(folder / "model_index.json").get("safety_checker") or [None]
    return entry[0] is not None and (folder / "safety_checker").is_dir()
