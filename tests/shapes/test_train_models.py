from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors import safe_open
from transformers import CLIPModel, CLIPProcessor

from shapes import captions, picture_set, train_models


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("models") / "small"
    (out / "left_over").mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        sparse = captions.every()[::10]
        patch.setattr(captions, "every", lambda: sparse)
        train_models.train(out, clip_steps=2, vae_cycles=(1, 2))
    return out


def test_the_folder_is_replaced_as_a_whole(models: Path) -> None:
    assert sorted(file.name for file in models.iterdir()) == ["README.md", "evaluator", "pretrained"]
    assert [file.name for file in models.parent.iterdir()] == ["small"]


def test_weights_are_safetensors_in_float16_and_the_unet_has_none(models: Path) -> None:
    weights = sorted(str(file.relative_to(models)) for file in models.rglob("*.safetensors"))
    assert weights == [
        "evaluator/clip/model.safetensors",
        "pretrained/text_encoder/model.safetensors",
        "pretrained/vae/diffusion_pytorch_model.safetensors",
    ]
    assert not [file for file in models.rglob("*") if file.suffix in (".bin", ".pt", ".pth", ".ckpt", ".pkl")]
    for name in weights:
        with safe_open(models / name, "pt") as tensors:
            kinds = {tensors.get_tensor(key).dtype for key in tensors.keys()}  # noqa: SIM118
        assert kinds <= {torch.float16, torch.int64}


def test_the_page_tells_the_command_and_the_figures(models: Path) -> None:
    page = (models / "README.md").read_text()
    assert "--clip-steps 2 --vae-steps 1 2 --seed 0" in page
    assert "dB" in page
    assert "retrieval@1" in page


def test_the_text_encoder_of_the_pipeline_is_the_evaluators(models: Path) -> None:
    load_clip: Any = CLIPModel.from_pretrained
    load: Any = StableDiffusionPipeline.from_pretrained
    clip = load_clip(models / "evaluator/clip", dtype=torch.float32).eval()
    parts = {"safety_checker": None, "unet": None, "dtype": torch.float32}
    pipeline = load(models / "pretrained", **parts)
    ids = pipeline.tokenizer("a ring", padding="max_length", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        states = pipeline.text_encoder(ids).last_hidden_state
        assert torch.equal(states, clip.text_model(ids).last_hidden_state)


def test_the_processor_loads_without_torchvision_and_keeps_pixels(models: Path) -> None:
    processor = CLIPProcessor.from_pretrained(models / "evaluator/clip")
    pixels = picture_set.load(captions.every()[:2])
    values = processor(images=list(pixels), return_tensors="pt")["pixel_values"]
    assert torch.allclose(values, picture_set.to_models(pixels), atol=1e-6)
