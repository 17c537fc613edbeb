"""Writes a model as one file, in the layout of the program that Stable Diffusion came from (CompVis, "LDM").

Reads <folder>/{unet,vae,text_encoder,scheduler}/; writes NAME.safetensors, and next to it NAME.yaml, the configuration
that LDM's own programs build a model from (the keys of v2-inference-v.yaml in Stability-AI/stablediffusion). ComfyUI,
A1111, Forge, kohya's scripts and diffusers' from_single_file read this layout. Programs tell v from noise prediction in
different ways: by the keys `v_pred` and `ztsnr` (Forge and SD.Next; `ztsnr` also A1111), by the yaml (A1111), or by the
metadata (SwarmUI). ComfyUI guesses it from one weight of Stable Diffusion 2, and takes all others for noise prediction:
`notes` says where it is wrong. `python -m steps export` calls it.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
import yaml
from safetensors import safe_open
from safetensors.torch import save_file

from params.families import CONFIG_FILE, FLOW, TEXT_ENCODER, VAE, predicted
from params.files import whole_file, write_text
from steps.errors import StepError
from steps.model.json_object import read_object
from steps.model.pretrained import scheduler_config

Tensors = dict[str, torch.Tensor]
Rules = Sequence[tuple[str, str | Callable[[re.Match[str]], str]]]

V_KEY: Final = "v_pred"
ZERO_SNR_KEY: Final = "ztsnr"
# OpenCLIP's layout has 24 layers, of which Stable Diffusion 2 uses the first 23; readers skip the last.
OPENCLIP_LAYERS: Final = 23
UNET: Final = "unet"
# By the width of the text: the text encoder's layers and the UNet's channels, in Stable Diffusion 1 and 2.
KNOWN_SHAPES: Final = {768: (12, [320, 640, 1280, 1280]), 1024: (OPENCLIP_LAYERS, [320, 640, 1280, 1280])}
# From its spread ComfyUI tells what Stable Diffusion 2 predicts (comfy/supported_models.py, SD20).
COMFY_WEIGHT: Final = "model.diffusion_model.output_blocks.11.1.transformer_blocks.0.norm1.bias"
COMFY_V_ABOVE: Final = 0.09

_IN_RESNET: Final = (
    (r"norm1", "in_layers.0"),
    (r"conv1", "in_layers.2"),
    (r"norm2", "out_layers.0"),
    (r"conv2", "out_layers.3"),
    (r"time_emb_proj", "emb_layers.1"),
    (r"conv_shortcut", "skip_connection"),
)
_UNET_ENDS: Final = (
    (r"^time_embedding\.linear_([12])", lambda match: f"time_embed.{2 * int(match[1]) - 2}"),
    (r"^conv_in", "input_blocks.0.0"),
    (r"^conv_norm_out", "out.0"),
    (r"^conv_out", "out.2"),
)
_UNET_NAME: Final = r"(time_embed|out)\.\d\.\w+|(input_blocks|output_blocks|middle_block)(\.\d+){1,2}\.(?!.*resnets).+"
# The second names of attention are diffusers' before 0.12, which published VAEs still have.
_VAE: Final = (
    (r"mid_block\.resnets\.(\d)", lambda match: f"mid.block_{int(match[1]) + 1}"),
    (r"mid_block\.attentions\.0", "mid.attn_1"),
    (r"_blocks\.(\d+)\.resnets", r".\1.block"),
    (r"_blocks\.(\d+)\.(down|up)samplers\.0", r".\1.\2sample"),
    (r"conv_norm_out", "norm_out"),
    (r"conv_shortcut", "nin_shortcut"),
    (r"group_norm", "norm"),
    (r"to_q|query", "q"),
    (r"to_k|key", "k"),
    (r"to_v|value", "v"),
    (r"to_out\.0|proj_attn", "proj_out"),
)
_VAE_NAME: Final = (
    r"(post_)?quant_conv\.\w+|(encoder|decoder)\.((conv_in|conv_out|norm_out)\.\w+"
    r"|(mid\.block_\d|mid\.attn_1|(down|up)\.\d+\.(block\.\d+|downsample|upsample))\.\w+\.\w+)"
)
_OPENCLIP: Final = (
    (r"^text_model\.", ""),
    (r"^embeddings\.token_embedding", "token_embedding"),
    (r"^embeddings\.position_embedding\.weight", "positional_embedding"),
    (r"^final_layer_norm", "ln_final"),
    (r"^encoder\.layers", "transformer.resblocks"),
    (r"layer_norm([12])", r"ln_\1"),
    (r"mlp\.fc1", "mlp.c_fc"),
    (r"mlp\.fc2", "mlp.c_proj"),
    (r"self_attn\.([qkv])_proj\.", r"attn.\1_"),
    (r"self_attn", "attn"),
)
_OPENCLIP_NAME: Final = (
    r"token_embedding\.weight|positional_embedding|ln_final\.\w+"
    r"|transformer\.resblocks\.\d+\.(ln_[12]\.\w+|mlp\.c_(fc|proj)\.\w+|attn\.([qkv]_|out_proj\.)\w+)"
)
DEFAULT_SCALING: Final = 0.18215


class FolderConfigs:
    """What a folder's configurations say."""

    def __init__(self, folder: Path) -> None:
        parts = (folder / part / CONFIG_FILE for part in (UNET, VAE, TEXT_ENCODER))
        self.unet, self.vae, self.text = map(read_object, parts)
        self.schedule = scheduler_config(folder)
        self.is_openclip = self.text.get("hidden_act") == "gelu"
        """Whether readers must build OpenCLIP, whose activation is GELU; else OpenAI's CLIP, with its quick GELU."""
        self.predicts_v = self.schedule.get("prediction_type") == "v_prediction"
        self.ends_in_noise = bool(self.schedule.get("rescale_betas_zero_snr"))
        """Whether the schedule has a zero terminal signal-to-noise ratio."""


