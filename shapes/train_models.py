"""Trains everything small that a local run starts from, and lays it out as the pipeline expects.

    python -m shapes train-models --out shapes/models [--clip-steps N] [--vae-steps N ...] [--seed 0]
    python -m shapes train-models --out shapes/photo_models --photographs

Reads nothing for the shapes: the data draw themselves. The models for pictures of one's own read shapes/words.txt and
the sample photographs of scikit-image and scikit-learn as well (`pip install scikit-image` first). Writes, beside OUT
and renamed at the end,

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

from shapes import captions, photos, picture_set, pictures, train_clip, train_vae
from shapes import tokenizer as tokenizers
from shapes.captions import Caption
from shapes.photos import Photos
from shapes.train_vae import LATENT_CHANNELS

# Steps of CLIP, and of the VAE's cycles, the second from where the first ended.
SHAPES_STEPS: Final[tuple[int, tuple[int, ...]]] = (1200, (895, 2600))
PHOTOS_STEPS: Final[tuple[int, tuple[int, ...]]] = (2200, (2000, 5000))
PHOTO_CROPS: Final = 200
HELDOUT_CROPS: Final = 50
TEXTURES: Final = 2000
CLIP_FOLDER: Final = "evaluator/clip"
PRETRAINED_FOLDER: Final = "pretrained"
# Of held-out drawings, of other crops of the photographs that were trained on, and of photographs that were not.
PSNRS: Final = ("psnr_db", "photo_psnr_db", "unseen_photo_psnr_db")


@dataclass(frozen=True)
class Recipe:
    """How long to train."""

    clip_steps: int
    vae_cycles: tuple[int, ...]
    seed: int
    photographs: bool
    """For photographs and any caption, or for the shapes alone."""


@dataclass(frozen=True)
class TrainingFigures(Recipe):
    """What was spent and what came out, on captions and pictures that no training saw."""

    clip_cpu_s: float
    vae_cpu_s: float
    clip_bytes: int
    vae_bytes: int
    retrieval_at_1: float
    clip_score_right: float
    clip_score_shuffled: float
    psnr_db: float
    scaling_factor: float
    latent_mean: float
    latent_std: float
    photo_psnr_db: float | None = None
    unseen_photo_psnr_db: float | None = None


def recipe(
    clip_steps: int | None = None, vae_cycles: Sequence[int] | None = None, seed: int = 0, photographs: bool = False
) -> Recipe:
    """Return the recipe, shortened where a number of steps is given; ValueError for fewer than one."""
    usual = PHOTOS_STEPS if photographs else SHAPES_STEPS
    clip = usual[0] if clip_steps is None else clip_steps
    vae = usual[1] if vae_cycles is None else tuple(vae_cycles)
    if min(clip, *vae) < 1:
        raise ValueError(f"clip-steps {clip}, vae-steps {' '.join(map(str, vae))}: all must be at least 1")
    return Recipe(clip, vae, seed, photographs)


def train(out: Path, **flags: Any) -> TrainingFigures:
    """Train both models by `recipe`, write OUT whole or not at all, and return the measured figures."""
    chosen, grid = recipe(**flags), captions.every()
    seen, heldout = captions.divided(grid)
    seen_pixels, heldout_pixels = picture_set.load(seen), picture_set.load(heldout)
    words = [caption.text() for caption in grid]
    crops, pixels, width = Photos(seen_pixels[:0], []), seen_pixels, train_vae.SHAPES_WIDTH
    tokenizer = tokenizers.train(words)
    if chosen.photographs:
        tokenizer = tokenizers.train([*words, tokenizers.WORDS.read_text()], tokenizers.MAX_PHOTO_TOKENS)
        crops, width = photos.load(photos.SUBJECTS, PHOTO_CROPS, chosen.seed), train_vae.PHOTOS_WIDTH
        pixels = torch.cat([seen_pixels, crops.pixels, photos.textures(TEXTURES, chosen.seed)])
    started_s = time.process_time()
    clip = train_clip.train(tokenizer, seen, seen_pixels, crops, chosen.clip_steps, chosen.seed)
    clip_done_s = time.process_time()
    vae = train_vae.train(pixels, chosen.vae_cycles, width, chosen.seed)
    spent = {"clip_cpu_s": clip_done_s - started_s, "vae_cpu_s": time.process_time() - clip_done_s}
    draft = out.with_name(f"{out.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    write(draft, tokenizer, clip, vae)
    figures = measure(draft, heldout, heldout_pixels, {**vars(chosen), **spent})
    (draft / "README.md").write_text(readme(figures))
    shutil.rmtree(out, ignore_errors=True)
    draft.rename(out)
    return figures


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


def measure(folder: Path, heldout: list[Caption], pixels: Tensor, spent: dict[str, Any]) -> TrainingFigures:
    """Return what the models in a folder do on held-out captions and their pictures, as loaded from their files."""
    vae = AutoencoderKL.from_pretrained(folder / PRETRAINED_FOLDER / "vae").eval()
    clip = CLIPModel.from_pretrained(folder / CLIP_FOLDER, dtype=torch.float32).eval()
    tokenizer = CLIPTokenizer.from_pretrained(folder / CLIP_FOLDER)
    grid = captions.every()
    images, texts = train_clip.features(clip, tokenizer, [caption.text() for caption in heldout], pixels)
    _, all_texts = train_clip.features(clip, tokenizer, [caption.text() for caption in grid], pixels[:1])
    sets = (photos.SUBJECTS, photos.HELDOUT) if spent["photographs"] else ()
    crops = [photos.load(subjects, HELDOUT_CROPS, seed=1).pixels for subjects in sets]
    psnrs_db = [train_vae.psnr_db(some, train_vae.reconstruct(vae, some)) for some in (pixels, *crops)]
    named: dict[str, Any] = dict(zip(PSNRS, psnrs_db, strict=False))
    best = [grid[row] for row in (images @ all_texts.T).argmax(dim=1).tolist()]
    latents = train_vae.latents(vae, pixels)
    shuffled = torch.randperm(len(heldout), generator=torch.Generator().manual_seed(0))
    return TrainingFigures(
        **spent,
        clip_bytes=_weights_bytes(folder / CLIP_FOLDER),
        vae_bytes=_weights_bytes(folder / PRETRAINED_FOLDER / "vae"),
        retrieval_at_1=sum(map(operator.eq, best, heldout)) / len(heldout),
        clip_score_right=100.0 * float((images * texts).sum(dim=1).mean()),
        clip_score_shuffled=100.0 * float((images * texts[shuffled]).sum(dim=1).mean()),
        **named,
        scaling_factor=vae.config["scaling_factor"],
        latent_mean=float(latents.mean()),
        latent_std=float(latents.std()),
    )


def _weights_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def readme(figures: TrainingFigures) -> str:
    """Return the page in Markdown."""
    f = figures
    title, folder, tokens, psnr = "The small models of the local run", "models", "word of the captions", ""
    if f.photographs:
        title, folder = "The small models for pictures of one's own", "photo_models --photographs"
        tokens = "of some 500 common English words (`shapes/words.txt`)"
        psnr = f", of photographs {f.photo_psnr_db:.1f} dB, of photographs never seen {f.unseen_photo_psnr_db:.1f} dB"
    flags = f"{folder} --clip-steps {f.clip_steps} --vae-steps {' '.join(map(str, f.vae_cycles))} --seed {f.seed}"
    cycles = " + ".join(f"{steps:,}" for steps in f.vae_cycles)
    page = Path(__file__).with_name("models_readme.md").read_text()
    sizes = {"clip_mb": f.clip_bytes / 1e6, "vae_mb": f.vae_bytes / 1e6}
    return page.format(f=f, title=title, flags=flags, tokens=tokens, psnr=psnr, cycles=cycles, **sizes)
