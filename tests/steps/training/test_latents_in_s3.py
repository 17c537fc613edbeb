"""Training that reads its latents straight from S3: no channel, the same bits."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.steps.data import s3_server
from tests.steps.training.jobs import Job

URI = f"s3://{s3_server.BUCKET}/latents"
SETTINGS: dict[str, object] = {"training_samples": 16, "save_every_samples": 96, "validate_every_samples": 96}


@pytest.fixture
def s3(latents: Path) -> Iterator[s3_server.S3]:
    with s3_server.serving() as server:
        for path in latents.iterdir():
            server.client.put_object(Bucket=s3_server.BUCKET, Key=f"latents/{path.name}", Body=path.read_bytes())
        yield server


def test_two_ranks_train_from_s3_what_a_folder_gives(
    tmp_path: Path, s3: s3_server.S3, pretrained: Path, latents: Path
) -> None:
    folder = Job(tmp_path / "folder", dict(SETTINGS)).write(pretrained, latents)
    folder.run(ranks=2)
    straight = Job(tmp_path / "s3", {**SETTINGS, "latents_uri": URI}).write(pretrained, latents)
    (straight.base / "input" / "data" / "latents").unlink()
    straight.run(ranks=2)
    expected, found = folder.unet(), straight.unet()
    assert all(np.array_equal(expected[name], found[name]) for name in expected)


def test_a_prefix_without_latents_is_named(tmp_path: Path, s3: s3_server.S3, pretrained: Path, latents: Path) -> None:
    job = Job(tmp_path, {**SETTINGS, "latents_uri": f"{URI}-elsewhere"}).write(pretrained, latents)
    assert job.start().wait() == [1]
    assert f"{URI}-elsewhere/manifest.json: cannot be read" in job.failure
