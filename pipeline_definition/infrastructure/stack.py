"""The stack around the pipeline: deploy it, watch it, destroy it, and fill a parameter set from its outputs.

Reads infrastructure.yaml; reads and writes CloudFormation. What it costs is in `StackStatus.costs`.

    sd-pipeline infra deploy --set FileSystemGiB=4800
    sd-pipeline start --params params/sd2_base.yaml --stack sd-pipeline
"""

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError
from pydantic import ValidationError

from params.arguments import describe
from params.s3 import unless_missing
from params.settings import TAG_TEXT, Settings, SettingsError
from pipeline_definition.errors import OperatorError
from pipeline_definition.infrastructure.contents import StackContents
from pipeline_definition.infrastructure.template import TEMPLATE, StackTemplate
from pipeline_definition.infrastructure.zone import zone_for
from pipeline_definition.session import Target

SUCCEEDED = ("CREATE_COMPLETE", "UPDATE_COMPLETE", "DELETE_COMPLETE")
# The reason that CloudFormation gives for every resource that it cancelled because another one failed.
CANCELLED = "cancelled"
PROJECT_TAG, PROMOTION_TAGS, ZONE = "project", "PromotionTags", "AvailabilityZone"
NO_CHANGES = ("didn't contain changes", "No updates are to be performed")


@contextmanager
def followed(client: Any, stack_id: str, say: Callable[[str], None], interval_s: float) -> Iterator[None]:
    """Say each event of a stack, from the call inside until it rests; OperatorError: what failed first, and why."""

    def events() -> list[dict[str, Any]]:
        pages = client.get_paginator("describe_stack_events").paginate(StackName=stack_id)
        return [event for page in pages for event in page["StackEvents"]][::-1]

    seen, failures = {event["EventId"] for event in events()}, list[str]()
    yield
    while True:
        # The status first: an event that comes after it is read in the last round at the latest.
        status = str(client.describe_stacks(StackName=stack_id)["Stacks"][0]["StackStatus"])
        for event in (event for event in events() if event["EventId"] not in seen):
            seen.add(event["EventId"])
            keys = ("LogicalResourceId", "ResourceStatus", "ResourceStatusReason")
            name, state, reason = (str(event.get(key) or "") for key in keys)
            say(f"{event['Timestamp']:%H:%M:%S}  {state:<20}  {name}  {reason}".rstrip())
            if state.endswith("_FAILED") and CANCELLED not in reason:
                failures.append(f"{name} ({event['ResourceType']}): {reason}")
        if not status.endswith("_IN_PROGRESS"):
            break
        time.sleep(interval_s)
    if status not in SUCCEEDED:
        why = failures[0] if failures else "CloudFormation gives no reason"
        raise OperatorError(f"stack {stack_id.split('/')[1]} ended as {status}: {why}")


@dataclass(frozen=True)
class ChangeSet:
    change_set: str
    """ARN of the change set."""
    stack_id: str
    changes: tuple[str, ...]
    """One line for each resource: `Add FileSystem (AWS::FSx::FileSystem)`."""


@dataclass(frozen=True)
class StackStatus:
    status: str
    """CloudFormation's status; `ABSENT` when there is no such stack."""
    reason: str
    outputs: Mapping[str, str]
    costs: tuple[str, ...]
    """What is billed while it exists, one line each, endpoints outside the stack included."""


