"""The CloudFormation template as `infra deploy` sees it: its text and its parameters.

Reads infrastructure.yaml; writes nothing.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from params.arguments import hint_at

FILE_SYSTEM_SIZE: Final = "FileSystemGiB"
# https://docs.aws.amazon.com/fsx/latest/APIReference/API_CreateFileSystem.html (StorageCapacity)
SMALLEST_GIB: Final = 1200
STEP_GIB: Final = 2400
TEMPLATE = Path(__file__).with_name("infrastructure.yaml")


class TemplateLoader(yaml.SafeLoader):
    """SafeLoader that reads CloudFormation's short functions: `!Ref Vpc` is {"Ref": "Vpc"}."""


def _function(loader: yaml.SafeLoader, name: str, node: yaml.Node) -> dict[str, Any]:
    key = name if name in ("Ref", "Condition") else f"Fn::{name}"
    if isinstance(node, yaml.ScalarNode):
        text = loader.construct_scalar(node)
        return {key: text.split(".", 1) if name == "GetAtt" else text}
    if isinstance(node, yaml.SequenceNode):
        return {key: loader.construct_sequence(node, deep=True)}
    assert isinstance(node, yaml.MappingNode)
    return {key: loader.construct_mapping(node, deep=True)}


TemplateLoader.add_multi_constructor("!", _function)


class StackTemplate:
    def __init__(self, path: Path = TEMPLATE) -> None:
        self.body = path.read_text(encoding="utf-8")
        """Sent as it is: CloudFormation takes at most 51,200 bytes without a bucket."""
        self.content: dict[str, Any] = yaml.load(self.body, Loader=TemplateLoader)  # noqa: S506 (a SafeLoader)

    @property
    def parameters(self) -> dict[str, dict[str, Any]]:
        """The template's parameters: name -> type, default, description, allowed values."""
        parameters: dict[str, dict[str, Any]] = self.content["Parameters"]
        return parameters

    def problem(self, values: Mapping[str, str]) -> str:
        """Return what is wrong with parameters' values and the fix for each; empty when all are right."""
        return "; ".join(filter(None, (self._problem(name, value) for name, value in values.items())))

    def contradiction(self, values: Mapping[str, str]) -> str:
        """Return what parameters say against each other, given and kept ones together, and the fix."""
        network, subnets, groups = (values.get(name, "") for name in ("VpcId", "SubnetIds", "SecurityGroupIds"))
        if network and not subnets:
            return f"SubnetIds: name the private subnets of {network}, the file system's first"
        if (subnets or groups) and not network:
            return "VpcId: name the network of SubnetIds and SecurityGroupIds"
        if network and values.get("InternetAccess") == "true":
            return f"InternetAccess: the way out of {network} is its own; leave this out"
        return ""

    def values(self, changes: Mapping[str, str], kept: set[str]) -> list[dict[str, Any]]:
        """Return what CreateChangeSet takes: the changes, and the stack's own value for the others in `kept`."""
        changed = [{"ParameterKey": name, "ParameterValue": value} for name, value in changes.items()]
        names = [name for name in self.parameters if name in kept and name not in changes]
        return changed + [{"ParameterKey": name, "UsePreviousValue": True} for name in names]

    def _problem(self, name: str, value: str) -> str:
        about = self.parameters.get(name)
        if about is None:
            return f"unknown parameter {name}; {hint_at(name, self.parameters)}"
        allowed = [str(choice) for choice in about.get("AllowedValues", [])]
        if allowed and value not in allowed:
            return f"{name}: {value!r} is not one of {', '.join(allowed)}"
        least = about.get("MinValue", 0)
        if about["Type"] == "Number" and not (re.fullmatch(r"\d+(\.\d+)?", value) and float(value) >= least):
            return f"{name}: {value!r} is not a number of at least {least}"
        if name == FILE_SYSTEM_SIZE and float(value) != SMALLEST_GIB and float(value) % STEP_GIB:
            return f"{name}: FSx for Lustre has no size {value!r}: set it to 0 for none, 1200, or any multiple of 2400"
        pattern = about.get("AllowedPattern")
        if pattern and not re.fullmatch(pattern, value):
            return f"{name}: {value!r} does not match {pattern}"
        return ""