def write_single_file(folder: Path, file: Path, title: str) -> list[str]:
    """Write a folder's model into one file; return its `notes`. Raises StepError for a weight that has no place."""
    described = FolderConfigs(folder)
    if (kind := described.schedule.get("beta_schedule")) != "scaled_linear":
        what = "a single file's readers know scaled_linear alone"
        raise StepError(f"scheduler_config.json: beta_schedule is {kind}: {what}")
    if predicted(described.schedule) == FLOW:
        what = "its readers know no flow in this layout, and would draw something else"
        raise StepError(f"--single-file: {what}; take the folder")
    tensors = layout(described, *(weights_of(folder / part) for part in (UNET, VAE, TEXT_ENCODER)))
    markers = {V_KEY: described.predicts_v, ZERO_SNR_KEY: described.ends_in_noise}
    tensors |= {key: torch.zeros(0) for key, marked in markers.items() if marked}
    save(file, tensors, _model_spec(described, title))
    write_text(file.with_suffix(".yaml"), yaml.safe_dump(_ldm_config(described), sort_keys=False))
    return list(notes(described, tensors))


def layout(described: FolderConfigs, unet: Tensors, vae: Tensors, text: Tensors) -> Tensors:
    """Return the weights by their names in one file, each once; OpenCLIP has one matrix for queries, keys, values."""
    if described.is_openclip:
        named_text = {f"cond_stage_model.model.{name}": tensor for name, tensor in _openclip(described, text).items()}
    else:
        named_text = {f"cond_stage_model.transformer.{name}": tensor for name, tensor in text.items()}
    named_unet = renamed("unet", unet, _unet_rules(described.unet), _UNET_NAME)
    all_named = {f"model.diffusion_model.{name}": tensor for name, tensor in named_unet.items()}
    return all_named | vae_layout(described.vae, vae) | named_text


