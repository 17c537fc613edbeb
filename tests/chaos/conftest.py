"""The tiny pipeline of tests/end_to_end, run unbroken once; what breaks runs beside it, on the same pictures."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.chaos.outcome import Outcome
from tests.end_to_end.conftest import TINY, LocalPipeline

KILLS = int(os.environ.get("CHAOS_KILLS", "50"))
LONG_HAUL_MINUTES = float(os.environ.get("LONG_HAUL_MINUTES", "60"))
SEED = int(os.environ.get("CHAOS_SEED", "0"))


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPipeline]:
    folder = tmp_path_factory.mktemp("chaos")
    local = LocalPipeline(folder / "state", folder / "runs")
    yield local
    local.down()


@pytest.fixture(scope="session")
def unbroken(pipeline: LocalPipeline) -> Outcome:
    """What a run leaves that nothing disturbs."""
    return run_unbroken(pipeline)


@pytest.fixture
def bucketed(tmp_path: Path) -> Iterator[LocalPipeline]:
    """The same pipeline over pictures of three shapes, which keep them: every batch is of one shape."""
    settings = yaml.safe_load(TINY.read_text())
    settings["download"]["resize_mode"] = "keep_ratio"
    settings["encode"] |= {"max_bucket_ratio": 2.0, "bucket_step_px": 16, "min_bucket_samples": 32}
    settings["local"]["max_aspect_ratio"] = 1.5
    params = tmp_path / "buckets.yaml"
    params.write_text(yaml.safe_dump(settings))
    local = LocalPipeline(tmp_path / "state", tmp_path / "runs", params)
    yield local
    local.down()


def run_unbroken(pipeline: LocalPipeline) -> Outcome:
    done = pipeline.run(timeout_s=1200)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    return Outcome.of(pipeline, "shapes", run_id(pipeline.runs / "latest"))


def run_id(link: Path) -> str:
    return link.readlink().name
