"""The exponential moving average of the weights: what is exported and validated.

Counts samples, not steps, so that the average is over the same stretch of training at any batch size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor


def decay_of_step(decay: float, reference_samples: int, seen_samples: int, batch_samples: int) -> float:
    """Return the weight of the old average when a batch of `batch_samples` follows `seen_samples` samples.

    `decay` stands for `reference_samples` samples. At first it is (1 + n) / (10 + n) at the n-th application, so that
    the random initial weights are soon forgotten (TensorFlow's ExponentialMovingAverage with num_updates; diffusers'
    EMAModel does the same).
    """
    applications = seen_samples / reference_samples
    warmed_up = min(decay, (1.0 + applications) / (10.0 + applications))
    return float(warmed_up ** (batch_samples / reference_samples))


class WeightAverage:
    """A moving average beside the parameters that it follows."""

    def __init__(self, parameters: Sequence[Tensor], decay: float, reference_samples: int) -> None:
        """Begin at the parameters' present values."""
        self._parameters = [parameter.detach() for parameter in parameters]
        self._decay, self._reference_samples = decay, reference_samples
        self.tensors = [parameter.clone() for parameter in self._parameters]
        """The average, in the order of the parameters."""

    @torch.no_grad()
    def update(self, seen_samples: int, batch_samples: int) -> None:
        """Move towards the parameters; `seen_samples` came before this batch."""
        decay = decay_of_step(self._decay, self._reference_samples, seen_samples, batch_samples)
        torch._foreach_lerp_(self.tensors, self._parameters, 1.0 - decay)

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Put the average in place of the parameters for a while; every bit is back afterwards."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        # In place, one tensor at a time: graphs that hold the parameters' addresses stay good, and memory small.
        for parameter, average in zip(self._parameters, self.tensors, strict=True):
            kept = parameter.clone()
            parameter.copy_(average)
            average.copy_(kept)
