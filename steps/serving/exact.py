"""The same picture whatever it was batched with: layers whose arithmetic does not depend on the batch.

Libraries choose their kernels by the number of rows, and kernels round differently. On CPUs that was measured to
concern, in a UNet: 1 x 1 convolutions (a matrix product over all pictures); linear layers that see few vectors for
each row, such as the timestep embedding; attention over few tokens; and SiLU and GELU where a row is no multiple of
the vector unit, so that the last values of a batch take another path. In those cases they are computed row by row
here, for some percent of the time. 3 x 3 convolutions, group norms and all else gave the same bits for 2 rows as for
16. Whether this holds on the machine at hand is measured at start-up (`deviation`), not assumed: other CPUs, more
threads and GPUs choose otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
from diffusers.models.activations import GEGLU, GELU
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

# Classifier-free guidance gives each picture two rows; a single row takes other kernels than several.
MIN_ROWS: Final = 2
# Matrix products of fewer vectors take other kernels.
FEW_VECTORS: Final = 16
# PyTorch's vectorised loops take two registers of 16 floats at a time (AVX-512; AVX2 and NEON have fewer).
VECTOR_LOOP: Final = 32

Condition = Callable[[Tensor], bool]


def make_rows_independent(model: nn.Module) -> int:
    """Compute layers row by row where their result would depend on the batch; return how many may be concerned."""
    count = 0
    for layer in model.modules():
        condition = _condition(layer)
        if condition is None:
            continue
        count += 1
        name = "gelu" if isinstance(layer, (GEGLU, GELU)) else "forward"
        setattr(layer, name, _row_by_row(getattr(layer, name), condition))
    return count


def deviation(draw: Callable[[Tensor], Tensor], noise: Tensor, batch_sizes: Sequence[int]) -> float:
    """Return the largest difference between a picture's row in a batch and the same row computed alone.

    `draw` maps latents (pictures, C, H, W) to the UNet's output of the same shape; 0.0 means equal bit for bit.
    """
    alone = torch.cat([draw(row) for row in torch.split(noise, 1)])
    worst = 0.0
    for size in batch_sizes:
        difference = (draw(noise[:size]) - alone[:size]).abs().max().item()
        worst = max(worst, float(difference))
    return worst


def _condition(layer: nn.Module) -> Condition | None:
    """Return when a layer must be computed row by row; None: never."""
    if isinstance(layer, nn.Conv2d):
        return _always if layer.kernel_size == (1, 1) else None
    if isinstance(layer, (nn.Linear, Attention)):
        return _has_few_vectors
    return _is_ragged if isinstance(layer, (nn.SiLU, GEGLU, GELU)) else None


def _always(value: Tensor) -> bool:
    return True


def _has_few_vectors(value: Tensor) -> bool:
    """Whether a row of (rows, width) or (rows, tokens, width) holds few vectors."""
    return value[0].numel() < FEW_VECTORS * value.shape[-1]


def _is_ragged(value: Tensor) -> bool:
    return value[0].numel() % VECTOR_LOOP != 0


def _row_by_row(compute: Callable[..., Tensor], condition: Condition) -> Callable[..., Tensor]:
    def rows_compute(value: Tensor, *others: Any, **named: Any) -> Tensor:
        rows = value.shape[0]
        if rows == 1 or not condition(value):
            return compute(value, *others, **named)

        def row_of(argument: Any, row: int) -> Any:
            is_batch = isinstance(argument, Tensor) and argument.dim() > 0 and argument.shape[0] == rows
            return argument[row : row + 1] if is_batch else argument

        results = []
        for row in range(rows):
            own = [row_of(other, row) for other in others]
            results.append(compute(value[row : row + 1], *own, **{key: row_of(v, row) for key, v in named.items()}))
        return torch.cat(results)

    return rows_compute
