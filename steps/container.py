"""The SageMaker contract: where a job finds its inputs, outputs, hyperparameters and the other hosts.

Reads <base>/input/config/*.json (training) or <base>/config/*.json (processing), where <base> is /opt/ml or, outside
a container, what SAGEMAKER_BASE_DIR says. Writes nothing.

Source: https://docs.aws.amazon.com/sagemaker/latest/dg/amazon-sagemaker-toolkits.html and
https://docs.aws.amazon.com/sagemaker/latest/dg/build-your-own-processing-container.html
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from params import layout
from params.layout import BASE_DIR
from steps.errors import StepError

# SageMaker's own convention for torchrun over the hosts of a job; any free port does.
RENDEZVOUS_PORT = 7777
RAY_PORT = 6379


@dataclass(frozen=True)
class Cluster:
    """The hosts of one job."""

    hosts: tuple[str, ...]
    current_host: str
    head_address: str
    """Where the first host can be reached."""
    rendezvous_port: int
    ray_port: int
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Hosts by instance group, where the job has groups."""
    interface: str = ""
    """Network interface through which the hosts reach each other; nothing where the job names none."""

    def of_groups(self, *names: str) -> "Cluster":
        """Return the cluster of groups' hosts, in the order of the names. Raises StepError where a group is missing."""
        missing = [name for name in names if not self.groups.get(name)]
        if missing:
            raise StepError(
                f"resourceconfig.json: no instance group {missing[0]!r}, there are {', '.join(self.groups) or 'none'}"
            )
        hosts = tuple(host for name in names for host in self.groups[name])
        # An address that is no host of the job was set from outside, and holds for all.
        address = self.head_address if self.head_address not in self.hosts else hosts[0]
        return replace(self, hosts=hosts, head_address=address)

    @property
    def rank(self) -> int:
        """Position of this host among the hosts."""
        return self.hosts.index(self.current_host)

    @property
    def is_head(self) -> bool:
        """Whether this is the first host: it alone writes what there is once for a job."""
        return self.rank == 0


class Container:
    """One job's view of its container."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._environment = os.environ if environment is None else environment
        self.base_dir = Path(self._environment.get(layout.BASE_DIR_VARIABLE, BASE_DIR))

    def path(self, container_path: str) -> Path:
        """Return where a path under /opt/ml really is."""
        return self.base_dir / Path(container_path).relative_to(BASE_DIR)

    def input_dir(self, name: str) -> Path:
        return self.path(layout.PROCESSING_INPUT_DIR) / name

    def output_dir(self, name: str) -> Path:
        return self.path(layout.PROCESSING_OUTPUT_DIR) / name

    def channel_dir(self, name: str) -> Path:
        return self.base_dir / "input" / "data" / name

    @property
    def model_dir(self) -> Path:
        """Where a training job leaves its model and an endpoint finds it."""
        return self.base_dir / "model"

    @property
    def checkpoint_dir(self) -> Path:
        """The volume that SageMaker syncs with S3 while the job runs."""
        return self.base_dir / "checkpoints"

    @property
    def failure_file(self) -> Path:
        """Its text becomes the job's FailureReason."""
        return self.base_dir / "output" / "failure"

    @property
    def output_data_dir(self) -> Path:
        """What a training job leaves beside its model (output.tar.gz)."""
        return self.base_dir / "output" / "data"

    @property
    def tensorboard_dir(self) -> Path:
        """Event files, which SageMaker copies to S3 while the job runs where TensorBoardOutputConfig asks for it."""
        return self.base_dir / "output" / "tensorboard"

    @property
    def job_name(self) -> str:
        """Name of the training or processing job; `local` outside one."""
        arn = self._environment.get("PROCESSING_JOB_ARN", "")
        return self._environment.get("TRAINING_JOB_NAME") or arn.rsplit("/", 1)[-1] or "local"

    @property
    def instance_type(self) -> str:
        """SageMaker instance type of this host; nothing where nobody says."""
        resources, processing = map(self._config, ("resourceconfig.json", "processingjobconfig.json"))
        groups = resources.get("instance_groups") or ()
        own = [group for group in groups if resources.get("current_host") in (group.get("hosts") or ())]
        hosts = (processing.get("ProcessingResources") or {}).get("ClusterConfig") or {}
        said = (
            resources.get("current_instance_type"),
            *(group.get("instance_type") for group in own),
            hosts.get("InstanceType"),
            self._environment.get(layout.INSTANCE_TYPE_VARIABLE),
        )
        return next((str(name) for name in said if name), "")

    def hyperparameters(self) -> dict[str, str]:
        """Return the training job's hyperparameters: texts, as SageMaker passes them."""
        return {str(name): str(value) for name, value in self._config("hyperparameters.json").items()}

    @property
    def is_trial(self) -> bool:
        """Whether the job is a trial of a tuning job: SageMaker then adds what it looks at."""
        return "_tuning_objective_metric" in self.hyperparameters()

    def cluster(self) -> Cluster:
        """Return the hosts of the job; outside a job, this host alone.

        MASTER_ADDR, MASTER_PORT and RAY_HEAD_PORT win over the contract where they are set: on one machine the
        hosts' names do not resolve and several jobs run at once.
        """
        config = self._config("resourceconfig.json") or {"hosts": ["localhost"], "current_host": "localhost"}
        return Cluster(
            hosts=tuple(sorted(config["hosts"], key=_host_order)),
            current_host=config["current_host"],
            head_address=self._environment.get("MASTER_ADDR") or min(config["hosts"], key=_host_order),
            rendezvous_port=int(self._environment.get("MASTER_PORT", RENDEZVOUS_PORT)),
            ray_port=int(self._environment.get("RAY_HEAD_PORT", RAY_PORT)),
            groups={
                group["instance_group_name"]: tuple(sorted(group["hosts"], key=_host_order))
                for group in config.get("instance_groups") or ()
            },
            interface=config.get("network_interface_name") or "",
        )

    def _config(self, file_name: str) -> dict[str, Any]:
        paths = (self.base_dir / folder / file_name for folder in ("input/config", "config"))
        found: list[dict[str, Any]] = [json.loads(path.read_text("utf-8")) for path in paths if path.is_file()]
        return found[0] if found else {}


def _host_order(host: str) -> tuple[int, str]:
    """Sort algo-2 before algo-10."""
    number = host.rsplit("-", 1)[-1]
    return (int(number) if number.isdigit() else 0, host)
