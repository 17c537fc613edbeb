"""On which terms the account is asked for hosts: groups, types to fall back to, reserved capacity, its key, its tags.

Reads settings and a definition as the SDK built it; returns the definition to upsert. The SDK takes few of these where
SageMaker takes them all, and none of them at once. What the settings leave out leaves the definition as it was.
"""

from collections.abc import Iterator
from typing import Any, Final

from params.instances import has_local_disk
from params.layout import ENCODERS_GROUP, THROUGHPUT_STEP, TRAINERS_GROUP
from params.parameter_names import ENCODERS_HOSTS, instance_count_of, instance_type_of
from params.settings import Settings
from params.stages import Job, TrainingHosts

# A model package has the tags of its group, and CreateModelPackage refuses others.
TAGGED: Final = ("Processing", "Training", "Tuning", "Model", "EndpointConfig", "Endpoint")


def with_terms(definition: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """Return a definition with the account's terms in every request."""
    for step in _steps(definition["Steps"]):
        arguments = step["Arguments"]
        job = settings.job_of(step["Name"])
        if job is not None:
            hosts = _hosts(step["Type"], arguments)
            if settings.encoders and step["Name"] in [phase.train_name for phase in settings.phases]:
                _group(hosts)
            if settings.account.kms_key_arn:
                _encrypt(step["Type"], arguments, hosts, job, settings.account.kms_key_arn)
            _prefer(step, hosts, job)
            _reserve(hosts, job, settings.endpoint.capacity_reservation if step["Type"] == "EndpointConfig" else "")
        if settings.account.tags and step["Type"] in TAGGED:
            own = [{"Key": key, "Value": value} for key, value in settings.account.tags.items()]
            arguments["Tags"] = [*arguments.get("Tags", ()), *own]
    return definition


def _steps(steps: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for step in steps:
        yield step
        yield from _steps([*step["Arguments"].get("IfSteps", ()), *step["Arguments"].get("ElseSteps", ())])


def _hosts(kind: str, arguments: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any]
    if kind == "Processing":
        found = arguments["ProcessingResources"]["ClusterConfig"]
    elif kind == "EndpointConfig":
        found = arguments["ProductionVariants"][0]
    else:
        found = arguments.get("TrainingJobDefinition", arguments)["ResourceConfig"]
    return found


def _group(hosts: dict[str, Any]) -> None:
    """Put the hosts in groups, the trainers first: the SDK takes no pipeline variable as a group's count."""
    trainers = {name: hosts.pop(name) for name in ("InstanceType", "InstanceCount")}
    names = {"InstanceType": instance_type_of(ENCODERS_HOSTS), "InstanceCount": instance_count_of(ENCODERS_HOSTS)}
    encoders = {key: {"Get": f"Parameters.{name}"} for key, name in names.items()}
    groups = {TRAINERS_GROUP: trainers, ENCODERS_GROUP: encoders}
    hosts["InstanceGroups"] = [{"InstanceGroupName": name, **group} for name, group in groups.items()]


def _prefer(step: dict[str, Any], hosts: dict[str, Any], job: Job) -> None:
    """Put a list in the place of one type, where the API takes one: not for spot, groups, trials, Throughput."""
    spot = step["Arguments"].get("EnableManagedSpotTraining")
    if not job.instance_preferences or step["Type"] == "Tuning" or step["Name"] == THROUGHPUT_STEP:
        return
    if spot or "InstanceGroups" in hosts:
        return
    if step["Type"] == "EndpointConfig":
        types = [hosts.pop("InstanceType"), *(other.instance_type for other in job.instance_preferences)]
        hosts["InstancePools"] = [{"InstanceType": name, "Priority": rank} for rank, name in enumerate(types, 1)]
        return
    own = {name: hosts.pop(name) for name in ("InstanceType", "InstanceCount")}
    others = [
        {"InstanceType": other.instance_type, "InstanceCount": other.instance_count or own["InstanceCount"]}
        for other in job.instance_preferences
    ]
    hosts["InstancePreferences"] = [own, *others]


def _reserve(hosts: dict[str, Any], job: Job, reservation: str) -> None:
    """Name the reserved hosts: of the first type, where there are several, and the others on demand."""
    if isinstance(job, TrainingHosts) and job.training_plan:
        if "InstancePreferences" in hosts:
            hosts["InstancePreferences"][0]["TrainingPlanArns"] = [job.training_plan]
        else:
            hosts["TrainingPlanArn"] = job.training_plan
    if reservation:
        hosts["CapacityReservationConfig"] = {
            "CapacityReservationPreference": "capacity-reservations-only",
            "MlReservationArn": reservation,
        }


def _encrypt(kind: str, arguments: dict[str, Any], hosts: dict[str, Any], job: Job, key: str) -> None:
    """Name the account's key for results in S3 and for the disk, which a host with disks of its own encrypts itself."""
    types = (job.instance_type, *(other.instance_type for other in job.instance_preferences))
    on_ebs = not any(has_local_disk(name) for name in types)
    if kind == "EndpointConfig":
        if "AsyncInferenceConfig" in arguments:
            arguments["AsyncInferenceConfig"]["OutputConfig"]["KmsKeyId"] = key
        if on_ebs:
            arguments["KmsKeyId"] = key
        return
    request = arguments.get("TrainingJobDefinition", arguments)
    output = "ProcessingOutputConfig" if kind == "Processing" else "OutputDataConfig"
    request[output]["KmsKeyId"] = key
    if on_ebs:
        hosts["VolumeKmsKeyId"] = key
