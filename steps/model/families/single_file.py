"""Writes a model as one file, in the layout of the program that Stable Diffusion came from (CompVis, "LDM").

Reads <folder>/{unet,vae,text_encoder,scheduler}/; writes NAME.safetensors, and next to it NAME.yaml, the configuration
that LDM's own programs build a model from. ComfyUI, A1111, Forge, kohya's scripts and diffusers' from_single_file read
this layout, whose names are in single_file.yaml. Programs tell v from noise prediction in different ways: by the keys
`v_pred` and `ztsnr` (Forge and SD.Next; `ztsnr` also A1111), by the yaml (A1111), or by the metadata (SwarmUI). ComfyUI
guesses it from one weight of Stable Diffusion 2, and takes all others for noise prediction: `notes` says where it is
wrong. `python -m steps export` calls it.
"""

import copy
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
from params.tables import table_beside
from steps.errors import StepError
from steps.model.json_object import read_object
from steps.model.pretrained import scheduler_config

Tensors = dict[str, torch.Tensor]
Rules = Sequence[tuple[str, str | Callable[[re.Match[str]], str]]]

TABLES: Final[dict[str, Any]] = table_beside(__file__)
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
    named_unet = renamed(UNET, unet, _counted(described.unet))
    all_named = {f"model.diffusion_model.{name}": tensor for name, tensor in named_unet.items()}
    return all_named | vae_layout(described.vae, vae) | named_text


def vae_layout(config: Mapping[str, Any], vae: Tensors) -> Tensors:
    """Return a VAE's weights under their names in one file, where its attention is made of convolutions."""

    def from_finest(match: re.Match[str]) -> str:
        # As the encoder's blocks are numbered: diffusers counts the decoder's as they are run.
        return f"up_blocks.{len(config['block_out_channels']) - 1 - int(match[1])}"

    numbered = {re.sub(r"up_blocks\.(\d+)", from_finest, name): tensor for name, tensor in vae.items()}
    placed = renamed(VAE, numbered)
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


def _counted(config: Mapping[str, Any]) -> Rules:
    """Return where a UNet's blocks go: they are counted through, and downsamplers are blocks of their own."""
    if not isinstance(config["layers_per_block"], int):
        raise StepError("unet/config.json: layers_per_block: a single file has as many layers in every block")
    size = config["layers_per_block"] + 1

    def place(first: int) -> Callable[[re.Match[str]], str]:
        return lambda match: f".{first + int(match[1]) * size + int(match[3])}.{int(match[2] == 'attentions')}"

    def upsampler(match: re.Match[str]) -> str:
        attends = "CrossAttn" in config["up_block_types"][int(match[1])]
        return f"output_blocks.{int(match[1]) * size + size - 1}.{1 + attends}.conv"

    return (
        (
            r"^down_blocks\.(\d+)\.downsamplers\.0\.conv",
            lambda match: f"input_blocks.{(int(match[1]) + 1) * size}.0.op",
        ),
        (r"^up_blocks\.(\d+)\.upsamplers\.0\.conv", upsampler),
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
    placed = renamed(TEXT_ENCODER, learnt)
    for layer in range(layers):
        for kind in ("weight", "bias"):
            attention = f"transformer.resblocks.{layer}.attn."
            placed[f"{attention}in_proj_{kind}"] = torch.cat([placed.pop(f"{attention}{x}_{kind}") for x in "qkv"])
    # Stable Diffusion does not use it, but readers look for it, and some take the width from it.
    return placed | {"text_projection": torch.eye(width, dtype=placed["positional_embedding"].dtype)}


def renamed(part: str, tensors: Tensors, counted: Rules = ()) -> Tensors:
    """Return a part's tensors by their new names, each of one of the part's forms; two never share one."""
    table, placed = TABLES[part], Tensors()
    for name, tensor in tensors.items():
        new, in_resnet = name, table.get("resnets", {}) if ".resnets." in name else {}
        for pattern, place in (*in_resnet.items(), *table["names"].items(), *counted):
            new = re.sub(pattern, place, new)
        if new in placed or not re.fullmatch("|".join(table["forms"]), new):
            raise StepError(f"{part}: the layout of a single file has no place for {name}")
        placed[new] = tensor
    return placed


def weights_of(part: Path) -> Tensors:
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
    model = copy.deepcopy(TABLES["ldm"])
    params = model["params"]
    params |= {
        "parameterization": "v" if described.predicts_v else "eps",
        "linear_start": schedule["beta_start"],
        "linear_end": schedule["beta_end"],
        "timesteps": schedule["num_train_timesteps"],
        "image_size": unet.get("sample_size") or 64,
        "channels": unet["in_channels"],
        "scale_factor": vae.get("scaling_factor", DEFAULT_SCALING),
        "cond_stage_config": {"target": f"ldm.modules.encoders.modules.{module}", "params": text},
    }
    params["unet_config"]["params"] |= _unet(unet)
    params["first_stage_config"]["params"]["embed_dim"] = vae["latent_channels"]
    params["first_stage_config"]["params"]["ddconfig"] |= _vae(vae)
    return {"model": model}


def _unet(config: Mapping[str, Any]) -> dict[str, Any]:
    channels, heads = config["block_out_channels"], config["attention_head_dim"]
    attends = [2**level for level, kind in enumerate(config["down_block_types"]) if kind.startswith("CrossAttn")]
    # diffusers calls the number of heads attention_head_dim.
    of_heads = {"num_heads": heads} if isinstance(heads, int) else {"num_head_channels": channels[0] // heads[0]}
    return {
        "in_channels": config["in_channels"],
        "out_channels": config["out_channels"],
        "model_channels": channels[0],
        "attention_resolutions": attends[::-1],
        "num_res_blocks": config["layers_per_block"],
        "channel_mult": [width // channels[0] for width in channels],
        **of_heads,
        "use_linear_in_transformer": bool(config.get("use_linear_projection")),
        "context_dim": config["cross_attention_dim"],
    }


def _vae(config: Mapping[str, Any]) -> dict[str, Any]:
    channels = config["block_out_channels"]
    return {
        "z_channels": config["latent_channels"],
        "resolution": config.get("sample_size") or 256,
        "in_channels": config["in_channels"],
        "out_ch": config["out_channels"],
        "ch": channels[0],
        "ch_mult": [width // channels[0] for width in channels],
        "num_res_blocks": config["layers_per_block"],
    }
