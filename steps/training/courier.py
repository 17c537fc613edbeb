"""Brings batches to the device: the next one's copies run while the device works on the one before."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor

# Enough that a GPU never waits for its next step, and few enough that what is queued does not fill its memory.
STEPS_AHEAD: Final = 2


class Courier:
    """Copies from memory of the CPU; on a GPU over a stream of its own.

    A loader uses a batch's pinned memory again for the batch after the next. Copies that stood in line behind the
    steps that a GPU has yet to do might read it too late. These do not stand in line, and the next batch is not taken
    before they are done.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        library: Any = torch.cuda
        self._stream = library.Stream(device) if device.type == "cuda" else None
        self._copied: torch.cuda.Event | None = None
        self._steps: deque[torch.cuda.Event] = deque()

    def bring(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Return the tensors on the device, for whatever its current stream does next."""
        if self._stream is None:
            return [tensor.to(self._device) for tensor in tensors]
        compute = torch.cuda.current_stream(self._device)
        self._keep_near(compute)
        with torch.cuda.stream(self._stream):
            brought = [tensor.pin_memory().to(self._device, non_blocking=True) for tensor in tensors]
            self._copied = self._stream.record_event()
        compute.wait_event(self._copied)
        for tensor in brought:
            # Its memory belongs to the copying stream, which must not use it again while the step is under way.
            tensor.record_stream(compute)
        return brought

    def _keep_near(self, compute: torch.cuda.Stream) -> None:
        """Wait for the last batch's copies, and until no more than `STEPS_AHEAD` steps are queued."""
        if self._copied is not None:
            self._copied.synchronize()
        self._steps.append(compute.record_event())
        if len(self._steps) > STEPS_AHEAD:
            self._steps.popleft().synchronize()
