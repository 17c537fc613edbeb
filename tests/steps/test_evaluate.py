"""The evaluate program, from a model archive to metrics.json."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
from PIL import Image
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.multimodal.clip_score import CLIPScore
from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

from params.layout import (
    CLIP_SCORE,
    CLIP_SCORE_BELOW_APPROVED,
    CLIP_SCORE_BELOW_PRETRAINED,
    CLIP_SCORE_REAL,
    CLIP_SCORE_UNTRAINED,
    FID,
    FID_ABOVE_APPROVED,
    FID_ABOVE_PRETRAINED,
    FID_REAL,
    FID_UNTRAINED,
    GUIDANCE_CURVE,
)
from steps import evaluate
from steps.__main__ import main
from steps.evaluation.generator import PictureGenerator
from steps.evaluation.reference import Reference
from tests.steps.evaluation.conftest import (  # noqa: F401 (fixtures)
    CAPTIONS,
    MakeReference,
    evaluator_dir_fixture,
    job_fixture,
    make_archive_fixture,
    make_reference_fixture,
    one_thread_fixture,
    pipeline_dir_fixture,
    tokenizer_fixture,
)
from tests.steps.evaluation.test_detector import write_detector

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


def test_what_is_judged_otherwise_than_it_is_served_is_said(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--served", "inference_steps=25,guidance_scale=7.5") == 0
    found = metrics(job)
    assert (found["inference_steps"], found["served"]) == (2, ["inference_steps=25", "guidance_scale=7.5"])
    (note,) = (note for note in found["notes"] if "served" in note or "serves" in note)
    assert "it serves with inference_steps=25, guidance_scale=7.5" in note
    assert f"note: {note}" in capsys.readouterr().out


class ClipOfTorchmetrics(torch.nn.Module):
    """A CLIP as torchmetrics' CLIPScore takes model and processor, with Pillow's preprocessing."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._model: Any = CLIPModel.from_pretrained(folder).eval()
        self._tokenizer, self._images = (
            CLIPTokenizer.from_pretrained(folder),
            CLIPImageProcessorPil.from_pretrained(folder),
        )
        self.config = self._model.config

    def processor(self, text: Any = None, images: Any = None, **_: object) -> Any:
        if images is not None:
            return self._images(images=images, return_tensors="pt")
        return self._tokenizer(text, padding=True, truncation=True, return_tensors="pt")

    @torch.no_grad()
    def get_image_features(self, pixel_values: torch.Tensor) -> Any:
        return self._model.get_image_features(pixel_values).pooler_output

    @torch.no_grad()
    def get_text_features(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        return self._model.get_text_features(input_ids, attention_mask).pooler_output


def test_fid_and_clip_score_are_torchmetrics_own_and_the_papers_formula_on_the_same_pictures(
    job: Path, evaluator_dir: Path
) -> None:
    assert run() == 0
    found = metrics(job)["metrics"]
    clip = ClipOfTorchmetrics(evaluator_dir / "clip")

    class Features(torch.nn.Module):
        num_features = 12

        def forward(self, pictures: torch.Tensor) -> torch.Tensor:
            return clip.get_image_features(clip.processor(images=list(pictures))["pixel_values"])

    network, metric = Features(), FrechetInceptionDistance(feature=Features())
    reference = Reference(job / "processing" / "input" / "reference")
    samples = json.loads((output(job) / "samples.json").read_text())
    drawn = np.stack([np.asarray(Image.open(output(job) / sample["file"])) for sample in samples])
    real, generated = (torch.from_numpy(p).permute(0, 3, 1, 2) for p in (reference.read(range(20)), drawn))
    metric.update(real, real=True)
    metric.update(generated, real=False)
    assert found[FID]["value"] == pytest.approx(float(metric.compute()), abs=1e-3)

    first, second = (network(pictures).double().numpy() for pictures in (real, generated))
    root = scipy.linalg.sqrtm(np.cov(first.T) @ np.cov(second.T)).real
    formula = np.square(first.mean(0) - second.mean(0)).sum() + np.trace(np.cov(first.T) + np.cov(second.T) - 2 * root)
    assert found[FID]["value"] == pytest.approx(formula, abs=1e-3)

    parts: Any = (clip, clip.processor)
    score = CLIPScore(lambda: parts)
    score.update(generated, [sample["caption"] for sample in samples])
    assert found[CLIP_SCORE]["value"] == pytest.approx(float(score.compute()) / 100, abs=1e-3)


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


KILLED_AFTER_BATCHES = """
import os, signal, sys
from steps.evaluation.generator import PictureGenerator
draw, drawn = PictureGenerator.draw, []
def dying(self, prompts):
    drawn.append(prompts)
    if len(drawn) > 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return draw(self, prompts)
PictureGenerator.draw = dying
from steps.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


def test_an_evaluation_killed_for_good_is_finished_by_the_next(
    job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = tmp_path / "killed"
    shutil.copytree(job, killed, symlinks=True)
    # How many threads share a sum decides how it is rounded.
    environment = {**os.environ, "SAGEMAKER_BASE_DIR": str(killed), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", KILLED_AFTER_BATCHES, "evaluate", *FLAGS]
    assert subprocess.run(command, env=environment, check=False, capture_output=True).returncode == -signal.SIGKILL
    assert not (output(killed) / "metrics.json").exists()
    assert list(others(killed).rglob("*.png")), "it died between two rows"
    assert run() == 0
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(killed))
    assert run() == 0
    for name in ("metrics.json", "samples.json", "contact_sheet.png"):
        assert (output(killed) / name).read_bytes() == (output(job) / name).read_bytes(), name


def test_the_guidance_curve_is_measured_on_the_first_pictures_of_each_scale(job: Path) -> None:
    assert run() == 0
    found = metrics(job)
    points = found[GUIDANCE_CURVE]
    assert [(point["guidance_scale"], point["pictures"]) for point in points] == [(1.0, 10), (3.0, 10), (5.0, 10)]
    assert len({point[CLIP_SCORE]["value"] for point in points}) == 3
    samples = json.loads((output(job) / "samples.json").read_text())
    own = np.mean([sample["clip_score"] for sample in samples[:10]])
    assert points[1][CLIP_SCORE]["value"] == pytest.approx(max(own, 0.0), abs=1e-5)
    assert found["guidance-1_pictures"] == found["guidance-5_pictures"] == 10
    assert not (others(job) / "guidance-3").exists(), "the judged scale's pictures are there already"


def test_other_models_are_judged_on_the_same_prompts(
    job: Path, pipeline_dir: Path, make_archive: Callable[[Path], Path], tmp_path: Path
) -> None:
    shutil.copytree(pipeline_dir, job / "processing" / "input" / "pretrained")
    make_archive(tmp_path / "registry" / "model.tar.gz")
    approved = ("--approved-model", f"file://{tmp_path}/registry/model.tar.gz")
    # Enough for the CLIP's 12 features.
    pictures = ("--samples", "18", "--comparison-samples", "18")
    assert run("--require-pretrained", "true", *pictures, *approved) == 0
    found = metrics(job)
    # All three are one and the same model, so the difference is none.
    for name in (FID_ABOVE_PRETRAINED, FID_ABOVE_APPROVED, CLIP_SCORE_BELOW_PRETRAINED, CLIP_SCORE_BELOW_APPROVED):
        assert [found["metrics"][name][part] for part in ("low", "value", "high")] == pytest.approx([0, 0, 0], abs=1e-6)
    assert found["metrics"][FID_ABOVE_PRETRAINED]["pictures"] == 18
    assert found["metrics"]["fid_pretrained"]["pictures"] == 18
    assert found["notes"] == ["the approved model is this very one: compared with itself"]
    assert {"model", "pretrained", "approved", "clip", "reference", "captions"} == set(found["digests"])
    assert found["digests"]["approved"] == found["digests"]["model"]


def test_prompt_following_is_counted_on_pictures_of_a_suite_of_its_own(
    job: Path, tokenizer: CLIPTokenizer, failure: Callable[[], str]
) -> None:
    flags = ("--following", "detector", "--following-samples", "12", "--detector-threshold", "0")
    assert run(*flags) == 1
    assert "detector: no config.json" in failure()
    assert not others(job).exists(), "nothing is drawn before the judge is there"
    write_detector(job / "processing" / "input" / "evaluator" / "detector", tokenizer)
    assert run(*flags) == 0
    entries = metrics(job)["metrics"]
    kinds = {kind: entries[f"prompt_following_{kind}"] for kind in ("object", "two_objects", "count", "place")}
    assert {entry["pictures"] for entry in kinds.values()} == {2}
    assert entries["prompt_following"]["pictures"] == len(list((others(job) / "following").glob("*.png"))) == 12
    assert len(entries["prompt_following"]["weights"]) == 64 and entries["prompt_following"]["threshold"] == 0


def test_captions_of_a_file_are_drawn_from_the_seeds_that_it_states(job: Path, tmp_path: Path) -> None:
    rows = [f"{caption},{100 + row}" for row, caption in enumerate([*CAPTIONS[:5], "a dog", "a cat", "a bird", "a"])]
    (tmp_path / "captions.csv").write_text("\n".join(["caption,seed", *rows]))
    assert run("--captions", str(tmp_path / "captions.csv"), "--grid-samples", "0", "--untrained-samples", "0") == 0
    found = metrics(job)
    samples = json.loads((output(job) / "samples.json").read_text())
    assert {f"{sample['caption']},{sample['seed']}" for sample in samples} == set(rows)
    assert (found["samples"], found["real_pictures"], found[GUIDANCE_CURVE]) == (9, 20, [])
    assert found["captions"].endswith("captions.csv")


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
    assert "inception.safetensors: missing; put Inception's weights into the evaluator" in failure()


def test_several_hosts_need_a_place_to_share_pictures(job: Path, failure: Callable[[], str]) -> None:
    (job / "config").mkdir()
    hosts = {"hosts": ["algo-1", "algo-2"], "current_host": "algo-1"}
    (job / "config" / "resourceconfig.json").write_text(json.dumps(hosts))
    assert run() == 1
    assert failure().startswith("2 hosts share pictures through samples_uri")
