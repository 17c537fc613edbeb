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
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPImageProcessorPil, CLIPTokenizer

from steps.errors import StepError
from steps.evaluation.intervals import Floats
from steps.evaluation.reference import Pictures
from steps.model.pretrained import load_part, loaded

CLIP_DIR: Final = "clip"


def find_clip(evaluator_dir: Path) -> Path:
    """Return the CLIP's folder: clip/, or that of the only model in a Hugging Face cache that was copied there.

    Raises StepError if such a cache holds several models.
    """
    snapshots = sorted(evaluator_dir.glob("models--*/snapshots/*/config.json"))
    if (evaluator_dir / CLIP_DIR).is_dir() or not snapshots:
        return evaluator_dir / CLIP_DIR
    if len(snapshots) > 1:
        models = ", ".join(str(path.parent.relative_to(evaluator_dir)) for path in snapshots)
        raise StepError(f"{evaluator_dir}: a Hugging Face cache with several models: {models}; keep the CLIP alone")
    return snapshots[0].parent


class ClipEvaluator(nn.Module):
    """A CLIP with its preprocessing; torchmetrics' CLIPScore can take it as model and processor.

    A long caption is cut so that its end token stays, from which CLIP reads the feature. The image processor is the
    PIL one, so torchvision is not needed.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        """Load the folder. Raises StepError if it is missing or incomplete."""
        super().__init__()
        if not (folder / "config.json").is_file():
            raise StepError(f"{folder}: no CLIP model; the evaluator needs a folder clip/ as transformers saves it")
        self._model = load_part("transformers", "CLIPModel", folder, torch.float32).eval().to(device)
        self._tokenizer = loaded(folder, lambda: CLIPTokenizer.from_pretrained(folder, local_files_only=True))
        self._images = loaded(folder, lambda: CLIPImageProcessorPil.from_pretrained(folder, local_files_only=True))
        self.config, self.device = self._model.config, device
        self.logit_scale = float(self._model.logit_scale.detach().exp())

    def features(self, pictures: Pictures, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return the projected features of pictures, (N, H, W, 3) uint8, and of their captions, each (N, D)."""
        pixels = self.processor(images=list(torch.from_numpy(pictures).permute(0, 3, 1, 2)))
        tokens = self.processor(text=list(captions))
        images, texts = (
            {name: value.to(self._model.device) for name, value in one.items()} for one in (pixels, tokens)
        )
        return self.get_image_features(**images), self.get_text_features(**texts)

    def processor(
        self, text: list[str] | None = None, images: list[Tensor] | None = None, **_: object
    ) -> dict[str, Tensor]:
        """Return the token ids of captions or the pixels of pictures, as the model takes them."""
        if images is not None:
            return {"pixel_values": self._images(images=images, return_tensors="pt")["pixel_values"]}
        length = self.config.text_config.max_position_embeddings
        tokens = self._tokenizer(text, padding=True, truncation=True, max_length=length, return_tensors="pt")
        return {"input_ids": tokens["input_ids"], "attention_mask": tokens["attention_mask"]}

    @torch.inference_mode()
    def get_image_features(self, pixel_values: Tensor) -> Tensor:
        """Return the projected features of pictures, (N, D)."""
        features: Tensor = self._model.get_image_features(pixel_values).pooler_output
        return features

    @torch.inference_mode()
    def get_text_features(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the projected features of captions, (N, D)."""
        features: Tensor = self._model.get_text_features(input_ids, attention_mask).pooler_output
        return features


class ClipScorer:
    """Collects the features of one row's pictures and captions, and scores them."""

    def __init__(self, evaluator: ClipEvaluator) -> None:
        self._evaluator = evaluator
        self._images: list[Tensor] = []
        self._texts: list[Tensor] = []

    def update(self, pictures: Pictures, captions: Sequence[str]) -> None:
        """Take pictures, (N, H, W, 3) uint8, and their captions."""
        images, texts = self._evaluator.features(pictures, captions)
        self._images.append(images)
        self._texts.append(texts)

    def score(self) -> float:
        """Return the mean cosine; one below 0 counts as 0, as torchmetrics has it."""
        return max(float(self.cosines().mean()), 0.0)

    def cosines(self) -> Floats:
        """Return each picture's cosine with its caption, (N,)."""
        images, texts = torch.cat(self._images), torch.cat(self._texts)
        return np.asarray(functional.cosine_similarity(images, texts).double().cpu().numpy())

    def margins(self) -> Floats:
        """Return by how much each picture scores higher with its own caption than, on average, with the others', (N,).

        A single picture has a margin of 0.
        """
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
