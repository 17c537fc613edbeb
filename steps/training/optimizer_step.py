"""One optimizer step: forward and backward passes over a global batch, clipping, the optimizer, moving average.

Nothing in it waits for the device: the results are read when a log line is written.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from params.programs import TrainArguments
from steps.errors import StepError
from steps.training.batch_plan import BatchPlan
from steps.training.gradients import Gradients
from steps.training.inputs import Inputs
from steps.training.objective import Objective
from steps.training.state import TrainingState


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


class OptimizerStep:
    """Takes optimizer steps, the same ones on all ranks."""

    def __init__(
        self,
        arguments: TrainArguments,
        plan: BatchPlan,
        state: TrainingState,
        gradients: Gradients,
        objective: Objective,
    ) -> None:
        self._arguments, self._plan = arguments, plan
        self._state, self._gradients, self._objective = state, gradients, objective
        self._total_samples = plan.total_samples(arguments.training_samples)

    def take(self, inputs: Inputs, seen_samples: int) -> StepResult:
        """Learn from this rank's slice of the global batch that follows `seen_samples` samples."""
        loss = self.add_gradients(inputs)
        result = self._update(loss, seen_samples)
        self._gradients.clear()
        if self._state.average is not None:
            self._state.average.update(seen_samples, self._plan.global_batch_size)
        return result

    def add_gradients(self, inputs: Inputs) -> Tensor:
        """Run forward and backward passes; return this rank's part of the loss.

        The loss is a sum over samples divided by the global batch, so that it does not depend on how the batch is cut.
        Raises OutOfMemoryError, which names a smaller micro-batch.
        """
        try:
            return self._add_gradients(inputs)
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
                raise _out_of_memory(self._plan) from error
            raise

    def _add_gradients(self, inputs: Inputs) -> Tensor:
        loss = torch.zeros((), dtype=torch.float64, device=inputs.timesteps.device)
        last = self._plan.accumulation_steps - 1
        for index, piece in enumerate(inputs.micro_batches(self._plan.micro_batch_size)):
            with self._gradients.accumulating(last=index == last):
                losses = self._objective.weighted_losses(self._gradients.forward, piece)
                part = losses.sum() / self._plan.global_batch_size
                backward: Any = part.backward
                backward()
            loss += part.detach()
        self._gradients.sum.note_end()
        return loss

    def _update(self, loss: Tensor, seen_samples: int) -> StepResult:
        gradients = [parameter.grad for parameter in self._state.parameters if parameter.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        torch.nn.utils.clip_grads_with_norm_(self._state.parameters, self._arguments.max_gradient_norm, norm)
        skipped = (~torch.isfinite(norm)).float()
        self._state.optimizer.step(learning_rate(self._arguments, seen_samples, self._total_samples), skipped)
        if self._state.shards.divided:
            with self._gradients.sum.waiting():
                self._state.shards.share()
        return StepResult(loss, norm, skipped)


def _out_of_memory(plan: BatchPlan) -> OutOfMemoryError:
    smaller = plan.smaller_micro_batch_size()
    advice = (
        f"set micro_batch_size to {smaller}: the result stays the same"
        if smaller
        else "it cannot be smaller: set gradient_checkpointing, or take a device with more memory"
    )
    return OutOfMemoryError(f"out of memory with micro_batch_size {plan.micro_batch_size}; {advice}")