class Infrastructure:
    def __init__(
        self,
        target: Target,
        stack: str = "sd-pipeline",
        say: Callable[[str], None] = print,
        interval_s: float = 5.0,
        template: Path = TEMPLATE,
    ) -> None:
        self._target, self._stack, self._say, self._interval_s = target, stack, say, interval_s
        self._template = StackTemplate(template)
        self._client = target.client("cloudformation")

    def deploy(
        self, parameters: Mapping[str, str], tags: Mapping[str, str] | None = None, settings: Settings | None = None
    ) -> dict[str, str]:
        """Create or update the stack, what is unnamed staying; return its outputs. OperatorError: the first failure."""
        if plan := self.plan(parameters, tags, settings):
            for change in plan.changes:
                self._say(change)
            self.apply(plan)
        else:
            self._say(f"stack {self._stack} is up to date")
        return self.outputs()

    def plan(
        self, parameters: Mapping[str, str], tags: Mapping[str, str] | None = None, settings: Settings | None = None
    ) -> ChangeSet | None:
        """Make a change set and return it; None when there is nothing to change."""
        if problem := self._template.problem(parameters):
            raise OperatorError(problem)
        stack = self._describe() or {}
        if stack.get("StackStatus") == "ROLLBACK_COMPLETE":
            # After a failed first creation CloudFormation has rolled everything back and refuses updates of the rest.
            self._say(f"deleting what is left of the failed creation of {self._stack}")
            self._delete(stack["StackId"])
            stack = {}
        exists = stack.get("StackStatus", "REVIEW_IN_PROGRESS") != "REVIEW_IN_PROGRESS"
        current = stack if exists else {}
        kept = {item["ParameterKey"]: item.get("ParameterValue", "") for item in current.get("Parameters", [])}
        if contradiction := self._template.contradiction({**kept, **parameters}):
            raise OperatorError(contradiction)
        if settings is not None and not exists:
            parameters = self._in_a_zone(parameters, settings)
        own = {**_own_tags(current), **(tags or {})}
        if tags and PROMOTION_TAGS in self._template.parameters:
            parameters = {**parameters, PROMOTION_TAGS: _fragment(own)}
        try:
            made = self._client.create_change_set(
                StackName=self._stack,
                ChangeSetName=f"deploy-{time.time_ns()}",
                ChangeSetType="UPDATE" if exists else "CREATE",
                TemplateBody=self._template.body,
                Parameters=self._template.values(parameters, set(kept)),
                Capabilities=["CAPABILITY_IAM"],
                Tags=[{"Key": key, "Value": value} for key, value in {PROJECT_TAG: self._stack, **own}.items()],
            )
        except ClientError as error:
            if not _says_no_changes(str(error)):
                raise
            return None
        return self._read_change_set(made["Id"], made["StackId"])

    def apply(self, plan: ChangeSet) -> None:
        with self._followed(plan.stack_id):
            self._client.execute_change_set(ChangeSetName=plan.change_set)

    def status(self) -> StackStatus:
        stack = self._describe()
        if stack is None:
            return StackStatus("ABSENT", "", {}, ())
        outputs = _outputs(stack)
        costs = StackContents(self._target, self._stack, outputs).costs()
        return StackStatus(stack["StackStatus"], stack.get("StackStatusReason", ""), outputs, tuple(costs))

    def outputs(self) -> dict[str, str]:
        """Return what `fill` takes: the stack's outputs, its region, and the newest image of each repository."""
        stack, region = self._describe(), self._target.region
        if stack is None or not stack.get("Outputs"):
            raise OperatorError(f"stack {self._stack} has no outputs in {region}; `sd-pipeline infra deploy` makes it")
        outputs = _outputs(stack)
        images = StackContents(self._target, self._stack, outputs).newest_images()
        own = _own_tags(stack)
        tags = {"Tags": json.dumps(own)} if own else {}
        return {**outputs, **images, **tags, "Region": region}

    def destroy(self, empty: bool = False) -> None:
        """Delete the stack, `empty` with the models and data in it; name what is billed outside."""
        stack = self._describe()
        if stack is None:
            raise OperatorError(f"there is no stack {self._stack} in {self._target.region}")
        contents = StackContents(self._target, self._stack, _outputs(stack))
        held = contents.held()
        if held and not empty:
            what = f"it holds {' and '.join(held)}; --empty deletes these too"
            raise OperatorError(f"stack {self._stack} is not deleted, for {what}")
        for line in contents.costs_outside():
            self._say(f"goes on costing: {line}")
        if empty:
            contents.empty(self._say)
        self._delete(stack["StackId"])

    def _in_a_zone(self, parameters: Mapping[str, str], settings: Settings) -> Mapping[str, str]:
        """Add the zone of a new network, where the operator names none."""
        if parameters.get(ZONE) or parameters.get("VpcId"):
            return parameters
        zone, why = zone_for(settings, self._target)
        why = f"={zone}: {why}" if zone else ": EC2 tells of no zone with these hosts; the region's first"
        self._say(f"{ZONE}{why}")
        return {**parameters, ZONE: zone}

    def _delete(self, stack_id: str) -> None:
        with self._followed(stack_id):
            self._client.delete_stack(StackName=stack_id)

    def _followed(self, stack_id: str) -> AbstractContextManager[None]:
        return followed(self._client, stack_id, self._say, self._interval_s)

    def _describe(self) -> dict[str, Any] | None:
        answer = unless_missing(self._client.describe_stacks, StackName=self._stack)
        return answer["Stacks"][0] if answer else None

    def _read_change_set(self, change_set: str, stack_id: str) -> ChangeSet | None:
        while True:
            about = self._client.describe_change_set(ChangeSetName=change_set)
            if about["Status"] not in ("CREATE_PENDING", "CREATE_IN_PROGRESS"):
                break
            time.sleep(self._interval_s)
        if about["Status"] == "CREATE_COMPLETE":
            pages = self._client.get_paginator("describe_change_set").paginate(ChangeSetName=change_set)
            lines = []
            for change in pages.search("Changes[].ResourceChange"):
                replaced = " by replacement" if change.get("Replacement") == "True" else ""
                name, kind = change["LogicalResourceId"], change["ResourceType"]
                lines.append(f"{change['Action']} {name} ({kind}){replaced}")
            return ChangeSet(change_set, stack_id, tuple(lines))
        reason = about.get("StatusReason", "")
        self._client.delete_change_set(ChangeSetName=change_set)
        if _says_no_changes(reason):
            return None
        raise OperatorError(f"stack {self._stack}: the change set was refused: {reason}")


