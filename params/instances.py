"""What an instance type's name says; the table of GPUs and prices is pipeline_definition's.

Reads nothing, writes nothing.
"""

from __future__ import annotations

import re
from typing import Final

# Families whose hosts have NVIDIA GPUs: g4dn, g6e, gr6, p3, p4d, p6-b200, ... Inferentia and Trainium are no GPUs.
_GPU_FAMILY: Final = re.compile(r"ml\.(?:g|gr|p)\d")


def has_gpus(instance_type: str) -> bool:
    """Return whether hosts of a SageMaker instance type, such as ml.g5.xlarge, have NVIDIA GPUs."""
    return _GPU_FAMILY.match(instance_type) is not None