def vae_layout(config: Mapping[str, Any], vae: Tensors) -> Tensors:
    """Return a VAE's weights under their names in one file, where its attention is made of convolutions."""

    def from_finest(match: re.Match[str]) -> str:
        # As the encoder's blocks are numbered: diffusers counts the decoder's as they are run.
        return f"up_blocks.{len(config['block_out_channels']) - 1 - int(match[1])}"

    numbered = {re.sub(r"up_blocks\.(\d+)", from_finest, name): tensor for name, tensor in vae.items()}
    placed = renamed("vae", numbered, _VAE, _VAE_NAME)
    for name, tensor in placed.items():
        if re.search(r"attn_1\.(q|k|v|proj_out)\.weight", name):
            placed[name] = tensor[:, :, None, None] if tensor.dim() == 2 else tensor
    return {f"first_stage_model.{name}": tensor for name, tensor in placed.items()}


def notes(described: FolderConfigs, tensors: Tensors) -> Iterator[str]:
    """Yield what programs take the file for, where that is not what it is."""
    scaling = described.vae.get("scaling_factor", DEFAULT_SCALING)
    shape = (described.text.get("num_hidden_layers"), described.unet.get("block_out_channels"))
    if KNOWN_SHAPES.get(described.text.get("hidden_size", 0)) != shape or scaling != DEFAULT_SCALING:
        yield (
            "this has neither Stable Diffusion 1's shape nor 2's: diffusers draws with the file, but ComfyUI, A1111 "
            "and kohya's scripts know only those two"
        )
        return
    weight = tensors[COMFY_WEIGHT].float()
    guesses_v = described.is_openclip and float(weight.std(correction=0)) > COMFY_V_ABOVE
    if guesses_v != described.predicts_v or described.ends_in_noise:
        kind, zero = "v_prediction" if described.predicts_v else "eps", str(described.ends_in_noise).lower()
        yield (
            f"ComfyUI reads no marker in this kind of model and takes it for {'v' if guesses_v else 'noise'} prediction"
            f": connect its ModelSamplingDiscrete node, with sampling {kind} and zsnr {zero}"
        )


def _unet_rules(config: Mapping[str, Any]) -> Rules:
    """Return where a UNet's modules go: its blocks are counted through, and downsamplers are blocks of their own."""
    if not isinstance(config["layers_per_block"], int):
        raise StepError("unet/config.json: layers_per_block: a single file has as many layers in every block")
    size = config["layers_per_block"] + 1

    def place(first: int) -> Callable[[re.Match[str]], str]:
        return lambda match: f".{first + int(match[1]) * size + int(match[3])}.{int(match[2] == 'attentions')}"

    def upsampler(match: re.Match[str]) -> str:
        attends = "CrossAttn" in config["up_block_types"][int(match[1])]
        return f"output_blocks.{int(match[1]) * size + size - 1}.{1 + attends}.conv"

    return (
        *_UNET_ENDS,
        (
            r"^down_blocks\.(\d+)\.downsamplers\.0\.conv",
            lambda match: f"input_blocks.{(int(match[1]) + 1) * size}.0.op",
        ),
        (r"^up_blocks\.(\d+)\.upsamplers\.0\.conv", upsampler),
        (r"^mid_block\.resnets\.(\d)", lambda match: f"middle_block.{2 * int(match[1])}"),
        (r"^mid_block\.attentions\.(\d)", lambda match: f"middle_block.{2 * int(match[1]) + 1}"),
        (r"(?<=^down)_blocks\.(\d+)\.(resnets|attentions)\.(\d+)", place(1)),
        (r"(?<=^up)_blocks\.(\d+)\.(resnets|attentions)\.(\d+)", place(0)),
        (r"^down(?=\.)", "input_blocks"),
        (r"^up(?=\.)", "output_blocks"),
    )


