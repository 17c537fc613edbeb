"""What a training costs, by hand: GPU-hours, GPUs of an instance, dollars for an instance-hour.

Reads nothing, writes nothing.

    sd-pipeline cost training --gpu-hours 13165 --gpus-per-instance 8 --price-per-instance-hour 40.96
"""

import math
from dataclasses import dataclass

from pipeline_definition.errors import OperatorError

HOURS_PER_DAY = 24.0


class CostError(OperatorError):
    """A cost cannot be computed: the message names the input and the fix."""

    exit_status = 2


@dataclass(frozen=True)
class TrainingCost:
    gpu_hours: float
    instance_hours: float
    usd: float


def training_cost(gpu_hours: float, gpus_per_instance: int, usd_per_instance_hour: float) -> TrainingCost:
    """Return what GPU-hours cost: instances are billed whole, so the GPUs of an instance share its price.

    Raises CostError for a number that is not finite, below zero, or an instance without a GPU.
    """
    for name, value in (("--gpu-hours", gpu_hours), ("--price-per-instance-hour", usd_per_instance_hour)):
        if not math.isfinite(value) or value < 0:
            raise CostError(f"{name} {value:g}: set it to a finite number, 0 or more")
    if gpus_per_instance < 1:
        raise CostError(f"--gpus-per-instance {gpus_per_instance}: set it to 1 or more")
    instance_hours = gpu_hours / gpus_per_instance
    return TrainingCost(gpu_hours, instance_hours, instance_hours * usd_per_instance_hour)
