"""The safety checker: from the model folder, from a prefix, required, or not there at all."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from starlette.testclient import TestClient
from transformers import CLIPConfig, CLIPImageProcessor

from steps.errors import StepError
from steps.serving.pictures import PictureJob
from steps.serving.renderer import PipelineRenderer, load_renderer
from tests.steps.data import s3_server
from tests.steps.serving.conftest import ARGUMENTS, Serve
from tests.steps.serving.test_renderer import never, pixels, shape

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
JOBS = [PictureJob("a", "", 1), PictureJob("a", "", 2)]


def write_checker(folder: Path, threshold: float) -> None:
    """Write a safety checker of random weights that flags what is more similar to its concepts than a threshold."""
    vision = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    text = {**vision, "vocab_size": 8, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    config = CLIPConfig(
        text_config=text, vision_config={**vision, "image_size": 32, "patch_size": 16}, projection_dim=4
    )
    checker = StableDiffusionSafetyChecker(config)
    checker.concept_embeds_weights.data.fill_(threshold)
    checker.special_care_embeds_weights.data.fill_(2.0)
    checker.save_pretrained(folder / "safety_checker", safe_serialization=True)
    size = {"height": 32, "width": 32}
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=size).save_pretrained(folder / "feature_extractor")


def guarded(model_dir: Path, folder: Path, threshold: float) -> Path:
    shutil.copytree(model_dir, folder)
    write_checker(folder, threshold)
    return folder


@pytest.fixture(name="strict", scope="module")
def strict_fixture(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline folder with a safety checker that flags everything."""
    return guarded(model_dir, tmp_path_factory.mktemp("strict") / "model", -2.0)


def with_settings(folder: Path, **changes: object) -> PipelineRenderer:
    return load_renderer(folder, ARGUMENTS.model_copy(update=changes))


def test_what_the_safety_checker_flags_comes_out_black(strict: Path) -> None:
    pictures = load_renderer(strict, ARGUMENTS).render(shape(), JOBS, never)
    assert [picture.flagged for picture in pictures] == [True, True]
    assert all(pixels(picture).max() == 0 for picture in pictures)


def test_what_it_passes_is_drawn_as_without_it(model_dir: Path, renderer: PipelineRenderer, tmp_path: Path) -> None:
    passed = load_renderer(guarded(model_dir, tmp_path / "lax", 2.0), ARGUMENTS).render(shape(), JOBS, never)
    bare = renderer.render(shape(), JOBS, never)
    assert [picture.flagged for picture in passed] == [False, False]
    assert [one.image.tobytes() for one in passed] == [one.image.tobytes() for one in bare]


@pytest.mark.parametrize("changes", [{"safety_checker": False}, {}])
def test_a_picture_that_nothing_checked_is_neither_flagged_nor_unflagged(
    strict: Path, model_dir: Path, changes: dict[str, object]
) -> None:
    unguarded = with_settings(strict if changes else model_dir, **changes)
    (picture,) = unguarded.render(shape(), JOBS[:1], never)
    assert picture.flagged is None
    assert pixels(picture).max() > 0


def test_an_endpoint_that_must_check_does_not_start_without_a_checker(strict: Path, model_dir: Path) -> None:
    with pytest.raises(StepError, match="it has no safety_checker, no feature_extractor"):
        with_settings(model_dir, require_safety_checker=True)
    with pytest.raises(StepError, match="SERVE_SAFETY_CHECKER is false"):
        with_settings(strict, require_safety_checker=True, safety_checker=False)
    assert with_settings(strict, require_safety_checker=True)


def test_a_checker_without_its_feature_extractor_is_not_passed_over(strict: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(strict, tmp_path / "model")
    shutil.rmtree(folder / "feature_extractor")
    with pytest.raises(StepError, match="no feature_extractor"):
        load_renderer(folder, ARGUMENTS)


@pytest.fixture(name="prefix")
def prefix_fixture(strict: Path) -> Iterator[str]:
    with s3_server.serving() as server:
        for part in ("safety_checker", "feature_extractor"):
            for file in (strict / part).iterdir():
                server.client.put_object(Bucket=s3_server.BUCKET, Key=f"v1/{part}/{file.name}", Body=file.read_bytes())
        yield f"s3://{s3_server.BUCKET}/v1"


def test_a_checker_is_fetched_from_a_prefix(model_dir: Path, prefix: str) -> None:
    drawer = with_settings(model_dir, safety_checker_uri=prefix, require_safety_checker=True)
    assert [picture.flagged for picture in drawer.render(shape(), JOBS, never)] == [True, True]
    with pytest.raises(StepError, match="no safety_checker"):
        with_settings(model_dir, safety_checker_uri=f"s3://{s3_server.BUCKET}/v2")


def told(client: TestClient, accept: str) -> str:
    answer = client.post("/invocations", json={"prompt": "a"}, headers={"Accept": accept})
    return answer.headers["X-Amzn-SageMaker-Custom-Attributes"]


@pytest.mark.parametrize("accept", ["image/png", "application/json"])
def test_clients_and_metrics_are_told_what_was_flagged_and_what_nobody_checked(
    serve: Serve, strict: Path, renderer: PipelineRenderer, accept: str
) -> None:
    with serve(lambda: load_renderer(strict, ARGUMENTS)) as (client, _):
        assert "flagged=1;" in told(client, accept)
        assert "serving_flagged_pictures_total 1.0" in client.get("/metrics").text
    with serve(lambda: renderer) as (client, _):
        assert "flagged=unchecked;" in told(client, accept)
        assert "serving_unchecked_pictures_total 1.0" in client.get("/metrics").text
        body = client.post("/invocations", json={"prompt": "a", "num_images": 2}).json()
        assert [picture["flagged"] for picture in body["images"]] == [None, None]
