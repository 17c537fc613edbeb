"""What an instance type's name says; the table of GPUs and prices is pipeline_definition's.

Reads nothing, writes nothing.
"""

import re
from typing import Final

# Families whose hosts have NVIDIA GPUs: g4dn, g6e, gr6, p3, p4d, p6-b200, ... Inferentia and Trainium are no GPUs.
_GPU_FAMILY: Final = re.compile(r"ml\.(?:g|gr|p)\d")
# Families whose hosts have disks of their own, which SageMaker uses in place of EBS: the d of c5d, and the GPU families
# since Turing (https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instance-store-volumes.html).
_LOCAL_DISK_FAMILY: Final = re.compile(r"ml\.(?:gr?\d|p[4-9]|trn\d|[a-z]+\d+[a-z]*d[a-z]*\b)")


def has_gpus(instance_type: str) -> bool:
    """Return whether hosts of a SageMaker instance type, such as ml.g5.xlarge, have NVIDIA GPUs."""
    return _GPU_FAMILY.match(instance_type) is not None


def has_local_disk(instance_type: str) -> bool:
    """Return whether hosts of a type have their own disks, encrypted by the host: an own key for them is refused."""
    return _LOCAL_DISK_FAMILY.match(instance_type) is not None
