"""Memory for one rank's batches, used again and again: fresh tensors cost eight times the reading, in page faults."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from steps.data.latents.block import Array, Field
from steps.data.latents.order import Rows

TORCH_DTYPES = {np.dtype("<f2"): torch.float16, np.dtype("<i4"): torch.int32}


@dataclass(frozen=True)
class LoadedBatch:
    """Rows of the latents: a rank's slice of one global batch, or any others that were asked for.

    The loader uses a batch's memory again for the batch after the next, so that a copy to the GPU may still be under
    way when the next batch is asked for.
    """

    positions: torch.Tensor
    """[rows] int64: positions of the training stream, or the rows that were asked for."""
    mean: torch.Tensor
    """[rows, C, H, W] float16: posterior mean, unscaled; in pinned memory where there is a GPU."""
    std: torch.Tensor
    """[rows, C, H, W] float16: posterior standard deviation, unscaled."""
    token_ids: torch.Tensor
    """[rows, caption length] int32."""
    written_token_ids: torch.Tensor | None = None
    """[rows, caption length] int32, of the captions that Recaption wrote, where there are any."""
    embeddings: torch.Tensor | None = None
    """[rows, caption length, width] float16, where they are cached."""
    features: torch.Tensor | None = None
    """[rows, side, side, width] float16: a vision model's, where they are stored."""


class BatchRing:
    """Rows for `batches` batches of `batch_rows` rows, one after the other; batch b lies at b modulo `batches`."""

    def __init__(self, fields: Sequence[Field], batches: int, batch_rows: int, pin_memory: bool) -> None:
        self._batches, self._batch_rows = batches, batch_rows
        tensors = {field.name: empty(field, batches * batch_rows, pin_memory) for field in fields}
        self._arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        self._views = [
            {name: tensor[start : start + batch_rows] for name, tensor in tensors.items()}
            for start in range(0, batches * batch_rows, batch_rows)
        ]

    def rows(self, batches: Rows, places: Rows) -> Rows:
        """Return the ring's rows for places of batches."""
        return batches % self._batches * self._batch_rows + places

    def put(self, tensors: Mapping[str, Array], targets: Rows) -> None:
        """Copy row i of every tensor to the ring's row targets[i], and leave it out where that is negative."""
        wanted = targets >= 0
        if wanted.all():
            for name, tensor in tensors.items():
                self._arrays[name][targets] = tensor
            return
        for name, tensor in tensors.items():
            self._arrays[name][targets[wanted]] = tensor[wanted]

    def batch(self, number: int, first_position: int) -> LoadedBatch:
        positions = torch.arange(first_position, first_position + self._batch_rows)
        return LoadedBatch(positions, **self._views[number % self._batches])


def empty(field: Field, rows: int, pin_memory: bool = False) -> torch.Tensor:
    """Return memory for rows of a block's tensor."""
    shape, dtype = (rows, *field.row_shape), TORCH_DTYPES[field.dtype]
    if pin_memory:
        return torch.empty(shape, dtype=dtype, pin_memory=True)
    # numpy asks the system for huge pages, torch does not: rows all over a large memory then miss the TLB less.
    return torch.from_numpy(np.empty(shape, field.dtype))
