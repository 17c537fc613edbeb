from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from steps.serving.exact import deviation, make_rows_independent


def test_the_deviation_of_arithmetic_that_looks_at_the_batch_is_seen() -> None:
    noise = torch.ones(4, 1, 1, 1)
    assert deviation(lambda rows: rows * len(rows), noise, [2, 4]) == 3.0
    assert deviation(lambda rows: rows * 2, noise, [2, 4]) == 0.0


@pytest.mark.parametrize(
    ("layer", "shape"),
    [(nn.Linear(64, 256), (64,)), (nn.Conv2d(64, 128, 1), (64, 4, 4)), (nn.Linear(64, 64), (16, 64))],
)
def test_a_layer_computed_row_by_row_gives_the_same_bits_in_every_batch(
    layer: nn.Module, shape: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    reference = layer(torch.ones(3, *shape))
    make_rows_independent(layer)
    torch.testing.assert_close(layer(torch.ones(3, *shape)), reference)
    rows = torch.randn(16, *shape)

    def draw(batch: Tensor) -> Tensor:
        result: Tensor = layer(torch.cat([batch] * 2))
        return result[: len(batch)]

    assert deviation(draw, rows, range(2, 17)) == 0.0


def test_only_the_kinds_of_layers_that_need_it_are_touched() -> None:
    model = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 1), nn.Linear(4, 4), nn.GroupNorm(2, 4), nn.SiLU())
    assert make_rows_independent(model) == 2
