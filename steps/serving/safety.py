"""The safety checker: what an endpoint has drawn and does not show.

Reads the model folder's safety_checker/ and feature_extractor/, or those under SERVE_SAFETY_CHECKER_URI.
"""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL.Image import Image

from params.families import FEATURE_EXTRACTOR, SAFETY_CHECKER
from params.programs import ServeArguments
from steps.errors import StepError
from steps.model.pretrained import LOCAL_SAFETENSORS, loaded
from steps.serving.objects import download

logger = logging.getLogger(__name__)

PARTS: Final = (SAFETY_CHECKER, FEATURE_EXTRACTOR)


class SafetyChecker:
    """diffusers' safety checker, asked for one picture at a time: what it finds does not depend on the batch."""

    def __init__(self, checker: Any, extractor: Any) -> None:
        self._checker, self._extractor = checker, extractor

    def flags(self, image: Image) -> bool:
        """Return whether a picture may not be shown."""
        seen = self._extractor(image, return_tensors="pt").pixel_values.to(self._checker.device, self._checker.dtype)
        pixels = np.zeros((1, 1, 1, 3), np.float32)  # It blackens these.
        return bool(self._checker(images=pixels, clip_input=seen)[1][0])


def load_safety_checker(model_dir: Path, arguments: ServeArguments, device: Any, dtype: Any) -> SafetyChecker | None:
    """Return the model's safety checker, or the one under a prefix; None where there is none, or it is left out."""
    with tempfile.TemporaryDirectory() as work:
        folder = model_dir
        if arguments.safety_checker_uri and not (model_dir / SAFETY_CHECKER).is_dir():
            folder = Path(work)
            download(arguments.safety_checker_uri, folder, "safety_checker_uri")
        missing = [part for part in PARTS if not (folder / part).is_dir()]
        if arguments.safety_checker and not missing:
            return _loaded(folder, device, dtype)
    if arguments.require_safety_checker or missing == [FEATURE_EXTRACTOR] or arguments.safety_checker_uri:
        reason = "SERVE_SAFETY_CHECKER is false" if not missing else f"it has no {', no '.join(missing)}"
        raise StepError(f"{arguments.safety_checker_uri or model_dir}: no safety checker can be used: {reason}")
    logger.warning("no safety checker looks at pictures")
    return None


def _loaded(folder: Path, device: Any, dtype: Any) -> SafetyChecker:
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPImageProcessor

    of: Any = StableDiffusionSafetyChecker
    part, extracts = (folder / name for name in PARTS)
    checker = loaded(part, lambda: of.from_pretrained(part, dtype=dtype, **LOCAL_SAFETENSORS))
    extractor = loaded(extracts, lambda: CLIPImageProcessor.from_pretrained(extracts, local_files_only=True))
    return SafetyChecker(checker.eval().to(device), extractor)
