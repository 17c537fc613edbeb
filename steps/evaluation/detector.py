"""Finds objects in pictures by their names, and says of which colour one is: GenEval's judge, with an open vocabulary.

Reads the evaluator's folder detector/, an OWLv2 or OWL-ViT as transformers saves it, in safetensors, and its CLIP;
downloads nothing. Each box is the object, of all in the suite, whose name fits it best.
"""

from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import AutoProcessor

from steps.errors import StepError
from steps.evaluation.clip_scorer import ClipEvaluator
from steps.evaluation.compositions import SUITE, Found
from steps.evaluation.reference import Pictures
from steps.model.pretrained import folder_digest, load_part, loaded

DETECTOR_DIR: Final = "detector"
SOURCE: Final = "Ghosh et al. 2023, arXiv:2310.11513, with boxes of an open vocabulary"
MODELS: Final = ("owlv2", "owlvit")
COLOURED: Final = ("a photo of a {} {}", "a photo of a {}-colored {}", "a photo of a {} object")
# Of two boxes of one object that share more than this, the surer one counts.
OVERLAP: Final = 0.5


class Detector:
    """An open-vocabulary detector, and the CLIP that names colours, on one device."""

    def __init__(self, folder: Path, threshold: float, clip: ClipEvaluator) -> None:
        """Load the detector. Raises StepError where it is missing or is of another kind."""
        model = load_part("transformers", "AutoModelForZeroShotObjectDetection", folder, torch.float32)
        if model.config.model_type not in MODELS:
            raise StepError(f"{folder}: a {model.config.model_type}; it has to be one of {', '.join(MODELS)}")
        self._processor = loaded(folder, lambda: AutoProcessor.from_pretrained(folder, local_files_only=True))
        self._model, self._clip, self._threshold = model.eval().to(clip.device), clip, threshold
        self._objects = sorted({name for one in SUITE for name in one.objects})
        self._colours = sorted({colour for one in SUITE for colour in one.colours})
        self.prompts = {one.prompt: one for one in SUITE}
        self.facts = {"source": SOURCE, "weights": folder_digest(folder), "threshold": threshold}

    def verdict(self, picture: Pictures, caption: str) -> dict[str, bool]:
        """Return whether a picture shows one of the prompts, under the prompt's kind."""
        asked = self.prompts[caption]
        return {asked.kind: asked.is_shown(self.find(picture), lambda one: self.colour(picture, one))}

    @torch.inference_mode()
    def find(self, picture: Pictures) -> list[Found]:
        """Return the objects in a picture, (H, W, 3) uint8, the surest first, each once."""
        names = [f"a photo of a {name}" for name in self._objects]
        inputs = self._processor(text=[names], images=[picture], truncation=True, return_tensors="pt")
        read, sizes = self._processor.post_process_grounded_object_detection, [picture.shape[:2]]
        (seen,) = read(self._model(**inputs.to(self._clip.device)), threshold=self._threshold, target_sizes=sizes)
        labels, boxes, kept = seen["labels"], seen["boxes"], list[int]()
        same = (_overlaps(boxes) > OVERLAP) & (labels[:, None] == labels)
        for one in seen["scores"].argsort(descending=True).tolist():
            kept += [] if same[one, kept].any() else [one]
        return [Found(self._objects[int(labels[one])], boxes[one].tolist()) for one in kept]

    def colour(self, picture: Pictures, found: Found) -> str:
        """Return the colour of a thing, as the CLIP names what is in its box."""
        texts = [text.format(colour, found.name) for colour in self._colours for text in COLOURED]
        height, width, _ = picture.shape
        left, top, right, bottom = np.clip(np.rint(found.box).astype(int), 0, [width, height] * 2)
        part = picture[top : max(bottom, top + 1), left : max(right, left + 1)]
        shown, asked = (functional.normalize(one, dim=-1) for one in self._clip.features(part[None], texts))
        means = functional.normalize(asked.reshape(len(self._colours), len(COLOURED), -1).mean(dim=1), dim=-1)
        return self._colours[int((means @ shown[0]).argmax())]


def _overlaps(boxes: Tensor) -> Tensor:
    """Return what each two boxes share, as a fraction of what they cover together."""
    ends, starts = torch.minimum(boxes[:, None, 2:], boxes[:, 2:]), torch.maximum(boxes[:, None, :2], boxes[:, :2])
    common, areas = (ends - starts).clamp(min=0).prod(dim=-1), (boxes[:, 2:] - boxes[:, :2]).prod(dim=-1)
    return common / (areas[:, None] + areas - common).clamp(min=1e-9)
