"""The launcher reports the error that came first and has no other as its cause."""

import json
from pathlib import Path

import pytest
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from steps.errors import StepError
from steps.training.ranks import LostRankError, first_error, record_error


def environment(folder: Path, rank: int) -> dict[str, str]:
    path = folder / "attempt" / str(rank) / "error.json"
    path.parent.mkdir(parents=True)
    return {"RANK": str(rank), "TORCHELASTIC_ERROR_FILE": str(path)}


def test_a_lost_rank_is_a_consequence(tmp_path: Path) -> None:
    record_error(LostRankError("connection closed"), environment(tmp_path, 0))
    record_error(StepError("out of\n memory"), environment(tmp_path, 1))
    record_error(ValueError("later"), environment(tmp_path, 2))
    found = first_error(tmp_path)
    assert found is not None
    assert (found.rank, found.message) == (1, "out of memory")


def test_without_errors_or_with_files_of_others_there_is_none(tmp_path: Path) -> None:
    assert first_error(tmp_path) is None
    (tmp_path / "error.json").write_text(json.dumps({"message": {"message": "torch's own"}}))
    assert first_error(tmp_path) is None


def test_torchrun_can_read_the_file(tmp_path: Path) -> None:
    variables = environment(tmp_path, 3)
    record_error("hung", variables)
    failure = ProcessFailure(local_rank=3, pid=1, exitcode=1, error_file=variables["TORCHELASTIC_ERROR_FILE"])
    assert failure.message == "hung"


def test_it_is_printed_too(capsys: pytest.CaptureFixture[str]) -> None:
    record_error(ValueError("bad"), {"RANK": "2"})
    assert capsys.readouterr().err == "rank 2: ValueError: bad\n"
