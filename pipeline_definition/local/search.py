"""SageMaker's Search over the records of this machine."""

from collections.abc import Callable, Mapping
from typing import Any

from pipeline_definition.jobs.request_shapes import service_model
from pipeline_definition.local.conditions import COMPARISONS
from pipeline_definition.local.errors import invalid
from pipeline_definition.local.records import Record, cut, pick
from pipeline_definition.local.resolver import iso_time

Source = Callable[[], list[Record]]
_OPERATORS = COMPARISONS | {"Contains": lambda value, text: str(text) in str(value)}


def search(sources: Mapping[str, Source], request: Mapping[str, Any]) -> Record:
    """Answer Search over the records of each resource."""
    kind, expression = request["Resource"], request.get("SearchExpression") or {}
    shape: Any = service_model().shape_for(kind)
    filters = expression.get("Filters", ())
    found = [record for record in sources[kind]() if all(_matches(item, record) for item in filters)]
    by = request.get("SortBy", "LastModifiedTime")
    found.sort(key=lambda record: _order(_value(record, by)), reverse=request.get("SortOrder") != "Ascending")
    results, token = cut(request, found)
    total = {"TotalHits": {"Value": len(found), "Relation": "EqualTo"}}
    return {"Results": [{kind: pick(record, shape.members)} for record in results], **total, **token}


def _matches(item: Mapping[str, Any], record: Record) -> bool:
    word, value = item.get("Operator", "Equals"), _value(record, item["Name"])
    if word in ("Exists", "NotExists"):
        return (value is not None) is (word == "Exists")
    if value is None:
        return bool(word == "NotEquals")
    given: Any = item.get("Value", "")
    try:
        if item["Name"].endswith("Time"):  # ISO 8601, as the API takes it
            value = iso_time(value)
        elif isinstance(value, (int, float)) and not isinstance(value, bool) and word != "Contains":
            given = float(given)
        return _OPERATORS[word](value, given)
    except (TypeError, ValueError):
        raise invalid(f"Filter {item['Name']}: {given!r} cannot be compared with {value!r}") from None


def _order(value: Any) -> tuple[bool, Any]:
    is_number = isinstance(value, (int, float))
    return is_number, value if is_number else str(value)


def _value(record: Any, path: str) -> Any:
    for name in path.split("."):
        record = record.get(name) if isinstance(record, dict) else None
    return record
