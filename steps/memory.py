"""Reckons what a model's training and encoding take of a GPU, in memory and FLOPs: no GPU, no weights.

    python -m steps memory --pretrained-dir pretrained/stable-diffusion-2-base [--figures-file FILE]

Reads <folder>/<part>/config.json of denoiser, VAE and text encoders; prints the figures as YAML, or writes them into a
file of models (pipeline_definition/jobs/memory.yaml), from which preflight and `plan` take them. Takes minutes: one
pass is traced for each size, precision and way.
"""

import itertools
import math
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml

from params.arguments import parse
from params.families import VAE
from params.files import write_text
from params.layout import PRETRAINED_CHANNEL
from params.memory import PassMemory, SampleFigures, denoiser_shape
from params.programs import MemoryArguments
from steps.container import Container
from steps.data.encoding.encoder import DTYPES
from steps.model.denoiser import Denoiser, counted_flops
from steps.model.families import denoiser_of
from steps.model.pretrained import empty_model, empty_text_encoders, part_config
from steps.model.token_lengths import token_lengths
from steps.training.peak_memory import RGB, FakeNetwork, encoding_bytes, matrix_parameter_count, parameter_count


def main(argv: list[str]) -> int:
    """Reckon; return the exit status."""
    arguments = parse(MemoryArguments, argv, "memory")
    folder = Path(arguments.pretrained_dir or Container().channel_dir(PRETRAINED_CHANNEL))
    denoiser = denoiser_of(folder)
    config, vae = part_config(folder, denoiser.part), part_config(folder, VAE)
    lengths, texts = token_lengths(folder, denoiser.family), empty_text_encoders(folder, denoiser.family)
    empty, pictures = denoiser.empty(config), empty_model("AutoencoderKL", vae)
    side_px = max(arguments.resolutions_px)
    entry = {
        "name": arguments.name,
        "denoiser": denoiser_shape(config),
        "denoiser_parameters": parameter_count(empty),
        "denoiser_matrix_parameters": matrix_parameter_count(empty),
        "text_encoder_parameters": sum(map(parameter_count, texts.values())),
        "vae_parameters": parameter_count(pictures),
        "sample": sample_figures(denoiser, config, pictures, texts, lengths, side_px).model_dump(),
        "training": list(_training(arguments, denoiser, config, vae, denoiser.positions(lengths))),
        "encoding": list(_encoding(arguments, vae)),
    }
    if arguments.figures_file:
        _put(entry, Path(arguments.figures_file))
    else:
        print(_text([entry]))
    return 0


def _training(
    arguments: MemoryArguments, denoiser: Denoiser, config: dict[str, Any], vae: dict[str, Any], positions: int
) -> Iterator[dict[str, Any]]:
    pixels = 2 ** (len(vae["block_out_channels"]) - 1)
    for precision, checkpointing in itertools.product(arguments.precisions, (False, True)):
        network = FakeNetwork(denoiser, config, precision, checkpointing)
        for side in arguments.resolutions_px:
            shape = (int(config["in_channels"]), side // pixels, side // pixels)
            peaks = {size: network.pass_bytes(size, shape, positions) for size in arguments.micro_batch_sizes}
            _say(f"training at {side} px in {precision}, gradient_checkpointing {checkpointing}")
            yield _plain(resolution_px=side, precision=precision, gradient_checkpointing=checkpointing, bytes_of=peaks)


def _encoding(arguments: MemoryArguments, config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for precision, side in itertools.product(arguments.precisions, arguments.resolutions_px):
        dtype = DTYPES[precision]
        peaks = {size: encoding_bytes(config, dtype, size, side) for size in arguments.micro_batch_sizes}
        _say(f"encoding at {side} px in {precision}")
        yield _plain(resolution_px=side, precision=precision, bytes_of=peaks)


def sample_figures(
    denoiser: Denoiser, config: dict[str, Any], vae: Any, texts: dict[str, Any], lengths: dict[str, int], side_px: int
) -> SampleFigures:
    """Return what a sample takes, with FLOPs at a resolution, its half and its quarter.

    `lengths` are the token ids of every text encoder, `texts` those encoders that are there.
    """
    positions = denoiser.positions(lengths)
    found = {side: _flops(denoiser, config, vae, positions, side) for side in (side_px // 4, side_px // 2, side_px)}
    tables = {name: {side: flops[name] for side, flops in found.items()} for name in found[side_px]}
    captions = [(text, torch.zeros(1, lengths[part], dtype=torch.int64, device="meta")) for part, text in texts.items()]
    return SampleFigures(
        **tables,
        text_encoders=sum(counted_flops(partial(text, tokens)) for text, tokens in captions),
        latent_channels=int(config["in_channels"]),
        token_ids=sum(lengths.values()),
        caption_values=sum(map(math.prod, denoiser.condition_shapes(config, positions))),
    )


def _flops(denoiser: Denoiser, config: dict[str, Any], vae: Any, positions: int, side: int) -> dict[str, int]:
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    shape = (int(config["in_channels"]), side // factor, side // factor)
    pixels, latents = (torch.empty(1, *size, device="meta") for size in ((RGB, side, side), shape))
    return {
        "denoiser_forward": denoiser.flops_of_sample(config, shape, positions, lambda one: one.requires_grad_(False)),
        "denoiser_train": denoiser.flops_of_sample(config, shape, positions),
        "vae_encode": counted_flops(partial(vae.encode, pixels)),
        "vae_decode": counted_flops(partial(vae.decode, latents)),
    }


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _plain(**figures: Any) -> dict[str, Any]:
    return PassMemory(**figures).model_dump(mode="python", exclude_defaults=True)


def _put(entry: dict[str, Any], file: Path) -> None:
    """Write an entry in the place of the one with the same denoiser, or behind the others; the comment on top stays."""
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    comment = "".join(itertools.takewhile(lambda line: line.startswith("#"), text.splitlines(keepends=True)))
    former = yaml.safe_load(text) or []
    kept = [entry if one["denoiser"] == entry["denoiser"] else one for one in former]
    write_text(file, comment + _text(kept if entry in kept else [*kept, entry]))


def _text(entries: list[dict[str, Any]]) -> str:
    return yaml.safe_dump(entries, sort_keys=False, width=120, default_flow_style=None)
