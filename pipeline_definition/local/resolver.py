"""The values behind Get, Std:Join and Std:JsonGet while an execution runs.

Reads parameters, execution variables, properties of finished steps, and JSON objects in S3.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from pipeline_definition.local.definition import Definition, property_file_of
from pipeline_definition.local.errors import StepFailureError
from pipeline_definition.local.expressions import GET, JOIN, PathElement, Quoted, function_of, split_path

# Lists whose elements a property path names in quotes, by the member that holds the name.
_NAME_MEMBERS = ("OutputName", "InputName", "MetricName", "ChannelName", "VariantName", "Name", "Key")


@dataclass(frozen=True)
class Resolver:
    definition: Definition
    parameters: Mapping[str, Any]
    variables: Mapping[str, str]
    """Execution variables: PipelineExecutionId, PipelineExecutionArn, ..."""
    properties: Mapping[str, Mapping[str, Any]]
    """Properties of the steps that have finished; the caller adds to it."""
    read_object: Callable[[str], bytes]
    """Bytes of an S3 object by its URI; raises StepFailureError."""

    def with_variables(self, **variables: str) -> Self:
        return replace(self, variables={**self.variables, **variables})

    def resolve(self, value: Any) -> Any:
        """Return a value with its functions replaced by what they stand for; StepFailureError names the reference."""
        if isinstance(value, list):
            return [self.resolve(item) for item in value]
        if not isinstance(value, Mapping):
            return value
        name = function_of(value)
        if name is None:
            return {key: self.resolve(item) for key, item in value.items()}
        if name == GET:
            return self._get(value[GET])
        if name == JOIN:
            return str(value[JOIN]["On"]).join(to_text(self.resolve(item)) for item in value[JOIN]["Values"])
        return self._json_get(value[name])

    def _get(self, reference: str) -> Any:
        kind, _, rest = reference.partition(".")
        if kind == "Parameters":
            return self.parameters[rest]
        if kind == "Execution":
            if rest == "CurrentDateTime":
                return iso_time(time.time())
            if rest not in self.variables:
                raise StepFailureError(f"ClientError: Execution.{rest} has no value in this step")
            return self.variables[rest]
        step, *path = split_path(rest)
        if step not in self.properties:
            raise StepFailureError(f"ClientError: {reference}: step {step!r} has not finished")
        return walk(self.properties[str(step)], path, reference)

    def _json_get(self, argument: Mapping[str, Any]) -> Any:
        uri = self._property_file_uri(argument) if "PropertyFile" in argument else str(self.resolve(argument["S3Uri"]))
        try:
            document = json.loads(self.read_object(uri))
        except ValueError as error:
            raise StepFailureError(f"ClientError: Std:JsonGet: {uri} is not JSON: {error}") from None
        path = str(self.resolve(argument["Path"]))
        return walk(document, split_path(path), f"Std:JsonGet {path} of {uri}")

    def _property_file_uri(self, argument: Mapping[str, Any]) -> str:
        step_name, file_name = property_file_of(argument["PropertyFile"])
        step = self.definition.steps[step_name]
        source = step.property_files[file_name]
        path = split_path(f"ProcessingOutputConfig.Outputs['{source['OutputName']}'].S3Output.S3Uri")
        prefix = str(walk(self.properties.get(step_name, {}), path, f"property file {file_name} of {step_name}"))
        return f"{prefix.rstrip('/')}/{source['FilePath']}"


def walk(value: Any, path: list[PathElement], reference: str) -> Any:
    """Follow a property path, in quotes to a list's element by its name; StepFailureError names what does not exist."""
    for element in path:
        try:
            value = _element(value, element)
        except (KeyError, IndexError, TypeError, StopIteration):
            raise StepFailureError(f"ClientError: {reference}: there is no {element!r}") from None
    return value


def _element(value: Any, element: PathElement) -> Any:
    if isinstance(value, list) and isinstance(element, Quoted):
        return next(item for item in value if any(item.get(member) == element for member in _NAME_MEMBERS))
    if isinstance(value, list) != isinstance(element, int):
        raise KeyError(element)
    return value[element]


def to_text(value: Any) -> str:
    """Return a value as Std:Join writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (dict, list)):
        raise StepFailureError(f"ClientError: Std:Join: {value!r} is not a text or number")
    return str(value)


def iso_time(time_s: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time_s))
