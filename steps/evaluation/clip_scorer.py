"""How well a picture shows its caption: the CLIP score, with a CLIP from a local folder.

Reads the evaluator's clip/ folder (CLIPModel in safetensors, tokenizer, preprocessor_config.json), or the same files in
a Hugging Face cache; downloads nothing.
Hessel et al. 2021, arXiv:2104.08718; the score here is the plain cosine, in -1..1.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import CLIPImageProcessorPil, CLIPTokenizer

from steps.errors import StepError
from steps.evaluation.intervals import Floats
from steps.evaluation.reference import Pictures
from steps.model.pretrained import load_part, loaded

CLIP_DIR: Final = "clip"


def find_clip(evaluator_dir: Path) -> Path:
    """Return the folder clip/, or that of the only model in a copied Hugging Face cache. StepError: it has several."""
    snapshots = sorted(evaluator_dir.glob("models--*/snapshots/*/config.json"))
    if (evaluator_dir / CLIP_DIR).is_dir() or not snapshots:
        return evaluator_dir / CLIP_DIR
    if len(snapshots) > 1:
        models = ", ".join(str(path.parent.relative_to(evaluator_dir)) for path in snapshots)
        raise StepError(f"{evaluator_dir}: a Hugging Face cache with several models: {models}; keep the CLIP alone")
    return snapshots[0].parent


class ClipEvaluator:
    """A CLIP with its preprocessing, Pillow's: no torchvision. Long captions keep their end token, which CLIP reads."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        """Load the folder. Raises StepError if it is missing or incomplete."""
        if not (folder / "config.json").is_file():
            raise StepError(f"{folder}: no CLIP model; the evaluator needs a folder clip/ as transformers saves it")
        self._model = load_part("transformers", "CLIPModel", folder, torch.float32).eval().to(device)
        self._tokenizer = loaded(folder, lambda: CLIPTokenizer.from_pretrained(folder, local_files_only=True))
        self._images = loaded(folder, lambda: CLIPImageProcessorPil.from_pretrained(folder, local_files_only=True))
        self.device, self.logit_scale = device, float(self._model.logit_scale.detach().exp())

    @torch.inference_mode()
    def features(self, pictures: Pictures, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return the projected features of pictures, (N, H, W, 3) uint8, and of their captions, each (N, D)."""
        channels_first = list(torch.from_numpy(pictures).permute(0, 3, 1, 2))
        pixels = self._images(images=channels_first, return_tensors="pt")["pixel_values"].to(self.device)
        length = self._model.config.text_config.max_position_embeddings
        tokens = self._tokenizer(list(captions), padding=True, truncation=True, max_length=length, return_tensors="pt")
        words = {name: tokens[name].to(self.device) for name in ("input_ids", "attention_mask")}
        shown = self._model.get_image_features(pixels).pooler_output
        return shown, self._model.get_text_features(**words).pooler_output


class ClipScorer:
    def __init__(self, evaluator: ClipEvaluator) -> None:
        self._evaluator = evaluator
        self._images: list[Tensor] = []
        self._texts: list[Tensor] = []

    def update(self, pictures: Pictures, captions: Sequence[str]) -> None:
        """Take pictures, (N, H, W, 3) uint8, and their captions."""
        images, texts = self._evaluator.features(pictures, captions)
        self._images.append(images)
        self._texts.append(texts)

    def cosines(self) -> Floats:
        """Return each picture's cosine with its caption, (N,)."""
        images, texts = torch.cat(self._images), torch.cat(self._texts)
        return np.asarray(functional.cosine_similarity(images, texts).double().cpu().numpy())

    def margins(self) -> Floats:
        """Return how much higher each scores with its own caption than with the others', (N,); a single one has 0."""
        images, texts = (
            functional.normalize(torch.cat(rows), dim=-1).double().cpu() for rows in (self._images, self._texts)
        )
        count = len(images)
        own, every = (images * texts).sum(dim=1), images @ texts.sum(dim=0)
        # own - (every - own) / (count - 1), which for one picture is 0 / 0.
        return np.asarray(((count * own - every) / max(count - 1, 1)).numpy())

    def features(self) -> Floats:
        """Return the pictures' projected features, (N, D), which CLIP-FID compares."""
        return np.asarray(torch.cat(self._images).double().cpu().numpy())
