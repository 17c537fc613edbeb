"""Stable Diffusion 3: a transformer over picture and text tokens, whose text comes from up to three encoders.

Reads <folder>/{transformer,tokenizer*,text_encoder*}/; writes nothing. The encoders are CLIP-L, CLIP-G and T5, and any
may be lacking. As in diffusers, CLIP's vectors lie side by side in the first positions, filled up with zeros to the
network's width, and T5's follow. A tokenizer whose encoder is lacking has its place and is told as zeros; without the
tokenizer, too, there is no place.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from params.families import FLOW, SD3, VAE
from steps.errors import StepError
from steps.model.denoiser import BlockHook, Conditions, Denoiser, Shape, TextReader
from steps.model.families import sd3_single_file
from steps.model.families.sd3_single_file import T5
from steps.model.portable import CLIPS
from steps.model.pretrained import load_text_encoder, load_tokenizer, part_config
from steps.model.token_lengths import MAX_TOKENS, token_lengths

Parts = Mapping[str, Any]


class Sd3Reader(TextReader):
    """CLIP-L, CLIP-G and T5, or those of them that are there."""

    def __init__(self, tokenizers: Parts, encoders: Parts, lengths: Mapping[str, int], config: Parts) -> None:
        """Take parts as TextReader does; `config` is the network's."""
        super().__init__(tokenizers, encoders, lengths, Sd3().positions(lengths))
        self._width, self._pooled_width = int(config["joint_attention_dim"]), int(config["pooled_projection_dim"])
        self._clip_positions = self.positions - lengths.get(T5, 0)

    @torch.no_grad()
    def encode(self, tokens: Tensor, kept: Tensor | None = None) -> Conditions:
        """Return the encoders' vectors, [n, positions, width], and CLIP's pooled ones, [n, pooled width]."""
        parts = dict(zip(self._lengths, torch.split(tokens, list(self._lengths.values()), dim=1), strict=True))
        some = next(iter(self._encoders.values()))
        where = {"device": some.device, "dtype": some.dtype}
        states = torch.zeros(len(tokens), self.positions, self._width, **where)
        pooled = torch.zeros(len(tokens), self._pooled_width, **where)
        for number, (part, encoder) in enumerate(self._encoders.items()):
            ids = parts[part].to(encoder.device, torch.int64)
            told = torch.ones(len(ids), **where) if kept is None else kept[:, number].to(**where)
            if part == T5:
                states[:, self._clip_positions :] = encoder(ids)[0] * told[:, None, None]
                continue
            found = encoder(ids, output_hidden_states=True)
            vectors, whole = found.hidden_states[-2], found[0]
            # CLIP-L lies at the beginning, CLIP-G where CLIP-L ends, whether that is there or not.
            start = 0 if part == CLIPS[0] else self._pooled_width - whole.shape[1]
            states[:, : vectors.shape[1], start : start + vectors.shape[2]] = vectors * told[:, None, None]
            pooled[:, start : start + whole.shape[1]] = whole * told[:, None]
        return states, pooled


