"""SageMaker's container contract, written into a host's folder (/opt/ml in a container).

Writes <folder>/input/config/{hyperparameters,resourceconfig,inputdataconfig}.json for training and
<folder>/config/{processingjobconfig,resourceconfig}.json for processing.

Source: https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-training-algo-running-container.html and
https://docs.aws.amazon.com/sagemaker/latest/dg/build-your-own-processing-container.html
"""

import itertools
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from params.files import write_json
from params.layout import BASE_DIR
from pipeline_definition.local.errors import StepFailureError

LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"


def host_groups(resources: Mapping[str, Any], claimed_type: str = "") -> list[dict[str, Any]]:
    """Return the groups of equal hosts, algo-1, algo-2, ..., as resourceconfig.json has them; `claimed_type` wins."""
    # Every type has capacity here: the first one is taken.
    resources = {**resources, **(resources.get("InstancePreferences") or [{}])[0]}
    names = map("algo-{}".format, itertools.count(1))
    return [
        {
            "instance_group_name": group["InstanceGroupName"],
            "instance_type": claimed_type or group.get("InstanceType", ""),
            "hosts": list(itertools.islice(names, int(group.get("InstanceCount", 1)))),
        }
        for group in resources.get("InstanceGroups") or [{"InstanceGroupName": "homogeneousCluster", **resources}]
    ]


def resource_config(groups: Sequence[Mapping[str, Any]], host: str) -> dict[str, Any]:
    own = next(group for group in groups if host in group["hosts"])
    return {
        "current_host": host,
        "current_instance_type": own["instance_type"],
        "current_group_name": own["instance_group_name"],
        "hosts": [name for group in groups for name in group["hosts"]],
        "instance_groups": groups,
        "network_interface_name": LOOPBACK,
    }


def write_training_contract(folder: Path, request: Mapping[str, Any], resources: Mapping[str, Any]) -> None:
    for name in ("input/data", "model", "output/data", "checkpoints"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    default_mode = request["AlgorithmSpecification"].get("TrainingInputMode", "File")
    config = folder / "input" / "config"
    write_json(config / "hyperparameters.json", request.get("HyperParameters") or {})
    write_json(config / "resourceconfig.json", resources)
    write_json(
        config / "inputdataconfig.json",
        {channel["ChannelName"]: _channel(channel, default_mode) for channel in request.get("InputDataConfig") or ()},
    )


def write_processing_contract(folder: Path, request: Mapping[str, Any], resources: Mapping[str, Any]) -> None:
    (folder / "output").mkdir(parents=True, exist_ok=True)
    write_json(folder / "config" / "processingjobconfig.json", request)
    write_json(folder / "config" / "resourceconfig.json", resources)


def local_path(folder: Path, container_path: str) -> Path:
    """Return where a path under /opt/ml lies in a host's folder; StepFailureError for one elsewhere: there is none."""
    path = PurePosixPath(container_path)
    if not path.is_relative_to(BASE_DIR) or ".." in path.parts:
        raise StepFailureError(f"ClientError: LocalPath {container_path!r} is not under {BASE_DIR}")
    return folder / path.relative_to(BASE_DIR)


def _channel(channel: Mapping[str, Any], default_mode: str) -> dict[str, Any]:
    source = channel["DataSource"].get("S3DataSource", {})
    return {
        "TrainingInputMode": channel.get("InputMode", default_mode),
        "S3DistributionType": source.get("S3DataDistributionType", "FullyReplicated"),
        "RecordWrapperType": channel.get("RecordWrapperType", "None"),
    } | ({"ContentType": channel["ContentType"]} if "ContentType" in channel else {})