def _openclip(described: FolderConfigs, text: Tensors) -> Tensors:
    layers, width = described.text["num_hidden_layers"], described.text["hidden_size"]
    if layers > OPENCLIP_LAYERS:
        raise StepError(
            f"text_encoder/config.json: num_hidden_layers is {layers}: a single file's readers use {OPENCLIP_LAYERS}"
            " of an OpenCLIP, as Stable Diffusion 2 does, and would draw something else"
        )
    # A buffer of 0, 1, 2, ...: not learnt, and made anew by every reader.
    learnt = {name: tensor for name, tensor in text.items() if not name.endswith("position_ids")}
    placed = renamed("text_encoder", learnt, _OPENCLIP, _OPENCLIP_NAME)
    for layer in range(layers):
        for kind in ("weight", "bias"):
            attention = f"transformer.resblocks.{layer}.attn."
            placed[f"{attention}in_proj_{kind}"] = torch.cat([placed.pop(f"{attention}{x}_{kind}") for x in "qkv"])
    # Stable Diffusion does not use it, but readers look for it, and some take the width from it.
    return placed | {"text_projection": torch.eye(width, dtype=placed["positional_embedding"].dtype)}


def renamed(part: str, tensors: Tensors, rules: Rules, form: str) -> Tensors:
    """Return tensors by their new names, each of which must have a form; two never share one."""
    placed: Tensors = {}
    for name, tensor in tensors.items():
        new = name
        for pattern, place in (*(_IN_RESNET if part == UNET and ".resnets." in name else ()), *rules):
            new = re.sub(pattern, place, new)
        if new in placed or not re.fullmatch(form, new):
            raise StepError(f"{part}: the layout of a single file has no place for {name}")
        placed[new] = tensor
    return placed


def weights_of(part: Path) -> Tensors:
    """Return all weights of a part, by name."""
    tensors: Tensors = {}
    for file in sorted(part.glob("*.safetensors")):
        with safe_open(file, "pt") as weights:
            tensors |= {name: weights.get_tensor(name) for name in weights.keys()}  # noqa: SIM118
    return tensors


def save(file: Path, tensors: Tensors, model_spec: Mapping[str, str]) -> None:
    """Write a single file, whole or not at all, with the metadata of Stability AI's ModelSpec 1.0.1."""
    described = {"sai_model_spec": "1.0.1", **model_spec}
    metadata = {"format": "pt", **{f"modelspec.{name}": value for name, value in described.items()}}
    with whole_file(file) as partial:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, partial, metadata)


def _model_spec(described: FolderConfigs, title: str) -> dict[str, str]:
    v2 = "stable-diffusion-v2-768-v" if described.predicts_v else "stable-diffusion-v2-512"
    size_px = int(described.unet.get("sample_size") or 64) * 2 ** (len(described.vae["block_out_channels"]) - 1)
    return {
        "architecture": v2 if described.is_openclip else "stable-diffusion-v1",
        "implementation": "https://github.com/Stability-AI/generative-models",
        "title": title,
        "resolution": f"{size_px}x{size_px}",
        "prediction_type": "v" if described.predicts_v else "epsilon",
    }


def _ldm_config(described: FolderConfigs) -> dict[str, Any]:
    unet, vae, schedule = described.unet, described.vae, described.schedule
    text = {"freeze": True, "layer": "penultimate"} if described.is_openclip else {}
    module = "FrozenOpenCLIPEmbedder" if described.is_openclip else "FrozenCLIPEmbedder"
    params = {
        "parameterization": "v" if described.predicts_v else "eps",
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
        "unet_config": {"target": "ldm.modules.diffusionmodules.openaimodel.UNetModel", "params": _unet(unet)},
        "first_stage_config": {"target": "ldm.models.autoencoder.AutoencoderKL", "params": _vae(vae)},
        "cond_stage_config": {"target": f"ldm.modules.encoders.modules.{module}", "params": text},
    }
    return {"model": {"target": "ldm.models.diffusion.ddpm.LatentDiffusion", "params": params}}


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
