"""The tiny pipeline over pictures of three shapes that keep them: each batch is of one shape, evaluation of squares."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.end_to_end.conftest import TINY, LocalPipeline

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1200)]

BUCKETED = {
    "download": {"resize_mode": "keep_ratio"},
    "encode": {"max_bucket_ratio": 2.0, "bucket_step_px": 16, "min_bucket_samples": 32},
    "local": {"max_aspect_ratio": 1.5},
}


@pytest.fixture(scope="module")
def bucketed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPipeline]:
    folder = tmp_path_factory.mktemp("bucketed")
    settings = yaml.safe_load(TINY.read_text())
    for part, values in BUCKETED.items():
        settings[part].update(values)
    params = folder / "buckets.yaml"
    params.write_text(yaml.safe_dump(settings))
    local = LocalPipeline(folder / "state", folder / "runs", params)
    yield local
    local.down()


def test_pictures_of_three_shapes_go_from_their_addresses_to_an_endpoint(bucketed: LocalPipeline) -> None:
    done = bucketed.run(timeout_s=1000)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    manifest = json.loads(_only(bucketed.state, "latents/shapes/*/manifest.json").read_text())
    assert [bucket["size_px"] for bucket in manifest["buckets"]] == [[80, 48], [64, 64], [48, 80]]
    assert all(min(bucket["counts"].values()) > 0 for bucket in manifest["buckets"])
    log = bucketed.training_log("latest")
    assert log[-1]["seen_samples"] == 1280
    summary = bucketed.summary()
    assert {name: step["status"] for name, step in summary["steps"].items()}["Endpoint"] == "Succeeded"


def _only(state: Path, pattern: str) -> Path:
    (found,) = (state / "s3" / "sd-pipeline-tiny").glob(pattern)
    return found