class Sd3(Denoiser):
    """SD3Transformer2DModel in a StableDiffusion3Pipeline."""

    family = SD3
    write_single_file = staticmethod(sd3_single_file.write_single_file)
    predictions = (FLOW,)
    flow_samplers = ("euler", "dpm++")

    def set_up(self, network: Any, on_gpu: bool, dtype: torch.dtype) -> None:
        """Leave the network as it is: its products are large, and its attention is torch's."""

    def forward(self, network: Any, noisy: Tensor, timesteps: Tensor, conditions: Conditions) -> Tensor:
        prediction: Tensor = network(
            hidden_states=noisy,
            timestep=timesteps.expand(len(noisy)),
            encoder_hidden_states=conditions[0],
            pooled_projections=conditions[1],
            joint_attention_kwargs=None,
            return_dict=False,
        )[0]
        return prediction

    def blocks(self, config: Mapping[str, Any]) -> tuple[int, int, int]:
        width = int(config["num_attention_heads"]) * int(config["attention_head_dim"])
        return int(config["num_layers"]), width, int(config["patch_size"])

    def on_blocks(self, network: Any, before: BlockHook, after: BlockHook, gradient_checkpointing: bool) -> None:
        # diffusers lets a function of the caller's run them in passes that compute gradients. Hooks stay outside of
        # what is computed twice.
        numbers = {block: number for number, block in enumerate(network.transformer_blocks, 1)}

        def around(block: Any, tokens: Tensor, text: Tensor, *others: Any) -> tuple[Any, Tensor]:
            given = (before(numbers[block], tokens), text, *others)
            text, tokens = checkpoint(block, *given, use_reentrant=False) if gradient_checkpointing else block(*given)
            return text, after(numbers[block], tokens)

        network.enable_gradient_checkpointing(around)

    def positions(self, lengths: Mapping[str, int]) -> int:
        """Return those of the CLIPs, which lie side by side, and T5's."""
        return max((lengths[part] for part in CLIPS if part in lengths), default=0) + lengths.get(T5, 0)

    def condition_shapes(self, config: Mapping[str, Any], positions: int) -> Sequence[Shape]:
        return (positions, int(config["joint_attention_dim"])), (int(config["pooled_projection_dim"]),)

    def undrawable(self, config: Mapping[str, Any], size: tuple[int, int]) -> str:
        patch, most = int(config["patch_size"]), int(config["pos_embed_max_size"])
        if any(side % patch for side in size):
            return f"latents of {size[0]} x {size[1]} are not made of patches of {patch} x {patch}"
        if max(size) > patch * most:
            return f"latents of {size[0]} x {size[1]} have more than {most} patches (pos_embed_max_size) at a side"
        return ""

    def contradictions(self, folder: Path, pretrained: Path) -> Iterator[str]:
        config, lacking = self.config(folder), self.lacking(pretrained)
        if part_config(pretrained, VAE).get("shift_factor") is None:
            yield "vae/config.json: no shift_factor, and the pipeline cannot draw without one: 0.0 shifts nothing"
        texts = {part: part_config(pretrained, part) for part in (*CLIPS, T5) if part not in lacking}
        if not texts:
            yield f"{pretrained}: no text encoder: one of {', '.join((*CLIPS, T5))} has to be there"
        width, pooled_width = config["joint_attention_dim"], config["pooled_projection_dim"]
        if T5 in texts and texts[T5].get("d_model") != width:
            yield f"{self.config_name}: joint_attention_dim is {width}, and {T5} is {texts[T5].get('d_model')} wide"
        clips = [texts[part] for part in CLIPS if part in texts]
        wide, whole = (sum(int(clip.get(key, 0)) for clip in clips) for key in ("hidden_size", "projection_dim"))
        if wide > width or whole > pooled_width or (len(clips) == len(CLIPS) and whole != pooled_width):
            yield (
                f"{self.config_name}: joint_attention_dim is {width} and pooled_projection_dim {pooled_width}, and the "
                f"CLIP text encoders are {wide} wide and project to {whole}: they are parts of different models"
            )
        if len(clips) == len(CLIPS) and clips[0].get("hidden_size") != clips[0].get("projection_dim"):
            yield "text_encoder/config.json: hidden_size and projection_dim differ: it cannot be CLIP-L"

    def reader(self, folder: Path, length: int, dtype: torch.dtype | None) -> Sd3Reader:
        lengths = token_lengths(folder, self.family)
        if (given := sum(lengths.values())) != length:
            raise StepError(f"{folder}: its tokenizers give {given} token ids, the latents have {length}")
        classes, lacking = self.family.classes, self.lacking(folder)
        names = {part: tokenizer for tokenizer, part in self.family.text.items()}
        tokenizers = {part: load_tokenizer(folder, names[part], classes[names[part]][1]) for part in lengths}
        there = [part for part in lengths if dtype and part not in lacking]
        encoders = {part: load_text_encoder(folder, dtype or torch.float32, part, classes[part][1]) for part in there}
        return Sd3Reader(tokenizers, encoders, lengths, self.config(folder))

    def reader_of(self, pipeline: Any) -> Sd3Reader:
        tokenizers = {encoder: getattr(pipeline, part) for part, encoder in self.family.text.items()}
        tokenizers = {part: tokenizer for part, tokenizer in tokenizers.items() if tokenizer is not None}
        encoders = {part: getattr(pipeline, part) for part in tokenizers if getattr(pipeline, part) is not None}
        lengths = {part: min(MAX_TOKENS, tokenizer.model_max_length) for part, tokenizer in tokenizers.items()}
        return Sd3Reader(tokenizers, encoders, lengths, pipeline.transformer.config)

    def prompts(self, wanted: Conditions, unwanted: Conditions | None) -> dict[str, Any]:
        states, pooled = unwanted or (None, None)
        return {
            "prompt_embeds": wanted[0],
            "pooled_prompt_embeds": wanted[1],
            "negative_prompt_embeds": states,
            "negative_pooled_prompt_embeds": pooled,
        }

    def exported_scheduler(self, config: Mapping[str, Any]) -> Any:
        """Return FlowMatchEuler with the shift that was trained with."""
        return self.sampler("euler", config)
