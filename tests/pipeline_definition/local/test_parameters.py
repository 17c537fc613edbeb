from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline_definition.local.errors import DefinitionError, RefusedRequestError
from pipeline_definition.local.parameters import Parameter, resolve_parameters

COUNT = Parameter.parse({"Name": "InstanceCount", "Type": "Integer", "DefaultValue": 2})
RATE = Parameter.parse({"Name": "Rate", "Type": "Float", "DefaultValue": 1})
STATUS = Parameter.parse({"Name": "Status", "Type": "String", "DefaultValue": "A", "EnumValues": ["A", "B"]})
FLAG = Parameter.parse({"Name": "Flag", "Type": "Boolean"})


def refused(*given_values: tuple[str, Any]) -> str:
    with pytest.raises(RefusedRequestError) as caught:
        resolve_parameters([COUNT, RATE, STATUS, FLAG], [{"Name": n, "Value": v} for n, v in given_values])
    assert caught.value.code == "ValidationException"
    return caught.value.message


def test_defaults_are_taken_in_the_parameters_type() -> None:
    values = resolve_parameters([COUNT, RATE, STATUS], [])
    assert values == {"InstanceCount": 2, "Rate": 1.0, "Status": "A"}
    assert isinstance(values["Rate"], float)


@given(st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.booleans())
def test_values_that_travel_as_texts_come_back_as_they_were(count: int, rate: float, flag: bool) -> None:
    texts = [("InstanceCount", str(count)), ("Rate", repr(rate)), ("Flag", str(flag).lower())]
    values = resolve_parameters([COUNT, RATE, FLAG], [{"Name": n, "Value": v} for n, v in texts])
    assert values == {"InstanceCount": count, "Rate": rate, "Flag": flag}


def test_an_unknown_name_is_refused_with_the_nearest_one() -> None:
    assert refused(("InstanceCont", "1")) == "Unknown parameter 'InstanceCont'; did you mean InstanceCount?"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("InstanceCount", "two", "Parameter 'InstanceCount': expected Integer, got 'two'"),
        ("InstanceCount", "1.5", "Parameter 'InstanceCount': expected Integer, got '1.5'"),
        ("Rate", "nan", "Parameter 'Rate': expected Float, got 'nan'"),
        ("Flag", "yes", "Parameter 'Flag': expected Boolean, got 'yes'"),
        ("Status", "C", "Parameter 'Status': expected one of A, B, got 'C'"),
    ],
)
def test_a_value_of_a_wrong_type_is_refused(name: str, value: str, message: str) -> None:
    assert refused((name, value)) == message


def test_a_missing_and_a_repeated_value_are_refused() -> None:
    assert refused() == "Parameter 'Flag' has no default and was given no value"
    assert refused(("Flag", "true"), ("Flag", "true")) == "Parameter 'Flag' is given twice"


@pytest.mark.parametrize(
    "source",
    [{"Name": "X", "Type": "Number"}, {"Name": "X", "Type": "Integer", "DefaultValue": "a"}, {"Name": "X"}],
)
def test_a_bad_parameter_in_a_definition_is_named(source: dict[str, Any]) -> None:
    with pytest.raises(DefinitionError, match="parameter 'X'"):
        Parameter.parse(source)


def test_an_empty_value_and_a_number_that_only_python_reads_are_refused() -> None:
    for name, kind, value in (("X", "String", ""), ("X", "Integer", "1_000")):
        with pytest.raises(RefusedRequestError, match="'X'"):
            resolve_parameters([Parameter(name, kind, None)], [{"Name": name, "Value": value}])
