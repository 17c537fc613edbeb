"""The values of pipeline parameters: typed as the definition says, complete, and with no unknown name."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from params.arguments import hint_at
from pipeline_definition.local.errors import DefinitionError, invalid

Value = str | int | float | bool
TYPES = ("Integer", "Float", "Boolean", "String")


@dataclass(frozen=True)
class Parameter:
    name: str
    type: str
    default: Value | None
    choices: tuple[Value, ...] = ()

    @classmethod
    def parse(cls, source: Mapping[str, Any]) -> Self:
        """Read a definition's parameter; DefinitionError names it."""
        name, kind, default = str(source.get("Name")), str(source.get("Type")), source.get("DefaultValue")
        unknown = set(source) - {"Name", "Type", "DefaultValue", "EnumValues", "Description"}
        if kind not in TYPES or unknown:
            problem = f"unknown type {kind!r}" if kind not in TYPES else f"unknown keys {sorted(unknown)}"
            raise DefinitionError(f"parameter {name!r}: {problem}")
        parameter = cls(name, kind, None, tuple(source.get("EnumValues", ())))
        try:
            return parameter if default is None else cls(name, kind, parameter.convert(default), parameter.choices)
        except ValueError as error:
            raise DefinitionError(f"parameter {name!r}: default value: {error}") from None

    def convert(self, value: object) -> Value:
        """Return a value, which may be a text, in the parameter's type; ValueError says what was expected."""
        try:
            converted = _converted(self.type, value)
        except (ValueError, TypeError, KeyError):
            raise ValueError(f"expected {self.type}, got {value!r}") from None
        if self.choices and converted not in self.choices:
            raise ValueError(f"expected one of {', '.join(map(str, self.choices))}, got {value!r}")
        return converted


def resolve_parameters(parameters: Iterable[Parameter], given: Iterable[Mapping[str, Any]]) -> dict[str, Value]:
    """Return every parameter's value: what StartPipelineExecution was given, else the default.

    RefusedRequestError names one that is unknown (and the nearest), given twice, of a wrong type, or without a value.
    """
    known = {parameter.name: parameter for parameter in parameters}
    values: dict[str, Value] = {}
    for item in given:
        name = str(item.get("Name"))
        if name not in known:
            raise invalid(f"Unknown parameter {name!r}; {hint_at(name, known)}")
        if name in values:
            raise invalid(f"Parameter {name!r} is given twice")
        if item.get("Value") == "":
            raise invalid(f"Parameter {name!r}: the value is empty")
        try:
            values[name] = known[name].convert(item.get("Value"))
        except ValueError as error:
            raise invalid(f"Parameter {name!r}: {error}") from None
    defaults = {parameter.name: parameter.default for parameter in known.values() if parameter.default is not None}
    values = defaults | values
    missing = [name for name in known if name not in values]
    if missing:
        raise invalid(f"Parameter {missing[0]!r} has no default and was given no value")
    return values


def _converted(kind: str, value: Any) -> Value:
    """Return a value in a type; raise ValueError, TypeError or KeyError for a value of another."""
    if kind == "Boolean":
        return {"true": True, "false": False}[str(value).lower()]
    if kind == "String" and isinstance(value, str):
        return value
    if kind == "Integer" and not isinstance(value, bool) and re.fullmatch(r"[+-]?\d+(\.0)?", str(value).strip()):
        return int(float(value)) if "." in str(value) else int(value)
    if kind == "Float" and not isinstance(value, bool) and math.isfinite(float(value)):
        return float(value)
    raise ValueError(value)
