"""Warming: every shard is asked for, in batches that Lustre takes; what cannot be fetched stops nothing."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from steps.container import Cluster
from steps.data.loading import lustre
from steps.data.loading.lustre import warm, warm_in_background
from tests.steps.data.latents_folders import write_latents

# Writes down what it is asked; the first time that it is asked how things stand, they are not done yet.
LFS = """#!/bin/sh
echo "$@" >> "$LOG"
case $1 in
    hsm_restore) exit "${REFUSED:-0}" ;;
    hsm_action)
        shift
        if [ -e "$LOG.asked" ]; then state=NOOP; else state='RESTORE running'; touch "$LOG.asked"; fi
        for file; do echo "$file: $state"; done ;;
esac
"""


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{number:02}.tar" for number in range(5)]
    for path in paths:
        path.write_bytes(b"shard")
    return paths


@pytest.fixture
def lfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Lustre client; return the file in which it writes down what it is asked."""
    program, log = tmp_path / "bin" / "lfs", tmp_path / "log"
    program.parent.mkdir()
    program.write_text(LFS, encoding="utf-8")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("LOG", str(log))
    return log


def asked(log: Path, word: str) -> list[int]:
    """Return how many files each call was about."""
    lines = [line.split() for line in log.read_text(encoding="utf-8").splitlines()]
    return [len(line) - 1 for line in lines if line[0] == word]


def test_without_a_lustre_client_every_file_is_read(
    files: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    read: list[Path] = []
    real = lustre._read_a_byte
    monkeypatch.setattr(lustre, "_read_a_byte", lambda path: bool(read.append(path)) or real(path))
    monkeypatch.setattr(lustre, "BATCH_FILES", 2)
    assert list(warm(files)) == [2, 4, 5]
    assert sorted(read) == files


def test_a_lustre_client_is_asked_in_batches_and_waited_for(
    files: list[Path], lfs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lustre, "BATCH_FILES", 2)
    assert list(warm(files, poll_s=0)) == [2, 4, 5]
    assert asked(lfs, "hsm_restore") == [2, 2, 1]
    assert asked(lfs, "hsm_action") == [2, 2, 2, 1]


def test_a_mount_that_refuses_is_read_instead(files: list[Path], lfs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFUSED", "1")
    monkeypatch.setattr(lustre, "BATCH_FILES", 2)
    assert list(warm(files, poll_s=0)) == [2, 4, 5]
    assert asked(lfs, "hsm_restore") == [2]


def test_a_file_that_is_not_there_is_not_counted_and_stops_nothing(
    files: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    files[1].unlink()
    assert list(warm(files)) == [4]


def test_hosts_share_the_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_latents(tmp_path)
    monkeypatch.setattr(lustre.shutil, "which", lambda name: None)
    read: list[str] = []
    monkeypatch.setattr(lustre, "_read_a_byte", lambda path: bool(read.append(path.name)) or True)
    for host in ("algo-1", "algo-2"):
        warm_in_background(tmp_path, Cluster(("algo-1", "algo-2"), host, "algo-1", 7777, 6379)).join(30)
    shards = sorted(path.name for path in tmp_path.glob("*.tar"))
    assert len(shards) >= 3
    assert sorted(read) == shards
    assert "shards fetched" in capsys.readouterr().out


def test_a_folder_without_a_manifest_costs_speed_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    warm_in_background(tmp_path, Cluster(("algo-1",), "algo-1", "algo-1", 7777, 6379)).join(30)
    assert "warning: warming stopped" in capsys.readouterr().out
