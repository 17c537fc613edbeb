"""Everything random is a pure function of (seed, position)."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from steps.training.draws import VALIDATION, Draws, draw

SHAPE = (4, 3, 2)
FIELDS = ("timestep", "caption", "posterior", "noise", "offset")
POSITIONS = st.lists(st.integers(0, 2**62), min_size=1, max_size=6)


def same(a: Draws, b: Draws) -> bool:
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in FIELDS)


@given(st.integers(0, 2**31), POSITIONS)
def test_a_sample_draws_the_same_whatever_it_is_batched_with(seed: int, positions: list[int]) -> None:
    together = draw(seed, positions, SHAPE)
    for row, position in enumerate(positions):
        alone = draw(seed, [position], SHAPE)
        for name in FIELDS:
            assert torch.equal(getattr(together, name)[row], getattr(alone, name)[0]), name


@given(st.integers(0, 2**31), st.integers(0, 2**31), POSITIONS)
def test_another_seed_or_purpose_draws_something_else(seed: int, other: int, positions: list[int]) -> None:
    first = draw(seed, positions, SHAPE)
    assert same(first, draw(other, positions, SHAPE)) == (seed == other)
    assert not torch.equal(first.noise, draw(seed, positions, SHAPE, VALIDATION).noise)


def test_neighbours_are_independent_and_well_distributed() -> None:
    draws = draw(0, range(4000), SHAPE)
    for name in ("posterior", "noise", "offset"):
        values = getattr(draws, name).flatten(1)
        assert abs(float(values.mean())) < 0.02, name
        assert float(values.std()) == pytest.approx(1.0, abs=0.02), name
        assert abs(np.corrcoef(values[:-1, 0], values[1:, 0])[0, 1]) < 0.05, name
    assert abs(np.corrcoef(draws.posterior.flatten(), draws.noise.flatten())[0, 1]) < 0.02
    for name in ("timestep", "caption"):
        values = getattr(draws, name)
        assert 0 <= float(values.min()) < 0.01
        assert 0.99 < float(values.max()) < 1
    assert abs(np.corrcoef(draws.timestep, draws.caption)[0, 1]) < 0.05


def test_the_numbers_stay_as_they_are() -> None:
    """A change here breaks the exact resumption of every training under way."""
    draws = draw(7, [123], (1, 1, 2))
    assert float(draws.timestep) == pytest.approx(0.998244, abs=1e-6)
    assert draws.noise.flatten().tolist() == pytest.approx([0.976769, -0.612221], abs=1e-6)


def test_shapes() -> None:
    draws = draw(0, [1, 2, 3], SHAPE)
    assert draws.noise.shape == draws.posterior.shape == (3, *SHAPE)
    assert draws.offset.shape == (3, 4, 1, 1)
    assert draws.noise.dtype == torch.float32
