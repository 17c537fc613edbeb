"""Rates: who said them, and what is derived from FLOPs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline_definition.cost.rates import gflop_at, load_rates, vcpus_of
from pipeline_definition.cost.training import CostError
from pipeline_definition.jobs.instances import instance

RATES = load_rates()


def test_a_measured_rate_beats_a_published_one() -> None:
    published = next(entry for entry in RATES.train if entry.gpu == "H200")
    own = published.model_copy(update={"kind": "measured", "samples_per_s_per_gpu": 160.0, "source": "ours"})
    rates = RATES.model_copy(update={"train": [*RATES.train, own]})
    rate = rates.train_rate(instance("ml.p5en.48xlarge"), 512, text_online=True, parameter="TrainingInstanceType")
    assert (rate.samples_per_s, rate.kind, rate.source) == (160.0, "measured", "ours")


def test_a_rate_that_nobody_published_is_derived_from_flops_and_says_so() -> None:
    rate = RATES.train_rate(instance("ml.g5.12xlarge"), 256, text_online=True, parameter="TrainingInstanceType")
    assert rate.kind == "derived"
    assert rate.samples_per_s == pytest.approx(70e12 * 0.24 / ((539.3 + 45.1) * 1e9))
    assert "GFLOP" in rate.source


def test_mosaicmls_own_rate_is_reproduced_by_the_derived_utilisation() -> None:
    assert 312e12 * RATES.utilisation["train"].value / 539.3e9 == pytest.approx(137.5, rel=0.02)


@given(st.integers(8, 128).map(lambda side: 8 * side))
def test_flops_are_exact_at_the_counted_sizes_and_grow_faster_than_pixels(pixels: int) -> None:
    table = RATES.flops.denoiser_train
    assert gflop_at(table, 256) == pytest.approx(539.3)
    assert gflop_at(table, 512) == pytest.approx(2409.0)
    assert gflop_at(table, 2 * pixels) > 4 * gflop_at(table, pixels)


@pytest.mark.parametrize(("name", "vcpus"), [("ml.c6i.4xlarge", 16), ("ml.c6i.xlarge", 4), ("ml.m5.large", 2)])
def test_virtual_cpus_come_from_the_size(name: str, vcpus: int) -> None:
    assert vcpus_of(name) == vcpus


def test_a_host_of_no_known_size_is_an_error() -> None:
    with pytest.raises(CostError, match=r"ml\.c6i\.metal"):
        vcpus_of("ml.c6i.metal")


def test_the_model_of_scaling_fits_every_row_of_the_table_it_is_fitted_on() -> None:
    days = RATES.scaling.days_by_gpus
    for gpus, measured in days.items():
        modelled = 8 * days[8] / gpus / RATES.efficiency(gpus, 2048)
        assert modelled == pytest.approx(measured, rel=0.035)


@given(st.integers(1, 512), st.integers(1, 512), st.integers(1, 8192))
def test_more_gpus_never_scale_better_and_a_larger_batch_never_worse(gpus: int, more: int, batch: int) -> None:
    assert 0 < RATES.efficiency(gpus + more, batch) <= RATES.efficiency(gpus, batch) <= 1
    assert RATES.efficiency(gpus, 2 * batch) >= RATES.efficiency(gpus, batch)
