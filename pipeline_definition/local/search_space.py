"""The hyperparameters of a search's trials: seeded random search over SageMaker's ranges.

Trial k is a function of (seed, k) alone, whatever else runs. Bayesian samples at random, too: a laptop runs a few.
"""

import math
import random
from collections.abc import Mapping
from typing import Any

from pipeline_definition.local.errors import StepFailureError

# Auto takes the logarithm of ranges wider than this.
_WIDE_RATIO = 100.0


def trial_hyperparameters(config: Mapping[str, Any], ranges: Mapping[str, Any], seed: int) -> list[dict[str, str]]:
    """Return the hyperparameters of each trial of a HyperParameterTuningJobConfig, as the texts that trials get."""
    count = config["ResourceLimits"].get("MaxNumberOfTrainingJobs")
    if not any(ranges.values()):
        raise StepFailureError("ClientError: ParameterRanges has no range to search")
    if count is None:
        raise StepFailureError(f"ClientError: Strategy {config['Strategy']} needs MaxNumberOfTrainingJobs")
    return [_sample(ranges, random.Random(f"{seed}/{trial}")) for trial in range(count)]


def scaled(low: float, high: float, scaling: str, position: float) -> float:
    """Return the value at a position from 0 to 1 of a range; StepFailureError where the scaling does not allow it.

    Linear: low + u (high - low). Logarithmic: low (high / low)^u. Auto: the latter where high / low > 100.
    Source: https://docs.aws.amazon.com/sagemaker/latest/dg/automatic-model-tuning-define-ranges.html
    """
    if scaling == "Auto":
        scaling = "Logarithmic" if low > 0 and high / low > _WIDE_RATIO else "Linear"
    is_logarithmic = scaling == "Logarithmic"
    if low > high or (is_logarithmic and low <= 0):
        raise StepFailureError(f"ClientError: range {low:g} to {high:g} cannot be scaled {scaling}")
    value = low * math.pow(high / low, position) if is_logarithmic else low + position * (high - low)
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
