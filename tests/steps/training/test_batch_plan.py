"""The global batch is a setting; everything else is arithmetic, or refused."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steps.errors import StepError
from steps.training.optimizer_step import batch_plan

SIZES = st.integers(1, 64)


@given(SIZES, SIZES, st.integers(1, 16))
def test_a_plan_uses_every_sample_of_the_global_batch_once(micro: int, ranks: int, accumulation: int) -> None:
    plan = batch_plan(micro * ranks * accumulation, micro, ranks)
    assert plan.accumulation_steps == accumulation
    assert plan.micro_batch_size * plan.accumulation_steps * plan.world_size == plan.global_batch_size


@given(st.integers(1, 512), st.integers(1, 96), st.integers(1, 16))
def test_what_does_not_divide_is_refused_with_values_that_work(size: int, micro: int, ranks: int) -> None:
    if size % (micro * ranks) == 0:
        return
    with pytest.raises(StepError) as caught:
        batch_plan(size, micro, ranks)
    message = str(caught.value)
    assert f"global_batch_size {size}" in message
    assert f"micro_batch_size {micro} x {ranks} ranks" in message
    works = message.split("these work: ")[1]
    for sizes in re.findall(r"global_batch_size ([\d or]+)", works):
        assert all(batch_plan(int(number), micro, ranks) for number in sizes.split(" or "))
    for sizes in re.findall(r"micro_batch_size ([\d, ]+)", works):
        assert all(batch_plan(size, int(number), ranks) for number in sizes.strip(", ").split(", "))


@pytest.mark.parametrize(("samples", "total"), [(1, 64), (64, 64), (65, 128)])
def test_training_ends_with_a_whole_global_batch(samples: int, total: int) -> None:
    assert batch_plan(64, 16, 2).total_samples(samples) == total


@pytest.mark.parametrize(("micro", "smaller"), [(32, 16), (16, 8), (3, 1), (1, None)])
def test_a_smaller_micro_batch_divides_too(micro: int, smaller: int | None) -> None:
    plan = batch_plan(96 * 2, micro, 2)
    assert plan.smaller_micro_batch_size() == smaller
    assert smaller is None or batch_plan(96 * 2, smaller, 2)
