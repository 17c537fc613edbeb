"""The models that are compared, also eight times narrower for a CPU, with random weights; and what they train on.

Stable Diffusion 2, and 3 Medium with its two CLIPs: T5, which is optional, is left out. Writes a folder as diffusers
saves it, with a VAE, text encoders, tokenizers, a scheduler and the denoiser's config.json; and, of what is trained on,
<folder>/pictures/*.jpg with metadata.jsonl, and <folder>/latents/ as Encode leaves them.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import transformers
from diffusers import AutoencoderKL, DDPMScheduler, FlowMatchEulerDiscreteScheduler
from PIL import Image
from transformers import CLIPTextConfig, CLIPTokenizer

from benchmarks.harness import SMALL_MODEL
from params.families import INDEX_FILE, SCHEDULER, SD3, TEXT_ENCODER, UNET, VAE, Family
from params.files import write_json
from params.layout import MANIFEST_FILE
from shapes import captions, pictures
from steps.data.encoding.patch_features import PatchFeatures
from steps.model.digest import encoder_digests
from steps.model.families import denoiser_of
from steps.model.pretrained import empty_model, load_vae
from steps.model.token_lengths import token_lengths
from steps.training.random_latents import write_rows

# A word-level tokenizer: what the words are does not matter, each caption is padded to the same length.
TOKENIZER: Final = SMALL_MODEL / "tokenizer"
# Width, layers and heads of each family's text encoders: OpenCLIP's ViT-H/14 without its last layer; CLIP-L and CLIP-G.
TEXT_ENCODERS: Final = {
    UNET.pipeline: {TEXT_ENCODER: (1024, 23, 16)},
    SD3.pipeline: {TEXT_ENCODER: (768, 12, 12), "text_encoder_2": (1280, 32, 20)},
}
# What tells stable-diffusion-3-medium's vae/config.json from stable-diffusion-2-base's, without its lack of two 1 x 1s.
SD3_VAE: Final[dict[str, Any]] = {"latent_channels": 16, "scaling_factor": 1.5305, "shift_factor": 0.0609}
METADATA_FILE: Final = "metadata.jsonl"
JPEG_QUALITY: Final = 95
ENCODED_AT_ONCE: Final = 4
FEATURES_SIDE: Final = 4


@dataclass(frozen=True)
class Scale:
    """One size of a model; the depth is always the published one."""

    name: str
    width: int
    """Narrower by this factor, in all its parts."""
    vocabulary: int
    """Entries of the text encoders' tables."""
    family: Family = UNET

    def write(self, folder: Path) -> Path:
        torch.manual_seed(0)
        tokenizer = CLIPTokenizer.from_pretrained(TOKENIZER, model_max_length=77)
        sizes = TEXT_ENCODERS[self.family.pipeline]
        for part, read_by in self.family.text.items():
            if read_by in sizes:
                tokenizer.save_pretrained(folder / part)
                self._text_encoder(tokenizer, read_by, *sizes[read_by]).save_pretrained(folder / read_by)
        self._vae().save_pretrained(folder / VAE, safe_serialization=True)
        empty_model(self.family.network, self._denoiser()).save_config(folder / self.family.denoiser)
        scheduler: Any = FlowMatchEulerDiscreteScheduler(shift=3.0)
        if self.family is UNET:
            scheduler = DDPMScheduler(
                beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1
            )
        scheduler.save_pretrained(folder / SCHEDULER)
        lacking = [part for part in self.family.optional if not (folder / part).is_dir()]
        write_json(folder / INDEX_FILE, self.family.index(type(scheduler).__name__, lacking))
        return folder

    def _denoiser(self) -> dict[str, Any]:
        """The published config.json where the width is 1: 865,910,724 and 2,028,328,000 parameters."""
        if self.family is SD3:
            return {
                "num_layers": 24,
                "num_attention_heads": 24,
                "attention_head_dim": 64 // self.width,
                "caption_projection_dim": 1536 // self.width,
                "joint_attention_dim": 4096 // self.width,
                "pooled_projection_dim": 2048 // self.width,
                "pos_embed_max_size": 192,
            }
        return {
            "sample_size": 64,
            "block_out_channels": [channels // self.width for channels in (320, 640, 1280, 1280)],
            # diffusers' name for the number of heads: 64 channels each, or 8 where narrower.
            "attention_head_dim": [5, 10, 20, 20],
            "cross_attention_dim": 1024 // self.width,
            "norm_num_groups": 32 // self.width,
            "use_linear_projection": True,
        }

    def _vae(self) -> Any:
        """The published vae/config.json where the width is 1."""
        return AutoencoderKL(
            block_out_channels=tuple(channels // self.width for channels in (128, 256, 512, 512)),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
            norm_num_groups=32 // self.width,
            **(SD3_VAE if self.family is SD3 else {}),
        )

    def _text_encoder(self, tokenizer: Any, part: str, width: int, layers: int, heads: int) -> Any:
        config = CLIPTextConfig(
            vocab_size=self.vocabulary,
            hidden_size=width // self.width,
            intermediate_size=4 * width // self.width,
            projection_dim=width // self.width,
            num_hidden_layers=layers,
            num_attention_heads=max(1, heads // self.width),
            hidden_act="gelu",
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        return getattr(transformers, self.family.classes[part][1])(config)


SCALES: Final = {
    "unet": {"cuda": Scale("sd2", 1, 49_408), "cpu": Scale("sd2-narrow", 8, 1024)},
    "sd3": {"cuda": Scale("sd3-medium", 1, 49_408, SD3), "cpu": Scale("sd3-medium-narrow", 8, 1024, SD3)},
}


def write_pictures(folder: Path, resolution_px: int, count: int) -> Path:
    """Write pictures of the local world, stored at the training resolution, as Download stores them."""
    grid = captions.every()
    return draw_captions(folder, resolution_px, [grid[index * 17 % len(grid)] for index in range(count)])


def draw_captions(folder: Path, resolution_px: int, chosen: Sequence[captions.Caption]) -> Path:
    """Write the pictures of these captions."""
    folder.mkdir(parents=True)
    lines = []
    for index, caption in enumerate(chosen):
        picture = Image.fromarray(pictures.draw(caption, resolution_px))
        picture.save(folder / f"{index:05d}.jpg", quality=JPEG_QUALITY)
        lines.append(json.dumps({"file_name": f"{index:05d}.jpg", "text": caption.text()}))
    (folder / METADATA_FILE).write_text("\n".join(lines))
    return folder


def read_captions(folder: Path) -> list[str]:
    """Return the captions of the pictures in a folder, in the order of their names."""
    return [json.loads(line)["text"] for line in (folder / METADATA_FILE).read_text().splitlines()]


@torch.no_grad()
def write_latents(
    folder: Path, source: Path, pretrained: Path, device: torch.device, vision: Path | None = None
) -> Path:
    """Encode pictures as the loader reads them, held out as well, with a vision model's features where named."""
    denoiser = denoiser_of(pretrained)
    reader = denoiser.reader(pretrained, sum(token_lengths(pretrained, denoiser.family).values()), None)
    vae = load_vae(pretrained, torch.float32).to(device)
    paths = sorted(source.glob("*.jpg"))
    posteriors = [vae.encode(batch.to(device)).latent_dist for batch in _batches(paths)]
    rows = {
        "mean": torch.cat([one.mean for one in posteriors]).half().cpu().numpy(),
        "std": torch.cat([one.std for one in posteriors]).half().cpu().numpy(),
        "token_ids": reader.tokens(read_captions(source)).numpy(),
    }
    if vision is not None:
        features = PatchFeatures(vision, FEATURES_SIDE, device)
        rows["features"] = np.concatenate([features.of(batch.to(device)).numpy() for batch in _batches(paths)])
    scaling, shift = float(vae.config.scaling_factor), float(vae.config.shift_factor or 0.0)
    write_rows(folder, rows, 8 * rows["mean"].shape[-1], scaling, shift)
    return folder


def sign(folder: Path, pretrained: Path) -> None:
    """Write into latents' manifest by which models they were made, as Encode does: training compares."""
    file = folder / MANIFEST_FILE
    digests = encoder_digests(pretrained, denoiser_of(pretrained).family)
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | digests), encoding="utf-8")


def _batches(paths: list[Path]) -> Iterator[torch.Tensor]:
    for first in range(0, len(paths), ENCODED_AT_ONCE):
        pixels = np.stack([np.asarray(Image.open(path)) for path in paths[first : first + ENCODED_AT_ONCE]])
        yield torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1.0
