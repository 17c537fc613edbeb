"""The functions of a pipeline definition: Get, Std:Join and Std:JsonGet.

Checks a value's functions without executing them, finds the steps that it refers to, and splits property paths.
"""

import re
from collections.abc import Iterator
from typing import Any

from pipeline_definition.local.errors import DefinitionError

GET, JOIN, JSON_GET = "Get", "Std:Join", "Std:JsonGet"
Accepted = tuple[frozenset[str], ...]
FUNCTIONS: dict[str, Accepted] = {
    JOIN: (frozenset({"On", "Values"}),),
    JSON_GET: (frozenset({"PropertyFile", "Path"}), frozenset({"S3Uri", "Path"})),
}
EXECUTION_VARIABLES = (
    *("PipelineExecutionId", "PipelineExecutionArn", "PipelineName", "PipelineArn"),
    *("StartDateTime", "CurrentDateTime", "TrainingJobName", "ProcessingJobName"),
)
_PATH = re.compile(r"\['([^']*)'\]|\[\"([^\"]*)\"\]|\[(\d+)\]|\.?([^.\[\]]+)")


class Quoted(str):
    """A path element in brackets and quotes: the name of an element of a list, or a key."""


PathElement = str | int


def split_path(path: str) -> list[PathElement]:
    """Split `Outputs['raw'].S3Output[0]`; an element in quotes is a `Quoted`. DefinitionError for anything else."""
    matches = list(_PATH.finditer(path))
    if "".join(match[0] for match in matches) != path:
        raise DefinitionError(f"path {path!r} is not made of names and brackets")
    elements: list[PathElement] = []
    for single, double, index, name in (match.groups() for match in matches):
        elements.append(int(index) if index else name or Quoted(single if single is not None else double))
    return elements


def function_of(value: Any) -> str | None:
    """Return the function that a value calls; None for a plain value, DefinitionError for an unknown one."""
    if not isinstance(value, dict) or len(value) != 1:
        return None
    (name,) = value
    if name == GET or name in FUNCTIONS:
        return str(name)
    if str(name).startswith("Std:"):
        raise DefinitionError(f"unknown function {name!r}; known: {GET}, {', '.join(FUNCTIONS)}")
    return None


def expressions(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield (function, argument) for each function in a value, at any depth."""
    if isinstance(value, list):
        for item in value:
            yield from expressions(item)
    elif isinstance(value, dict):
        name = function_of(value)
        if name is not None:
            yield name, value[name]
        for item in value.values():
            yield from expressions(item)


def referenced_steps(value: Any) -> set[str]:
    """Return the names of the steps whose outcome a value needs: NAME of each `{"Get": "Steps.NAME..."}`."""
    references = [argument for name, argument in expressions(value) if name == GET and isinstance(argument, str)]
    paths = (reference.removeprefix("Steps.") for reference in references if reference.startswith("Steps."))
    return {str(split_path(path)[0]) for path in paths}


def check_arguments(what: str, given: Any, accepted: Accepted) -> None:
    """Raise DefinitionError unless the names of the arguments are one of the accepted sets."""
    names = set(given) if isinstance(given, dict) else set()
    if names not in accepted:
        known = " or ".join(str(sorted(names)) for names in accepted)
        raise DefinitionError(f"{what}: arguments {sorted(names)} are not {known}")


def check_expressions(value: Any, parameters: set[str]) -> None:
    """Check a value's functions; DefinitionError names an unknown function, argument, parameter or variable."""
    for name, argument in expressions(value):
        if name == GET:
            _check_get(argument, parameters)
            continue
        check_arguments(name, argument, FUNCTIONS[name])
        if name == JOIN and not isinstance(argument["Values"], list):
            raise DefinitionError(f"{name}: Values is a list, not {argument['Values']!r}")


def _check_get(reference: Any, parameters: set[str]) -> None:
    if not isinstance(reference, str):
        raise DefinitionError(f"Get needs a text, not {reference!r}")
    kind, _, rest = reference.partition(".")
    if kind == "Parameters":
        if rest not in parameters:
            raise DefinitionError(f"Get {reference!r}: no parameter {rest!r} is defined")
    elif kind == "Execution":
        if rest not in EXECUTION_VARIABLES:
            raise DefinitionError(f"Get {reference!r}: unknown execution variable; known: {EXECUTION_VARIABLES}")
    elif kind != "Steps" or not rest:
        raise DefinitionError(f"Get {reference!r}: unknown reference; it begins with Parameters., Execution. or Steps.")
    else:
        split_path(rest)
