"""The jobs that a definition will start, with the parameters of one start filled in.

Reads a definition and the changed parameters; writes nothing, and needs no SageMaker SDK.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from params.layout import ENCODERS_GROUP, THROUGHPUT_STEP, TRAINERS_GROUP
from pipeline_definition.jobs.instances import Instance, JobKind, instance

PARAMETER = "Parameters."


class Values:
    """Parameter values of one start: the definition's defaults and what `--set` changes."""

    def __init__(self, definition: Mapping[str, Any], changes: Mapping[str, Any]) -> None:
        self._values = {item["Name"]: item.get("DefaultValue", "") for item in definition["Parameters"]}
        self._values |= changes

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def text(self, name: str) -> str:
        return str(self._values[name])

    def integer(self, name: str) -> int:
        """Return a parameter as an integer; 0 where it is not one."""
        return as_integer(self._values[name])

    def resolved(self, value: Any) -> Any:
        """Return a value of the definition; None where only the run will know it."""
        if not isinstance(value, Mapping):
            return value
        if "Get" in value:
            name = parameter_of(value)
            return self._values.get(name) if name else None
        if "Std:Join" in value:
            parts = [self.resolved(part) for part in value["Std:Join"]["Values"]]
            return None if None in parts else value["Std:Join"]["On"].join(map(str, parts))
        return None


@dataclass(frozen=True)
class PlannedJob:
    step: str
    kind: JobKind
    program: str
    """download, recaption, encode, train, throughput, stream (encode for a training's job), evaluate or serve."""
    instance: Instance
    count: int
    """Hosts of one job."""
    type_parameter: str
    """Parameter that sets the instance type, or the step's name where none does."""
    count_parameter: str
    parallel: int = 1
    """Jobs at once: a tuner's trials."""
    in_network: bool = False
    """Whether the job runs in the operator's own network."""
    spot: bool = False
    max_runtime_s: int = 0
    fallbacks: tuple[tuple[Instance, int], ...] = ()
    """Types and counts that SageMaker takes, in this order, where the first has no capacity."""
    training_plan: str = ""
    has_volume_key: bool = False
    """Whether the definition names a key for the hosts' disks."""
    host_image: str = ""
    """InferenceAmiVersion of an endpoint's host; nothing: SageMaker's own choice."""
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    """As the definition has them: `Values.resolved` fills in the parameters."""
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """What a tuner may choose, by hyperparameter."""

    def alternatives(self) -> "Iterator[PlannedJob]":
        """Yield the job on each of the hosts that it may get, the first one's first."""
        yield self
        name = f"{self.step}'s instance_preferences"
        for host, count in self.fallbacks:
            other = replace(self, instance=host, count=count, fallbacks=(), training_plan="")
            yield replace(other, type_parameter=name, count_parameter=name)


def planned_jobs(definition: Mapping[str, Any], values: Values) -> list[PlannedJob]:
    """Return every job of a definition, in its order; one entry for all trials of a tuner."""
    return [job for step in all_steps(definition["Steps"]) for job in _jobs(step, values)]


