"""The loop that trains a small model of the local run: AdamW, a warm-up, then a cosine down to a rate of 0.

Reads batches, changes the model in place. `python -m shapes train-models` runs it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeVar

import torch
from torch import Tensor, nn
from tqdm import tqdm

LEARNING_RATE: Final = 1e-3
WARMUP_STEPS: Final = 50

Batch = TypeVar("Batch")


def fit(
    model: nn.Module,
    batches: Iterable[Batch],
    steps: int,
    loss_of: Callable[[Batch], Tensor],
    title: str,
    **adamw: Any,
) -> None:
    """Train a model on the batches of a number of steps, with progress; `adamw` goes to the optimizer."""
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, **adamw)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, steps))
    bar = tqdm(batches, total=steps, desc=title, unit="it", disable=None)
    for batch in bar:
        loss = loss_of(batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        bar.set_postfix(loss=f"{loss.item():.3f}")


def rate(step: int, steps: int) -> float:
    """Return the learning rate of a step as a fraction of the highest."""
    return min(1.0, (step + 1) / WARMUP_STEPS) * 0.5 * (1.0 + math.cos(math.pi * step / steps))
