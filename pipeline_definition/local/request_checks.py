"""Requests and steps' arguments against SageMaker's own shapes, and against what this machine honours of them.

Reads botocore's service model (names, types, patterns, lengths, counts, words) and honoured.yaml.
"""

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from params.tables import table_beside
from pipeline_definition.jobs.request_shapes import REQUESTS, request_shape
from pipeline_definition.local.errors import DefinitionError, StepFailureError, invalid
from pipeline_definition.local.expressions import GET, function_of

_HONOURED: Mapping[str, Any] = table_beside(__file__, "honoured")


def honoured(table: str) -> Mapping[str, Sequence[str]]:
    """Return a table of honoured.yaml: names by the structure, enumeration or type of step that has them."""
    return {name: words.split() for name, words in _HONOURED[table].items()}


_MEMBERS, _WORDS = honoured("members"), honoured("words")
_NUMBERS = ("integer", "long", "float", "double")
_TYPES: dict[str, Any] = {"structure": dict, "map": dict, "list": list, "string": str, "boolean": bool}
_TYPES |= {name: int if name in ("integer", "long") else (int, float) for name in _NUMBERS}
# Classes of letters as Java writes them, in brackets.
_CLASSES = {r"\p{L}": r"\w", r"\p{N}": r"\d", r"\p{Z}": r"\s", r"\p{M}": "", r"\p{S}": "$+<=>^`|~", "${1,": "{1,"}
_CLASSES |= {r"\p{P}": r"!-/:;?@\[-_{}", r"\p{Alnum}": "a-zA-Z0-9"}


def check_arguments_of(step_type: str, arguments: dict[str, Any], parameters: Mapping[str, str]) -> None:
    """Check a step's arguments before its functions are resolved; DefinitionError names one that is wrong.

    `parameters` are the pipeline's and their types. The step gives the name itself.
    """
    shape = request_shape(REQUESTS[step_type])
    own = {name: item for name, item in shape.members.items() if name.endswith("Name") and name not in arguments}
    for problem in _problems(shape, arguments, "", {**parameters}, frozenset(own)):
        raise DefinitionError(problem)


def check_request(operation: str, request: dict[str, Any]) -> None:
    """Check a resolved request; StepFailureError has all that is wrong with it."""
    if found := [*_problems(request_shape(operation), request, "", {})]:
        raise StepFailureError(f"ClientError: {operation}: {'; '.join(found)}")


def refuse_invalid(operation: str, request: Any) -> None:
    """Raise RefusedRequestError (ValidationException) where a request of the API is not of its operation's shape."""
    if found := [*_problems(request_shape(operation), request, "", {})]:
        raise invalid(f"{len(found)} validation error{'s' * (len(found) > 1)} detected: {'; '.join(found)}")


def _problems(
    shape: Any, value: Any, place: str, parameters: Mapping[str, str], optional: frozenset[str] = frozenset()
) -> Iterator[str]:
    """Yield what is wrong with a value, at any depth; what a function stands for is not known yet, but for its type."""
    if value is None:
        return
    if function_of(value) is not None:
        kind = parameters.get(str(value.get(GET)).removeprefix("Parameters."), "")
        if kind and shape.type_name not in {"Integer": _NUMBERS, "Float": _NUMBERS[2:]}.get(kind, (kind.lower(),)):
            yield f"{place}: the parameter {value[GET]} is of type {kind}, and a {shape.type_name} is needed"
        return
    if not isinstance(value, _TYPES.get(shape.type_name, object)) or (
        isinstance(value, bool) and shape.type_name in _NUMBERS
    ):
        yield f"{place or 'the request'}: expected a {shape.type_name}, got {value!r:.80}"
        return
    yield from (f"{place}: {problem}" for problem in _limits(shape, value))
    dot = f"{place}." if place else ""
    if shape.type_name == "structure":
        for name, item in value.items():
            if name not in shape.members:
                yield f"unknown argument {dot}{name}; known: {', '.join(shape.members)}"
            elif item is not None and name not in _MEMBERS.get(shape.name, shape.members):
                words = ", ".join(re.findall(r": '([^']*)'", str(item))) or str(item)
                yield f"{dot}{name} ({words:.80}) is not supported on this machine"
            else:
                yield from _problems(shape.members[name], item, dot + name, parameters)
        for name in set(shape.required_members) - optional - set(value):
            yield f"Missing required parameter: {dot}{name}"
    elif shape.type_name == "list":
        for index, item in enumerate(value):
            yield from _problems(shape.member, item, f"{place}[{index}]", parameters)
    elif shape.type_name == "map":
        for name, item in value.items():
            yield from _problems(shape.key, name, f"{dot}{name}", parameters)
            yield from _problems(shape.value, item, f"{dot}{name}", parameters)


def _limits(shape: Any, value: Any) -> Iterator[str]:
    least, most = shape.metadata.get("min"), _HONOURED["lengths"].get(shape.name, shape.metadata.get("max"))
    size, what = (value, "value") if isinstance(value, (int, float)) else (len(value), "length")
    if shape.type_name not in ("structure", "blob", "timestamp"):
        if most is not None and size > float(most):
            yield f"Member must have {what} less than or equal to {most}; it is {size}"
        if least is not None and size < float(least):
            yield f"Member must have {what} greater than or equal to {least}; it is {size}"
    words, pattern = _WORDS.get(shape.name) or getattr(shape, "enum", None), shape.metadata.get("pattern")
    # Every type of host is this machine, also one that botocore does not know yet.
    if words and value not in words and not shape.name.endswith("InstanceType"):
        yield f"Value {value!r:.80} is not one of: {', '.join(words)}"
    elif pattern and not _compiled(pattern).fullmatch(value):
        yield f"Value {value!r:.80} failed to satisfy constraint: Member must satisfy regular expression {pattern}"


@functools.cache
def _compiled(pattern: str) -> re.Pattern[str]:
    for java, python in _CLASSES.items():
        pattern = pattern.replace(java, python)
    try:
        return re.compile(pattern)
    except re.error:  # of shapes that no operation here has
        return re.compile(r"[\s\S]*")
