"""The probe's jobs: one for each kind of job and instance type of a definition, with the requests of its own steps.

Reads a definition, the parameters of one start, and the price file; writes nothing. Image, role, network, volume,
encryption and environment are the step's own: only the program, the number of hosts and the time limit are the probe's.
"""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from params import layout
from params.arguments import to_environment, to_flags
from params.parameter_names import BUCKET, FSX_PATH
from params.programs import ProbeArguments
from params.s3 import join_uri
from params.settings import Settings
from pipeline_definition.checks.addresses import ADDRESSES, foreign_addresses
from pipeline_definition.cost.prices import load_prices
from pipeline_definition.cost.rates import load_rates
from pipeline_definition.cost.tables import usd_text
from pipeline_definition.jobs.instances import JobKind, instance
from pipeline_definition.jobs.planned import PlannedJob, Values, all_steps, planned_jobs

# What of a step's request its probe keeps: all that decides on what, where and as whom it runs.
KEPT: Final = (
    *("AppSpecification", "AlgorithmSpecification", "RoleArn", "Environment", "Tags", "NetworkConfig", "VpcConfig"),
    *("ProcessingResources", "ResourceConfig", "EnableManagedSpotTraining", "EnableNetworkIsolation"),
    *("EnableInterContainerTrafficEncryption", "OutputDataConfig"),
)
WRITTEN: Final = (
    *(layout.SHARDS, layout.LATENTS, layout.REFERENCE, layout.CHECKPOINTS, layout.TUNING),
    *(layout.MODEL, layout.EVALUATION, layout.SAMPLES),
)
# Whose hosts work together; those of Download share its work out through S3.
TOGETHER: Final = ("encode", "train", "throughput")
# A job that hangs costs no more than this.
LIMIT_S: Final = 1800
SPOT_WAIT_S: Final = 3600
# Driver, names, addresses, 1 GiB of disk, two all-reduces, a read and a write at a dozen addresses, and FSx's import of
# an object, for which the guide names no time: assumed, for none of it was measured on AWS.
MEASURING_S: Final = 180.0


def base_name(pipeline: str) -> str:
    """Return how the names of a pipeline's probes begin: SageMaker takes 63 characters, and id and step follow."""
    return f"{layout.PROBE}-{pipeline}"[:36].rstrip("-")


@dataclass(frozen=True)
class ProbeJob:
    name: str
    """Of the job or endpoint in SageMaker."""
    label: str
    """What a person calls it."""
    steps: tuple[str, ...]
    """Steps for which it stands."""
    kind: JobKind
    hosts: Mapping[str, int]
    """Hosts by instance type: two types where the encoders are in Train's job."""
    requests: Mapping[str, Mapping[str, Any]]
    """What starts it, by operation, in order: create_training_job, ..."""

    @property
    def what(self) -> str:
        """Return `2 x ml.g5.xlarge, training`."""
        return f"{', '.join(f'{count} x {name}' for name, count in self.hosts.items())}, {self.kind}"

    def hourly_usd(self, region: str) -> float | None:
        """Return what an hour of its hosts costs; None where a price is not known."""
        prices = [count * load_prices().in_region(region, name) for name, count in self.hosts.items()]
        return sum(prices) if all(prices) else None


@dataclass(frozen=True)
class ProbeForecast:
    """What some jobs of a probe will cost in a region, on demand."""

    jobs: Sequence[ProbeJob]
    region: str

    @property
    def minutes(self) -> float:
        """Return how long a job is billed for, its start included."""
        return (load_rates().assumed.job_start_s + MEASURING_S) / 60

    def rows(self) -> list[tuple[str, ...]]:
        """Return the cells of a table: steps, hosts, minutes, dollars."""
        usd = self._usd(self.minutes)
        return [(job.label, job.what, f"{self.minutes:.0f}", usd_text(usd[job.label])) for job in self.jobs]

    def __str__(self) -> str:
        most = LIMIT_S / 60
        return (
            f"forecast: {self.minutes:.0f} minutes and {self._total(self.minutes)}; at most {self._total(most)}, for "
            f"every job is stopped after {most:.0f} minutes"
        )

    def _total(self, minutes: float) -> str:
        """Return the dollars of all jobs, and which have no price."""
        usd = self._usd(minutes)
        missing = ", ".join(label for label, own in usd.items() if own is None)
        known = usd_text(sum(filter(None, usd.values())))
        return f"{known} without {missing}, whose price is not known" if missing else known

    def _usd(self, minutes: float) -> dict[str, float | None]:
        hourly = {job.label: job.hourly_usd(self.region) for job in self.jobs}
        return {label: usd and usd * minutes / 60 for label, usd in hourly.items()}


