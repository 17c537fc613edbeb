"""The models that are compared: Stable Diffusion 2, and the same eight times narrower for a CPU. Weights are random.

Writes a folder as diffusers saves it, with vae/, text_encoder/, tokenizer/, scheduler/ and unet/config.json.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from benchmarks.harness import SMALL_MODEL

# A word-level tokenizer: what the words are does not matter, each caption is padded to the same length.
TOKENIZER: Final = SMALL_MODEL / "tokenizer"


@dataclass(frozen=True)
class Scale:
    """One size of Stable Diffusion 2; the depth is always the published one."""

    name: str
    width: int
    """Narrower by this factor, in all three models."""
    vocabulary: int
    """Entries of the text encoder's table."""

    def write(self, folder: Path) -> Path:
        torch.manual_seed(0)
        tokenizer = CLIPTokenizer.from_pretrained(TOKENIZER, model_max_length=77)
        tokenizer.save_pretrained(folder / "tokenizer")
        self._vae().save_pretrained(folder / "vae", safe_serialization=True)
        self._text_encoder(tokenizer).save_pretrained(folder / "text_encoder", safe_serialization=True)
        with torch.device("meta"):
            self._unet().save_config(folder / "unet")
        DDPMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1
        ).save_pretrained(folder / "scheduler")
        return folder

    def _unet(self) -> Any:
        """stable-diffusion-2-base's unet/config.json where the width is 1: 865,910,724 parameters."""
        return UNet2DConditionModel(
            sample_size=64,
            block_out_channels=tuple(channels // self.width for channels in (320, 640, 1280, 1280)),
            # diffusers' name for the number of heads: 64 channels each, or 8 where narrower.
            attention_head_dim=[5, 10, 20, 20],
            cross_attention_dim=1024 // self.width,
            norm_num_groups=32 // self.width,
            use_linear_projection=True,
        )

    def _vae(self) -> Any:
        """stable-diffusion-2-base's vae/config.json where the width is 1."""
        return AutoencoderKL(
            block_out_channels=tuple(channels // self.width for channels in (128, 256, 512, 512)),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
            norm_num_groups=32 // self.width,
        )

    def _text_encoder(self, tokenizer: Any) -> Any:
        """OpenCLIP's ViT-H/14 without its last layer, as stable-diffusion-2-base has it, where the width is 1."""
        config = CLIPTextConfig(
            vocab_size=self.vocabulary,
            hidden_size=1024 // self.width,
            intermediate_size=4096 // self.width,
            projection_dim=1024 // self.width,
            num_hidden_layers=23,
            num_attention_heads=16 // self.width,
            hidden_act="gelu",
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        return CLIPTextModel(config)


SD2: Final = Scale("sd2", width=1, vocabulary=49_408)
SD2_NARROW: Final = Scale("sd2-narrow", width=8, vocabulary=1024)
