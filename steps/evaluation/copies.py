"""Copies of training pictures among those that a model draws: how many, and the closest pairs on a page.

Reads the rows' pictures, the held-out ones, and the training pictures as Encode described them; writes copies.html.

How near a copy is, the pictures say themselves. Held-out pictures, which training never saw, show how near pictures are
that copy nothing; training pictures, once through the model's own VAE, show how near they are when the model draws them
again. The threshold is half way between what 99 % of the former stay below and what 99 % of the latter reach; where the
former reach further, the set itself has copies, and the latter alone decide.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from params.layout import COPIES, COPIES_FILE, COPIES_REAL, COPIES_REPEATED, EVALUATOR
from params.programs import EvaluateArguments
from steps.container import Container
from steps.data.encoding.buckets import Size
from steps.data.encoding.decoding import decode
from steps.device import gpus_to_lend
from steps.evaluation.copies_page import ClosePair, write_page
from steps.evaluation.generation import TRAINED, PictureSet, Work, with_captions
from steps.evaluation.intervals import Floats, share
from steps.evaluation.reference import Pictures, Reference
from steps.evaluation.results import Entries
from steps.evaluation.scoring import BATCH_SIZE, CaptionedPictures, generated_pairs, real_pairs
from steps.evaluation.training_pictures import Nearest, TrainingPictures
from steps.model.pretrained import load_vae
from steps.ray_cluster import join, leading

# Rows of pictures: drawn from the captions that training saw most often, held out, and drawn again.
REPEATED: Final = "repeated"
REAL: Final = "real"
REDRAWN: Final = "redrawn"
KEYS: Final = {TRAINED: COPIES, REPEATED: COPIES_REPEATED, REAL: COPIES_REAL}
# The search is shared by all hosts: how long the first waits for the others.
HOST_WAIT_S: Final = 600.0
TYPICAL: Final = 0.99
REDRAWN_PICTURES: Final = 256
SHOWN_PAIRS: Final = 40


class CopySearch:
    def __init__(self, container: Container, arguments: EvaluateArguments, device: torch.device) -> None:
        """Open the training pictures. Raises StepError where the evaluator lacks the model that described them."""
        self._training = TrainingPictures(arguments.descriptors_uri, arguments.shards_uri)
        self._describer = self._training.describer(container.input_dir(EVALUATOR), device)
        self._device, self._repeated_samples = device, arguments.repeated_samples

    def planned(self, work: Work, others_dir: Path) -> Work:
        """Return the work with pictures of the most repeated captions, in turns where there are fewer."""
        captions, count = self._training.repeated[: self._repeated_samples], self._repeated_samples
        turns = [captions[index % len(captions)] for index in range(count)] if captions else []
        return with_captions(work, REPEATED, turns, others_dir)

    def run(self, container: Container, work: Work, reference: Reference, folder: Path) -> Entries:
        """Return the shares of copies, on the first host, and write the page into a folder; others lend themselves."""
        cluster, gpus = container.cluster(), gpus_to_lend(container)
        if not cluster.is_head:
            join(cluster, container.job_name, HOST_WAIT_S, gpus=gpus)
            return {}
        vae = load_vae(work.rows[0].source.folder, torch.float32).to(self._device)
        with leading(cluster, container.job_name, HOST_WAIT_S, gpus=gpus):
            return self.entries(work, reference, vae, folder)

    def entries(self, work: Work, reference: Reference, vae: Any, folder: Path) -> Entries:
        """Return the shares and write the page, on the Ray cluster that is up; `vae` is the trained model's."""
        rows = {row.name: row for row in work.rows if row.name in KEYS}
        pictures = {name: generated_pairs(row) for name, row in rows.items()}
        pictures |= {REAL: real_pairs(reference), REDRAWN: self._redrawn(vae, reference.size_px)}
        near = self._nearest(pictures)
        levels = _levels(near[REAL].similarities, near[REDRAWN].similarities)
        copied = {name: one.similarities >= levels["threshold"] for name, one in near.items()}
        entries = {key: share(copied[name], **levels) for name, key in KEYS.items() if name in near}
        pairs = [self._pair(rows[name], near[name], place) for name, place in _closest({n: near[n] for n in rows})]
        write_page(folder / COPIES_FILE, pairs, entries, len(self._training))
        return entries

    def _nearest(self, pictures: Mapping[str, Iterator[CaptionedPictures]]) -> dict[str, Nearest]:
        """Return the nearest training picture of each picture: all sets are looked up in one pass."""
        described = {name: torch.cat([self._describer.describe(one) for one, _ in of]) for name, of in pictures.items()}
        found = self._training.nearest(torch.cat(list(described.values())).numpy())
        ends = np.cumsum([len(one) for one in described.values()])[:-1]
        parts = zip(*(np.split(column, ends) for column in found), strict=True)
        return {name: Nearest(*columns) for name, columns in zip(described, parts, strict=True)}

    def _redrawn(self, vae: Any, side_px: int) -> Iterator[CaptionedPictures]:
        """Yield training pictures, spread over all, as they come out of the VAE."""
        rows = np.unique(np.linspace(0, len(self._training) - 1, REDRAWN_PICTURES).astype(np.int64)).tolist()
        for start in range(0, len(rows), BATCH_SIZE):
            samples = [self._training.sample(row) for row in rows[start : start + BATCH_SIZE]]
            pictures = np.stack([decode(sample, Size(side_px, side_px)) for sample in samples])
            yield redraw(vae, pictures), [sample.caption for sample in samples]

    def _pair(self, row: PictureSet, near: Nearest, place: int) -> ClosePair:
        prompt, sample = row.prompts[place], self._training.sample(int(near.rows[place]))
        picture = row.store().path(prompt.index).read_bytes()
        similarity = float(near.similarities[place])
        return ClosePair(similarity, prompt.caption, picture, sample.caption, sample.picture, sample.key)


@torch.inference_mode()
def redraw(vae: Any, pictures: Pictures) -> Pictures:
    """Return pictures, (N, H, W, 3) uint8, as they come out of a VAE that got them."""
    pixels = torch.from_numpy(pictures).to(vae.device).permute(0, 3, 1, 2).float() / 127.5 - 1
    decoded = vae.decode(vae.encode(pixels).latent_dist.mode()).sample
    drawn: Pictures = ((decoded / 2 + 0.5).clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return drawn


def _levels(real: Floats, redrawn: Floats) -> dict[str, float]:
    """Return how near pictures are that copy nothing, how near copies are, and the threshold between."""
    normal, copied = float(np.quantile(real, TYPICAL)), float(np.quantile(redrawn, 1 - TYPICAL))
    return {"normal": normal, "copied": copied, "threshold": min((normal + copied) / 2, copied)}


def _closest(near: dict[str, Nearest]) -> list[tuple[str, int]]:
    places = [(-float(one), name, place) for name, of in near.items() for place, one in enumerate(of.similarities)]
    return [(name, place) for _, name, place in sorted(places)[:SHOWN_PAIRS]]
