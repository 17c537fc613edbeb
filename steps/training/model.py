"""The UNet that is trained: new or pretrained, checked against the latents, and set up for its device."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, Final

import torch

from params.programs import TrainArguments
from steps.data.latents_manifest import LatentsManifest
from steps.errors import StepError
from steps.model.pretrained import load_unet, new_unet
from steps.training.attention import PiecewiseAttention
from steps.training.objective import WEIGHT_DTYPES

# Of training, of validation, and of validation's last and smaller batch; in training mode and out of it.
GRAPHS_PER_SHAPE: Final = 6


def build_unet(arguments: TrainArguments, folder: Path, manifest: LatentsManifest, device: torch.device) -> Any:
    """Return the UNet2DConditionModel on its device, in training mode; every rank builds the same.

    `folder` holds the weights to begin with, or with `initial_weights` scratch the configuration alone. Raises
    StepError where it does not fit the latents.
    """
    dtype = WEIGHT_DTYPES[arguments.precision]
    scratch = arguments.initial_weights == "scratch"
    unet: Any = new_unet(folder, arguments.seed) if scratch else load_unet(folder, torch.float32)
    _check(unet, manifest)
    # The pipeline that comes of it draws pictures of the size that it learnt from.
    unet.register_to_config(sample_size=manifest.latent_shape[-1])
    if dtype != torch.float32:
        unet.to(dtype)
    unet.to(device).train()
    _set_up(unet, arguments, device, len(manifest.latent_shapes))
    return unet


def _set_up(unet: Any, arguments: TrainArguments, device: torch.device, shapes: int) -> None:
    if device.type == "cuda":
        # Tensor cores read channels last; on CPUs it measured 0 to 10 % slower.
        unet.to(memory_format=torch.channels_last)
    elif arguments.precision == "bfloat16":
        unet.set_attn_processor(PiecewiseAttention())
    if arguments.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    if arguments.cuda_graphs and not arguments.compile:
        raise StepError("cuda_graphs needs compile: set compile, too")
    if arguments.compile:
        # Training and validation have a batch size of their own each, and every bucket has a shape: a graph for each
        # of them, where torch would give up at eight and go on without.
        config: Any = importlib.import_module("torch._dynamo.config")
        config.recompile_limit = max(config.recompile_limit, GRAPHS_PER_SHAPE * shapes)
        # What torch calls reduce-overhead is CUDA graphs.
        unet.compile(dynamic=False, mode="reduce-overhead" if arguments.cuda_graphs else None)


def _check(unet: Any, manifest: LatentsManifest) -> None:
    channels = manifest.latent_shape[0]
    step = 2 ** (len(unet.config.block_out_channels) - 1)
    if unet.config.in_channels != channels:
        raise StepError(f"unet/config.json: in_channels {unet.config.in_channels}, but the latents have {channels}")
    for _, height, width in manifest.latent_shapes:
        if height % step or width % step:
            raise StepError(
                f"unet/config.json: latents of {height} x {width} cannot be halved {step.bit_length() - 1} times; "
                "change encode.resolution_px or encode.bucket_step_px"
            )
    if manifest.caption_embeddings and unet.config.cross_attention_dim != manifest.embedding_width:
        raise StepError(
            f"unet/config.json: cross_attention_dim {unet.config.cross_attention_dim}, but the captions' embeddings "
            f"are {manifest.embedding_width} wide"
        )
