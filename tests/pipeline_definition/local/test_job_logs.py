from pathlib import Path

import pytest

from pipeline_definition.local.errors import StepFailureError
from pipeline_definition.local.job_logs import LogFile, Metrics, archive_logs, last_lines

LOSS = {"Name": "loss", "Regex": r"(?:^|\s)loss=([0-9.eE+-]+)"}


def test_lines_are_read_once_and_whole(tmp_path: Path) -> None:
    path = tmp_path / "algo-1.log"
    log = LogFile(path, "stream")
    assert log.new_lines() == []
    path.write_bytes("eins\nzw\xc3".encode("latin-1"))
    assert log.new_lines() == ["eins"]
    with path.open("ab") as file:
        file.write(b"\xa4lf\nrest")
    assert log.new_lines() == ["zwälf"]
    assert log.new_lines(final=True) == ["rest"]


def test_the_last_value_of_a_metric_counts() -> None:
    metrics = Metrics([LOSS])
    metrics.read(["loss=3 validation_loss=7", "no loss here", "a loss=2.5e-1", "loss=many"], 10.0)
    assert metrics.as_list() == [{"MetricName": "loss", "Value": 0.25, "Timestamp": 10.0}]


def test_a_pattern_that_is_none_is_named() -> None:
    with pytest.raises(StepFailureError, match="metric 'loss'"):
        Metrics([{"Name": "loss", "Regex": "("}])


def test_the_end_of_a_long_log_is_short(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("\n".join(f"line {number}" for number in range(10_000)) + "\n")
    text = last_lines(path)
    assert text.endswith("line 9999") and len(text.splitlines()) == 20


def test_the_logs_of_earlier_attempts_are_kept(tmp_path: Path) -> None:
    for text in ("first", "second"):
        archive_logs(tmp_path / "Train")
        (tmp_path / "Train" / "algo-1.log").write_text(text)
    archive_logs(tmp_path / "Train")
    assert (tmp_path / "Train" / "attempt-1" / "algo-1.log").read_text() == "first"
    assert (tmp_path / "Train" / "attempt-2" / "algo-1.log").read_text() == "second"
