from collections.abc import Iterator
from pathlib import Path

import pytest

from steps.data import storage as storage_module
from steps.data.loading.latents import LatentsDataset
from steps.data.loading.loader import LatentsLoader, Share
from steps.data.storage import Storage
from tests.steps.data import s3_server
from tests.steps.data.latents_folders import write_latents

PREFIX = f"s3://{s3_server.BUCKET}/latents"


@pytest.fixture(scope="module")
def s3() -> Iterator[s3_server.S3]:
    with s3_server.serving() as server:
        yield server


@pytest.fixture(scope="module")
def folder(s3: s3_server.S3, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of latents that lie in S3, too."""
    written = write_latents(tmp_path_factory.mktemp("latents"))
    for path in written.iterdir():
        Storage(PREFIX).write(path.name, path.read_bytes())
    return written


def ids(location: Path | str) -> list[list[int]]:
    dataset = LatentsDataset(location)
    loader = LatentsLoader(dataset.blocks("train"), dataset.order("train", 1, 12), Share(1, 2, 12, 120), threads=3)
    return [loaded.token_ids[:, 0].tolist() for loaded in loader]


def test_training_reads_the_same_from_s3_as_from_a_folder(s3: s3_server.S3, folder: Path) -> None:
    assert ids(PREFIX) == ids(folder)


def test_a_busy_s3_costs_no_sample(s3: s3_server.S3, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage_module, "BACK_OFF_S", 0.01)

    def busy(method: str, path: str) -> str:
        return "SlowDown" if method == "GET" and "train-00001" in path else ""

    s3.faults.append(busy)
    assert ids(PREFIX) == ids(folder)
    assert not s3.faults
