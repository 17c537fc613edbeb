"""The safety checker: what an endpoint has drawn and does not show.

Reads the model folder's safety_checker/ and feature_extractor/, or those under SERVE_SAFETY_CHECKER_URI.
"""

import logging
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from params.families import FEATURE_EXTRACTOR, GUARDS, SAFETY_CHECKER
from params.programs import ServeArguments
from steps.errors import StepError
from steps.model.pretrained import LOCAL_SAFETENSORS, loaded
from steps.serving.objects import download
from steps.serving.pictures import Picture

logger = logging.getLogger(__name__)


class SafetyChecker:
    """diffusers' safety checker, asked for one picture at a time: what it finds does not depend on the batch."""

    def __init__(self, checker: Any, extractor: Any) -> None:
        self._checker, self._extractor = checker, extractor

    def checked(self, picture: Picture) -> Picture:
        """Return a picture as it may be shown: black where it is flagged."""
        seen = self._extractor(picture.image, return_tensors="pt").pixel_values
        seen = seen.to(self._checker.device, self._checker.dtype)
        # It blackens what it is given as images.
        flagged = bool(self._checker(images=np.zeros((1, 1, 1, 3), np.float32), clip_input=seen)[1][0])
        return replace(
            picture, flagged=flagged, image=picture.image.point(lambda level: 0) if flagged else picture.image
        )


def load_safety_checker(model_dir: Path, arguments: ServeArguments, device: Any, dtype: Any) -> SafetyChecker | None:
    """Return the model's safety checker, or the one under a prefix; None where there is none, or it is left out."""
    if not arguments.safety_checker:
        if arguments.require_safety_checker:
            raise StepError("require_safety_checker: SERVE_SAFETY_CHECKER is false")
        return None
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work) if arguments.safety_checker_uri and not (model_dir / SAFETY_CHECKER).is_dir() else model_dir
        if folder != model_dir:
            download(arguments.safety_checker_uri, folder, "safety_checker_uri")
        missing = [part for part in GUARDS if not (folder / part).is_dir()]
        if not missing:
            return _loaded(folder, device, dtype)
    if arguments.require_safety_checker or arguments.safety_checker_uri or missing == [FEATURE_EXTRACTOR]:
        raise StepError(f"{arguments.safety_checker_uri or model_dir}: it has no {', no '.join(missing)}")
    logger.warning("no safety checker looks at pictures")
    return None


def _loaded(folder: Path, device: Any, dtype: Any) -> SafetyChecker:
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPImageProcessor

    of: Any = StableDiffusionSafetyChecker
    part, extracts = (folder / name for name in GUARDS)
    checker = loaded(part, lambda: of.from_pretrained(part, dtype=dtype, **LOCAL_SAFETENSORS))
    extractor = loaded(extracts, lambda: CLIPImageProcessor.from_pretrained(extracts, local_files_only=True))
    return SafetyChecker(checker.eval().to(device), extractor)
