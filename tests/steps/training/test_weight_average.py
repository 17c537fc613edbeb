"""The moving average of the weights counts samples."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from steps.training.pieces import whole_parts
from steps.training.weight_average import WeightAverage, decay_of_step, round_into


def test_the_average_moves_by_one_minus_the_decay() -> None:
    weight = torch.zeros(2, dtype=torch.float64)
    average = WeightAverage(whole_parts([weight]), decay=0.9, reference_samples=8)
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
    average = WeightAverage(whole_parts([weight]), 0.9, 1)
    average.tensors[0].copy_(torch.randn(100))
    before, of_average = weight.clone(), average.tensors[0].clone()
    with average.swapped():
        assert torch.equal(weight, of_average)
    assert torch.equal(weight, before)
    assert torch.equal(average.tensors[0], of_average)


def test_the_weights_come_back_after_an_error() -> None:
    weight = torch.ones(3)
    average = WeightAverage(whole_parts([weight]), 0.9, 1)
    average.tensors[0].zero_()
    with pytest.raises(RuntimeError, match="no"), average.swapped():
        raise RuntimeError("no")
    assert weight.tolist() == [1.0, 1.0, 1.0]


def test_in_bfloat16_steps_smaller_than_the_last_bit_are_not_lost() -> None:
    """Of 1.0 the last bit is 1/128: a step of 1e-4 of the distance, rounded to nearest, would never move it."""
    weight = torch.ones(20_000)
    average = WeightAverage(whole_parts([weight]), decay=0.9999, reference_samples=8, dtype=torch.bfloat16)
    weight.fill_(2.0)
    for step in range(100):
        average.update(seen_samples=8_000_000 + 8 * step, batch_samples=8)
    assert average.tensors[0].dtype == torch.bfloat16
    assert float(average.tensors[0].float().mean()) == pytest.approx(2.0 - 0.9999**100, abs=2e-3)


def test_in_bfloat16_the_samples_seen_decide_how_it_is_rounded() -> None:
    def updated(seen_samples: int) -> torch.Tensor:
        weight = torch.linspace(1.0, 2.0, 1000)
        average = WeightAverage(whole_parts([weight]), decay=0.9, reference_samples=8, dtype=torch.bfloat16)
        weight.neg_()
        average.update(seen_samples, batch_samples=8)
        return average.tensors[0]

    assert torch.equal(updated(8_000_000), updated(8_000_000))
    assert not torch.equal(updated(8_000_000), updated(8_000_008))


def test_in_bfloat16_a_part_of_the_model_is_rounded_as_in_the_whole() -> None:
    torch.manual_seed(0)
    parameters = [torch.randn(50) for _ in range(3)]
    whole = WeightAverage(whole_parts(parameters), 0.9, 8, torch.bfloat16)
    part = WeightAverage(whole_parts(parameters)[1:], 0.9, 8, torch.bfloat16)
    for parameter in parameters:
        parameter.add_(1e-2)
    for average in (whole, part):
        average.update(seen_samples=64, batch_samples=8)
    assert all(torch.equal(a, b) for a, b in zip(whole.tensors[1:], part.tensors, strict=True))
    assert not torch.equal(whole.tensors[0], whole.tensors[1])


def test_in_bfloat16_the_weights_come_back_to_the_bit() -> None:
    weight = torch.randn(1000)
    before = weight.clone()
    average = WeightAverage(whole_parts([weight]), decay=0.9, reference_samples=8, dtype=torch.bfloat16)
    with average.swapped():
        assert torch.equal(weight, average.tensors[0].float())
    assert torch.equal(weight, before)


@given(st.floats(-(2.0**100), 2.0**100, width=32))
def test_rounding_goes_to_a_neighbour(value: float) -> None:
    values, target = torch.full((64,), value), torch.empty(64, dtype=torch.bfloat16)
    round_into(target, values.clone(), torch.randint(0, 1 << 16, (64,), dtype=torch.int32))
    assert bool(((target.float() - values).abs() <= values.abs() * 2.0**-7 + 1e-38).all())
