"""The moving average of the weights counts samples."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from steps.model.weight_average import WeightAverage, decay_of_step


def test_the_average_moves_by_one_minus_the_decay() -> None:
    weight = torch.zeros(2, dtype=torch.float64)
    average = WeightAverage([weight], decay=0.9, reference_samples=8)
    weight.fill_(1.0)
    average.update(seen_samples=8_000_000, batch_samples=8)
    assert average.tensors[0].tolist() == pytest.approx([0.1, 0.1])


@given(st.integers(1, 6), st.integers(0, 10**6))
def test_small_batches_average_over_the_same_stretch_as_large_ones(pieces: int, reference_batches: int) -> None:
    seen = 64 * (1000 + reference_batches)
    whole = decay_of_step(0.99, 64, seen, 64 * pieces)
    in_pieces = decay_of_step(0.99, 64, seen, 64) ** pieces
    assert whole == pytest.approx(in_pieces)


def test_at_first_the_initial_weights_are_soon_forgotten() -> None:
    decays = [decay_of_step(0.9999, 64, step * 64, 64) for step in range(0, 200_000, 100)]
    assert decays[0] == pytest.approx(0.1)
    assert decays == sorted(decays)
    assert decays[-1] == 0.9999


def test_swapping_there_and_back_keeps_every_bit() -> None:
    weight = torch.randn(100)
    average = WeightAverage([weight], 0.9, 1)
    average.tensors[0].copy_(torch.randn(100))
    before, of_average = weight.clone(), average.tensors[0].clone()
    with average.swapped():
        assert torch.equal(weight, of_average)
    assert torch.equal(weight, before)
    assert torch.equal(average.tensors[0], of_average)


def test_the_weights_come_back_after_an_error() -> None:
    weight = torch.ones(3)
    average = WeightAverage([weight], 0.9, 1)
    average.tensors[0].zero_()
    with pytest.raises(RuntimeError, match="no"), average.swapped():
        raise RuntimeError("no")
    assert weight.tolist() == [1.0, 1.0, 1.0]
