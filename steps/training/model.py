"""The UNet that is trained: new or pretrained, checked against the latents, and set up for its device."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from params.programs import TrainArguments
from steps.data.latents.latents_manifest import LatentsManifest
from steps.errors import StepError
from steps.model.pretrained import load_unet, new_unet
from steps.training.lora import add_lora
from steps.training.objective import WEIGHT_DTYPES

# For training, validation and its smaller last batch, each in training and in evaluation mode.
GRAPHS_PER_SHAPE: Final = 6
# 2 MB in bfloat16: the second-level cache of a server's core. Half and twice as many cost 0 to 20 % more.
SCORES_AT_ONCE: Final = 1 << 20


def build_unet(arguments: TrainArguments, folder: Path, manifest: LatentsManifest, device: torch.device) -> Any:
    """Return the UNet2DConditionModel on its device, in training mode; every rank builds the same.

    `folder` holds the initial weights, or only the configuration if `initial_weights` is scratch. Raises StepError if
    it does not fit the latents.
    """
    dtype = WEIGHT_DTYPES[arguments.precision]
    scratch = arguments.initial_weights == "scratch"
    unet: Any = new_unet(folder, arguments.seed) if scratch else load_unet(folder, torch.float32)
    _check(unet, manifest)
    # The exported pipeline draws pictures of the size that it was trained on.
    unet.register_to_config(sample_size=manifest.latent_shape[-1])
    add_lora(unet, arguments, arguments.lora_targets)
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
        # Training and validation have different batch sizes, and every bucket its shape: each needs a graph, but torch
        # stops compiling after eight.
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


class PiecewiseAttention:
    """Attention for training in bfloat16 on a CPU: a few heads at a time, so that their scores stay in its cache.

    A processor of diffusers for the transformer blocks of a UNet2DConditionModel, without a mask. Torch's fused
    attention has a slow backward pass there (torch 2.13, AVX-512 BF16): forward and backward together take 1.7 to 9
    times as long as this, by the shape (docs/benchmarks.md).
    """

    def __call__(
        self,
        attention: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        """Return [n, tokens, channels] for hidden states of this shape, and a context for cross-attention."""
        if attention_mask is not None:
            raise ValueError("attention_mask: a UNet in training has none")
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        projected = attention.to_q(hidden_states), attention.to_k(context), attention.to_v(context)
        query, key, value = (attention.head_to_batch_dim(tensor) for tensor in projected)
        heads = max(1, SCORES_AT_ONCE // (query.shape[1] * key.shape[1]))
        pieces = zip(query.split(heads), key.split(heads), value.split(heads), strict=True)
        attended = torch.cat([_attend(*piece, attention.scale) for piece in pieces])
        projection, dropout = attention.to_out
        output: Tensor = dropout(projection(attention.batch_to_head_dim(attended)))
        return output


def _attend(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    empty = torch.empty(len(query), query.shape[1], key.shape[1], dtype=query.dtype, device=query.device)
    scores = torch.baddbmm(empty, query, key.transpose(1, 2), beta=0, alpha=scale)
    return torch.bmm(scores.softmax(-1), value)
