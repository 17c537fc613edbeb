"""What AWS's own shapes refuse: counts, sizes and texts above the most that a request takes.

Reads a definition, the parameters of one start, and botocore's service model; writes nothing, needs no network.
SageMaker looks at a step's request when the step begins: the 101st host of Encode would fail after Download's hours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from botocore.model import ListShape, MapShape, Shape, StructureShape

from pipeline_definition.checks.findings import Finding
from pipeline_definition.jobs.planned import Values, all_steps, parameter_of
from pipeline_definition.jobs.request_shapes import REQUESTS, request_shape


def limit_findings(definition: Mapping[str, Any], values: Values) -> Iterator[Finding]:
    """Check every value of every step's request that is known before the run against the most that the API takes."""
    for step in all_steps(definition["Steps"]):
        operation = REQUESTS.get(step["Type"])
        if operation:
            for place, value, most in _excesses(step["Arguments"], request_shape(operation), values, ""):
                yield _finding(f"{step['Name']}.{place}", value, most, operation, values)


def _excesses(value: Any, shape: Shape, values: Values, place: str) -> Iterator[tuple[str, Any, int]]:
    """Yield (place, value as the definition has it, most) for what is above its shape's limit."""
    if isinstance(shape, StructureShape) and isinstance(value, Mapping):
        for name, member in shape.members.items():
            if name in value:
                yield from _excesses(value[name], member, values, f"{place}.{name}".lstrip("."))
        return
    most = shape.metadata.get("max")
    if isinstance(shape, ListShape) and isinstance(value, list):
        if most is not None and len(value) > most:
            yield place, value, int(most)
        for number, item in enumerate(value):
            yield from _excesses(item, shape.member, values, f"{place}[{number}]")
    elif isinstance(shape, MapShape) and isinstance(value, Mapping) and "Get" not in value:
        for key, item in value.items():
            yield from _excesses(item, shape.value, values, f"{place}.{key}")
    elif most is not None and (size := _size(values.resolved(value), shape)) is not None and size > most:
        yield place, value, int(most)


def _size(value: Any, shape: Shape) -> float | None:
    """Return what a limit is on: a number itself, a text's length; None for what only the run will know."""
    if value is None or isinstance(value, (Mapping, list)):
        return None
    if shape.type_name == "string":
        return len(str(value))
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _finding(place: str, value: Any, most: int, operation: str, values: Values) -> Finding:
    # The parameter that a value is, or the first that it is joined of.
    parts = value["Std:Join"]["Values"] if isinstance(value, Mapping) and "Std:Join" in value else [value]
    name = next(filter(None, map(parameter_of, parts)), place)
    resolved = value if isinstance(value, list) else values.resolved(value)
    limit = f"{operation} takes at most {most}"
    if isinstance(resolved, list):
        return Finding(name, f"{place} has {len(resolved)} entries", limit)
    if isinstance(resolved, str) and not resolved.replace(".", "", 1).isdigit():
        return Finding(name, f"{place} has {len(resolved)} characters, and {limit}", "choose a shorter one")
    return Finding(
        name, f"{resolved} is above the {most} that {operation} takes as {place}", f"set it to at most {most}"
    )
