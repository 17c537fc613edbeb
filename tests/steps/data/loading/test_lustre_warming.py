"""Warming: every shard is asked for, by several hosts; what cannot be fetched stops nothing."""

from pathlib import Path

import pytest

from steps.container import Cluster
from steps.data.loading import lustre
from steps.data.loading.lustre import warm, warm_in_background
from tests.steps.data.latents_folders import write_latents


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{number:02}.tar" for number in range(5)]
    for path in paths:
        path.write_bytes(b"shard")
    return paths


def test_every_file_is_read(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    real = lustre._read_a_byte
    monkeypatch.setattr(lustre, "_read_a_byte", lambda path: bool(read.append(path)) or real(path))
    assert list(warm(files)) == [1, 2, 3, 4, 5]
    assert sorted(read) == files


def test_a_file_that_is_not_there_is_not_counted_and_stops_nothing(files: list[Path]) -> None:
    files[1].unlink()
    assert list(warm(files)) == [1, 1, 2, 3, 4]


def test_hosts_share_the_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_latents(tmp_path)
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
