"""The learning rate as a function of the samples seen: the same curve at any batch size and number of ranks."""

from __future__ import annotations

import math

from params.programs import TrainArguments


def learning_rate(arguments: TrainArguments, seen_samples: int, total_samples: int) -> float:
    """Return the rate of the step whose batch follows `seen_samples` samples, taken at the middle of the batch.

    Linear warm-up over `warmup_samples`, then constant or half a cosine down to 0 at `total_samples` (Loshchilov and
    Hutter 2017, arXiv:1608.03983, without restarts).
    """
    peak = peak_learning_rate(arguments)
    middle = seen_samples + arguments.global_batch_size / 2
    if middle < arguments.warmup_samples:
        return peak * middle / arguments.warmup_samples
    if arguments.learning_rate_schedule == "constant":
        return peak
    after_warmup = (middle - arguments.warmup_samples) / max(1, total_samples - arguments.warmup_samples)
    return peak * 0.5 * (1.0 + math.cos(math.pi * min(1.0, after_warmup)))


def peak_learning_rate(arguments: TrainArguments) -> float:
    """Return the rate after the warm-up, carried over from the batch for which it was found by the square-root rule."""
    found_for = arguments.learning_rate_batch_size or arguments.global_batch_size
    return arguments.learning_rate * math.sqrt(arguments.global_batch_size / found_for)
