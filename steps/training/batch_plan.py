"""Divides a global batch over ranks and micro-batches."""

from __future__ import annotations

from dataclasses import dataclass

from steps.errors import StepError


@dataclass(frozen=True)
class BatchPlan:
    """The arithmetic of one optimizer step."""

    global_batch_size: int
    """Samples of an optimizer step over all ranks."""
    micro_batch_size: int
    """Samples of one forward pass on one rank."""
    world_size: int
    """Ranks."""

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
