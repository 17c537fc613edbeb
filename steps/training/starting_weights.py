"""Compares what the starting weights say of themselves with what training is told to do with them.

Reads the configurations of the initial folder and of the pretrained one; writes nothing, loads no weights. `python -m
steps train` calls it before any rank starts: a network that predicts v and is trained as epsilon, or one of another
architecture, would cost days without an error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from params.arguments import to_text
from params.families import CONFIG_FILE, FLOW, TEXT_ENCODER, VAE, predicted
from params.programs import TrainArguments
from steps.errors import StepError
from steps.model.families import denoiser_of
from steps.model.json_object import read_object
from steps.model.pretrained import scheduler_config

# diffusers' defaults, for what a scheduler's configuration does not say.
SCHEDULE: Final = {"num_train_timesteps": 1000, "beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}
TEXT_SHAPE: Final = ("num_hidden_layers", "hidden_size", "vocab_size", "max_position_embeddings")


def check_starting_weights(arguments: TrainArguments, initial: Path, pretrained: Path) -> None:
    """Check the folder that training starts from against the settings and the folder that made the latents.

    Raises StepError in one line that names the configuration, the setting and both values.
    """
    denoiser = denoiser_of(initial)
    if denoiser is not denoiser_of(pretrained):
        raise StepError(f"{initial}: a {denoiser.family.pipeline}, which {pretrained} is not: use parts of one family")
    if arguments.prediction_type not in denoiser.predictions:
        known = " or ".join(denoiser.predictions)
        raise StepError(
            f"train.prediction_type is {arguments.prediction_type}: a {denoiser.family.pipeline} is trained to predict "
            f"{known}"
        )
    for name in ("routing_fraction", "alignment_weight"):
        if getattr(arguments, name) and not denoiser.blocks(denoiser.config(initial))[0]:
            raise StepError(f"train.{name}: a {denoiser.family.pipeline} has no blocks of tokens; set it to 0")
    if arguments.lora_text_encoder and len(denoiser.family.text) > 1:
        raise StepError(f"train.lora_text_encoder: a {denoiser.family.pipeline} learns without; set it to false")
    if arguments.encoder_dropout and len(denoiser.family.text) == 1:
        raise StepError(
            f"train.encoder_dropout: a {denoiser.family.pipeline} has one text encoder: use caption_dropout"
        )
    _refuse(denoiser.contradictions(initial, pretrained))
    if arguments.initial_weights == "scratch":
        return
    if not arguments.new_objective:
        _refuse(_objective(scheduler_config(initial), arguments))
    if initial != pretrained:
        _refuse(_parts(initial, pretrained))
        if not arguments.new_objective:
            _refuse(_schedule(scheduler_config(initial), scheduler_config(pretrained), arguments))


def _refuse(problems: Iterator[str]) -> None:
    text = "; ".join(problems)
    if text:
        raise StepError(text)


def _objective(config: Mapping[str, Any], arguments: TrainArguments) -> Iterator[str]:
    trained, asked = predicted(config), arguments.prediction_type
    if trained != asked:
        yield (
            f"train.prediction_type is {asked}, and the starting weights' scheduler_config.json says {trained}: set "
            f"prediction_type to {trained}, or new_objective to true if the model is to learn {asked} in its place"
        )
    ends_in_noise = bool(config.get("rescale_betas_zero_snr", False))
    if trained != FLOW and asked != FLOW and ends_in_noise != arguments.zero_terminal_snr:
        yield (
            f"train.zero_terminal_snr is {to_text(arguments.zero_terminal_snr)}, and the starting weights' "
            f"scheduler_config.json has rescale_betas_zero_snr {to_text(ends_in_noise)}: set zero_terminal_snr to "
            f"{to_text(ends_in_noise)}, or new_objective to true if the schedule is to change"
        )


def _schedule(initial: Mapping[str, Any], pretrained: Mapping[str, Any], arguments: TrainArguments) -> Iterator[str]:
    if arguments.prediction_type == FLOW:
        return
    for name, default in SCHEDULE.items():
        was, becomes = initial.get(name, default), pretrained.get(name, default)
        if was != becomes:
            yield (
                f"scheduler_config.json: {name} was {was} when the starting weights were trained, and is {becomes} in "
                "the pretrained folder: use the same folder, or set new_objective to true if the schedule is to change"
            )


def _parts(initial: Path, pretrained: Path) -> Iterator[str]:
    """Yield in what the starting model's VAE or text encoder differ from those that made the latents."""
    for part, names in ((VAE, ("scaling_factor", "latent_channels")), (TEXT_ENCODER, TEXT_SHAPE)):
        was, becomes = _config(initial / part), _config(pretrained / part)
        for name in names:
            if was and becomes and was.get(name) != becomes.get(name):
                yield (
                    f"{part}/config.json: {name} was {was.get(name)} when the starting weights were trained, and is "
                    f"{becomes.get(name)} in the pretrained folder: they need the parts that they were trained with"
                )


def _config(part: Path) -> Mapping[str, Any] | None:
    file = part / CONFIG_FILE
    return read_object(file) if file.is_file() else None
