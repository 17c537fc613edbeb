"""The conditions of a ConditionStep."""

import operator
from collections.abc import Callable
from typing import Any

from pipeline_definition.local.errors import DefinitionError, StepFailureError
from pipeline_definition.local.expressions import Accepted, check_arguments

Resolve = Callable[[Any], Any]

COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "Equals": operator.eq,
    "NotEquals": operator.ne,
    "GreaterThan": operator.gt,
    "GreaterThanOrEqualTo": operator.ge,
    "LessThan": operator.lt,
    "LessThanOrEqualTo": operator.le,
}
# The SDK writes the negated condition under "Condition", the former one under "Expression"; "In" likewise.
KEYS: dict[str, Accepted] = {
    **dict.fromkeys(COMPARISONS, (frozenset({"LeftValue", "RightValue"}),)),
    **dict.fromkeys(("In", "NotIn"), (frozenset({"QueryValue", "Values"}), frozenset({"Value", "In"}))),
    "Not": (frozenset({"Condition"}), frozenset({"Expression"})),
    **dict.fromkeys(("And", "Or"), (frozenset({"Conditions"}),)),
}


def check_condition(condition: Any) -> None:
    """Check a condition and those in it; DefinitionError names an unknown type or argument."""
    kind = condition.get("Type") if isinstance(condition, dict) else None
    if kind not in KEYS:
        raise DefinitionError(f"unknown condition {kind!r}; known: {', '.join(KEYS)}")
    check_arguments(f"condition {kind}", {name: condition[name] for name in condition if name != "Type"}, KEYS[kind])
    for inner in _inner(condition):
        check_condition(inner)


def holds(condition: dict[str, Any], resolve: Resolve) -> bool:
    """Evaluate a condition, whose functions `resolve` replaces; StepFailureError: its sides cannot be compared."""
    kind = condition["Type"]
    if kind in COMPARISONS:
        return _compare(kind, resolve(condition["LeftValue"]), resolve(condition["RightValue"]))
    if kind in ("In", "NotIn"):
        value = resolve(condition.get("QueryValue", condition.get("Value")))
        values = resolve(condition.get("Values", condition.get("In")))
        is_in = any(_compare("Equals", value, item) for item in values)
        return is_in is (kind == "In")
    outcomes = (holds(inner, resolve) for inner in _inner(condition))
    if kind == "Not":
        return not next(outcomes)
    return all(outcomes) if kind == "And" else any(outcomes)


def _inner(condition: dict[str, Any]) -> list[Any]:
    if condition["Type"] == "Not":
        return [condition.get("Condition", condition.get("Expression"))]
    return list(condition["Conditions"]) if condition["Type"] in ("And", "Or") else []


def _compare(kind: str, left: Any, right: Any) -> bool:
    same = _family(left) == _family(right)
    if kind in ("Equals", "NotEquals"):
        return (same and left == right) is (kind == "Equals")
    if not same or isinstance(left, bool) or not isinstance(left, (int, float, str)):
        raise StepFailureError(f"ClientError: {kind} cannot compare {left!r} with {right!r}")
    return COMPARISONS[kind](left, right)


def _family(value: Any) -> type:
    if isinstance(value, bool):
        return bool
    return float if isinstance(value, (int, float)) else type(value)