def fill(settings: Settings, outputs: Mapping[str, str]) -> Settings:
    """Return the set with the stack's account, network, images and group, addresses moved. Raises SettingsError."""
    try:
        bucket = outputs["BucketName"]
        account = {
            "region": outputs.get("Region", settings.account.region),
            "bucket": bucket,
            "role_arn": outputs["RoleArn"],
            "subnets": tuple(filter(None, outputs["Subnets"].split(","))),
            "security_groups": tuple(filter(None, outputs["SecurityGroups"].split(","))),
            "kms_key_arn": outputs.get("KmsKeyArn", settings.account.kms_key_arn),
            "tags": settings.account.tags | json.loads(outputs.get("Tags", "{}")),
        }
        images = {name: _image(outputs, name, current) for name, current in settings.images.model_dump().items()}
        registry = {"group": outputs["ModelPackageGroupName"]}
    except KeyError as error:
        raise SettingsError(f"the stack has no output {error}; `sd-pipeline infra deploy` renews it") from None
    latents = {"fsx_id": outputs.get("FileSystemId"), "fsx_path": outputs.get("FileSystemPath")}
    file_system = {name: value for name, value in latents.items() if value is not None}
    values: dict[str, Any] = settings.model_dump()
    former, moved = f"s3://{settings.account.bucket}/", f"s3://{bucket}/"
    data = {name: moved + of.removeprefix(former) for name, of in values["data"].items() if str(of).startswith(former)}
    parts = {"account": account, "images": images, "registry": registry, "file_system": file_system, "data": data}
    for name, part in parts.items():
        values[name].update(part)
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise SettingsError(f"the stack's outputs: {describe(error)}") from None


def _image(outputs: Mapping[str, str], name: str, current: str) -> str:
    if newest := outputs.get(f"{name.title()}Image"):
        return newest
    tag = current.rsplit(":", 1)[-1] if ":" in current.rsplit("/", 1)[-1] else "latest"
    return f"{outputs[f'{name.title()}RepositoryUri']}:{tag}"


def _outputs(stack: Mapping[str, Any]) -> dict[str, str]:
    return {item["OutputKey"]: item["OutputValue"] for item in stack.get("Outputs", [])}


def _own_tags(stack: Mapping[str, Any]) -> dict[str, str]:
    """Return a stack's tags that `deploy` was given."""
    tags = {item["Key"]: item["Value"] for item in stack.get("Tags", [])}
    return {key: value for key, value in tags.items() if key != PROJECT_TAG and not key.startswith("aws:")}


def _fragment(tags: Mapping[str, str]) -> str:
    """Return tags as the state machine's JSON takes them, behind its own."""
    for text in (text for tag in tags.items() for text in tag):
        if not re.fullmatch(TAG_TEXT, text):
            raise OperatorError(f"--tag {text}: AWS takes letters, digits, spaces and _ . : / = + - @ in tags")
    return "".join(f", {json.dumps({'Key': key, 'Value': value})}" for key, value in tags.items())


def _says_no_changes(text: str) -> bool:
    return any(words in text for words in NO_CHANGES)
