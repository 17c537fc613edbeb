"""The hyperparameters of a search's trials: seeded random search over SageMaker's ranges.

Trial k is a function of (seed, k) alone, whatever else runs. Bayesian samples at random, too: a laptop runs a few.
"""

import itertools
import math
import random
from collections.abc import Mapping
from typing import Any

from pipeline_definition.local.errors import StepFailureError

SCALINGS = ("Auto", "Linear", "Logarithmic", "ReverseLogarithmic")
# Auto takes the logarithm of ranges wider than this.
_WIDE_RATIO = 100.0


def trial_hyperparameters(config: Mapping[str, Any], ranges: Mapping[str, Any], seed: int) -> list[dict[str, str]]:
    """Return the hyperparameters of each trial of a HyperParameterTuningJobConfig, as the texts that trials get."""
    count = config["ResourceLimits"].get("MaxNumberOfTrainingJobs")
    if not any(ranges.values()):
        raise StepFailureError("ClientError: ParameterRanges has no range to search")
    if config["Strategy"] == "Grid":
        grid = _grid(ranges)
        if count not in (None, len(grid)):
            raise StepFailureError(f"ClientError: MaxNumberOfTrainingJobs is {count}; the grid has {len(grid)} points")
        return grid
    if count is None:
        raise StepFailureError(f"ClientError: Strategy {config['Strategy']} needs MaxNumberOfTrainingJobs")
    return [_sample(ranges, random.Random(f"{seed}/{trial}")) for trial in range(count)]


def scaled(low: float, high: float, scaling: str, position: float) -> float:
    """Return the value at a position from 0 to 1 of a range; StepFailureError where the scaling does not allow it.

    Linear: low + u (high - low). Logarithmic: low (high / low)^u. ReverseLogarithmic, for ranges in [0, 1):
    1 - (1 - low) ((1 - high) / (1 - low))^u. Auto: Logarithmic where high / low > 100, else Linear.
    Source: https://docs.aws.amazon.com/sagemaker/latest/dg/automatic-model-tuning-define-ranges.html
    """
    if scaling not in SCALINGS or not low <= high:
        raise StepFailureError(f"ClientError: range {low:g} to {high:g} with scaling {scaling!r} is not valid")
    if scaling == "Auto":
        scaling = "Logarithmic" if low > 0 and high / low > _WIDE_RATIO else "Linear"
    if (scaling == "Logarithmic" and low <= 0) or (scaling == "ReverseLogarithmic" and not 0 <= low <= high < 1):
        raise StepFailureError(f"ClientError: range {low:g} to {high:g} cannot be scaled {scaling}")
    if scaling == "Logarithmic":
        value = low * math.pow(high / low, position)
    elif scaling == "ReverseLogarithmic":
        value = 1 - (1 - low) * math.pow((1 - high) / (1 - low), position)
    else:
        value = low + position * (high - low)
    return min(max(value, low), high)


def _sample(ranges: Mapping[str, Any], generator: random.Random) -> dict[str, str]:
    values: dict[str, str] = {}
    for item in ranges.get("ContinuousParameterRanges") or ():
        low, high, scaling = float(item["MinValue"]), float(item["MaxValue"]), item.get("ScalingType", "Auto")
        values[item["Name"]] = repr(scaled(low, high, scaling, generator.random()))
    for item in ranges.get("IntegerParameterRanges") or ():
        values[item["Name"]] = str(_integer(item, generator.random()))
    for item in ranges.get("CategoricalParameterRanges") or ():
        values[item["Name"]] = generator.choice(list(item["Values"]))
    return values


def _integer(item: Mapping[str, Any], position: float) -> int:
    """Return an integer; each of a linear range is equally likely."""
    low, high, scaling = int(item["MinValue"]), int(item["MaxValue"]), item.get("ScalingType", "Auto")
    if scaling == "Linear" or (scaling == "Auto" and not (low > 0 and high / low > _WIDE_RATIO)):
        return min(high, low + math.floor(position * (high - low + 1)))
    return round(scaled(low, high, scaling, position))


def _grid(ranges: Mapping[str, Any]) -> list[dict[str, str]]:
    if ranges.get("ContinuousParameterRanges") or ranges.get("IntegerParameterRanges"):
        raise StepFailureError("ClientError: Strategy Grid takes categorical ranges only")
    items = ranges.get("CategoricalParameterRanges") or ()
    names = [item["Name"] for item in items]
    return [dict(zip(names, values, strict=True)) for values in itertools.product(*[item["Values"] for item in items])]
