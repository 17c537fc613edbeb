"""The same picture whatever it was batched with: layers whose arithmetic does not depend on the batch.

Matrix libraries choose their kernel by the number of rows, and kernels add up in different orders. In a UNet on a CPU
that concerns the linear layers of the timestep embedding (one row for each picture) and the 1 x 1 convolutions
(a matrix product over all pictures); 3 x 3 convolutions, attention and norms gave the same bits for 2 rows as for 16.
Those two kinds are computed row by row here, for about 1 % of the time. Whether that is enough on the machine at hand
is measured at start-up (`deviation`), not assumed: other CPUs and GPUs choose otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

# Classifier-free guidance gives each picture two rows; a single row takes other kernels than several.
MIN_ROWS = 2


def make_rows_independent(model: nn.Module) -> int:
    """Compute the batch-dependent kinds of layers row by row; return how many there are."""
    layers = [layer for layer in model.modules() if _depends_on_batch(layer)]
    for layer in layers:
        layer.forward = _row_by_row(layer.forward, matrix_only=isinstance(layer, nn.Linear))
    return len(layers)


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


def _depends_on_batch(layer: nn.Module) -> bool:
    if isinstance(layer, nn.Conv2d):
        return layer.kernel_size == (1, 1)
    return isinstance(layer, nn.Linear)


def _row_by_row(forward: Callable[..., Tensor], matrix_only: bool) -> Callable[[Tensor], Tensor]:
    def rows_forward(value: Tensor) -> Tensor:
        # Attention's linear layers see (rows, tokens, width): enough rows for one kernel at any batch.
        if value.shape[0] == 1 or (matrix_only and value.dim() != 2):
            return forward(value)
        return torch.cat([forward(row) for row in torch.split(value, 1)])

    return rows_forward
