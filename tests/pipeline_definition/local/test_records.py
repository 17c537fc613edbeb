"""Records outlive the process, also beside files that are damaged or not theirs."""

import logging
from pathlib import Path

import pytest

from pipeline_definition.local.errors import RefusedRequestError
from pipeline_definition.local.records import Records, cut, page


@pytest.mark.parametrize("text", ["", '{"name": "a", "rec', "[]", "null", '{"other": 1}', '{"name": "a", "record": 5}'])
def test_a_damaged_or_foreign_file_is_named_and_set_aside_and_the_others_are_there(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    Records(tmp_path).put("good", {"x": 1})
    (tmp_path / "bad.json").write_text(text)
    with caplog.at_level(logging.WARNING):
        assert Records(tmp_path).all() == [{"x": 1}]
    assert "bad.json is damaged" in caplog.text and (tmp_path / "bad.json.damaged").read_text() == text
    caplog.clear()
    assert Records(tmp_path).all() == [{"x": 1}] and not caplog.text


def test_what_could_not_be_written_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = Records(tmp_path)
    records.put("a", {"x": 1})

    def full(path: Path, value: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pipeline_definition.local.records.write_json", full)
    with pytest.raises(OSError):
        records.put("a", {"x": 2})
    assert records.find("a") == {"x": 1}


def test_a_list_is_filtered_by_time_status_and_name() -> None:
    jobs = [
        {"TrainingJobName": f"job-{n}", "TrainingJobStatus": "Failed" if n == 2 else "Completed", "CreationTime": n}
        for n in range(4)
    ]

    def listed(**request: object) -> list[str]:
        found = page("ListTrainingJobs", request, jobs, "TrainingJobName")["TrainingJobSummaries"]
        return [item["TrainingJobName"] for item in found]

    assert listed() == ["job-3", "job-2", "job-1", "job-0"]
    assert listed(CreationTimeAfter=1, CreationTimeBefore=2) == ["job-2", "job-1"]
    assert listed(StatusEquals="Failed") == listed(NameContains="B-2") == ["job-2"]
    assert listed(SortBy="Status", SortOrder="Ascending")[-1] == "job-2"
    with pytest.raises(RefusedRequestError, match="NextToken"):
        cut({"NextToken": "-1"}, [])
