from collections.abc import Iterator
from typing import Any

import pytest
import torch
from diffusers.models.activations import GEGLU
from diffusers.models.attention_processor import Attention
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from steps.serving.exact import deviation, make_rows_independent
from tests.steps.serving.tiny_pipeline import tiny_pipeline


def test_the_deviation_of_arithmetic_that_looks_at_the_batch_is_seen() -> None:
    noise = torch.ones(4, 1, 1, 1)
    assert deviation(lambda rows: rows * len(rows), noise, [2, 4]) == 3.0
    assert deviation(lambda rows: rows * 2, noise, [2, 4]) == 0.0


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(64, 256), (64,)),
        (nn.Linear(16, 16), (3, 16)),
        (nn.Conv2d(64, 128, 1), (64, 4, 4)),
        (nn.SiLU(), (16, 3, 3)),
        (GEGLU(16, 20), (9, 16)),
        (Attention(query_dim=16, heads=2, dim_head=8), (9, 16)),
    ],
    ids=["embedding", "few tokens", "1x1 convolution", "ragged SiLU", "ragged GELU", "short attention"],
)
def test_a_layer_gives_the_same_bits_in_every_batch(layer: nn.Module, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    rows = torch.randn(16, *shape)
    with torch.no_grad():
        reference = layer(rows)
        make_rows_independent(layer)
        torch.testing.assert_close(layer(rows), reference)

        def draw(batch: Tensor) -> Tensor:
            result: Tensor = layer(torch.cat([batch] * 2))
            return result[: len(batch)]

        assert deviation(draw, rows, range(2, 17)) == 0.0


def test_what_the_unet_computes_stays_the_same() -> None:
    torch.manual_seed(4)
    unet = tiny_pipeline().unet
    latents, states = torch.randn(6, 4, 3, 5), torch.randn(6, 8, 16)
    with torch.no_grad():
        reference = unet(latents, 500, states).sample
        make_rows_independent(unet)
        torch.testing.assert_close(unet(latents, 500, states).sample, reference)


@pytest.fixture(name="unet", scope="module")
def unet_fixture() -> Iterator[Any]:
    """A network on one thread: with more, libraries share out some shapes by the batch, which `deviation` measures."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(4)
    unet = tiny_pipeline().unet
    make_rows_independent(unet)
    yield unet
    torch.set_num_threads(threads)


@settings(max_examples=25, deadline=None)
@given(rows=st.integers(3, 12), height=st.integers(1, 9), width=st.integers(1, 9), data=st.data())
def test_a_row_of_the_unet_is_the_same_in_every_batch_and_place(
    unet: Any, rows: int, height: int, width: int, data: st.DataObject
) -> None:
    latents, states = torch.randn(rows, 4, height, width), torch.randn(rows, 8, 16)
    chosen = data.draw(st.lists(st.integers(0, rows - 1), min_size=2, max_size=5))
    with torch.no_grad():
        together = unet(latents, 500, states).sample
        some = unet(latents[chosen], 500, states[chosen]).sample
    assert torch.equal(together[chosen], some)
