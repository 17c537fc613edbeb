import os
import shutil
import threading
from pathlib import Path

import pytest

from pipeline_definition.local.state_lock import StateInUseError, StateLock, announced, state_id


def test_a_second_one_is_refused_and_told_who_has_it(tmp_path: Path) -> None:
    first = StateLock(tmp_path)
    with pytest.raises(StateInUseError, match=f"pid {os.getpid()}"):
        StateLock(tmp_path)
    first.close()
    StateLock(tmp_path).close()


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
    lock.close()


def test_a_state_folder_keeps_its_identity(tmp_path: Path) -> None:
    assert state_id(tmp_path / "a") == state_id(tmp_path / "a") != state_id(tmp_path / "b")


def test_a_copy_of_a_state_folder_has_no_control_plane(tmp_path: Path) -> None:
    lock = StateLock(tmp_path / "one")
    lock.announce("http://127.0.0.1:1", tmp_path / "runs")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    assert announced(tmp_path / "one") is not None and announced(tmp_path / "two") is None
    lock.close()


def test_the_next_control_plane_waits_for_one_that_is_ending(tmp_path: Path) -> None:
    ending = StateLock(tmp_path)
    ending.announce("http://127.0.0.1:1", tmp_path / "runs")
    with pytest.raises(StateInUseError, match=str(os.getpid())):
        StateLock(tmp_path)
    ending.withdraw()
    assert announced(tmp_path) is None
    taken: list[StateLock] = []
    waiting = threading.Thread(target=lambda: taken.append(StateLock(tmp_path)), daemon=True)
    waiting.start()
    waiting.join(0.2)
    assert not taken
    ending.close()
    waiting.join(5)
    assert (tmp_path / "lock").read_text() == str(os.getpid())
    taken[0].close()


def test_an_empty_identity_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "id").write_text("")
    assert len(state_id(tmp_path)) == 32 and state_id(tmp_path) == state_id(tmp_path)
