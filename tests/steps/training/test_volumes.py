"""A checkpoint volume that is full or read-only, as a real mount: training ends at once and says why."""

import time

import pytest

from tests.steps.training import mounts
from tests.steps.training.conftest import MakeJob
from tests.steps.training.jobs import Job

pytestmark = pytest.mark.skipif(not mounts.possible(), reason="this user may not mount in a namespace")

LIMIT_S = 60.0


@pytest.fixture(name="checkpoint_kib", scope="session")
def checkpoint_kib_fixture(tmp_path_factory: pytest.TempPathFactory, pretrained: object, latents: object) -> int:
    job = Job(tmp_path_factory.mktemp("size"), {"training_samples": 24}).write(pretrained, latents)  # type: ignore[arg-type]
    job.run()
    return sum(path.stat().st_size for path in job.checkpoints[0].iterdir()) // 1024


def test_a_volume_that_fills_up_ends_the_training_with_the_reason(make_job: MakeJob, checkpoint_kib: int) -> None:
    job = make_job()
    running = job.start(TEST_HOOK="full_disk", TEST_DISK_KIB=str(checkpoint_kib * 3 // 2))
    began_s = time.monotonic()
    assert running.wait(LIMIT_S) == [1]
    assert "\ncheckpoint " in running.output, "the first one had room"
    assert "the checkpoint could not be written" in job.failure
    assert "No space left on device" in job.failure
    assert not job.model_dir.exists()
    assert time.monotonic() - began_s < LIMIT_S


def test_a_read_only_volume_ends_the_job_before_it_trains(make_job: MakeJob) -> None:
    job = make_job()
    running = job.start(TEST_HOOK="read_only_volume")
    assert running.wait(LIMIT_S) == [1]
    assert "no checkpoint can be written: Read-only file system; the checkpoint volume must be writable" in job.failure
    assert "Traceback" not in running.output
    assert "training_loss=" not in running.output
