"""The training pictures as Encode described them: which of them is nearest to a picture, searched in blocks on Ray.

Reads the descriptors artifact, straight from its address, and single samples of the shards behind it; writes nothing.
Memory holds the pictures that are asked about and one file of descriptors at a time, however many files there are.
"""

from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import ray
import torch
from pydantic import ValidationError

from params.layout import LATENTS_PLAN_FILE, MANIFEST_FILE, TRAIN_SPLIT
from steps.data.encoding.decoding import ShardsSource, planned_samples
from steps.data.encoding.descriptors import DescriptorsManifest, DescriptorsRecord, read_descriptors
from steps.data.encoding.patch_features import PatchFeatures
from steps.data.encoding.plan import PlanFile
from steps.data.encoding.ray_encoding import few_at_once, workers_of
from steps.data.encoding.samples import Sample
from steps.data.latents.block import Array
from steps.data.latents.order import Rows
from steps.data.storage import Storage
from steps.device import choose_device
from steps.errors import StepError
from steps.evaluation.intervals import Floats
from steps.model.digest import folder_digest

# 4,096 pictures against the 8,192 rows of a file are 134 MB of similarities.
QUERIES_AT_ONCE: Final = 4096
FILES_PER_TASK: Final = 16
TASKS_PER_WORKER: Final = 2


class Nearest(NamedTuple):
    similarities: Floats
    """Cosine of both descriptors, (N,)."""
    rows: Rows
    """Rows of the training split, (N,)."""


class TrainingPictures:
    def __init__(self, descriptors_uri: str, shards_uri: str) -> None:
        """Read the manifest and the plan. Raises StepError where they are not there."""
        self._storage = Storage(descriptors_uri)
        try:
            self._manifest = DescriptorsManifest.model_validate_json(self._storage.read(MANIFEST_FILE))
            plan = PlanFile.model_validate_json(self._storage.read(LATENTS_PLAN_FILE))
        except (OSError, ValidationError) as error:
            raise StepError(f"{descriptors_uri}: not the descriptors that Encode writes ({error})") from None
        self._source = ShardsSource(shards_uri, plan)

    def __len__(self) -> int:
        return self._manifest.samples

    @property
    def repeated(self) -> list[str]:
        """The captions of several training pictures each, the most repeated one first."""
        return [caption for caption, _ in self._manifest.repeated]

    def describer(self, evaluator_dir: Path, device: torch.device) -> PatchFeatures:
        """Return what described them. Raises StepError where the evaluator's model is another one today."""
        folder = evaluator_dir / self._manifest.model
        if folder_digest(folder) != self._manifest.model_digest:
            raise StepError(f"{folder}: not the model that described the training pictures; run Encode again")
        return PatchFeatures(folder, 1, device, "encode.descriptors")

    def sample(self, row: int) -> Sample:
        return planned_samples(self._source, TRAIN_SPLIT, row, 1)[0]

    def nearest(self, descriptors: Array) -> Nearest:
        """Return the nearest training picture of each descriptor, float16 (N, width), on the Ray cluster that is up."""
        workers, gpus = workers_of(0)
        search = ray.remote(num_cpus=1, num_gpus=1 if gpus else 0)(_search)
        files, asked = self._manifest.files, ray.put(descriptors)
        parts = (files[start : start + FILES_PER_TASK] for start in range(0, len(files), FILES_PER_TASK))
        tasks = (search.remote(self._storage.uri, part, asked) for part in parts)
        found: Nearest = reduce(_nearer, few_at_once(tasks, TASKS_PER_WORKER * workers))
        return found


def _search(uri: str, files: Sequence[DescriptorsRecord], descriptors: Array) -> Nearest:
    storage, device = Storage(uri), choose_device()
    asked = torch.from_numpy(descriptors).to(device, torch.float32)

    def nearest(file: DescriptorsRecord) -> Nearest:
        rows = torch.from_numpy(read_descriptors(storage, file)).to(device, torch.float32)
        found = [(part @ rows.T).max(dim=1) for part in torch.split(asked, QUERIES_AT_ONCE)]
        similarities, places = (torch.cat(column).cpu().numpy() for column in zip(*found, strict=True))
        return Nearest(similarities, file.first_row + places)

    return reduce(_nearer, map(nearest, files))


def _nearer(one: Nearest, other: Nearest) -> Nearest:
    """Return the nearer of each; of two that are as near, the one with the lower row, whichever was found first."""
    is_other = other.similarities > one.similarities
    is_other |= (other.similarities == one.similarities) & (other.rows < one.rows)
    return Nearest(*(np.where(is_other, its, own) for own, its in zip(one, other, strict=True)))