@dataclass(frozen=True)
class Probe:
    settings: Settings
    definition: Mapping[str, Any]
    values: Values
    """Its parameters, some of them changed."""
    way_out: str = ""
    is_local: bool = False

    @cached_property
    def identity(self) -> str:
        """A new name, which its jobs' names and its objects' keys have."""
        return f"{base_name(self.settings.pipeline_name)}-{uuid.uuid4().hex[:8]}"

    @property
    def reads(self) -> tuple[str, ...]:
        own = (self.values.text(name) for name in ADDRESSES if name in self.values)
        return tuple(dict.fromkeys([*own, *foreign_addresses(self.settings, self.values).values()]))

    @property
    def results_uri(self) -> str:
        """Where the hosts write their results: the role may write here, and nothing stays here for long."""
        return join_uri(f"s3://{self.values.text(BUCKET)}", layout.TUNING, layout.PROBE, self.identity)

    @property
    def writes(self) -> tuple[str, ...]:
        return tuple(f"s3://{self.values.text(BUCKET)}/{name}" for name in WRITTEN)

    def jobs(self) -> list[ProbeJob]:
        """Return one job for each kind and type, named uniquely, with the request of the step with the most hosts."""
        groups: dict[tuple[JobKind, str], list[PlannedJob]] = {}
        for job in (one for planned in planned_jobs(self.definition, self.values) for one in planned.alternatives()):
            if job.program != "stream":
                groups.setdefault((job.kind, job.instance.name), []).append(job)
        made: list[ProbeJob] = []
        for (kind, host), group in groups.items():
            own = max(group, key=lambda job: (_hosts(job), _volume_gb(self._arguments(job.step))))
            steps = ("Endpoint",) if kind == "endpoint" else tuple(dict.fromkeys(job.step for job in group))
            name, label = f"{self.identity}-{(own.step if kind != 'endpoint' else kind).lower()}", "+".join(steps)
            # A step's other types: SageMaker takes a name once, and a name with a type in it would be too long.
            name += f"-{len(made)}" if any(job.name == name for job in made) else ""
            label += f" on {host}" if any(set(steps) & set(job.steps) for job in made) else ""
            hosts, requests = self._endpoint(name, own) if kind == "endpoint" else self._job(name, own, steps)
            made.append(ProbeJob(name, label, steps, kind, hosts, requests))
        return made

    def _job(self, name: str, own: PlannedJob, steps: Sequence[str]) -> tuple[dict[str, int], dict[str, Any]]:
        request = {key: value for key, value in self._arguments(own.step).items() if key in KEPT}
        request["StoppingCondition"] = {"MaxRuntimeInSeconds": LIMIT_S}
        resources, program = _resources(request), request.get("AlgorithmSpecification") or request["AppSpecification"]
        if resources.pop("InstancePreferences", None):
            # Each type of the list is probed by itself.
            resources |= {"InstanceType": own.instance.name, "InstanceCount": own.count}
            resources |= {"TrainingPlanArn": own.training_plan} if own.training_plan else {}
        groups = resources.get("InstanceGroups") or [resources]
        for group in groups:
            group["InstanceCount"] = min(int(group["InstanceCount"]), _hosts(own))
        if own.kind == "training":
            self._train(request)
        hosts = {group["InstanceType"]: group["InstanceCount"] for group in groups}
        arguments = ProbeArguments(
            results_uri=self.results_uri,
            latents_uri=f"s3://{self.values.text(BUCKET)}/{layout.LATENTS}" if "InputDataConfig" in request else "",
            way_out=self.way_out if "Download" in steps else "",
            **self._told(hosts, _volume_gb(request)),
        )
        flags: list[str] = to_flags(arguments.model_dump(exclude={"reads"}, exclude_defaults=True))
        # SageMaker takes 256 characters in an argument: a list of addresses goes one by one.
        flags += ["--reads", *self.reads, "--writes", *self.writes]
        program |= {"ContainerEntrypoint": [*layout.ENTRY_POINT, "probe"], "ContainerArguments": flags}
        request[f"{own.kind.capitalize()}JobName"] = name
        return hosts, {f"create_{own.kind}_job": request}

    def _train(self, request: dict[str, Any]) -> None:
        """Make a training request the probe's: the file system at the folder that is linked to the latents, no data."""
        request["ResourceConfig"].pop("KeepAlivePeriodInSeconds", None)
        request["OutputDataConfig"] = {**request.get("OutputDataConfig", {}), "S3OutputPath": self.results_uri}
        if request.get("EnableManagedSpotTraining"):
            request["StoppingCondition"]["MaxWaitTimeInSeconds"] = SPOT_WAIT_S
        trainings = (step for step in all_steps(self.definition["Steps"]) if step["Type"] == "Training")
        for channel in (one for step in trainings for one in step["Arguments"].get("InputDataConfig", ())):
            if channel["ChannelName"] == layout.LATENTS_CHANNEL and "FileSystemDataSource" in channel["DataSource"]:
                own = self._resolved(channel)
                own["DataSource"]["FileSystemDataSource"]["DirectoryPath"] = self.values.text(FSX_PATH)
                request["InputDataConfig"] = [own]

    def _told(self, hosts: Iterable[str], volume_gb: int) -> dict[str, Any]:
        """Return what every host is told. A volume is no promise of this machine's."""
        gpus = {name: instance(name).gpus for name in hosts}
        return {
            "region": self.settings.account.region,
            "reads": self.reads,
            "gpus": tuple(f"{name}={count}" for name, count in gpus.items() if count),
            "volume_gb": min(volume_gb, 1) if self.is_local else volume_gb,
            "disk_mib": 64 if self.is_local else 1024,
            "file_wait_s": 30.0 if self.is_local else 300.0,
        }

    def _endpoint(self, name: str, own: PlannedJob) -> tuple[dict[str, int], dict[str, Any]]:
        """Return the endpoint's host, and the requests of the pipeline's own model and configuration for it."""
        host = own.instance.name
        model = self._arguments(next(s["Name"] for s in all_steps(self.definition["Steps"]) if s["Type"] == "Model"))
        container = model.pop("PrimaryContainer", None) or model.pop("Containers")[0]
        told = {key: value for key, value in self._told([host], 0).items() if value != ()}
        environment = {**to_environment(told, layout.PROBE_PREFIX), layout.INSTANCE_TYPE_VARIABLE: host}
        model |= {"ModelName": name, "PrimaryContainer": {"Image": container["Image"], "Environment": environment}}
        config = self._arguments(own.step)
        config.pop("AsyncInferenceConfig", None)
        variant = {**config["ProductionVariants"][0], "ModelName": name, "InitialInstanceCount": 1}
        if variant.pop("InstancePools", None):
            variant["InstanceType"] = host
        config |= {"EndpointConfigName": name, "ProductionVariants": [variant]}
        endpoint = {"EndpointConfigName": name, "EndpointName": name}
        return {host: 1}, {"create_model": model, "create_endpoint_config": config, "create_endpoint": endpoint}

    def _arguments(self, step: str) -> dict[str, Any]:
        """Return a step's request with the parameters filled in; what only a run knows is left out."""
        found = next(one for one in all_steps(self.definition["Steps"]) if one["Name"] == step)
        resolved: dict[str, Any] = self._resolved(found["Arguments"].get("TrainingJobDefinition", found["Arguments"]))
        return resolved

    def _resolved(self, value: Any) -> Any:
        if isinstance(value, list):
            return [one for one in map(self._resolved, value) if one is not None]
        if not isinstance(value, Mapping) or "Get" in value or "Std:Join" in value:
            return self.values.resolved(value)
        return {name: own for name, one in value.items() if (own := self._resolved(one)) is not None}


def _hosts(job: PlannedJob) -> int:
    """Return on how many hosts a job is probed: two where its hosts work together, for two show what many do."""
    return min(job.count, 2) if job.program in TOGETHER else 1


def _volume_gb(request: Mapping[str, Any]) -> int:
    return int(_resources(request).get("VolumeSizeInGB") or 0)


def _resources(request: Mapping[str, Any]) -> dict[str, Any]:
    processing = request.get("ProcessingResources") or {}
    return request.get("ResourceConfig") or processing.get("ClusterConfig") or {}
