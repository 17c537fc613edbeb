"""The same picture whatever it was batched with: layers whose arithmetic does not depend on the batch.

Libraries choose their kernels by the number of rows, and kernels round differently. On CPUs that was measured to
concern, in a denoiser:

- the timestep embedding, one vector for each row: all rows are at the same timestep, so it is computed once;
- 1 x 1 convolutions, a matrix product over all pictures: here one product for each;
- linear layers and attention that see few vectors for each row, and SiLU and GELU where a row is no multiple of the
  vector unit, so that the last values of a batch take another path: here row by row, in those cases.

3 x 3 convolutions, group norms and all else gave the same bits for 2 rows as for 16. Whether this holds on the machine
at hand is measured at start-up (`deviation`), not assumed: other CPUs, more threads and GPUs choose otherwise.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
from diffusers.models.activations import GEGLU, GELU
from diffusers.models.attention_processor import Attention
from diffusers.models.embeddings import TimestepEmbedding
from torch import Tensor, nn

# Classifier-free guidance gives each picture two rows; a single row takes other kernels than several.
MIN_ROWS: Final = 2
# Matrix products of fewer vectors take other kernels.
FEW_VECTORS: Final = 16
# PyTorch's vectorised loops take two registers of 16 floats at a time (AVX-512; AVX2 and NEON have fewer).
VECTOR_LOOP: Final = 32

Compute = Callable[..., Tensor]
Condition = Callable[[Tensor], bool]


def make_rows_independent(network: nn.Module) -> None:
    """Change, in place, how a network computes what depends on the batch; all rows must be at the same timestep."""
    for layer in network.modules():
        if isinstance(layer, TimestepEmbedding):
            _replace(layer, "forward", _first_row(layer.forward))
        elif isinstance(layer, nn.Conv2d) and _is_pointwise(layer):
            _replace(layer, "forward", _product_for_each_row(layer))
        elif isinstance(layer, (nn.Linear, Attention)):
            _replace(layer, "forward", _row_by_row(layer.forward, _has_few_vectors))
        elif isinstance(layer, nn.SiLU):
            _replace(layer, "forward", _row_by_row(layer.forward, _is_ragged))
        elif isinstance(layer, (GEGLU, GELU)):
            _replace(layer, "gelu", _row_by_row(layer.gelu, _is_ragged))


def deviation(draw: Callable[[Tensor], Tensor], noise: Tensor, batch_sizes: Sequence[int]) -> float:
    """Return how far a row in a batch is from that row alone; 0.0: bit for bit. `draw` maps latents (n, C, H, W)."""
    alone = torch.cat([draw(row) for row in torch.split(noise, 1)])
    differences = [(draw(noise[:size]) - alone[:size]).abs().max().item() for size in batch_sizes]
    return float(max(differences, default=0.0))


def _replace(layer: nn.Module, method: str, compute: Compute) -> None:
    setattr(layer, method, compute)


def _is_pointwise(layer: nn.Conv2d) -> bool:
    return layer.kernel_size == (1, 1) and layer.stride == (1, 1) and layer.padding == (0, 0) and layer.groups == 1


def _has_few_vectors(value: Tensor) -> bool:
    """Whether a row of (rows, width) or (rows, tokens, width) holds few vectors."""
    return value.shape[1:-1].numel() < FEW_VECTORS


def _is_ragged(value: Tensor) -> bool:
    return value.shape[1:].numel() % VECTOR_LOOP != 0


def _first_row(compute: Compute) -> Compute:
    """Compute the first row alone; what it is added to broadcasts it."""

    def first_row_compute(value: Tensor, condition: Tensor | None = None) -> Tensor:
        return compute(value[:1], condition if condition is None else condition[:1])

    return first_row_compute


def _product_for_each_row(layer: nn.Conv2d) -> Compute:
    def product_for_each_row(value: Tensor) -> Tensor:
        weight = layer.weight.flatten(1).expand(value.shape[0], -1, -1)
        result = torch.bmm(weight, value.flatten(2)).view(value.shape[0], -1, *value.shape[2:])
        return result if layer.bias is None else result + layer.bias.view(-1, 1, 1)

    return product_for_each_row


def _row_by_row(compute: Compute, condition: Condition) -> Compute:
    def rows_compute(*positional: Any, **named: Any) -> Any:
        value: Tensor = positional[0] if positional else named["hidden_states"]
        rows = value.shape[0]
        if rows == 1 or not condition(value):
            return compute(*positional, **named)

        def row_of(argument: Any, row: int) -> Any:
            is_batch = isinstance(argument, Tensor) and argument.dim() > 0 and argument.shape[0] == rows
            return argument[row : row + 1] if is_batch else argument

        results = []
        for row in range(rows):
            own = [row_of(one, row) for one in positional]
            results.append(compute(*own, **{key: row_of(one, row) for key, one in named.items()}))
        # Attention over picture and text returns both.
        return (
            torch.cat(results) if isinstance(results[0], Tensor) else tuple(map(torch.cat, zip(*results, strict=True)))
        )

    return rows_compute
