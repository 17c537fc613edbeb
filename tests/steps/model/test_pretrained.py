"""Parts are loaded from safetensors alone, and what is missing is named."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from steps.errors import StepError
from steps.model import pretrained as parts
from steps.model.families import load_pipeline
from steps.model.families.unet import UNet
from tests.steps.training.tiny_model import CAPTION_LENGTH, LATENT_SHAPE, write_pretrained

UNET = UNet()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pretrained(tmp_path_factory.mktemp("pretrained"))


def test_every_part_loads_in_the_dtype_that_was_asked_for(folder: Path) -> None:
    for load in (parts.load_vae, parts.load_text_encoder, UNET.load):
        assert load(folder, torch.float64).dtype == torch.float64, load
    tokens = parts.load_tokenizer(folder)("a", padding="max_length", max_length=CAPTION_LENGTH).input_ids
    assert len(tokens) == CAPTION_LENGTH


def test_encoders_are_frozen(folder: Path) -> None:
    for encoder in (parts.load_vae(folder, torch.float32), parts.load_text_encoder(folder, torch.float32)):
        assert not encoder.training
        assert not any(parameter.requires_grad for parameter in encoder.parameters())


def test_the_seed_decides_a_new_unet_and_nothing_else_does(folder: Path) -> None:
    torch.manual_seed(1)
    first = UNET.new(folder, seed=5).state_dict()
    after_first = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(after_first, torch.rand(1)), "the caller's random numbers stay as they were"
    again, other = UNET.new(folder, seed=5).state_dict(), UNET.new(folder, seed=6).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_a_new_unet_takes_no_weights_from_the_folder(folder: Path, tmp_path: Path) -> None:
    only_config = tmp_path / "pretrained"
    (only_config / "unet").mkdir(parents=True)
    shutil.copy(folder / "unet" / "config.json", only_config / "unet")
    assert UNET.new(only_config, 0).config.in_channels == LATENT_SHAPE[0]
    with pytest.raises(StepError, match="unet: cannot be loaded"):
        UNET.load(only_config, torch.float32)


def test_pickled_weights_are_not_loaded(folder: Path, tmp_path: Path) -> None:
    pickled = tmp_path / "pretrained"
    shutil.copytree(folder, pickled)
    state = parts.load_vae(folder, torch.float32).state_dict()
    (pickled / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    torch.save(state, pickled / "vae" / "diffusion_pytorch_model.bin")
    with pytest.raises(StepError, match="vae: cannot be loaded"):
        parts.load_vae(pickled, torch.float32)


@pytest.mark.parametrize("part", ["vae", "text_encoder", "unet"])
def test_a_missing_part_is_named(folder: Path, tmp_path: Path, part: str) -> None:
    without = tmp_path / "pretrained"
    shutil.copytree(folder, without)
    shutil.rmtree(without / part)
    with pytest.raises(StepError, match=f"pretrained/{part}: no config.json"):
        {"unet": UNET.load}.get(part, getattr(parts, f"load_{part}", None))(without, torch.float32)


@pytest.mark.parametrize("saved_as", ["PNDMScheduler", "DDIMScheduler"])
def test_the_noise_schedule_is_the_same_whichever_sampler_it_was_saved_as(
    folder: Path, tmp_path: Path, saved_as: str
) -> None:
    config = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "scheduler" / "scheduler_config.json").write_text(json.dumps(config | {"_class_name": saved_as}))
    expected = parts.load_noise_scheduler(folder).alphas_cumprod
    assert torch.equal(parts.load_noise_scheduler(tmp_path).alphas_cumprod, expected)
    zero = parts.load_noise_scheduler(folder, rescale_betas_zero_snr=True).alphas_cumprod
    assert zero[-1] < 1e-6 < expected[-1]


@pytest.mark.parametrize("name", ["ddim", "dpm++", "euler"])
def test_samplers_keep_the_noise_schedule_and_what_is_predicted(folder: Path, name: str) -> None:
    scheduler = parts.sampler(name, parts.scheduler_config(folder) | {"prediction_type": "v_prediction"})
    assert scheduler.config.prediction_type == "v_prediction"
    assert torch.allclose(scheduler.alphas_cumprod, parts.load_noise_scheduler(folder).alphas_cumprod)
    assert not scheduler.config.get("clip_sample", False)


def test_an_unknown_sampler_is_named(folder: Path) -> None:
    with pytest.raises(StepError, match=r"'plms' is none of ddim, dpm\+\+, euler"):
        parts.sampler("plms", {})


def test_a_pipeline_draws_from_a_folder(folder: Path) -> None:
    pipeline = load_pipeline(folder, torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    pictures = pipeline(["a b"], num_inference_steps=2, height=8, width=8, output_type="np").images
    assert pictures.shape == (1, 8, 8, 3)
    assert pipeline.safety_checker is None


def test_the_digest_sees_every_name_and_byte(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_bytes(b"1")
    (tmp_path / "a" / "y").write_bytes(b"2")
    digests = {parts.folder_digest(tmp_path)}
    shutil.copytree(tmp_path / "a", tmp_path.with_name("elsewhere") / "a")
    assert parts.folder_digest(tmp_path.with_name("elsewhere")) in digests, "not where it lies"
    (tmp_path / "a" / "y").write_bytes(b"3")
    digests.add(parts.folder_digest(tmp_path))
    (tmp_path / "a" / "y").rename(tmp_path / "a" / "z")
    digests.add(parts.folder_digest(tmp_path))
    assert len(digests) == 3
    with pytest.raises(StepError, match="no such folder"):
        parts.folder_digest(tmp_path / "nowhere")
