"""Guards: they count and report what would silently spoil a training, and stop it past a limit."""

from __future__ import annotations

import statistics
from collections import Counter, deque
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from steps.errors import StepError
from steps.training.ranks import World

# A spike is this many robust standard deviations above the median of the last losses.
SPIKE_DEVIATIONS: Final = 8.0
SPIKE_HISTORY_STEPS: Final = 200
SPIKE_MIN_STEPS: Final = 50
_MAD_TO_DEVIATION: Final = 1.4826


class SkipGuard:
    """Counts steps that were skipped because their gradient was not finite."""

    def __init__(self, limit: int, skipped_steps: int = 0) -> None:
        self._limit = limit
        self.skipped_steps = skipped_steps

    def note(self, skipped: Sequence[bool], first_sample: int, batch_samples: int) -> None:
        """Add the steps since the last call, from position `first_sample` on. Raises StepError past the limit."""
        for index, was_skipped in enumerate(skipped):
            if was_skipped:
                self.skipped_steps += 1
                start = first_sample + index * batch_samples
                print(f"step skipped: gradient not finite at samples {start} to {start + batch_samples}", flush=True)
        if self.skipped_steps > self._limit:
            raise StepError(
                f"{self.skipped_steps} steps had a gradient that is not finite (max_skipped_steps {self._limit}); "
                "lower learning_rate, lengthen warmup_samples, or look at the samples named above"
            )


class SpikeGuard:
    """Reports the samples at which the loss jumped; training continues."""

    def __init__(self) -> None:
        self._losses: deque[float] = deque(maxlen=SPIKE_HISTORY_STEPS)

    def note(self, losses: Sequence[float], first_sample: int, batch_samples: int) -> None:
        """Add the losses of the steps since the last call."""
        for index, loss in enumerate(losses):
            if self._is_spike(loss):
                start = first_sample + index * batch_samples
                print(f"loss spike: {loss:.6g} at samples {start} to {start + batch_samples}", flush=True)
            self._losses.append(loss)

    def _is_spike(self, loss: float) -> bool:
        if len(self._losses) < SPIKE_MIN_STEPS:
            return False
        median = statistics.median(self._losses)
        deviation = _MAD_TO_DEVIATION * statistics.median(abs(value - median) for value in self._losses)
        return loss > median + SPIKE_DEVIATIONS * deviation


def check_replicas(world: World, parameters: Sequence[Tensor], seen_samples: int) -> None:
    """Raise StepError that names the ranks whose weights differ from the majority's in any bit."""
    checksums = world.gather_int(weights_checksum(parameters))
    common, _ = Counter(checksums).most_common(1)[0]
    strays = [rank for rank, checksum in enumerate(checksums) if checksum != common]
    if strays:
        raise StepError(
            f"after {seen_samples} samples the weights of rank {', '.join(map(str, strays))} differ from the others': "
            "a faulty device or link; take that host out and start again: the last checkpoint is good"
        )


@torch.no_grad()
def weights_checksum(parameters: Sequence[Tensor]) -> int:
    """Return a number (int64) that changes with any bit, and with the order, of the tensors."""
    integer = {4: torch.int32, 8: torch.int64}
    sums = torch.stack([p.detach().view(integer[p.element_size()]).sum(dtype=torch.int64) for p in parameters])
    odd = torch.arange(1, 2 * len(parameters), 2, dtype=torch.int64, device=sums.device)
    return int((sums * odd).sum())
