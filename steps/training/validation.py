"""The validation loss: held-out samples, always with the same noise at the same timesteps.

It compares trainings: it depends on neither the seed, the batch, the loss weights nor the number of ranks, and it is
measured with the weights that would be exported. Timesteps are spread evenly over the schedule, one stratum for each
sample, so that a few hundred samples do.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import torch

from params.layout import HELDOUT_SPLIT
from steps.data.latents import LatentsDataset
from steps.training.diffusion import Diffusion
from steps.training.draws import VALIDATION, draw
from steps.training.inputs import InputMaker, Inputs
from steps.training.objective import Objective
from steps.training.ranks import World
from steps.training.state import TrainingState

SEED: Final = 0
# Not the micro-batch: the value must not depend on it.
BATCH_SIZE: Final = 32


class Validation:
    """Measures the validation loss, a share of the samples on each rank."""

    def __init__(
        self,
        dataset: LatentsDataset,
        samples: int,
        diffusion: Diffusion,
        objective: Objective,
        inputs: InputMaker,
        world: World,
    ) -> None:
        self._dataset, self._diffusion, self._objective = dataset, diffusion, objective
        self._inputs, self._world = inputs, world
        self.samples = min(samples, dataset.count(HELDOUT_SPLIT))
        """Held-out samples that are used; 0 where there are none."""

    def loss(self, state: TrainingState, beat: Callable[[], None] = lambda: None) -> float:
        """Return the mean squared error of the prediction, unweighted, over all samples; the same on all ranks."""
        losses = torch.zeros(self.samples, dtype=torch.float64)
        starts = range(0, self.samples, BATCH_SIZE)
        state.unet.eval()
        with torch.no_grad(), state.averaged():
            for start in starts[self._world.rank :: self._world.size]:
                beat()
                rows = np.arange(start, min(start + BATCH_SIZE, self.samples), dtype=np.int64)
                batch_losses = self._objective.losses(state.unet, self._inputs_of(rows))
                losses[start : start + len(rows)] = batch_losses.to("cpu", torch.float64)
        state.unet.train()
        return math.fsum(self._world.sum_(losses).tolist()) / self.samples

    def _inputs_of(self, rows: np.ndarray[Any, np.dtype[np.int64]]) -> Inputs:
        held_out = self._dataset.read(HELDOUT_SPLIT, rows)
        draws = draw(SEED, rows.tolist(), self._dataset.manifest.latent_shape, VALIDATION)
        strata = torch.from_numpy((rows + 0.5) / self.samples)
        kept = torch.zeros(len(rows), dtype=torch.bool)
        return self._inputs.assemble(held_out, draws, draws.noise, self._diffusion.timestep_of(strata), kept)
