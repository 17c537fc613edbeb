"""Turns pictures into features and scores, from which the metrics of a row are computed."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from steps.evaluation.clip_scorer import ClipEvaluator, ClipScorer, find_clip
from steps.evaluation.further import INCEPTION, load_extractors
from steps.evaluation.generation import PictureSet
from steps.evaluation.intervals import Floats
from steps.evaluation.reference import Pictures, Reference
from steps.model.pretrained import folder_digest

BATCH_SIZE: Final = 64

CaptionedPictures = tuple[Pictures, Sequence[str]]


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores and features of one set of captioned pictures; each set equals itself alone."""

    cosines: Floats
    """Cosine of each picture with its caption, (N,)."""
    margins: Floats
    """By how much each picture scores higher with its own caption than with the others', (N,)."""
    clip_features: Floats
    """The CLIP's projected picture features, (N, D)."""
    fid_features: Floats
    """Inception's pooled features, or the CLIP's, (N, D)."""
    further: Mapping[str, Floats] = field(default_factory=dict)
    """Features, (N, D), or scores, (N,), of further networks, by the metric's name."""

    @property
    def clip_score(self) -> float:
        """Mean cosine; like torchmetrics', one below 0 counts as 0."""
        return max(float(self.cosines.mean()), 0.0)

    def at(self, rows: npt.NDArray[np.int_] | slice) -> "Scores":
        """Return the scores of some of the pictures."""
        others = {name: values[rows] for name, values in self.further.items()}
        return Scores(self.cosines[rows], self.margins[rows], self.clip_features[rows], self.fid_features[rows], others)

    def first(self, count: int) -> "Scores":
        """Return the scores of the first `count` pictures, or of all if there are fewer."""
        return self if count >= len(self.cosines) else self.at(slice(count))


class Scorer:
    def __init__(
        self, evaluator_dir: Path, fid_features: str, device: torch.device, metrics: Sequence[str] = ()
    ) -> None:
        clip_dir = find_clip(evaluator_dir)
        self.clip = ClipEvaluator(clip_dir, device)
        self.extractors = load_extractors((fid_features, *metrics), evaluator_dir, device)
        own = {extractor.name: extractor.digest for extractor in self.extractors}
        self.digests = {"clip": folder_digest(clip_dir), **own}

    def score(self, pairs: Iterator[CaptionedPictures], report: Callable[[int], None]) -> Scores:
        """Score captioned pictures, (N, H, W, 3) uint8, in one pass."""
        clip = ClipScorer(self.clip)
        further: dict[str, list[Tensor]] = {extractor.name: [] for extractor in self.extractors}
        for pictures, captions in pairs:
            clip.update(pictures, captions)
            for extractor in self.extractors:
                with torch.inference_mode():
                    further[extractor.name].append(extractor.extract(pictures, captions).double().cpu())
            report(len(captions))
        values = {name: np.asarray(torch.cat(parts).numpy()) for name, parts in further.items()}
        clip_features = clip.features()
        return Scores(clip.cosines(), clip.margins(), clip_features, values.pop(INCEPTION, clip_features), values)


def real_pairs(reference: Reference) -> Iterator[CaptionedPictures]:
    """Yield all real pictures with their captions, batch by batch."""
    for start in range(0, len(reference), BATCH_SIZE):
        rows = range(start, min(start + BATCH_SIZE, len(reference)))
        yield reference.read(rows), [reference.captions[row] for row in rows]


def generated_pairs(row: PictureSet) -> Iterator[CaptionedPictures]:
    """Yield a row's pictures, as its store holds them, with their captions, batch by batch."""
    store = row.store()
    for start in range(0, len(row.prompts), BATCH_SIZE):
        prompts = row.prompts[start : start + BATCH_SIZE]
        yield store.read([prompt.index for prompt in prompts]), [prompt.caption for prompt in prompts]
