import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline_definition.local.errors import StepFailureError
from pipeline_definition.local.search_space import scaled, trial_hyperparameters
from pipeline_definition.local.tuning import search_seed

RANGES: dict[str, Any] = {
    "ContinuousParameterRanges": [
        {"Name": "rate", "MinValue": "1e-5", "MaxValue": "1e-3", "ScalingType": "Logarithmic"},
        {"Name": "dropout", "MinValue": "0.05", "MaxValue": "0.2", "ScalingType": "Linear"},
        {"Name": "decay", "MinValue": "0.9", "MaxValue": "0.9999", "ScalingType": "ReverseLogarithmic"},
    ],
    "IntegerParameterRanges": [{"Name": "depth", "MinValue": "1", "MaxValue": "3"}],
    "CategoricalParameterRanges": [{"Name": "batch", "Values": ["16", "32"]}],
}


def config(trials: int, strategy: str = "Random") -> dict[str, Any]:
    limits = {"MaxParallelTrainingJobs": 1, "MaxNumberOfTrainingJobs": trials}
    return {"Strategy": strategy, "ResourceLimits": limits}


@given(st.integers(0, 2**31))
def test_a_search_is_a_function_of_its_seed_and_its_first_trials_do_not_depend_on_their_number(seed: int) -> None:
    few, many = (trial_hyperparameters(config(count), RANGES, seed) for count in (3, 6))
    assert many[:3] == few
    assert trial_hyperparameters(config(3, "Bayesian"), RANGES, seed) == few
    assert trial_hyperparameters(config(3), RANGES, seed + 1) != few


@given(st.integers(0, 2**31))
def test_every_value_lies_in_its_range(seed: int) -> None:
    for trial in trial_hyperparameters(config(5), RANGES, seed):
        assert 1e-5 <= float(trial["rate"]) <= 1e-3
        assert 0.05 <= float(trial["dropout"]) <= 0.2
        assert 0.9 <= float(trial["decay"]) <= 0.9999
        assert trial["depth"] in {"1", "2", "3"} and trial["batch"] in {"16", "32"}


def test_each_integer_is_about_equally_likely() -> None:
    trials = trial_hyperparameters(config(900), RANGES, 0)
    counts = [sum(trial["depth"] == str(depth) for trial in trials) for depth in (1, 2, 3)]
    assert min(counts) > 240


@pytest.mark.parametrize(
    ("scaling", "middle"),
    [
        ("Linear", 0.5005),
        ("Logarithmic", math.sqrt(0.001)),
        ("Auto", math.sqrt(0.001)),
    ],
)
def test_the_middle_of_a_range_depends_on_its_scaling(scaling: str, middle: float) -> None:
    assert scaled(0.001, 1.0, scaling, 0.5) == pytest.approx(middle)


def test_reverse_logarithmic_is_fine_near_one() -> None:
    assert scaled(0.9, 0.999, "ReverseLogarithmic", 0.5) == pytest.approx(0.99)


@pytest.mark.parametrize(
    ("low", "high", "scaling"),
    [(0.0, 1.0, "Logarithmic"), (0.5, 1.0, "ReverseLogarithmic"), (2.0, 1.0, "Linear"), (0.0, 1.0, "Cubic")],
)
def test_a_range_that_cannot_be_scaled_is_an_error(low: float, high: float, scaling: str) -> None:
    with pytest.raises(StepFailureError):
        scaled(low, high, scaling, 0.5)


def test_grid_tries_every_combination_once() -> None:
    ranges = {"CategoricalParameterRanges": [{"Name": n, "Values": ["1", "2"]} for n in ("a", "b")]}
    trials = trial_hyperparameters(config(4, "Grid"), ranges, 0)
    assert sorted(trial["a"] + trial["b"] for trial in trials) == ["11", "12", "21", "22"]


def test_a_search_without_ranges_or_with_another_size_than_the_grids_is_refused() -> None:
    with pytest.raises(StepFailureError, match="no range"):
        trial_hyperparameters(config(1), {"ContinuousParameterRanges": []}, 0)
    ranges = {"CategoricalParameterRanges": [{"Name": "a", "Values": ["1", "2"]}]}
    with pytest.raises(StepFailureError, match="MaxNumberOfTrainingJobs is 3; the grid has 2 points"):
        trial_hyperparameters(config(3, "Grid"), ranges, 0)


def test_without_a_seed_the_request_gives_one() -> None:
    first = {"HyperParameterTuningJobConfig": config(2), "TrainingJobDefinition": {"OutputDataConfig": {"x": 1}}}
    second = {"HyperParameterTuningJobConfig": config(2), "TrainingJobDefinition": {"OutputDataConfig": {"x": 2}}}
    other = {"HyperParameterTuningJobConfig": config(3), "TrainingJobDefinition": {"OutputDataConfig": {"x": 1}}}
    assert search_seed(first) == search_seed(second) != search_seed(other)
    assert search_seed({"HyperParameterTuningJobConfig": {**config(2), "RandomSeed": 7}}) == 7
