"""How much of more GPUs is lost: reads MosaicML's published table in rates.yaml; writes nothing.

Model: with the global batch fixed, the computation of one step shrinks with the number of GPUs and the exchange of the
gradients does not, so GPU-hours grow in a straight line with the GPUs beyond one host, and the slower the smaller the
global batch. The slope is the least-squares line through one host over MosaicML's 8 to 128 A100 at batch 2,048.
"""

from __future__ import annotations

from collections.abc import Mapping

GPUS_OF_ONE_HOST = 8


def slope_of(days_by_gpus: Mapping[int, float]) -> float:
    """Return by what fraction GPU-hours grow for each GPU beyond one host of 8."""
    base = GPUS_OF_ONE_HOST * days_by_gpus[GPUS_OF_ONE_HOST]
    points = [(gpus - GPUS_OF_ONE_HOST, gpus * days / base - 1.0) for gpus, days in days_by_gpus.items()]
    return sum(x * y for x, y in points) / sum(x * x for x, _ in points)


def efficiency(gpus: int, global_batch_size: int, slope: float, fitted_batch_size: int) -> float:
    """Return the part of the GPUs' single-host speed that is left, in (0, 1]; 1 on one host."""
    beyond = max(0, gpus - GPUS_OF_ONE_HOST)
    return 1.0 / (1.0 + slope * beyond * fitted_batch_size / global_batch_size)
