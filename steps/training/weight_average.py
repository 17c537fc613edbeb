"""The exponential moving average of the weights: what is exported and validated.

Counts samples, not steps, so that the average is over the same stretch of training at any batch size.
"""

import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from steps.training.pieces import WeightPart


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

    def __init__(
        self, parts: Sequence[WeightPart], decay: float, reference_samples: int, dtype: torch.dtype | None = None
    ) -> None:
        """Begin at the parts' values; `dtype` None keeps the average in the parameters' own.

        In bfloat16 the average takes half the memory. A step then moves a weight by less than its last bit (1e-4 of the
        distance, against 8 bits), so it is rounded up or down at random, with the odds that make the mean right
        (stochastic rounding: Gupta et al. 2015, arXiv:1502.02551).
        """
        self._parts, self.dtype = parts, dtype
        self._parameters = [part.tensor.detach() for part in parts]
        self._decay, self._reference_samples = decay, reference_samples
        self.tensors = [parameter.to(dtype or parameter.dtype, copy=True) for parameter in self._parameters]
        """The average, in the order of the parts."""
        self._is_rounded = dtype == torch.bfloat16

    @torch.no_grad()
    def update(self, seen_samples: int, batch_samples: int) -> None:
        """Move towards the parameters; `seen_samples` before this batch, and a parameter's place, decide rounding."""
        decay = decay_of_step(self._decay, self._reference_samples, seen_samples, batch_samples)
        if not self.tensors:
            return
        if not self._is_rounded:
            torch._foreach_lerp_(self.tensors, self._parameters, 1.0 - decay)
            return
        generator = torch.Generator(self.tensors[0].device)
        for part, average, parameter in zip(self._parts, self.tensors, self._parameters, strict=True):
            generator.manual_seed(zlib.crc32(f"{seen_samples} {part.place}".encode()))
            # Drawn for the whole parameter, so that it does not matter who keeps which part.
            kind: Any = {"dtype": torch.int32, "device": average.device, "generator": generator}
            noise = part.of(torch.randint(0, 1 << 16, part.whole.shape, **kind))
            round_into(average, torch.lerp(average.float(), parameter.float(), 1.0 - decay), noise)

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Put the average in place of the parameters for a while; every bit is back afterwards."""
        there = back = self._swap
        if self._is_rounded:
            kept = [parameter.clone() for parameter in self._parameters]
            there, back = partial(self._set, self.tensors), partial(self._set, kept)
        there()
        try:
            yield
        finally:
            back()

    @torch.no_grad()
    def _set(self, values: Sequence[Tensor]) -> None:
        for parameter, value in zip(self._parameters, values, strict=True):
            parameter.copy_(value)

    @torch.no_grad()
    def _swap(self) -> None:
        # In place, one tensor at a time: graphs that hold the parameters' addresses stay good, and memory small.
        for parameter, average in zip(self._parameters, self.tensors, strict=True):
            kept = parameter.clone()
            parameter.copy_(average)
            average.copy_(kept)


def round_into(target: Tensor, values: Tensor, noise: Tensor) -> None:
    """Write float32 values into a bfloat16 tensor, each to one of its two neighbours, with the mean of the value.

    `noise`, int32 of the same shape, is uniform in [0, 65536).
    """
    # bfloat16 is the upper half of float32: what the noise does not carry into it is cut off.
    bits = values.contiguous().view(torch.int32).add_(noise).bitwise_and_(-(1 << 16))
    target.copy_(bits.view(torch.float32))
