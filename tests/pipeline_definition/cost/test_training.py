"""The arithmetic of a training's bill, against bills that others published."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from pipeline_definition.cli import app
from pipeline_definition.cost.training import CostError, training_cost

# MosaicML's Stable Diffusion 2: A100s, days, dollars at $2 for an A100-hour.
MOSAICML = [(8, 81.33, 31_230), (16, 40.42, 31_043), (32, 20.06, 30_805), (64, 10.14, 31_146), (128, 5.51, 33_874)]

# GPUs, hours, dollars for a GPU-hour and the total, all as published: Photoroom's PRX on H200
# (https://huggingface.co/blog/Photoroom/prx-part3) and micro_diffusion on H100 (arXiv:2407.15811: 2.6 days, table 5).
TRANSFORMERS = [(32, 24.0, 2.0, 768, 1500), (8, 2.6 * 24, 3.75, 500, 1890)]


@pytest.mark.parametrize(("gpus", "hours", "price", "gpu_hours", "usd"), TRANSFORMERS)
def test_published_bills_of_flow_transformers_come_out_within_five_percent(
    gpus: int, hours: float, price: float, gpu_hours: int, usd: int
) -> None:
    cost = training_cost(gpus * hours, 8, 8 * price)
    assert cost.gpu_hours == pytest.approx(gpu_hours, rel=0.05)
    assert cost.usd == pytest.approx(usd, rel=0.05)


@pytest.mark.parametrize(("price", "usd"), [(24.01, 39_511), (40.96, 67_405)])
def test_anyscales_published_bill_comes_out_to_the_dollar(price: float, usd: int) -> None:
    assert round(training_cost(13_165, 8, price).usd) == usd


@pytest.mark.parametrize(("gpus", "days", "usd"), MOSAICML)
def test_mosaicmls_published_table_comes_out_within_a_percent(gpus: int, days: float, usd: int) -> None:
    assert training_cost(days * 24 * gpus, 8, 8 * 2.0).usd == pytest.approx(usd, rel=0.01)


@given(st.floats(0, 1e7), st.integers(1, 16), st.floats(0, 1e3))
def test_the_gpus_of_an_instance_share_its_price(hours: float, gpus: int, price: float) -> None:
    assert training_cost(hours * gpus, gpus, price).usd == pytest.approx(training_cost(hours, 1, price).usd)


@pytest.mark.parametrize(
    ("hours", "gpus", "price", "named"),
    [
        (-1.0, 8, 1.0, "--gpu-hours"),
        (math.nan, 8, 1.0, "--gpu-hours"),
        (1.0, 0, 1.0, "--gpus-per-instance"),
        (1.0, 8, math.inf, "--price-per-instance-hour"),
    ],
)
def test_an_impossible_input_is_named(hours: float, gpus: int, price: float, named: str) -> None:
    with pytest.raises(CostError, match=named):
        training_cost(hours, gpus, price)


def test_the_command_prints_the_dollars_for_programs_and_for_people() -> None:
    words = [
        "cost",
        "training",
        "--gpu-hours",
        "13165",
        "--gpus-per-instance",
        "8",
        "--price-per-instance-hour",
        "40.96",
    ]
    assert round(json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)["usd"]) == 67_405
    assert "$67,405" in CliRunner().invoke(app, words).stdout


def test_the_command_refuses_an_instance_without_gpus() -> None:
    words = ["cost", "training", "--gpu-hours", "1", "--gpus-per-instance", "0", "--price-per-instance-hour", "1"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2
