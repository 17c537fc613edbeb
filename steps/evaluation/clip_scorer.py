"""How well a picture shows its caption: the CLIP score, by torchmetrics with a CLIP from a local folder.

Reads the evaluator's clip/ folder (CLIPModel in safetensors, tokenizer, preprocessor_config.json), or the same files in
a Hugging Face cache; downloads nothing.
Hessel et al. 2021, arXiv:2104.08718; the score here is the plain cosine, in -1..1.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics.multimodal.clip_score import CLIPScore
from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

from steps.errors import StepError
from steps.evaluation.intervals import Floats
from steps.evaluation.reference import Pictures

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
    """A CLIP with its preprocessing, answering the two calls that torchmetrics makes on model and processor.

    transformers 5 returns a model output where torchmetrics 1.9 expects the projected features, and torchmetrics cuts
    long captions without keeping the end token, from which CLIP reads the feature: this class corrects both. The image
    processor is the PIL one, so torchvision is not needed.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        """Load the folder. Raises StepError if it is missing or incomplete."""
        super().__init__()
        if not (folder / "config.json").is_file():
            raise StepError(f"{folder}: no CLIP model; the evaluator needs a folder clip/ as transformers saves it")
        try:
            model: Any = CLIPModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
            self._tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
            self._images = CLIPImageProcessorPil.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError) as error:
            raise StepError(f"{folder}: cannot be loaded as a CLIP model: {' '.join(str(error).split())}") from None
        self._model = model.eval().to(device=device, dtype=torch.float32)
        self.config: Any = model.config
        self.logit_scale = float(model.logit_scale.detach().exp())

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
    """One row's CLIP score: torchmetrics' mean, and each picture's own cosine and features from the same pass."""

    def __init__(self, evaluator: ClipEvaluator) -> None:
        self._recorder = _Recorder(evaluator)
        # The callable form: torchmetrics accepts only known names of models, and no folder.
        parts: Any = (self._recorder, evaluator.processor)
        self._metric = CLIPScore(lambda: parts)
        self._device = next(evaluator.parameters()).device

    def update(self, pictures: Pictures, captions: Sequence[str]) -> None:
        """Score pictures, (N, H, W, 3) uint8, against their captions."""
        images = torch.from_numpy(pictures).permute(0, 3, 1, 2).to(self._device)
        self._metric.update(images, list(captions))

    def score(self) -> float:
        """Return the mean cosine; torchmetrics counts one below 0 as 0."""
        return float(self._metric.compute()) / 100.0

    def cosines(self) -> Floats:
        """Return each picture's cosine with its caption, (N,)."""
        images, texts = torch.cat(self._recorder.images), torch.cat(self._recorder.texts)
        return np.asarray(functional.cosine_similarity(images, texts).double().cpu().numpy())

    def margins(self) -> Floats:
        """Return by how much each picture scores higher with its own caption than, on average, with the others', (N,).

        A single picture has a margin of 0.
        """
        images, texts = (
            functional.normalize(torch.cat(rows), dim=-1).double().cpu()
            for rows in (self._recorder.images, self._recorder.texts)
        )
        count = len(images)
        own, every = (images * texts).sum(dim=1), images @ texts.sum(dim=0)
        # own - (every - own) / (count - 1), which for one picture is 0 / 0.
        return np.asarray(((count * own - every) / max(count - 1, 1)).numpy())

    def features(self) -> Floats:
        """Return the pictures' projected features, (N, D), which CLIP-FID compares."""
        return np.asarray(torch.cat(self._recorder.images).double().cpu().numpy())


class _Recorder(nn.Module):
    """Forwards torchmetrics' calls and keeps the features, so that no tower runs twice."""

    def __init__(self, evaluator: ClipEvaluator) -> None:
        super().__init__()
        self._evaluator = evaluator
        self.config: Any = evaluator.config
        self.images: list[Tensor] = []
        self.texts: list[Tensor] = []

    def get_image_features(self, pixel_values: Tensor) -> Tensor:
        self.images.append(self._evaluator.get_image_features(pixel_values))
        return self.images[-1]

    def get_text_features(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        self.texts.append(self._evaluator.get_text_features(input_ids, attention_mask))
        return self.texts[-1]