def all_steps(steps: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for step in steps:
        yield step
        if step["Type"] == "Condition":
            for branch in ("IfSteps", "ElseSteps"):
                yield from all_steps(step["Arguments"].get(branch, []))


def parameter_of(value: Any) -> str:
    """Return the name of the parameter that a value gets, or joins alone; empty for any other value."""
    if isinstance(value, Mapping) and str(value.get("Get", "")).startswith(PARAMETER):
        return str(value["Get"]).removeprefix(PARAMETER)
    if isinstance(value, Mapping) and "Std:Join" in value and len(value["Std:Join"]["Values"]) == 1:
        return parameter_of(value["Std:Join"]["Values"][0])
    return ""


def as_integer(value: Any) -> int:
    """Return a value as an integer; 0 where it is not one."""
    try:
        return int(value)
    except (TypeError, ValueError):
        return 0


def _jobs(step: Mapping[str, Any], values: Values) -> list[PlannedJob]:
    arguments = step["Arguments"]
    if step["Type"] == "Processing":
        cluster = arguments["ProcessingResources"]["ClusterConfig"]
        program = str(arguments["AppSpecification"].get("ContainerEntrypoint", [""])[-1])
        network = bool(arguments.get("NetworkConfig", {}).get("VpcConfig"))
        limit_s = as_integer(arguments.get("StoppingCondition", {}).get("MaxRuntimeInSeconds"))
        return [_job(step, "processing", program, cluster, values, in_network=network, max_runtime_s=limit_s)]
    if step["Type"] == "Training":
        return _training_jobs(step, arguments, values)
    if step["Type"] == "Tuning":
        search = arguments["HyperParameterTuningJobConfig"]
        categories = search.get("ParameterRanges", {}).get("CategoricalParameterRanges", [])
        choices = {item["Name"]: tuple(str(value).strip('"') for value in item["Values"]) for item in categories}
        parallel = as_integer(search["ResourceLimits"]["MaxParallelTrainingJobs"])
        return _training_jobs(step, arguments["TrainingJobDefinition"], values, parallel=parallel, choices=choices)
    if step["Type"] == "EndpointConfig":
        key, jobs = {name: arguments[name] for name in ("KmsKeyId",) if name in arguments}, []
        for one in arguments["ProductionVariants"]:
            hosts = {**one, **key, "InstanceCount": one.get("InitialInstanceCount")}
            image = str(one.get("InferenceAmiVersion") or "")
            jobs.append(_job(step, "endpoint", "serve", hosts, values, host_image=image))
        return jobs
    return []


def _training_jobs(
    step: Mapping[str, Any], request: Mapping[str, Any], values: Values, **more: Any
) -> list[PlannedJob]:
    """Return a training job, and its group of encoders, where it has one, as a second job."""
    resources = request["ResourceConfig"]
    groups = {group["InstanceGroupName"]: group for group in resources.get("InstanceGroups", ())}
    job = _job(
        step,
        "training",
        "throughput" if step["Name"] == THROUGHPUT_STEP else "train",
        {**resources, **groups.get(TRAINERS_GROUP, {})},
        values,
        in_network=bool(request.get("VpcConfig")),
        spot=bool(request.get("EnableManagedSpotTraining")),
        max_runtime_s=as_integer(request.get("StoppingCondition", {}).get("MaxRuntimeInSeconds")),
        hyperparameters=request.get("HyperParameters", request.get("StaticHyperParameters", {})),
        **more,
    )
    if ENCODERS_GROUP not in groups:
        return [job]
    same = {"in_network": job.in_network, "spot": job.spot, "max_runtime_s": job.max_runtime_s}
    return [job, _job(step, "training", "stream", {**resources, **groups[ENCODERS_GROUP]}, values, **same)]


def _job(
    step: Mapping[str, Any], kind: JobKind, program: str, hosts: Mapping[str, Any], values: Values, **more: Any
) -> PlannedJob:
    preferences: list[dict[str, Any]] = hosts.get("InstancePreferences") or hosts.get("InstancePools") or [{}]
    first, *others = preferences
    hosts = {**hosts, **first}
    plans = [hosts.get("TrainingPlanArn"), *hosts.get("TrainingPlanArns", ())]

    def count_of(those: Mapping[str, Any]) -> int:
        return as_integer(values.resolved(those.get("InstanceCount", hosts.get("InstanceCount"))))

    return PlannedJob(
        step=str(step["Name"]),
        kind=kind,
        program=program,
        instance=instance(str(values.resolved(hosts.get("InstanceType")))),
        count=count_of(hosts),
        type_parameter=parameter_of(hosts.get("InstanceType")) or str(step["Name"]),
        count_parameter=parameter_of(hosts.get("InstanceCount")) or str(step["Name"]),
        fallbacks=tuple((instance(other["InstanceType"]), count_of(other)) for other in others),
        training_plan=next(filter(None, plans), ""),
        has_volume_key="VolumeKmsKeyId" in hosts or "KmsKeyId" in hosts,
        **more,
    )
