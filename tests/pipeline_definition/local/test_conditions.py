import operator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline_definition.local.conditions import check_condition, holds
from pipeline_definition.local.errors import StepFailureError

NUMBERS = st.one_of(st.integers(-5, 5), st.floats(-5, 5))
OPERATORS = {
    "Equals": operator.eq,
    "NotEquals": operator.ne,
    "GreaterThan": operator.gt,
    "GreaterThanOrEqualTo": operator.ge,
    "LessThan": operator.lt,
    "LessThanOrEqualTo": operator.le,
}


def same(value: Any) -> Any:
    return value


def comparison(kind: str, left: Any, right: Any) -> dict[str, Any]:
    return {"Type": kind, "LeftValue": left, "RightValue": right}


@given(st.sampled_from(sorted(OPERATORS)), NUMBERS, NUMBERS)
def test_comparisons_are_those_of_numbers(kind: str, left: float, right: float) -> None:
    assert holds(comparison(kind, left, right), same) is OPERATORS[kind](left, right)


@given(st.lists(st.booleans(), min_size=1, max_size=4), st.sampled_from(["Condition", "Expression"]))
def test_not_and_and_or_follow_de_morgan(truths: list[bool], key: str) -> None:
    conditions = [comparison("Equals", truth, True) for truth in truths]
    negated = [{"Type": "Not", key: condition} for condition in conditions]
    both = {"Type": "And", "Conditions": conditions}
    either = {"Type": "Or", "Conditions": negated}
    check_condition(either)
    assert holds(both, same) is all(truths)
    assert holds({"Type": "Not", key: both}, same) is holds(either, same)


@given(NUMBERS, st.lists(NUMBERS, max_size=5))
def test_in_finds_a_value(value: float, values: list[float]) -> None:
    assert holds({"Type": "In", "QueryValue": value, "Values": values}, same) is (value in values)
    assert holds({"Type": "NotIn", "Value": value, "In": values}, same) is (value not in values)


def test_nothing_compares_with_not_a_number() -> None:
    assert not holds(comparison("LessThanOrEqualTo", float("nan"), 90.0), same)


def test_a_text_is_never_equal_to_a_number_nor_a_number_to_a_boolean() -> None:
    assert not holds(comparison("Equals", "1", 1), same)
    assert not holds(comparison("Equals", 1, True), same)


@pytest.mark.parametrize(("left", "right"), [("1", 1), (True, 0), ([1], [2]), (None, 1)])
def test_what_cannot_be_ordered_is_an_error(left: Any, right: Any) -> None:
    with pytest.raises(StepFailureError, match="LessThan cannot compare"):
        holds(comparison("LessThan", left, right), same)
