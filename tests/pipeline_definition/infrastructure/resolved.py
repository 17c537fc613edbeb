"""What the template says for given parameters, before anything exists: roles' policies, the promotion's state machine.

Of CloudFormation's functions it knows those that the
template uses.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from pipeline_definition.infrastructure.template import StackTemplate

ACCOUNT: Final = "123456789012"
ARNS: Final = {
    "AWS::S3::Bucket": "arn:{AWS::Partition}:s3:::{BucketName}",
    "AWS::ECR::Repository": "arn:{AWS::Partition}:ecr:{AWS::Region}:{AWS::AccountId}:repository/{RepositoryName}",
    "AWS::IAM::Role": "arn:{AWS::Partition}:iam::{AWS::AccountId}:role/{}",
    "AWS::StepFunctions::StateMachine": (
        "arn:{AWS::Partition}:states:{AWS::Region}:{AWS::AccountId}:stateMachine:{StateMachineName}"
    ),
}
_NOTHING: Final = object()


class Resolved:
    """A template with values for its parameters; `names` are those of resources and of their attributes.

    A resource without a name stands under its own in the template.
    """

    def __init__(
        self, template: StackTemplate, parameters: Mapping[str, str], names: Mapping[str, str] | None = None
    ) -> None:
        self._content, about = template.content, template.parameters
        given = {name: str(parameters.get(name, entry.get("Default", ""))) for name, entry in about.items()}
        lists = {name for name, entry in about.items() if entry["Type"] == "CommaDelimitedList"}
        pseudo = {"AWS::Partition": "aws", "AWS::Region": "us-east-1", "AWS::AccountId": ACCOUNT}
        self._values: dict[str, Any] = {
            **pseudo,
            "AWS::NoValue": _NOTHING,
            **{name: value.split(",") if name in lists else value for name, value in given.items()},
            **(names or {}),
        }

    def properties(self, resource: str) -> dict[str, Any]:
        """Return a resource's properties."""
        found: dict[str, Any] = self.value(self._content["Resources"][resource]["Properties"])
        return found

    def holds(self, condition: Any) -> bool:
        """Return whether a condition, by its name or as it stands, holds."""
        if isinstance(condition, str):
            return self.holds(self._content["Conditions"][condition])
        ((function, argument),) = condition.items()
        if function == "Condition":
            return self.holds(argument)
        if function == "Fn::Equals":
            left, right = (str(self.value(item)) for item in argument)
            return left == right
        if function == "Fn::Not":
            return not self.holds(argument[0])
        return (all if function == "Fn::And" else any)(self.holds(item) for item in argument)

    def value(self, node: Any) -> Any:
        """Return a value with its functions worked out."""
        if isinstance(node, list):
            return [item for item in map(self.value, node) if item is not _NOTHING]
        if not isinstance(node, dict):
            return node
        function = next(iter(node), "")
        if len(node) != 1 or not (function == "Ref" or function.startswith("Fn::")):
            return {key: item for key, old in node.items() if (item := self.value(old)) is not _NOTHING}
        argument = node[function]
        if function == "Ref":
            return self._reference(argument)
        if function == "Fn::GetAtt":
            return self._attribute(*argument)
        return getattr(self, f"_{function[4:].lower()}")(argument)

    def _sub(self, argument: Any) -> str:
        text, own = argument if isinstance(argument, list) else (argument, {})

        def named(match: re.Match[str]) -> str:
            name = match[1]
            if name in own:
                return str(self.value(own[name]))
            return str(self._attribute(*name.split(".", 1)) if "." in name else self._reference(name))

        return re.sub(r"\$\{([^}]+)\}", named, text)

    def _if(self, argument: list[Any]) -> Any:
        condition, then, otherwise = argument
        return self.value(then if self.holds(condition) else otherwise)

    def _join(self, argument: list[Any]) -> str:
        return str(argument[0]).join(map(str, self.value(argument[1])))

    def _split(self, argument: list[Any]) -> list[str]:
        return str(self.value(argument[1])).split(argument[0])

    def _select(self, argument: list[Any]) -> Any:
        return self.value(argument[1])[int(argument[0])]

    def _getazs(self, _: Any) -> list[str]:
        return [self._values["AWS::Region"] + letter for letter in "ab"]

    def _reference(self, name: str) -> Any:
        about = self._content["Resources"].get(name, {})
        if about.get("Type") == "AWS::StepFunctions::StateMachine":
            return self._attribute(name, "Arn")
        return self._values.get(name, name)

    def _attribute(self, name: str, attribute: str) -> str:
        known = self._values.get(f"{name}.{attribute}")
        about = self._content["Resources"][name]
        if known is not None or attribute != "Arn":
            return str(known or f"{name}-{attribute}")
        own = {key: self.value(item) for key, item in about.get("Properties", {}).items() if key.endswith("Name")}
        return re.sub(
            r"\{([^}]*)\}", lambda match: str({**self._values, **own, "": name}[match[1]]), ARNS[about["Type"]]
        )
