"""The configuration that LDM's own programs build a Stable Diffusion model from. Reads nothing, writes nothing.

A1111 takes NAME.yaml next to NAME.safetensors before it guesses; diffusers' from_single_file takes it as
original_config. The keys are those of v2-inference-v.yaml in Stability-AI/stablediffusion.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

LDM: Final = "ldm.modules"
DEFAULT_SCALING: Final = 0.18215


def ldm_config(
    unet: Mapping[str, Any], vae: Mapping[str, Any], schedule: Mapping[str, Any], predicts_v: bool, openclip: bool
) -> dict[str, Any]:
    """Return the configuration of a model, ready for YAML."""
    text = {"freeze": True, "layer": "penultimate"} if openclip else {}
    module = "FrozenOpenCLIPEmbedder" if openclip else "FrozenCLIPEmbedder"
    params = {
        "parameterization": "v" if predicts_v else "eps",
        "linear_start": schedule["beta_start"],
        "linear_end": schedule["beta_end"],
        "timesteps": schedule["num_train_timesteps"],
        "num_timesteps_cond": 1,
        "first_stage_key": "jpg",
        "cond_stage_key": "txt",
        "image_size": unet.get("sample_size") or 64,
        "channels": unet["in_channels"],
        "cond_stage_trainable": False,
        "conditioning_key": "crossattn",
        "scale_factor": vae.get("scaling_factor", DEFAULT_SCALING),
        "use_ema": False,
        "unet_config": _target("diffusionmodules.openaimodel.UNetModel", _unet(unet)),
        "first_stage_config": {"target": "ldm.models.autoencoder.AutoencoderKL", "params": _vae(vae)},
        "cond_stage_config": _target(f"encoders.modules.{module}", text),
    }
    return {"model": {"target": "ldm.models.diffusion.ddpm.LatentDiffusion", "params": params}}


def _target(name: str, params: dict[str, Any]) -> dict[str, Any]:
    return {"target": f"{LDM}.{name}", "params": params}


def _unet(config: Mapping[str, Any]) -> dict[str, Any]:
    channels, heads = config["block_out_channels"], config["attention_head_dim"]
    attends = [2**level for level, kind in enumerate(config["down_block_types"]) if kind.startswith("CrossAttn")]
    # diffusers calls the number of heads attention_head_dim.
    of_heads = {"num_heads": heads} if isinstance(heads, int) else {"num_head_channels": channels[0] // heads[0]}
    return {
        "image_size": 32,
        "in_channels": config["in_channels"],
        "out_channels": config["out_channels"],
        "model_channels": channels[0],
        "attention_resolutions": attends[::-1],
        "num_res_blocks": config["layers_per_block"],
        "channel_mult": [width // channels[0] for width in channels],
        **of_heads,
        "use_spatial_transformer": True,
        "use_linear_in_transformer": bool(config.get("use_linear_projection")),
        "transformer_depth": 1,
        "context_dim": config["cross_attention_dim"],
        "use_checkpoint": False,
        "legacy": False,
    }


def _vae(config: Mapping[str, Any]) -> dict[str, Any]:
    channels = config["block_out_channels"]
    details = {
        "double_z": True,
        "z_channels": config["latent_channels"],
        "resolution": config.get("sample_size") or 256,
        "in_channels": config["in_channels"],
        "out_ch": config["out_channels"],
        "ch": channels[0],
        "ch_mult": [width // channels[0] for width in channels],
        "num_res_blocks": config["layers_per_block"],
        "attn_resolutions": [],
        "dropout": 0.0,
    }
    return {"embed_dim": config["latent_channels"], "ddconfig": details, "lossconfig": {"target": "torch.nn.Identity"}}
