import os
from pathlib import Path

import pytest

from pipeline_definition.local.state_lock import StateInUseError, StateLock, announced, state_id


def test_a_second_one_is_refused_and_told_who_has_it(tmp_path: Path) -> None:
    first = StateLock(tmp_path)
    with pytest.raises(StateInUseError, match=f"pid {os.getpid()}"):
        StateLock(tmp_path)
    first.release()
    StateLock(tmp_path).release()


def test_a_lock_that_a_dead_process_left_is_none(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("99999999")
    lock = StateLock(tmp_path)
    lock.announce("http://127.0.0.1:1", tmp_path / "runs")
    assert announced(tmp_path) == {
        "url": "http://127.0.0.1:1",
        "pid": os.getpid(),
        "state": str(tmp_path.resolve()),
        "runs": str((tmp_path / "runs").resolve()),
        "backend": "process",
    }
    lock.withdraw()
    assert announced(tmp_path) is None
    lock.release()


def test_a_state_folder_keeps_its_identity(tmp_path: Path) -> None:
    assert state_id(tmp_path / "a") == state_id(tmp_path / "a") != state_id(tmp_path / "b")
