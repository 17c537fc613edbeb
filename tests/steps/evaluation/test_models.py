"""An evaluation finds the models that it compares, and says what is missing before anything is drawn."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from params.programs import EvaluateArguments
from steps.container import Container
from steps.errors import StepError
from steps.evaluation.models import check_models, digests, find_models, remove_models


@pytest.fixture(name="container")
def container_fixture(job: Path) -> Container:
    return Container({"SAGEMAKER_BASE_DIR": str(job)})


def arguments(**changes: Any) -> EvaluateArguments:
    return EvaluateArguments().model_copy(update=changes)


@pytest.fixture(name="pretrained")
def pretrained_fixture(job: Path, pipeline_dir: Path) -> Path:
    folder = job / "processing" / "input" / "pretrained"
    shutil.copytree(pipeline_dir, folder)
    return folder


def test_the_trained_model_is_always_there_and_is_removed_again(container: Container) -> None:
    models = find_models(container, arguments())
    assert set(models) == {"trained"}
    assert (models["trained"].folder / "model_index.json").is_file()
    assert digests(models) == {"model": models["trained"].digest}
    remove_models(container)
    assert not models["trained"].folder.exists()


def test_a_pretrained_folder_with_a_unets_weights_is_the_generic_model(container: Container, pretrained: Path) -> None:
    assert find_models(container, arguments())["pretrained"].folder == pretrained
    assert "pretrained" not in find_models(container, arguments(comparison_samples=0))
    check_models(container, arguments(require_pretrained=True))
    remove_models(container)
    assert pretrained.is_dir(), "an input is left as it is"


def test_a_gate_that_needs_the_generic_model_refuses_a_folder_without_it(
    container: Container, pretrained: Path
) -> None:
    for weights in (pretrained / "unet").glob("*.safetensors"):
        weights.unlink()
    check_models(container, arguments())
    assert "pretrained" not in find_models(container, arguments())
    with pytest.raises(
        StepError, match=r"pretrained: no model_index\.json with a denoiser's weights.*max_fid_above_pret"
    ):
        check_models(container, arguments(require_pretrained=True))


def test_the_approved_model_is_fetched_from_its_address(
    container: Container, make_archive: Callable[[Path], Path], tmp_path: Path
) -> None:
    make_archive(tmp_path / "registry" / "model.tar.gz")
    models = find_models(container, arguments(approved_model=f"file://{tmp_path}/registry/model.tar.gz"))
    assert models["approved"].digest == models["trained"].digest
    assert models["approved"].folder != models["trained"].folder


def test_an_approved_model_that_is_not_there_is_named(container: Container, tmp_path: Path) -> None:
    with pytest.raises(StepError, match=r"approved_model: .*/none/model\.tar\.gz cannot be read"):
        find_models(container, arguments(approved_model=f"file://{tmp_path}/none/model.tar.gz"))
