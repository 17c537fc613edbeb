"""LoRA by peft: small matrices beside frozen layers, the only weights that such a training changes.

Writes, for the exported model, adapters/NAME/pytorch_lora_weights.safetensors as diffusers has it. The product of two
matrices is added to a layer's own (Hu et al. 2021, arXiv:2106.09685), so that a training begins exactly at the starting
weights. What the optimizer, the average and the checkpoints hold follows from what has gradients.
"""

import importlib
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from params.families import Family
from params.programs import TrainArguments
from steps.errors import StepError
from steps.model.adapters import save_adapter
from steps.model.pretrained import load_text_encoder

TEXT_TARGETS: Final = ("q_proj", "k_proj", "v_proj", "out_proj")


def add_lora(model: Any, arguments: TrainArguments, targets: tuple[str, ...]) -> None:
    """Freeze a model and give targets a LoRA, if any, the same on every rank. Raises StepError if one is no layer."""
    if not arguments.lora_rank:
        return
    for target in targets:
        found = [layer for name, layer in model.named_modules() if f".{name}".endswith(f".{target}")]
        if not found or not all(isinstance(layer, nn.Linear | nn.Conv2d) for layer in found):
            raise StepError(
                f"lora_targets: {target!r} ends the name of no linear layer or convolution; attention has to_q, to_k, "
                "to_v and to_out.0, of a transformer's text also add_q_proj, add_k_proj, add_v_proj and to_add_out"
            )
    config = _peft().LoraConfig(r=arguments.lora_rank, lora_alpha=lora_alpha(arguments), target_modules=list(targets))
    model.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(arguments.seed)
        model.add_adapter(config)


def lora_alpha(arguments: TrainArguments) -> float:
    """Return peft's alpha: the product of the matrices counts alpha / rank times."""
    return arguments.lora_alpha or float(arguments.lora_rank)


def lora_record(arguments: TrainArguments) -> dict[str, Any] | None:
    """Return what a model's lineage says of its LoRA, or None without one."""
    if not arguments.lora_rank:
        return None
    names = {"lora_name", "lora_output", "lora_rank", "lora_targets", "lora_text_encoder"}
    values = arguments.model_dump(mode="json", include=names)
    return {name.removeprefix("lora_"): value for name, value in values.items()} | {"alpha": lora_alpha(arguments)}


class TextAndUnet(nn.Module):
    """A UNet whose text encoder learns with it: takes captions' token ids where a UNet takes their embeddings."""

    def __init__(self, unet: Any, text_encoder: Any) -> None:
        super().__init__()
        self.unet, self.text_encoder = unet, text_encoder

    @property
    def config(self) -> Any:
        return self.unet.config

    def forward(self, noisy: Tensor, timesteps: Tensor, encoder_hidden_states: Tensor, **named: Any) -> Any:
        """Return what the UNet returns; where it takes the text encoder's states, this takes token ids, (n, tokens)."""
        states = self.text_encoder(encoder_hidden_states.long())[0]
        return self.unet(noisy, timesteps, encoder_hidden_states=states, **named)

    def train(self, mode: bool = True) -> "TextAndUnet":
        """Set the UNet's mode: a text encoder with dropout would draw from a generator that nobody seeds."""
        super().train(mode)
        self.text_encoder.eval()
        return self


def with_text_encoder(
    unet: Any, arguments: TrainArguments, pretrained: Path, dtype: torch.dtype, device: torch.device
) -> TextAndUnet:
    """Return a UNet together with its text encoder, whose attention gets a LoRA, too."""
    encoder = load_text_encoder(pretrained, torch.float32)
    add_lora(encoder, arguments, TEXT_TARGETS)
    return TextAndUnet(unet, encoder.to(device, dtype)).train()


def take_off(model: Any, arguments: TrainArguments, folder: Path, family: Family) -> Any:
    """Return the network as it was, and write its LoRA, scaled for programs that read no alpha, into the folder."""
    network = model.unet if isinstance(model, TextAndUnet) else model
    if arguments.lora_rank:
        scale = lora_alpha(arguments) / arguments.lora_rank
        text = _matrices(model.text_encoder, scale) if isinstance(model, TextAndUnet) else {}
        save_adapter(folder, _matrices(network, scale), text, family)
        network.unload_lora()
    return network


def _matrices(model: Any, scale: float) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = _peft().get_peft_model_state_dict(model)
    return {name: (value * scale if "lora_B" in name else value).contiguous() for name, value in tensors.items()}


def _peft() -> Any:
    # It takes seconds to import: only where there is a LoRA.
    return importlib.import_module("peft")
