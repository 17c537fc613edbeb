"""Reckons how much of a GPU a model's training and encoding take, by fake tensors: no GPU, no weights.

    python -m steps memory --pretrained-dir pretrained/stable-diffusion-2-base [--figures-file FILE]

Reads <folder>/{unet,vae,text_encoder}/config.json; prints the figures as YAML, or writes them into a file of models
(pipeline_definition/jobs/memory.yaml), from which preflight and `plan` take them. Takes minutes: one pass is traced for
each size, precision and way.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from params.arguments import parse
from params.files import write_text
from params.layout import PRETRAINED_CHANNEL
from params.memory import PassMemory, unet_shape
from params.programs import MemoryArguments
from steps.container import Container
from steps.data.encoding.encoder import DTYPES
from steps.model.pretrained import TEXT_ENCODER, UNET, VAE, empty_text_encoder, empty_unet, part_config
from steps.training.peak_memory import FakeUnet, encoding_bytes, matrix_parameter_count, parameter_count


def main(argv: list[str]) -> int:
    """Reckon; return the exit status."""
    arguments = parse(MemoryArguments, argv, "memory")
    folder = Path(arguments.pretrained_dir or Container().channel_dir(PRETRAINED_CHANNEL))
    unet, vae, text = (part_config(folder, part) for part in (UNET, VAE, TEXT_ENCODER))
    empty = empty_unet(unet)
    entry = {
        "name": arguments.name,
        "unet": unet_shape(unet),
        "unet_parameters": parameter_count(empty),
        "unet_matrix_parameters": matrix_parameter_count(empty),
        "text_encoder_parameters": parameter_count(empty_text_encoder(text)),
        "training": list(_training(arguments, unet, vae, int(text["max_position_embeddings"]))),
        "encoding": list(_encoding(arguments, vae)),
    }
    if arguments.figures_file:
        _put(entry, Path(arguments.figures_file))
    else:
        print(_text([entry]))
    return 0


def _training(
    arguments: MemoryArguments, config: dict[str, Any], vae: dict[str, Any], caption_length: int
) -> Iterator[dict[str, Any]]:
    pixels = 2 ** (len(vae["block_out_channels"]) - 1)
    for precision, checkpointing in itertools.product(arguments.precisions, (False, True)):
        unet = FakeUnet(config, precision, checkpointing)
        for side in arguments.resolutions_px:
            shape = (int(config["in_channels"]), side // pixels, side // pixels)
            peaks = {size: unet.pass_bytes(size, shape, caption_length) for size in arguments.micro_batch_sizes}
            _say(f"training at {side} px in {precision}, gradient_checkpointing {checkpointing}")
            yield _plain(resolution_px=side, precision=precision, gradient_checkpointing=checkpointing, bytes_of=peaks)


def _encoding(arguments: MemoryArguments, config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for precision, side in itertools.product(arguments.precisions, arguments.resolutions_px):
        dtype = DTYPES[precision]
        peaks = {size: encoding_bytes(config, dtype, size, side) for size in arguments.micro_batch_sizes}
        _say(f"encoding at {side} px in {precision}")
        yield _plain(resolution_px=side, precision=precision, bytes_of=peaks)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _plain(**figures: Any) -> dict[str, Any]:
    return PassMemory(**figures).model_dump(mode="python", exclude_defaults=True)


def _put(entry: dict[str, Any], file: Path) -> None:
    """Write an entry in the place of the one with the same UNet, or behind the others; the comment on top stays."""
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    comment = "".join(itertools.takewhile(lambda line: line.startswith("#"), text.splitlines(keepends=True)))
    former = yaml.safe_load(text) or []
    kept = [entry if one["unet"] == entry["unet"] else one for one in former]
    write_text(file, comment + _text(kept if entry in kept else [*kept, entry]))


def _text(entries: list[dict[str, Any]]) -> str:
    return yaml.safe_dump(entries, sort_keys=False, width=120, default_flow_style=None)
