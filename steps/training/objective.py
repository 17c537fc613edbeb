"""The training objective, the error of the model's prediction for a sample; and the validation loss.

That is of held-out samples, always with the same noise at the same timesteps, and can be compared between trainings: it
depends on neither the seed, the batch, the loss weights nor the number of ranks, and it measures the weights that would
be exported. Timesteps are spread evenly over the schedule, one stratum for each sample of a bucket, so that a few
hundred samples suffice; each bucket has its share of them.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from params.layout import HELDOUT_SPLIT
from steps.data.latents.order import Rows
from steps.data.loading.latents import LatentsDataset
from steps.model.denoiser import Denoiser
from steps.training.block_aids import BlockAids
from steps.training.diffusion import Diffusion, RectifiedFlow
from steps.training.draws import VALIDATION, draw
from steps.training.inputs import CaptionConditioning, InputMaker, Inputs, latent_shape_of
from steps.training.ranks import World
from steps.training.state import TrainingState

# Of weights, optimizer and losses; bfloat16 is for the forward pass alone.
WEIGHT_DTYPES: Final = {"float32": torch.float32, "bfloat16": torch.float32, "float64": torch.float64}
# Of the forward pass, and of the frozen text encoder.
FORWARD_DTYPES: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}
SEED: Final = 0
# Not the micro-batch: the value must not depend on it.
BATCH_SIZE: Final = 32


def resolved_precision(precision: str, device: torch.device) -> str:
    """Resolve `auto`: bfloat16, 0.6 of float32's time on a core with AVX-512 BF16, unless the device emulates it."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    capabilities = torch.cpu.get_capabilities()
    native = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    return "bfloat16" if native else "float32"


class Objective:
    """Mean squared error of the prediction, for each sample."""

    def __init__(
        self,
        denoiser: Denoiser,
        process: Diffusion | RectifiedFlow,
        captions: CaptionConditioning,
        scaling_factor: float,
        precision: str,
        device: torch.device,
        shift_factor: float = 0.0,
        aids: BlockAids | None = None,
    ) -> None:
        self._denoiser, self._captions, self._aids = denoiser, captions, aids
        self._process, self._scaling_factor, self._shift_factor = process, scaling_factor, shift_factor
        self._dtype = WEIGHT_DTYPES[precision]
        half: Callable[[], AbstractContextManager[Any]] = partial(torch.autocast, device.type, dtype=torch.bfloat16)
        self._autocast = half if precision == "bfloat16" else nullcontext

    def losses(self, network: Callable[..., Any], inputs: Inputs) -> Tensor:
        """Return the mean squared error of each sample, [n]."""
        mean, std = inputs.mean.to(self._dtype), inputs.std.to(self._dtype)
        # Stored moments are unscaled: latents are scaled here and nowhere else.
        latents = (mean + std * inputs.posterior - self._shift_factor) * self._scaling_factor
        noise = inputs.noise.to(self._dtype)
        noisy, target = self._process.noisy_and_target(latents, noise, inputs.timesteps)
        with self._autocast():
            conditions = self._captions.encode(inputs.captions, inputs.kept)
            if conditions[0].dtype == torch.float16 or self._dtype == torch.float64:
                conditions = tuple(condition.to(self._dtype) for condition in conditions)
            prediction = self._denoiser.forward(network, noisy, inputs.timesteps, conditions)
        return (prediction.to(self._dtype) - target).square().flatten(1).mean(1)

    def weighted_losses(self, network: Callable[..., Any], inputs: Inputs) -> Tensor:
        """Return the weighted losses whose sum training minimises, [n]."""
        weights = self._process.weight_of(inputs.timesteps)
        if self._aids is None or inputs.routes is None or inputs.features is None:
            return self.losses(network, inputs) * weights
        self._aids.prepare(latent_shape_of(inputs.mean), inputs.routes, inputs.mean.new_empty(0, dtype=self._dtype))
        return self.losses(network, inputs) * weights + self._aids.losses(inputs.features)


@dataclass(frozen=True, eq=False)
class _Batch:
    start: int
    """Number of samples before it."""
    bucket: int
    rows: Rows
    """Of the held-out split."""
    strata: npt.NDArray[np.float64]
    """In [0, 1): position of each row in the schedule."""


class Validation:
    """Measures the validation loss; each rank takes a share of the samples."""

    def __init__(
        self, dataset: LatentsDataset, samples: int, objective: Objective, inputs: InputMaker, world: World
    ) -> None:
        self._dataset, self._objective, self._inputs, self._world = dataset, objective, inputs, world
        self.samples = min(samples, dataset.count(HELDOUT_SPLIT))
        """Number of held-out samples that are used; 0 without any."""
        self._batches = list(_batches(dataset, self.samples)) if self.samples else []

    def loss(self, state: TrainingState, beat: Callable[[], None] = lambda: None) -> float:
        """Return the mean squared error of the prediction, unweighted, over all samples; the same on all ranks."""
        losses = torch.zeros(self.samples, dtype=torch.float64)
        with state.averaged():
            for batch in self._own:
                beat()
                batch_losses = self._losses_of(batch, state.network)
                losses[batch.start : batch.start + len(batch.rows)] = batch_losses.to("cpu", torch.float64)
        return math.fsum(self._world.sum_(losses).tolist()) / self.samples

    def warm_up(self, network: Any) -> None:
        """Run one of this rank's batches of each shape, so that all are compiled before the clock starts."""
        for batch in {(batch.bucket, len(batch.rows)): batch for batch in self._own}.values():
            self._losses_of(batch, network)

    @property
    def _own(self) -> list[_Batch]:
        return self._batches[self._world.rank :: self._world.size]

    @torch.no_grad()
    def _losses_of(self, batch: _Batch, network: Any) -> Tensor:
        network.eval()
        losses = self._objective.losses(network, self._inputs_of(batch))
        network.train()
        return losses

    def _inputs_of(self, batch: _Batch) -> Inputs:
        held_out = self._dataset.read(HELDOUT_SPLIT, batch.rows)
        draws = draw(SEED, batch.rows.tolist(), latent_shape_of(held_out.mean), VALIDATION)
        timesteps = self._inputs.process.evenly(torch.from_numpy(batch.strata))
        return self._inputs.whole(held_out, draws, timesteps)


def _batches(dataset: LatentsDataset, samples: int) -> Iterator[_Batch]:
    """Yield batches of one shape: the first held-out rows of every bucket, in proportion to its size."""
    count, start, before = dataset.count(HELDOUT_SPLIT), 0, 0
    for bucket, span in enumerate(dataset.spans(HELDOUT_SPLIT).values()):
        before += len(span)
        share = before * samples // count - start
        for first in range(0, share, BATCH_SIZE):
            places = np.arange(first, min(first + BATCH_SIZE, share), dtype=np.int64)
            yield _Batch(start + first, bucket, span.start + places, (places + 0.5) / share)
        start += share
