"""Reckons how much of a GPU a model's training and encoding take, by fake tensors: no GPU, no weights.

    python -m steps memory --pretrained-dir pretrained/stable-diffusion-2-base [--figures-file FILE]

Reads <folder>/<part>/config.json of denoiser, VAE and text encoders; prints the figures as YAML, or writes them into a
file of models (pipeline_definition/jobs/memory.yaml), from which preflight and `plan` take them. Takes minutes: one
pass is traced for each size, precision and way.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from params.arguments import parse
from params.families import VAE
from params.files import write_text
from params.layout import PRETRAINED_CHANNEL
from params.memory import PassMemory, denoiser_shape
from params.programs import MemoryArguments
from steps.container import Container
from steps.data.encoding.encoder import DTYPES
from steps.model.denoiser import Denoiser
from steps.model.families import denoiser_of
from steps.model.pretrained import empty_text_encoder, part_config
from steps.model.token_lengths import token_lengths
from steps.training.peak_memory import FakeNetwork, encoding_bytes, matrix_parameter_count, parameter_count


def main(argv: list[str]) -> int:
    """Reckon; return the exit status."""
    arguments = parse(MemoryArguments, argv, "memory")
    folder = Path(arguments.pretrained_dir or Container().channel_dir(PRETRAINED_CHANNEL))
    denoiser = denoiser_of(folder)
    config, vae = part_config(folder, denoiser.part), part_config(folder, VAE)
    lengths, classes = token_lengths(folder, denoiser.family), denoiser.family.classes
    encoders = [part for part in lengths if part not in denoiser.lacking(folder)]
    texts = [empty_text_encoder(part_config(folder, part), classes[part][1]) for part in encoders]
    empty = denoiser.empty(config)
    entry = {
        "name": arguments.name,
        "denoiser": denoiser_shape(config),
        "denoiser_parameters": parameter_count(empty),
        "denoiser_matrix_parameters": matrix_parameter_count(empty),
        "text_encoder_parameters": sum(map(parameter_count, texts)),
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
