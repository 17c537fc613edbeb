"""The committed models do what their page says: loaded from the repository, on pictures that no training saw."""

import shutil
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image

from shapes import captions, flow_models, picture_set, train_models, train_vae

MODELS = Path(train_models.__file__).parent / "models"
PHOTO_MODELS = MODELS.with_name("photo_models")
HELDOUT = [caption for caption in captions.every() if captions.is_heldout(caption.text())][::4]


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    return picture_set.load(HELDOUT)


def test_the_figures_on_heldout_pictures_are_good_enough_to_build_on(pixels: torch.Tensor) -> None:
    figures = train_models.measure(MODELS, HELDOUT, pixels)
    assert figures.retrieval_at_1 > 0.95
    assert figures.clip_score_right > 90.0
    assert abs(figures.clip_score_shuffled) < 15.0
    assert figures.psnr_db > 33.0
    assert figures.latent_mean == pytest.approx(0.0, abs=0.1)
    assert figures.latent_std == pytest.approx(1.0, abs=0.1)


def test_the_models_for_pictures_of_ones_own_know_the_shapes_and_restore_photographs_with_20_db(
    pixels: torch.Tensor,
) -> None:
    figures = train_models.measure(PHOTO_MODELS, HELDOUT, pixels)
    assert figures.retrieval_at_1 > 0.98
    assert figures.psnr_db > 33.0
    load: Any = AutoencoderKL.from_pretrained
    vae = load(PHOTO_MODELS / "pretrained/vae", dtype=torch.float32).eval()
    # Of both photographs that are installed anyway; the flower was never trained on.
    for name in ("china.jpg", "flower.jpg"):
        photo = crops(Path(str(files("sklearn.datasets.images") / name)))
        assert train_vae.psnr_db(photo, train_vae.reconstruct(vae, photo)) >= 20.0


def crops(file: Path, count: int = 20) -> torch.Tensor:
    """Return square crops of a photograph, of any size from 96 px on, as the models see them."""
    numbers, cut = np.random.default_rng(1), []
    with Image.open(file) as photo:
        for _ in range(count):
            side = int(numbers.integers(96, min(photo.size) + 1))
            left, top = (int(numbers.integers(0, length - side + 1)) for length in photo.size)
            box = (left, top, left + side, top + side)
            cut.append(np.asarray(photo.resize((64, 64), Image.Resampling.LANCZOS, box=box)))
    return torch.from_numpy(np.stack(cut)).permute(0, 3, 1, 2).contiguous()


def test_restored_shapes_have_the_right_colours(pixels: torch.Tensor) -> None:
    load: Any = AutoencoderKL.from_pretrained
    vae = load(MODELS / "pretrained/vae", dtype=torch.float32).eval()
    restored = train_vae.reconstruct(vae, pixels).float()
    mask = train_vae.shape_mask(picture_set.to_models(pixels))
    for wanted in (mask, 1.0 - mask):
        error = ((restored - pixels.float()) * wanted).sum(dim=(2, 3)) / wanted.sum(dim=(2, 3))
        assert error.abs().mean() < 8.0


def test_the_folder_for_flow_is_made_of_the_same_weights(tmp_path: Path) -> None:
    shutil.copytree(MODELS, tmp_path / "models", ignore=shutil.ignore_patterns("pretrained_flow"))
    written, committed = flow_models.write(tmp_path / "models"), MODELS / "pretrained_flow"
    files = sorted(file.relative_to(committed) for file in committed.rglob("*") if file.is_file())
    assert [file.relative_to(written) for file in sorted(written.rglob("*")) if file.is_file()] == files
    assert all((written / file).read_bytes() == (committed / file).read_bytes() for file in files)
    assert sum((committed / file).lstat().st_size for file in files if not (committed / file).is_symlink()) < 0.4e6


def test_the_models_are_a_few_megabytes() -> None:
    assert sum(file.stat().st_size for file in MODELS.rglob("*") if file.is_file()) < 8e6


def test_the_unets_configuration_is_the_one_that_the_code_builds() -> None:
    built = train_models.build_unet(text_width=64, latent_size=8)
    unets: Any = UNet2DConditionModel
    committed = unets.from_config(unets.load_config(MODELS / "pretrained", subfolder="unet"))
    shapes_of = [{name: weight.shape for name, weight in one.state_dict().items()} for one in (built, committed)]
    assert shapes_of[0] == shapes_of[1]


def test_a_pipeline_with_a_fresh_unet_draws_a_picture() -> None:
    folder = MODELS / "pretrained"
    torch.manual_seed(0)
    unets: Any = UNet2DConditionModel
    untrained = unets.from_config(unets.load_config(folder, subfolder="unet"))
    load: Any = StableDiffusionPipeline.from_pretrained
    pipeline = load(folder, unet=untrained, safety_checker=None, dtype=torch.float32, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    picture = pipeline("a small red circle at the top on a blue background", num_inference_steps=2).images[0]
    assert picture.size == (64, 64)
