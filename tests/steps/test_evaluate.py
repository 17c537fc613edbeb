"""The evaluate program, from a model archive to metrics.json."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchmetrics.image.fid import FrechetInceptionDistance

from params.layout import CLIP_SCORE, CLIP_SCORE_REAL, CLIP_SCORE_UNTRAINED, FID, FID_REAL, FID_UNTRAINED
from steps import evaluate
from steps.__main__ import main
from steps.evaluation.clip_scorer import ClipEvaluator
from steps.evaluation.generator import PictureGenerator
from steps.evaluation.reference import Reference
from tests.steps.evaluation.conftest import (  # noqa: F401 (fixtures)
    CAPTIONS,
    MakeReference,
    evaluator_dir_fixture,
    job_fixture,
    make_archive_fixture,
    make_reference_fixture,
    pipeline_dir_fixture,
    tokenizer_fixture,
)

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

FLAGS = [
    *("--samples", "16", "--untrained-samples", "12", "--batch-size", "4", "--contact-sheet-samples", "6"),
    *("--inference-steps", "2", "--sampler", "dpm++", "--guidance-scale", "3"),
    *("--guidance-grid", "1,3,5", "--grid-samples", "10", "--comparison-samples", "12"),
    *("--precision", "float32", "--fid-features", "clip"),
]
"""A flag given again wins."""


def run(*flags: str) -> int:
    return main(["evaluate", *FLAGS, *flags])


def output(job: Path) -> Path:
    return job / "processing" / "output" / "evaluation"


def others(job: Path) -> Path:
    return job / "processing" / "pictures"


def metrics(job: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((output(job) / "metrics.json").read_text())
    return content


@pytest.fixture
def failure(job: Path) -> Callable[[], str]:
    (job / "output").mkdir()
    return lambda: (job / "output" / "failure").read_text()


def test_an_evaluation_leaves_metrics_samples_and_a_contact_sheet(job: Path) -> None:
    assert run() == 0
    found = metrics(job)
    assert {FID, FID_UNTRAINED, FID_REAL, CLIP_SCORE, CLIP_SCORE_UNTRAINED, CLIP_SCORE_REAL, "kid"} <= set(
        found["metrics"]
    )
    for entry in found["metrics"].values():
        assert np.isfinite(entry["value"])
        assert entry["low"] <= entry["value"] <= entry["high"]
    assert -1 <= found["metrics"][CLIP_SCORE]["value"] <= 1
    assert found["metrics"][FID] | {"pictures": 16, "real_pictures": 20, "features": "clip"} == found["metrics"][FID]
    assert found["metrics"][FID_UNTRAINED]["pictures"] == 12
    assert (found["samples"], found["guidance_scale"]) == (16, 3.0)
    assert found["notes"] == ["compared with itself in place of an approved model: no model is approved yet"]
    assert found["versions"]["torch"] == torch.__version__
    assert {len(digest) for digest in found["digests"].values()} == {64}
    # The registry reads these two, whether or not the model says them.
    assert {"code_digest", "images_per_s"} <= set(found["model"])
    samples = json.loads((output(job) / "samples.json").read_text())
    assert len(samples) == len(list((output(job) / "samples").glob("*.png"))) == 16
    for sample in samples:
        assert sample["caption"] in CAPTIONS
        assert (output(job) / sample["file"]).is_file()
    with Image.open(output(job) / "contact_sheet.png") as sheet:
        assert sheet.width > 1000
    assert not (job / "processing" / "models").exists(), "the unpacked model is removed"


def test_fid_is_torchmetrics_own_on_the_same_pictures(job: Path, evaluator_dir: Path) -> None:
    assert run() == 0
    evaluator = ClipEvaluator(evaluator_dir / "clip", torch.device("cpu"))

    class Features(torch.nn.Module):
        num_features = 12

        def forward(self, pictures: torch.Tensor) -> torch.Tensor:
            return evaluator.get_image_features(evaluator.processor(images=list(pictures))["pixel_values"])

    metric = FrechetInceptionDistance(feature=Features())
    reference = Reference(job / "processing" / "input" / "reference")
    paths = sorted((output(job) / "samples").glob("*.png"))
    for pictures, real in (
        (reference.read(range(20)), True),
        (np.stack([np.asarray(Image.open(p)) for p in paths]), False),
    ):
        metric.update(torch.from_numpy(pictures).permute(0, 3, 1, 2), real=real)
    assert metrics(job)["metrics"][FID]["value"] == pytest.approx(float(metric.compute()), abs=1e-3)


def test_a_killed_evaluation_goes_on_and_writes_the_same_bytes(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run() == 0
    unbroken = (output(job) / "metrics.json").read_bytes()
    pictures = [sorted(folder.rglob("*.png")) for folder in (output(job) / "samples", others(job))]
    for path in [*output(job).glob("*.*"), *pictures[0][5:], *pictures[1][7:]]:
        path.unlink()
    draw, drawn = PictureGenerator.draw, []

    def counting(self: PictureGenerator, prompts: Any) -> Any:
        drawn.extend(prompts)
        return draw(self, prompts)

    monkeypatch.setattr(PictureGenerator, "draw", counting)
    assert run() == 0
    assert (output(job) / "metrics.json").read_bytes() == unbroken
    assert 0 < len(drawn) < 16 + 12 + 2 * 10


def test_fewer_captions_than_samples_are_used_and_said(job: Path) -> None:
    assert run("--samples", "500", "--untrained-samples", "0") == 0
    found = metrics(job)
    assert (found["samples"], found["requested_samples"]) == (20, 500)
    assert found["notes"][0] == "500 samples were asked for, but there are only 20 held-out captions"
    assert FID_UNTRAINED not in found["metrics"]


def test_too_few_captions_are_refused(
    job: Path,
    make_reference: MakeReference,
    failure: Callable[[], str],
) -> None:
    make_reference(job / "processing" / "input" / "reference", count=5)
    assert run() == 1
    assert failure().startswith("reference: 5 held-out captions, at least 8 are needed")


@pytest.mark.parametrize(
    ("lost", "reason"),
    [
        ("model/model.tar.gz", "no model archive"),
        ("reference/manifest.json", "evaluate needs the held-out pictures"),
        ("evaluator", "no CLIP model"),
    ],
)
def test_a_missing_input_is_named_before_anything_is_drawn(
    job: Path, failure: Callable[[], str], monkeypatch: pytest.MonkeyPatch, lost: str, reason: str
) -> None:
    (job / "processing" / "input" / lost).unlink()
    monkeypatch.setattr(evaluate, "generate", lambda *_: pytest.fail("pictures were drawn"))
    assert run() == 1
    assert lost.partition("/")[0] in failure()
    assert reason in failure()


def test_inception_without_its_weights_is_refused(job: Path, failure: Callable[[], str]) -> None:
    assert run("--fid-features", "inception") == 1
    assert "inception.safetensors: not there; put Inception's weights into the evaluator" in failure()


def test_several_hosts_need_a_place_to_share_pictures(job: Path, failure: Callable[[], str]) -> None:
    (job / "config").mkdir()
    hosts = {"hosts": ["algo-1", "algo-2"], "current_host": "algo-1"}
    (job / "config" / "resourceconfig.json").write_text(json.dumps(hosts))
    assert run() == 1
    assert failure().startswith("2 hosts share pictures through samples_uri")
