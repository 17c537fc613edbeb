"""Trains everything small that a local run starts from, and lays it out as the pipeline expects.

    python -m shapes train-models --out shapes/models [--clip-steps N] [--vae-steps N ...] [--seed 0]

Reads nothing: the data draw themselves. Writes, beside OUT and renamed at the end,

    OUT/pretrained/   a StableDiffusionPipeline folder as stable-diffusion-2-base, the UNet as configuration only
    OUT/evaluator/clip/   the whole CLIP, with tokenizer and image processor
    OUT/README.md     how each was made, and the measured figures

Weights are safetensors in float16. Some 1,000 CPU-seconds.
"""

import operator
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPImageProcessorPil, CLIPModel, CLIPProcessor, CLIPTokenizer

from shapes import captions, picture_set, pictures, train_clip, train_vae
from shapes import tokenizer as tokenizers
from shapes.captions import Caption
from shapes.train_vae import LATENT_CHANNELS

CLIP_FOLDER: Final = "evaluator/clip"
PRETRAINED_FOLDER: Final = "pretrained"


@dataclass(frozen=True)
class ModelFigures:
    """What the models do on captions and pictures that no training saw."""

    clip_mb: float
    vae_mb: float
    retrieval_at_1: float
    clip_score_right: float
    clip_score_shuffled: float
    psnr_db: float
    scaling_factor: float
    latent_mean: float
    latent_std: float


def train(out: Path, clip_steps: int, vae_cycles: Sequence[int], seed: int = 0) -> None:
    """Train both models and write OUT whole or not at all; ValueError for fewer than one step."""
    if min(clip_steps, *vae_cycles) < 1:
        raise ValueError(f"clip-steps {clip_steps}, vae-steps {_words(vae_cycles)}: all must be at least 1")
    grid = captions.every()
    seen, heldout = captions.divided(grid)
    pixels, tokenizer = picture_set.load(seen), tokenizers.train([caption.text() for caption in grid])
    started_s = time.process_time()
    clip = train_clip.train(tokenizer, seen, pixels, clip_steps, seed)
    clip_done_s = time.process_time()
    vae = train_vae.train(pixels, vae_cycles, seed)
    draft = out.with_name(f"{out.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    vae_done_s = time.process_time()
    write(draft, tokenizer, clip, vae)
    page = (
        Path(__file__)
        .with_name("models_readme.md")
        .read_text()
        .format(
            clip_steps=clip_steps,
            vae_steps=_words(vae_cycles),
            cycles=" + ".join(f"{steps:,}" for steps in vae_cycles),
            seed=seed,
            clip_cpu_s=clip_done_s - started_s,
            vae_cpu_s=vae_done_s - clip_done_s,
            **vars(measure(draft, heldout, picture_set.load(heldout))),
        )
    )
    (draft / "README.md").write_text(page)
    shutil.rmtree(out, ignore_errors=True)
    draft.rename(out)


def _words(cycles: Sequence[int]) -> str:
    return " ".join(map(str, cycles))


def write(folder: Path, tokenizer: CLIPTokenizer, clip: Any, vae: AutoencoderKL) -> None:
    """Write both folders: float16 safetensors, and the libraries' own configurations."""
    pretrained, evaluator = folder / PRETRAINED_FOLDER, folder / CLIP_FOLDER
    clip.half().save_pretrained(evaluator)
    processor = image_processor()
    CLIPProcessor(image_processor=processor, tokenizer=tokenizer).save_pretrained(evaluator)
    processor.save_pretrained(evaluator)
    tokenizers.save(tokenizer, evaluator)
    clip.text_model.save_pretrained(pretrained / "text_encoder")
    tokenizers.save(tokenizer, pretrained / "tokenizer")
    processor.save_pretrained(pretrained / "feature_extractor")
    vae.half().save_pretrained(pretrained / "vae")
    scheduler().save_pretrained(pretrained / "scheduler")
    latent_size = pictures.MODEL_SIZE_PX // 2 ** (len(vae.config["block_out_channels"]) - 1)
    small_unet = build_unet(clip.config.text_config.hidden_size, latent_size)
    small_unet.save_config(pretrained / "unet")
    # The pipeline itself writes model_index.json, so that it is what the library reads.
    StableDiffusionPipeline(
        vae=vae,
        text_encoder=clip.text_model,
        tokenizer=tokenizer,
        unet=small_unet,
        scheduler=scheduler(),
        safety_checker=None,
        feature_extractor=processor,
        requires_safety_checker=False,
    ).save_config(pretrained)


def build_unet(text_width: int, latent_size: int) -> Any:
    """Return the untrained UNet2DConditionModel for latents (4, latent_size, latent_size); its weights are not kept."""
    return UNet2DConditionModel(
        sample_size=latent_size,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=(64, 128),
        # Attention at 4 x 4 alone: two thirds of the compute, and for the same CPU-seconds a CLIP score of 84, not 75.
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=text_width,
        # In Stable Diffusion 2 too this number is the count of heads.
        attention_head_dim=4,
        norm_num_groups=8,
        use_linear_projection=True,
    )


def scheduler() -> Any:
    """Return the noise schedule of stabilityai/stable-diffusion-2: 1,000 steps, scaled linear, v-prediction."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def image_processor() -> CLIPImageProcessorPil:
    """Return the evaluator's preprocessing: 64 px, -1..1, no crop. Its class needs no torchvision."""
    side = {"height": pictures.MODEL_SIZE_PX, "width": pictures.MODEL_SIZE_PX}
    half = [0.5, 0.5, 0.5]
    return CLIPImageProcessorPil(size=side, crop_size=side, do_center_crop=False, image_mean=half, image_std=half)


def measure(folder: Path, heldout: list[Caption], pixels: Tensor) -> ModelFigures:
    """Return what the models in a folder do on held-out captions and their pictures, as loaded from their files."""
    vae = AutoencoderKL.from_pretrained(folder / PRETRAINED_FOLDER / "vae").eval()
    clip = CLIPModel.from_pretrained(folder / CLIP_FOLDER, dtype=torch.float32).eval()
    tokenizer = CLIPTokenizer.from_pretrained(folder / CLIP_FOLDER)
    grid = captions.every()
    images, texts = train_clip.features(clip, tokenizer, [caption.text() for caption in heldout], pixels)
    _, all_texts = train_clip.features(clip, tokenizer, [caption.text() for caption in grid], pixels[:1])
    best = [grid[row] for row in (images @ all_texts.T).argmax(dim=1).tolist()]
    latents = train_vae.latents(vae, pixels)
    shuffled = torch.randperm(len(heldout), generator=torch.Generator().manual_seed(0))
    return ModelFigures(
        clip_mb=_weights_mb(folder / CLIP_FOLDER),
        vae_mb=_weights_mb(folder / PRETRAINED_FOLDER / "vae"),
        retrieval_at_1=sum(map(operator.eq, best, heldout)) / len(heldout),
        clip_score_right=100.0 * float((images * texts).sum(dim=1).mean()),
        clip_score_shuffled=100.0 * float((images * texts[shuffled]).sum(dim=1).mean()),
        psnr_db=train_vae.psnr_db(pixels, train_vae.reconstruct(vae, pixels)),
        scaling_factor=vae.config["scaling_factor"],
        latent_mean=float(latents.mean()),
        latent_std=float(latents.std()),
    )


def _weights_mb(folder: Path) -> float:
    return sum(file.stat().st_size for file in folder.glob("*.safetensors")) / 1e6
