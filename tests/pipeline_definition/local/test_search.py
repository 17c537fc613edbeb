"""SageMaker's Search over records."""

from typing import Any

import pytest

from pipeline_definition.local.errors import RefusedRequestError
from pipeline_definition.local.search import search

TIMES = ("CreationTime", "LastModifiedTime")
RECORDS: list[dict[str, Any]] = [
    {
        "TrainingJobName": f"job-{n}",
        "CreationTime": 100.0 * n,
        "LastModifiedTime": 100.0 * n,
        "BillableTimeInSeconds": n,
    }
    for n in range(1, 4)
]


def names(*filters: tuple[str, str, str], **more: Any) -> list[str]:
    given = [{"Name": name, "Operator": word, "Value": value} for name, word, value in filters]
    request = {"Resource": "TrainingJob", "SearchExpression": {"Filters": given, **more}, "SortOrder": "Ascending"}
    found = search({"TrainingJob": lambda: RECORDS}, request)
    return [item["TrainingJob"]["TrainingJobName"] for item in found["Results"]]


def test_without_filters_everything_is_found_newest_last() -> None:
    assert names() == ["job-1", "job-2", "job-3"]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ([("TrainingJobName", "Equals", "job-2")], ["job-2"]),
        ([("TrainingJobName", "NotEquals", "job-2")], ["job-1", "job-3"]),
        ([("TrainingJobName", "Contains", "3")], ["job-3"]),
        ([("BillableTimeInSeconds", "GreaterThan", "1")], ["job-2", "job-3"]),
        ([("CreationTime", "LessThanOrEqualTo", "1970-01-01T00:03:20Z")], ["job-1", "job-2"]),
        ([("FailureReason", "Exists", "")], []),
        ([("FailureReason", "NotExists", ""), ("TrainingJobName", "Equals", "job-1")], ["job-1"]),
    ],
)
def test_filters_hold_together(filters: list[tuple[str, str, str]], expected: list[str]) -> None:
    assert names(*filters) == expected


def test_what_cannot_be_compared_is_refused_by_name() -> None:
    with pytest.raises(RefusedRequestError, match="BillableTimeInSeconds: 'many'"):
        names(("BillableTimeInSeconds", "LessThan", "many"))


def test_results_come_in_pages() -> None:
    source = {"TrainingJob": lambda: RECORDS}
    first = search(source, {"Resource": "TrainingJob", "MaxResults": 2})
    rest = search(source, {"Resource": "TrainingJob", "MaxResults": 2, "NextToken": first["NextToken"]})
    assert [len(first["Results"]), len(rest["Results"])] == [2, 1] and "NextToken" not in rest
