"""Stable Diffusion 1 and 2: a UNet that attends to the last layer of one CLIP text encoder.

Reads <folder>/{unet,tokenizer,text_encoder}/; writes nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from params.families import CONFIG_FILE, FLOW, TEXT_ENCODER, UNET, VAE, predicted
from steps.model.denoiser import Conditions, Denoiser, Shape, TextReader
from steps.model.families import single_file
from steps.model.json_object import read_object
from steps.model.pretrained import load_text_encoder, load_tokenizer

# 2 MB in bfloat16: the second-level cache of a server's core. Half and twice as many cost 0 to 20 % more.
SCORES_AT_ONCE: Final = 1 << 20
# What a UNet may ask for besides the noisy latents, the timestep and the text, and whose it is.
OTHER_CONDITIONS: Final = {
    "addition_embed_type": "as Stable Diffusion XL's",
    "class_embed_type": "as the upscaler's",
    "encoder_hid_dim_type": "as Kandinsky's",
    "time_cond_proj_dim": "as a latent consistency model's",
}


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


class ClipReader(TextReader):
    """One CLIP tokenizer and its text encoder."""

    def __init__(self, tokenizer: Any, encoder: Any, length: int) -> None:
        super().__init__({TEXT_ENCODER: tokenizer}, {TEXT_ENCODER: encoder}, {TEXT_ENCODER: length}, length)
        self.room = length - 2

    @torch.no_grad()
    def encode(self, tokens: Tensor, kept: Tensor | None = None) -> Conditions:
        """Return the encoder's last layer, [n, length, width], for token ids."""
        encoder = self._encoders[TEXT_ENCODER]
        return (encoder(tokens.to(encoder.device, torch.int64))[0],)


class UNet(Denoiser):
    family = UNET
    write_single_file = staticmethod(single_file.write_single_file)
    predictions = ("epsilon", "v_prediction", FLOW)
    # FlowMatchEuler lacks what a StableDiffusionPipeline asks of its scheduler.
    flow_samplers = ("dpm++",)

    def set_up(self, network: Any, on_gpu: bool, dtype: torch.dtype) -> None:
        if on_gpu:
            # Tensor cores read channels last; on CPUs it measured 0 to 10 % slower.
            network.to(memory_format=torch.channels_last)
        elif dtype == torch.bfloat16:
            network.set_attn_processor(PiecewiseAttention())

    def forward(self, network: Any, noisy: Tensor, timesteps: Tensor, conditions: Conditions) -> Tensor:
        prediction: Tensor = network(
            noisy,
            timesteps,
            encoder_hidden_states=conditions[0],
            timestep_cond=None,
            cross_attention_kwargs=None,
            added_cond_kwargs=None,
            return_dict=False,
        )[0]
        return prediction

    def positions(self, lengths: Mapping[str, int]) -> int:
        return sum(lengths.values())

    def condition_shapes(self, config: Mapping[str, Any], positions: int) -> Sequence[Shape]:
        return ((positions, int(config["cross_attention_dim"])),)

    def untrainable(self, config: Mapping[str, Any], size: tuple[int, int]) -> str:
        halvings = len(config["block_out_channels"]) - 1
        if any(side % 2**halvings for side in size):
            return f"latents of {size[0]} x {size[1]} cannot be halved {halvings} times"
        return ""

    def contradictions(self, folder: Path, pretrained: Path) -> Iterator[str]:
        unet, text = self.config(folder), pretrained / TEXT_ENCODER / CONFIG_FILE
        for name, whose in OTHER_CONDITIONS.items():
            if unet.get(name) is not None:
                yield (
                    f"{self.config_name}: {name} is {unet[name]!r}, {whose}: this pipeline trains UNets conditioned on "
                    "text and time alone, such as Stable Diffusion 1 and 2; name another data.pretrained_uri"
                )
        vae = pretrained / VAE / CONFIG_FILE
        if vae.is_file() and read_object(vae).get("shift_factor"):
            yield "vae/config.json: shift_factor: a StableDiffusionPipeline draws without one; take another VAE"
        wide, width = unet.get("cross_attention_dim"), (read_object(text) if text.is_file() else {}).get("hidden_size")
        if width is not None and isinstance(wide, int) and wide != width:
            yield (
                f"{self.config_name}: cross_attention_dim is {wide}, and text_encoder/config.json has hidden_size "
                f"{width}: they are parts of different models"
            )

    def reader(self, folder: Path, length: int, dtype: torch.dtype | None) -> ClipReader:
        return ClipReader(load_tokenizer(folder), dtype and load_text_encoder(folder, dtype), length)

    def reader_of(self, pipeline: Any) -> ClipReader:
        return ClipReader(pipeline.tokenizer, pipeline.text_encoder, pipeline.tokenizer.model_max_length)

    def prompts(self, wanted: Conditions, unwanted: Conditions | None) -> dict[str, Any]:
        return {"prompt_embeds": wanted[0], "negative_prompt_embeds": unwanted[0] if unwanted else None}

    def exported_scheduler(self, config: Mapping[str, Any]) -> Any:
        """Return DDIM, or DPM-Solver++ for flow; offset and last step are stable-diffusion-2-base's."""
        config = {**config, "steps_offset": 1, "set_alpha_to_one": False}
        if predicted(config) == FLOW:
            return self.sampler("dpm++", config)
        # Of starting weights that predicted flow.
        return self.sampler("ddim", config | ({"use_flow_sigmas": False} if config.get("use_flow_sigmas") else {}))
