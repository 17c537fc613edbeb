"""The committed models do what their pages say: loaded from the repository, on pictures that no training saw."""

import operator
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from torch.nn import functional
from transformers import CLIPModel, CLIPTokenizer

import shapes
from shapes import captions
from tests.shapes.stored import load

MODELS = Path(shapes.__file__).parent / "models"
PHOTO_MODELS = MODELS.with_name("photo_models")
HELDOUT = [caption for caption in captions.every() if captions.is_heldout(caption.text())][::4]


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    return load(HELDOUT)


@pytest.mark.parametrize("folder", [MODELS, PHOTO_MODELS], ids=lambda folder: folder.name)
def test_the_clip_tells_heldout_pictures_apart_by_their_captions(folder: Path, pixels: torch.Tensor) -> None:
    clip: Any = CLIPModel.from_pretrained(folder / "evaluator/clip", dtype=torch.float32).eval()
    tokenizer = CLIPTokenizer.from_pretrained(folder / "evaluator/clip")
    grid = captions.every()
    ids = tokenizer([caption.text() for caption in grid], padding="max_length", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        texts = functional.normalize(clip.get_text_features(ids).pooler_output, dim=-1)
        images = functional.normalize(clip.get_image_features(in_range(pixels)).pooler_output, dim=-1)
    scores = images @ texts.T
    best = [grid[row] for row in scores.argmax(dim=1).tolist()]
    assert sum(map(operator.eq, best, HELDOUT)) / len(HELDOUT) > 0.95
    own = scores[torch.arange(len(HELDOUT)), [grid.index(caption) for caption in HELDOUT]]
    assert own.mean() > 0.9
    assert abs(scores.mean()) < 0.15


@pytest.mark.parametrize("folder", [MODELS, PHOTO_MODELS], ids=lambda folder: folder.name)
def test_the_vae_restores_heldout_pictures(folder: Path, pixels: torch.Tensor) -> None:
    assert psnr_db(pixels, restored(folder, pixels)) > 33.0


def test_the_latents_have_about_mean_0_and_standard_deviation_1(pixels: torch.Tensor) -> None:
    vae = vae_of(MODELS)
    with torch.no_grad():
        latents = vae.config.scaling_factor * vae.encode(in_range(pixels)).latent_dist.mode()
    assert float(latents.mean()) == pytest.approx(0.0, abs=0.1)
    assert float(latents.std()) == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("name", ["china.jpg", "flower.jpg"])
def test_the_vae_for_pictures_of_ones_own_restores_photographs_with_20_db(name: str) -> None:
    # Both photographs are installed anyway; the flower was never trained on.
    photo = crops(Path(str(files("sklearn.datasets.images") / name)))
    assert psnr_db(photo, restored(PHOTO_MODELS, photo)) >= 20.0


def test_restored_shapes_have_the_right_colours(pixels: torch.Tensor) -> None:
    after = restored(MODELS, pixels).float()
    background = pixels.flatten(2).median(dim=2).values[:, :, None, None]
    mask = ((pixels.float() - background).abs().amax(dim=1, keepdim=True) > 25).float()
    for wanted in (mask, 1.0 - mask):
        error = ((after - pixels.float()) * wanted).sum(dim=(2, 3)) / wanted.sum(dim=(2, 3))
        assert error.abs().mean() < 8.0


def test_the_folder_for_flow_is_made_of_the_same_weights() -> None:
    weights = {file.resolve() for file in (MODELS / "pretrained_flow/vae").glob("*.safetensors")}
    assert weights == {file.resolve() for file in (MODELS / "pretrained/vae").glob("*.safetensors")}
    own = [file for file in (MODELS / "pretrained_flow").rglob("*") if file.is_file() and not file.is_symlink()]
    assert sum(file.stat().st_size for file in own) < 0.4e6


def test_the_models_are_a_few_megabytes() -> None:
    assert sum(file.stat().st_size for file in MODELS.rglob("*") if file.is_file()) < 8e6


def test_a_pipeline_with_a_fresh_unet_draws_a_picture() -> None:
    folder = MODELS / "pretrained"
    torch.manual_seed(0)
    unets: Any = UNet2DConditionModel
    untrained = unets.from_config(unets.load_config(folder, subfolder="unet"))
    load_pipeline: Any = StableDiffusionPipeline.from_pretrained
    pipeline = load_pipeline(folder, unet=untrained, safety_checker=None, dtype=torch.float32, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    picture = pipeline("a small red circle at the top on a blue background", num_inference_steps=2).images[0]
    assert picture.size == (64, 64)


def vae_of(folder: Path) -> Any:
    load_vae: Any = AutoencoderKL.from_pretrained
    return load_vae(folder / "pretrained/vae", dtype=torch.float32).eval()


@torch.no_grad()
def restored(folder: Path, pixels: torch.Tensor) -> torch.Tensor:
    """Return pictures, uint8, encoded and decoded again."""
    vae = vae_of(folder)
    after = vae.decode(vae.encode(in_range(pixels)).latent_dist.mode()).sample
    return ((after.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def in_range(pixels: torch.Tensor) -> torch.Tensor:
    return pixels.float() / 127.5 - 1.0


def psnr_db(before: torch.Tensor, after: torch.Tensor) -> float:
    squares = (before.float() - after.float()).square().mean(dim=(1, 2, 3)).clamp_min(1e-6)
    return float((10.0 * torch.log10(255.0**2 / squares)).mean())


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
