"""What a model takes, by what was reckoned once for it: memory of passes, FLOPs and bytes of a sample.

Reads nothing, writes nothing. `python -m steps memory` reckons the figures without values; preflight, forecast and
`plan` use them where no torch is at hand.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, Final, Literal

from params.families import FAMILIES, UNET, Family
from params.model import Model
from params.programs.train import TrainArguments

# Encode decodes so many pictures of a shard's first block again, and compares them.
CHECKED_PICTURES: Final = 4
BYTES: Final = {"float32": 4, "bfloat16": 2, "float16": 2, "float64": 8}


class PassMemory(Model):
    """The peak of one kind of pass."""

    resolution_px: int
    precision: Literal["float32", "bfloat16"]
    gradient_checkpointing: bool = False
    bytes_of: dict[int, int]
    """Peak by samples at once. Of training: beyond weights, gradients and optimizer; of encoding: all."""

    def peak_bytes(self, samples: int) -> float:
        """Return the peak of a batch. It is the largest of several straight lines, so that chords lie above it."""
        return _between(sorted(self.bytes_of.items()), samples)


class SampleFigures(Model):
    """What one sample takes: FLOPs, by the side of its picture in pixels (a multiply-add is two), and numbers."""

    denoiser_forward: dict[int, int]
    denoiser_train: dict[int, int]
    """A forward and a backward pass."""
    vae_encode: dict[int, int]
    vae_decode: dict[int, int]
    text_encoders: int
    """FLOPs of all of them, for one caption."""
    latent_channels: int
    token_ids: int
    """Of one caption, for all text encoders."""
    caption_values: int
    """Numbers that the denoiser is told of one caption."""


class ModelFigures(Model):
    """What one model takes."""

    name: str
    denoiser: dict[str, Any]
    """Keys of its denoiser's config.json that decide memory, where they differ from diffusers' defaults."""
    denoiser_parameters: int
    denoiser_matrix_parameters: int = 0
    """Those of them that Muon may train; 0: not counted, and all are reckoned as AdamW's, which keeps more."""
    text_encoder_parameters: int
    """Of all of them."""
    vae_parameters: int
    sample: SampleFigures
    training: tuple[PassMemory, ...]
    encoding: tuple[PassMemory, ...]

    def training_bytes(
        self, arguments: TrainArguments, resolution_px: int, micro_batch_size: int, ranks: int, encodes_captions: bool
    ) -> float | None:
        """Return the peak of a rank, not compiled, with captions' encoder or without; None: no such pass is known."""
        kind = (arguments.precision, arguments.gradient_checkpointing)
        passes = [one for one in self.training if (one.precision, one.gradient_checkpointing) == kind]
        if not passes:
            return None
        captions = self.text_encoder_parameters * BYTES[arguments.precision] if encodes_captions else 0
        state = state_bytes(self.denoiser_parameters, self.denoiser_matrix_parameters, arguments, ranks)
        return state + captions + _at(passes, resolution_px, micro_batch_size)

    def encoding_bytes(
        self, precision: str, resolution_px: int, encodes_captions: bool, batch_size: int
    ) -> float | None:
        """Return the peak of a worker that encodes; None where no pass of its precision is known."""
        width = BYTES[precision]
        passes = [one for one in self.encoding if BYTES[one.precision] == width]
        captions = self.text_encoder_parameters * BYTES["float32"] if encodes_captions else 0
        return captions + _at(passes, resolution_px, batch_size) if passes else None


def state_bytes(parameters: int, matrix_parameters: int, arguments: TrainArguments, ranks: int) -> float:
    """Return weights, gradients, moments and the average of the weights on one rank; of a LoRA's own nothing."""
    width = BYTES["float64" if arguments.precision == "float64" else "float32"]
    if arguments.lora_rank:
        return parameters * width
    average = BYTES["bfloat16"] if arguments.ema_precision == "bfloat16" else width
    # Muon keeps one moment of its matrices, and whole.
    muons = matrix_parameters if arguments.optimizer == "muon" else 0
    divided = (parameters - muons) * 2 * width + parameters * (average if arguments.ema_decay else 0)
    return (2 * parameters + muons) * width + divided / (ranks if arguments.shard_optimizer else 1)


def denoiser_shape(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a denoiser's configuration decides its memory and differs from diffusers' defaults."""
    defaults = family_of_denoiser(config).decisive
    values = {key: config.get(key, default) for key, default in defaults.items()}
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}
    return {key: value for key, value in plain.items() if value != defaults[key]}


def family_of_denoiser(config: Mapping[str, Any]) -> Family:
    """Return the family whose denoiser has a configuration; one that names no class is of the oldest."""
    return next((of for of in FAMILIES if of.network == config.get("_class_name")), UNET)


def flops_at(table: Mapping[int, int], resolution_px: int) -> float:
    """Return FLOPs of a sample at any resolution from those at three: exact, for attention is n^2 and the rest n."""
    shares = _shares(tuple(table), resolution_px)
    return float(sum(flops * share for flops, share in zip(table.values(), shares, strict=True)))


@functools.lru_cache
def _shares(sides: tuple[int, ...], resolution_px: int) -> tuple[Fraction, ...]:
    """Return the weights of values at these sides in the parabola through them: Lagrange's, over the pixels."""
    x, pixels = resolution_px**2, [side**2 for side in sides]
    return tuple(
        math.prod((Fraction(x - other, at - other) for other in pixels if other != at), start=Fraction(1))
        for at in pixels
    )


def _at(passes: Sequence[PassMemory], resolution_px: int, samples: int) -> float:
    """Return the peak at any resolution: activations grow with the number of latent positions."""
    return _between(sorted((one.resolution_px**2, one.peak_bytes(samples)) for one in passes), resolution_px**2)


def _between(points: Sequence[tuple[float, float]], x: float) -> float:
    """Return the height at x of a line through points in order, its ends prolonged."""
    if len(points) == 1:
        return points[0][1]
    last = max(1, next((index for index, (at, _) in enumerate(points) if at >= x), len(points) - 1))
    (left, low), (right, high) = points[last - 1], points[last]
    return low + (high - low) * (x - left) / (right - left)
