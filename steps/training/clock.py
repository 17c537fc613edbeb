"""Marks in time on a device: on a GPU they are events, so that measuring makes nobody wait."""

from __future__ import annotations

import time

import torch

Mark = float | torch.cuda.Event


def mark(device: torch.device) -> Mark:
    """Return the present moment, in the order of the device's work."""
    if device.type != "cuda":
        return time.perf_counter()
    event: torch.cuda.Event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record()
    return event


def elapsed_s(start: Mark, end: Mark) -> float:
    """Return seconds between two marks; on a GPU, after the device has come past both."""
    if isinstance(start, torch.cuda.Event) and isinstance(end, torch.cuda.Event):
        return float(start.elapsed_time(end)) / 1000.0
    if isinstance(start, float) and isinstance(end, float):
        return end - start
    raise TypeError("marks of two kinds of devices")
