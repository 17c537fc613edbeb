"""The values of pipeline parameters: typed as the definition says, complete, and with no unknown name."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline_definition.local.errors import DefinitionError, invalid

Value = str | int | float | bool


@dataclass(frozen=True)
class Parameter:
    """One parameter of a definition."""

    name: str
    type: str
    default: Value | None
    choices: tuple[Value, ...] = ()

    @classmethod
    def parse(cls, source: Mapping[str, Any]) -> Parameter:
        """Read `{"Name": ..., "Type": ..., "DefaultValue": ..., "EnumValues": [...]}`.

        Raises DefinitionError that names the parameter.
        """
        name, kind = str(source.get("Name")), str(source.get("Type"))
        unknown = set(source) - {"Name", "Type", "DefaultValue", "EnumValues", "Description"}
        if kind not in CONVERTERS or unknown:
            problem = f"unknown type {kind!r}" if kind not in CONVERTERS else f"unknown keys {sorted(unknown)}"
            raise DefinitionError(f"parameter {name!r}: {problem}")
        parameter = cls(name, kind, None, tuple(source.get("EnumValues", ())))
        if source.get("DefaultValue") is None:
            return parameter
        try:
            return cls(name, kind, parameter.convert(source["DefaultValue"]), parameter.choices)
        except ValueError as error:
            raise DefinitionError(f"parameter {name!r}: default value: {error}") from None

    def convert(self, value: object) -> Value:
        """Return a given value in the parameter's type.

        Raises ValueError that says what was expected.
        """
        try:
            converted = CONVERTERS[self.type](value)
        except (ValueError, TypeError):
            raise ValueError(f"expected {self.type}, got {value!r}") from None
        if self.choices and converted not in self.choices:
            raise ValueError(f"expected one of {', '.join(map(str, self.choices))}, got {value!r}")
        return converted


def resolve_parameters(parameters: Iterable[Parameter], given: Iterable[Mapping[str, Any]]) -> dict[str, Value]:
    """Return every parameter's value for an execution: what StartPipelineExecution was given, else the default.

    Raises RefusedRequestError (ValidationException) that names the parameter: unknown (with the nearest name), twice,
    of a wrong type, or without a value.
    """
    known = {parameter.name: parameter for parameter in parameters}
    values = {parameter.name: parameter.default for parameter in known.values() if parameter.default is not None}
    seen: set[str] = set()
    for item in given:
        name = str(item.get("Name"))
        if name not in known:
            raise invalid(f"Unknown parameter {name!r}{nearest(name, known)}")
        if name in seen:
            raise invalid(f"Parameter {name!r} is given twice")
        seen.add(name)
        values[name] = _converted(known[name], item.get("Value"))
    missing = [name for name in known if name not in values]
    if missing:
        raise invalid(f"Parameter {missing[0]!r} has no default and was given no value")
    return values


def nearest(name: str, names: Iterable[str]) -> str:
    """Return `; did you mean 'X'?`, or all the names where none is near."""
    names = list(names)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(names) or 'none'}"


def _converted(parameter: Parameter, value: object) -> Value:
    try:
        return parameter.convert(value)
    except ValueError as error:
        raise invalid(f"Parameter {parameter.name!r}: {error}") from None


def _integer(value: Any) -> int:
    if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
        raise ValueError
    return int(value)


def _float(value: Any) -> float:
    if isinstance(value, bool):
        raise ValueError
    number = float(value)
    if number != number or number in (float("inf"), float("-inf")):
        raise ValueError
    return number


def _boolean(value: Any) -> bool:
    texts = {"true": True, "false": False}
    return value if isinstance(value, bool) else texts[str(value).lower()] if str(value).lower() in texts else _bad()


def _bad() -> bool:
    raise ValueError


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError
    return value


CONVERTERS: dict[str, Callable[[Any], Value]] = {
    "Integer": _integer,
    "Float": _float,
    "Boolean": _boolean,
    "String": _string,
}
