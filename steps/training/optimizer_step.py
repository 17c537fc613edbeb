"""One optimizer step: how a global batch is divided, passes over it, clipping, the optimizer, moving average.

Nothing in it waits for the device: the results are read when a log line is written.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from params.programs import TrainArguments
from steps.errors import StepError
from steps.training.gradients import Gradients
from steps.training.inputs import Inputs
from steps.training.objective import Objective
from steps.training.state import TrainingState


@dataclass(frozen=True)
class BatchPlan:
    """The arithmetic of one optimizer step, in samples: over all ranks, and of one forward pass on one of them."""

    global_batch_size: int
    micro_batch_size: int
    world_size: int

    @property
    def rank_batch_size(self) -> int:
        """Samples of an optimizer step on one rank."""
        return self.global_batch_size // self.world_size

    @property
    def accumulation_steps(self) -> int:
        """Forward passes of an optimizer step on one rank."""
        return self.rank_batch_size // self.micro_batch_size

    def total_samples(self, training_samples: int) -> int:
        """Return `training_samples` rounded up to whole global batches."""
        return -(-training_samples // self.global_batch_size) * self.global_batch_size

    def smaller_micro_batch_size(self) -> int | None:
        """Return the largest micro-batch of at most half the size, or None below 1."""
        return next((size for size in _divisors(self.rank_batch_size) if size <= self.micro_batch_size // 2), None)


def batch_plan(global_batch_size: int, micro_batch_size: int, world_size: int) -> BatchPlan:
    """Return the plan. Raises StepError with values that work if the three numbers do not divide."""
    if global_batch_size % (micro_batch_size * world_size) == 0:
        return BatchPlan(global_batch_size, micro_batch_size, world_size)
    unit = micro_batch_size * world_size
    lower, upper = global_batch_size // unit * unit, -(-global_batch_size // unit) * unit
    works = f"global_batch_size {' or '.join(str(size) for size in (lower, upper) if size)}"
    if global_batch_size % world_size == 0:
        sizes = ", ".join(map(str, _divisors(global_batch_size // world_size)[:8]))
        works = f"micro_batch_size {sizes}, or {works}"
    raise StepError(
        f"global_batch_size {global_batch_size} is no multiple of micro_batch_size {micro_batch_size} x "
        f"{world_size} ranks; with {world_size} ranks these work: {works}"
    )


def _divisors(number: int) -> list[int]:
    """Return the divisors, the largest first."""
    small = [divisor for divisor in range(1, int(number**0.5) + 1) if number % divisor == 0]
    return sorted({*small, *(number // divisor for divisor in small)}, reverse=True)


def learning_rate(arguments: TrainArguments, seen_samples: int, total_samples: int) -> float:
    """Return the rate of the step whose batch follows `seen_samples` samples, taken at the middle of the batch.

    Linear warm-up over `warmup_samples`, then constant or half a cosine down to 0 at `total_samples` (Loshchilov and
    Hutter 2017, arXiv:1608.03983, without restarts). The square-root rule scales the peak from the batch that it was
    tuned for.
    """
    tuned_for = arguments.learning_rate_batch_size or arguments.global_batch_size
    peak = arguments.learning_rate * math.sqrt(arguments.global_batch_size / tuned_for)
    middle = seen_samples + arguments.global_batch_size / 2
    if middle < arguments.warmup_samples:
        return peak * middle / arguments.warmup_samples
    if arguments.learning_rate_schedule == "constant":
        return peak
    after_warmup = (middle - arguments.warmup_samples) / max(1, total_samples - arguments.warmup_samples)
    return peak * 0.5 * (1.0 + math.cos(math.pi * min(1.0, after_warmup)))


@dataclass(frozen=True)
class StepResult:
    """Results of a step, on the device: shape [] each."""

    loss: Tensor
    """This rank's part of the mean loss of the global batch: the ranks' parts add up to it."""
    gradient_norm: Tensor
    """Of the whole gradient, before clipping."""
    skipped: Tensor
    """1 where the gradient was not finite and the weights stayed as they were, otherwise 0; float32."""


class OutOfMemoryError(StepError):
    """The micro-batch does not fit into memory; the message names one that may."""


@dataclass(frozen=True)
class OptimizerStep:
    """Takes optimizer steps, the same ones on all ranks."""

    arguments: TrainArguments
    plan: BatchPlan
    state: TrainingState
    gradients: Gradients
    objective: Objective

    def take(self, inputs: Inputs, seen_samples: int) -> StepResult:
        """Learn from this rank's slice of the global batch that follows `seen_samples` samples."""
        loss = self.add_gradients(inputs)
        result = self._update(loss, seen_samples)
        self.gradients.clear()
        if self.state.average is not None:
            self.state.average.update(seen_samples, self.plan.global_batch_size)
        return result

    def add_gradients(self, inputs: Inputs) -> Tensor:
        """Run both passes; return this rank's part of the loss, however the batch is cut. Raises OutOfMemoryError."""
        try:
            return self._add_gradients(inputs)
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
                raise _out_of_memory(self.plan) from error
            raise

    def _add_gradients(self, inputs: Inputs) -> Tensor:
        loss = torch.zeros((), dtype=torch.float64, device=inputs.timesteps.device)
        last = self.plan.accumulation_steps - 1
        for index, piece in enumerate(inputs.micro_batches(self.plan.micro_batch_size)):
            with self.gradients.accumulating(last=index == last):
                losses = self.objective.weighted_losses(self.gradients.forward, piece)
                part = losses.sum() / self.plan.global_batch_size
                backward: Any = part.backward
                backward()
            loss += part.detach()
        self.gradients.note_end()
        return loss

    def _update(self, loss: Tensor, seen_samples: int) -> StepResult:
        with self.gradients.waiting():
            norm = self.state.gradient_norm()
        torch.nn.utils.clip_grads_with_norm_(self.state.optimizer.trained, self.arguments.max_gradient_norm, norm)
        skipped = (~torch.isfinite(norm)).float()
        total_samples = self.plan.total_samples(self.arguments.training_samples)
        self.state.optimizer.step(learning_rate(self.arguments, seen_samples, total_samples), skipped)
        with self.gradients.waiting():
            self.state.share()
        return StepResult(loss, norm, skipped)


def _out_of_memory(plan: BatchPlan) -> OutOfMemoryError:
    smaller = plan.smaller_micro_batch_size()
    advice = (
        f"set micro_batch_size to {smaller}: the result stays the same"
        if smaller
        else "it cannot be smaller: set gradient_checkpointing, or take a device with more memory"
    )
    return OutOfMemoryError(f"out of memory with micro_batch_size {plan.micro_batch_size}; {advice}")
