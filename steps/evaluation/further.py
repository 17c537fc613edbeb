"""Networks that judge pictures besides the CLIP: FID's own, and one for each metric of `evaluate.metrics`.

Reads the evaluator's folder of the metric's name, a model as transformers saves it, in safetensors; the FIDs read
Inception's weights. Downloads nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional

from params.files import file_digest
from params.layout import CMMD, FD_DINOV2, FID_CLEAN, FID_PYTORCH, PICK_SCORE, PRECISION_RECALL
from steps.errors import StepError
from steps.evaluation import resizing
from steps.evaluation.clip_scorer import ClipEvaluator
from steps.evaluation.inception import SIDE_PX, WEIGHTS_FILE, load_inception
from steps.evaluation.reference import Pictures
from steps.model.pretrained import folder_digest, load_part

INCEPTION: Final = "inception"
"""What evaluate.fid_features calls the network of FID itself."""
DINOV2_SIDE_PX: Final = 224
# Mean and standard deviation of the colours that a network was trained on, of 255.
IMAGENET: Final = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP: Final = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
# The paper or program whose convention each metric keeps.
SOURCES: Final = {
    INCEPTION: "Heusel et al. 2017, arXiv:1706.08500, as torchmetrics computes it",
    FID_PYTORCH: "Heusel et al. 2017, arXiv:1706.08500, as pytorch-fid 0.3 computes it",
    FID_CLEAN: "Parmar et al. 2022, arXiv:2104.11222, as clean-fid computes it",
    FD_DINOV2: "Stein et al. 2023, arXiv:2306.04675, as dgm-eval computes it",
    CMMD: "Jayasumana et al. 2024, arXiv:2401.09603, without comparing a picture with itself",
    PRECISION_RECALL: "Kynkaanniemi et al. 2019, arXiv:1904.06991, in the features of FID",
    PICK_SCORE: "Kirstain et al. 2023, arXiv:2305.01569",
}


@dataclass(frozen=True)
class Extractor:
    """A network that turns captioned pictures into the features or scores of one metric."""

    name: str
    resize: str
    digest: str
    """Of its weights and their configuration."""
    extract: Callable[[Pictures, Sequence[str]], Tensor]
    """Pictures, (N, H, W, 3) uint8, and captions to features, (N, D), or scores, (N,)."""

    @property
    def facts(self) -> dict[str, str]:
        return {"source": SOURCES[self.name], "resize": self.resize, "weights": self.digest}


def load_extractors(names: Sequence[str], evaluator_dir: Path, device: torch.device) -> list[Extractor]:
    """Return the networks of the metrics that have one of their own. Raises StepError if one is missing."""
    return [_LOADERS[name](name, evaluator_dir, device) for name in names if name in _LOADERS]


def _inception(name: str, evaluator_dir: Path, device: torch.device) -> Extractor:
    resize = {FID_PYTORCH: resizing.pytorch_fid, FID_CLEAN: resizing.clean_fid}.get(name, resizing.torchmetrics)
    network = load_inception(evaluator_dir / WEIGHTS_FILE, device, resize)
    return Extractor(
        name,
        f"{SIDE_PX} px, {resize.__name__}",
        file_digest(evaluator_dir / WEIGHTS_FILE),
        lambda pictures, _: network(_channels_first(pictures, device)),
    )


def _dinov2(name: str, evaluator_dir: Path, device: torch.device) -> Extractor:
    model, digest = _load(name, evaluator_dir, device)

    def extract(pictures: Pictures, _: Sequence[str]) -> Tensor:
        resized = resizing.clean_fid(_channels_first(pictures, device), DINOV2_SIDE_PX)
        features: Tensor = model(pixel_values=_scaled(resized, IMAGENET)).last_hidden_state[:, 0]
        return features

    return Extractor(name, f"{DINOV2_SIDE_PX} px, clean_fid", digest, extract)


def _cmmd(name: str, evaluator_dir: Path, device: torch.device) -> Extractor:
    model, digest = _load(name, evaluator_dir, device)
    if not hasattr(model, "get_image_features"):
        raise StepError(f"{evaluator_dir / name}: CMMD takes a CLIP, and this is a {type(model).__name__}")
    side_px = int(model.config.vision_config.image_size)

    def extract(pictures: Pictures, _: Sequence[str]) -> Tensor:
        resized = resizing.cmmd(_channels_first(pictures, device), side_px)
        features: Tensor = model.get_image_features(_scaled(resized, CLIP)).pooler_output
        return functional.normalize(features, dim=-1)

    return Extractor(name, f"{side_px} px, cmmd", digest, extract)


def _pick_score(name: str, evaluator_dir: Path, device: torch.device) -> Extractor:
    clip, digest = ClipEvaluator(evaluator_dir / name, device), folder_digest(evaluator_dir / name)

    def extract(pictures: Pictures, captions: Sequence[str]) -> Tensor:
        shown, asked = clip.features(pictures, captions)
        return clip.logit_scale * functional.cosine_similarity(shown, asked)

    return Extractor(name, resizing.CLIP_OWN, digest, extract)


def _load(name: str, evaluator_dir: Path, device: torch.device) -> tuple[Any, str]:
    """Return a model and its digest. Raises StepError if it is missing or not one of transformers'."""
    folder = evaluator_dir / name
    if not (folder / "config.json").is_file():
        raise StepError(f"{folder}: missing; evaluate.metrics asks for {name}, whose model the evaluator has to hold")
    model = load_part("transformers", "AutoModel", folder, torch.float32)
    return model.eval().to(device), folder_digest(folder)


def _channels_first(pictures: Pictures, device: torch.device) -> Tensor:
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).to(device)


def _scaled(pictures: Tensor, colours: tuple[tuple[float, ...], tuple[float, ...]]) -> Tensor:
    mean, deviation = (torch.tensor(one, device=pictures.device)[:, None, None] for one in colours)
    return (pictures / 255 - mean) / deviation


_LOADERS: Final = {
    INCEPTION: _inception,
    FID_PYTORCH: _inception,
    FID_CLEAN: _inception,
    FD_DINOV2: _dinov2,
    CMMD: _cmmd,
    PICK_SCORE: _pick_score,
}
